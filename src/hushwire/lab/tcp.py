"""TCP as an attacker would have it (RFC 9293): segments that nobody sent, and where a connection stands.

That is read from the wire, by whoever can, or from the destination's own kernel, by a test that makes sure that its
attacker does not fail merely for not knowing.
"""

import ctypes
import os
import socket
import struct
from contextlib import closing
from dataclasses import dataclass, replace
from enum import IntFlag
from pathlib import Path

from hushwire.lab.capture import dissect
from hushwire.lab.namespaces import Host
from hushwire.wire.address import IPAddress
from hushwire.wire.ip import transport_checksum, write_header
from hushwire.wire.registry import IPProtocol


class Flag(IntFlag):
    """RFC 9293 s3.1."""

    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16


@dataclass(frozen=True, slots=True)
class Position:
    """Where one direction of a connection stands."""

    source: IPAddress
    destination: IPAddress
    source_port: int
    destination_port: int
    sequence: int
    """What the destination expects next: its RCV.NXT."""
    acknowledgment: int
    """What the source expects next."""

    def moved(self, octets: int) -> "Position":
        """The same when the destination has taken so many more, or so many fewer."""
        return replace(self, sequence=(self.sequence + octets) % _MODULUS)

    def forge(self, by: Host, to: Host, flags: Flag, data: bytes = b"") -> bytes:
        """An Ethernet frame with a segment that stands exactly here."""
        ports = struct.pack("!HH", self.source_port, self.destination_port)
        numbers = struct.pack("!II", self.sequence, self.acknowledgment)
        unsummed = ports + numbers + struct.pack("!BBHHH", 5 << 4, flags, 500, 0, 0) + data
        source, destination = self.source.packed, self.destination.packed
        total = transport_checksum(source, destination, IPProtocol.TCP, unsummed)
        segment = unsummed[:16] + total.to_bytes(2, "big") + unsummed[18:]
        # RFC 5082: BGP speakers may want what comes from a neighbour to have gone through no router.
        header = write_header(source, destination, IPProtocol.TCP, len(segment), hops=255)
        ethernet = bytes.fromhex((to.mac + by.mac).replace(":", "")) + _ETHERTYPES[self.source.version]
        return ethernet + header + segment


def sniffed(pcap: Path, source: IPAddress, destination: IPAddress) -> Position | None:
    """As anybody on the path knows it, from the last segment that passed in clear; None: there was none."""
    ip = "ip" if source.version == 4 else "ipv6"
    fields = ("tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.len", "tcp.ack_raw")
    rows = dissect(pcap, *fields, show=f"tcp.flags.ack == 1 && {ip}.src == {source} && {ip}.dst == {destination}")
    if not rows:
        return None
    source_port, destination_port, sequence, length, acknowledgment = (int(rows[-1][field][0]) for field in fields)
    return Position(source, destination, source_port, destination_port, sequence, acknowledgment).moved(length)


def position(pid: int, source: IPAddress, destination: IPAddress) -> Position:
    """As the destination's kernel has it, for the connection that a process of root's there has with the source."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if not os.readlink(entry).startswith("socket:"):
            continue
        with closing(_borrowed(pid, int(entry.name))) as sock:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
                here, there = sock.getsockname(), _peer(sock)
                if there is not None and (here[0], there[0]) == (str(destination), str(source)):
                    sequence, acknowledgment = _numbers(sock)
                    return Position(source, destination, there[1], here[1], sequence, acknowledgment)
    raise RuntimeError(f"process {pid} has no connection with {source}")


def _borrowed(pid: int, number: int) -> socket.socket:
    """Another's socket, by pidfd_getfd(2)."""
    pidfd = os.pidfd_open(pid)
    try:
        got = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
    finally:
        os.close(pidfd)
    if got < 0:
        raise OSError(ctypes.get_errno(), f"descriptor {number} of process {pid}")
    return socket.socket(fileno=got)


def _peer(sock: socket.socket) -> tuple[str, int] | None:
    try:
        there = sock.getpeername()
    except OSError:
        return None
    return there[0], there[1]


def _numbers(sock: socket.socket) -> tuple[int, int]:
    """RCV.NXT and SND.NXT, which the kernel tells whoever could repair the connection (and nothing of it changes)."""
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    try:
        numbers = []
        for queue in (_RECEIVE_QUEUE, _SEND_QUEUE):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_QUEUE, queue)
            numbers.append(sock.getsockopt(socket.IPPROTO_TCP, _TCP_QUEUE_SEQ) % _MODULUS)
    finally:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _OFF_WITHOUT_PROBE)
    return numbers[0], numbers[1]


_MODULUS = 1 << 32
_ETHERTYPES = {4: b"\x08\x00", 6: b"\x86\xdd"}
_libc = ctypes.CDLL(None, use_errno=True)
_PIDFD_GETFD = 438
_TCP_REPAIR, _TCP_REPAIR_QUEUE, _TCP_QUEUE_SEQ = 19, 20, 21
_RECEIVE_QUEUE, _SEND_QUEUE, _OFF_WITHOUT_PROBE = 1, 2, -1
