"""A resolver's process that listens, with a stand-in for the node: what programs are told, without a daemon."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from select import select

import dns.edns
import dns.flags
import dns.message
import dns.query
import dns.rdatatype

from hushwire.daemon import resolver
from hushwire.daemon.channel import EFFECTS, Channel, ChannelClosed, pair
from hushwire.daemon.listener import open_sockets
from hushwire.daemon.unbound import Configuration
from hushwire.events import Asked, Release, Verdict
from hushwire.lab.dns import SignedWorld
from hushwire.lab.namespaces import free_port
from hushwire.wire.address import Endpoint, IPAddress


@dataclass
class Node:
    """A stand-in: what it says of each name, after how long, and what it was asked."""

    says: dict[str, Callable[[int], Release]] = field(default_factory=dict)
    delays: dict[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def serve(self, channel: Channel, stop: socket.socket) -> None:
        due: list[tuple[float, Release]] = []
        while True:
            wait = max(0.0, min((when for when, _ in due), default=time.monotonic() + 60) - time.monotonic())
            ready, _, _ = select([channel.fileno(), stop.fileno()], [], [], wait)
            if stop.fileno() in ready:
                return
            try:
                for said in channel.receive() if channel.fileno() in ready else ():
                    if isinstance(said, Asked):
                        self.asked.append(said.name)
                        if said.name in self.says:
                            when = time.monotonic() + self.delays.get(said.name, 0.0)
                            due.append((when, self.says[said.name](said.request)))
                now = time.monotonic()
                for _, release in [each for each in due if each[0] <= now]:
                    channel.send(release)
                due = [each for each in due if each[0] > now]
            except ChannelClosed:
                return


def only(*addresses: IPAddress, ttl: int = 60) -> Callable[[int], Release]:
    return lambda number: Release(number, Verdict.ONLY, addresses, ttl)


def passes(ttl: int = 0) -> Callable[[int], Release]:
    return lambda number: Release(number, Verdict.PASS, ttl=ttl)


def refuses(reason: str) -> Callable[[int], Release]:
    return lambda number: Release(number, Verdict.REFUSE, reason=reason)


@dataclass
class Resolver:
    """One that runs, and how it is asked."""

    port: int
    pid: int
    node: Node

    def ask(
        self,
        name: str,
        rdtype: str = "A",
        *,
        tcp: bool = False,
        edns: int | bool = 0,
        dnssec: bool = False,
        flags: int = dns.flags.RD,
        payload: int = 1232,
        timeout: float = 10,
    ) -> dns.message.Message:
        query = dns.message.make_query(name, rdtype, use_edns=edns, want_dnssec=dnssec, flags=flags, payload=payload)
        if edns is False:
            query.use_edns(False)
        send = dns.query.tcp if tcp else dns.query.udp
        return send(query, "127.0.0.1", port=self.port, timeout=timeout)

    def datagram(self, octets: bytes, timeout: float = 1.0) -> bytes:
        """What comes back; empty: nothing."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            sock.sendto(octets, ("127.0.0.1", self.port))
            try:
                return sock.recv(65535)
            except TimeoutError:
                return b""


@contextmanager
def resolving(configuration: Configuration, node: Node, speaks: Callable[[str], bool]) -> Iterator[Resolver]:
    """The resolver's process, as the parent starts it but not confined; the node is a thread of ours."""
    ours, theirs = pair()
    stopped, stop = socket.socketpair()
    sockets = open_sockets([Endpoint(ip_address("127.0.0.1"), free_port())])
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            resolver.main(Channel(theirs, EFFECTS), configuration, listen=sockets, speaks=speaks)
            status = 0
        finally:
            os._exit(status)
    theirs.close()
    thinking = threading.Thread(target=node.serve, args=(Channel(ours), stopped))
    thinking.start()
    try:
        yield Resolver(sockets[0].getsockname()[1], pid, node)
    finally:
        # Processes that were forked meanwhile may hold our ends, too, so that to close them is not enough.
        stop.shutdown(socket.SHUT_RDWR)
        thinking.join(10)
        ours.shutdown(socket.SHUT_RDWR)
        for sock in (ours, stop, stopped, *sockets):
            sock.close()
        ended, status = os.waitpid(pid, os.WNOHANG)
        end = time.monotonic() + 5
        while not ended and time.monotonic() < end:
            time.sleep(0.01)
            ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        if not ended or status:
            raise RuntimeError("the resolver's process did not end as it should")


def trusting(world: SignedWorld, timeout: float = 5.0) -> Configuration:
    return Configuration(anchor_file=str(world.anchor_path), forward=(world.forward,), timeout=timeout)


def rdatas(answer: dns.message.Message, rdtype: str = "A") -> set[str]:
    kind = dns.rdatatype.from_text(rdtype)
    return {str(rdata) for rrset in answer.answer if rrset.rdtype == kind for rdata in rrset}


def complaint(answer: dns.message.Message) -> tuple[int, str]:
    """RFC 8914's code and text."""
    (option,) = [option for option in answer.options if isinstance(option, dns.edns.EDEOption)]
    return int(option.code), option.text or ""


class Upstream:
    """A context manager: a process on a UDP port of loopback that answers each datagram as `answer` says."""

    def __init__(self, answer: Callable[[bytes], bytes], port: int = 0) -> None:
        self._answer = answer
        self._port = port

    def __enter__(self) -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", self._port))
            self._pid = os.fork()
            if self._pid == 0:
                signal.alarm(30)
                try:
                    while True:
                        octets, peer = sock.recvfrom(4096)
                        sock.sendto(self._answer(octets), peer)
                finally:
                    os._exit(1)
            return int(sock.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


TYPES = {
    "A": ["192.0.2.7", "192.0.2.8"],
    "AAAA": ["2001:db8::7"],
    "MX": ["10 mail.bob.example.", "20 mail2.bob.example."],
    "TXT": ['"one" "two"', '"three"'],
    "SRV": ["1 2 443 srv.bob.example."],
    "NAPTR": ['10 20 "s" "SIP+D2U" "" _sip._udp.bob.example.'],
    "CAA": ['0 issue "ca.example"'],
    "SSHFP": ["4 2 " + "ab" * 32],
    "TLSA": ["3 1 1 " + "cd" * 32],
    "LOC": ["52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m"],
    "HINFO": ['"cpu" "os"'],
    "RP": ["mbox.bob.example. txt.bob.example."],
    "AFSDB": ["1 afs.bob.example."],
    "URI": ['10 1 "https://bob.example/"'],
    "SVCB": ["1 svc.bob.example. alpn=h2 port=8443 ipv4hint=192.0.2.7"],
    "HTTPS": ["1 . alpn=h3,h2 ipv4hint=192.0.2.7 ipv6hint=2001:db8::7"],
    "TYPE65400": ["\\# 5 0102030405"],
    "PTR": ["ptr.bob.example."],
    "DHCID": ["AAIBY2/AuCccgoJbsaxcQc9TUapptP69lOjxfNuVAA2kjEA="],
    "CERT": ["1 0 0 AAAA"],
    "EUI48": ["00-00-5e-00-53-2a"],
}
"""Records of many types, in presentation form."""
