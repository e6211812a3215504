"""Look-ups a second through the capturing resolver, against unbound with the same upstream, in turn in one run.

One client keeps a number of questions under way by UDP, for names whose answers are cached and that rules speak of;
a stand-in for the node releases each, as often as it is asked.
"""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median

import dns.message

from hushwire.daemon.unbound import Configuration
from hushwire.lab.dns import SignedWorld
from hushwire.lab.resolving import Node, free_port, only, resolving
from hushwire.names import message

NAMES = 50
UNDER_WAY = 64
"""Questions that the client has sent and that are not answered."""
PATIENCE = 5.0
"""Seconds until the client gives up."""
ADDRESS = IPv4Address("192.0.2.1")


@dataclass(frozen=True, slots=True)
class Rate:
    """Of one round."""

    lookups: float
    """Answered, a second."""
    lost: int


@dataclass(frozen=True, slots=True)
class Comparison:
    ours: tuple[Rate, ...]
    theirs: tuple[Rate, ...]

    def __str__(self) -> str:
        lines = []
        for name, rates in (("hushwire", self.ours), ("unbound", self.theirs)):
            each = sorted(rate.lookups for rate in rates)
            lost = sum(rate.lost for rate in rates)
            lines.append(f"{name:9}{median(each):7.0f} look-ups/s ({each[0]:.0f} to {each[-1]:.0f}), {lost} lost")
        ratios = sorted(one.lookups / other.lookups for one, other in zip(self.ours, self.theirs, strict=True))
        lines.append(f"ratio    {median(ratios):7.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), {len(ratios)} rounds")
        return "\n".join(lines)


def compare(rounds: int, lookups: int, tell: Callable[[str], None] = lambda line: None) -> Comparison:
    """hushwire and unbound in turn."""
    names = [f"n{number}.alice.example" for number in range(NAMES)]
    ours, theirs = [], []
    with SignedWorld(port=free_port()) as world:
        for name in names:
            world.publish(name, [ADDRESS])
        configuration = Configuration(str(world.anchor_path), forward=(world.forward,))
        node = Node(dict.fromkeys(names, only(ADDRESS)))
        with resolving(configuration, node, names.__contains__) as resolver, unbound(world) as other:
            for number in range(1, rounds + 1):
                ours.append(rate(resolver.port, names, lookups))
                theirs.append(rate(other, names, lookups))
                tell(
                    f"round {number} of {rounds}: hushwire {ours[-1].lookups:.0f}, unbound {theirs[-1].lookups:.0f}; "
                    f"the node was asked {len(node.asked)} times"
                )
                node.asked.clear()
    return Comparison(tuple(ours), tuple(theirs))


def rate(port: int, names: Sequence[str], lookups: int) -> Rate:
    """A client of its own, on the other processor."""
    words = (sys.executable, "-m", "hushwire.lab.bench_lookups", str(port), str(lookups), *names)
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60 + lookups / 500)
    seconds, lost = done.stdout.split()
    return Rate((lookups - int(lost)) / float(seconds), int(lost))


def ask(port: int, lookups: int, names: Sequence[str]) -> tuple[float, int]:
    """Seconds that it took, and answers that never came.  Raises ValueError on an answer without the address."""
    queries = [bytearray(dns.message.make_query(name, "A", use_edns=0).to_wire()) for name in names]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.settimeout(PATIENCE)
        for query in queries:
            # Those that are cached are meant.
            sock.send(query)
            sock.recv(4096)
        began = time.perf_counter()
        sent = answered = 0
        while answered < lookups:
            while sent < lookups and sent - answered < UNDER_WAY:
                query = queries[sent % len(queries)]
                query[:2] = (sent & 0xFFFF).to_bytes(2, "big")
                sock.send(query)
                sent += 1
            try:
                octets = sock.recv(4096)
            except TimeoutError:
                return time.perf_counter() - began - PATIENCE, lookups - answered
            if octets[3] & 15 != message.NOERROR or ADDRESS.packed not in octets:
                raise ValueError(f"no answer: {octets.hex()}")
            answered += 1
        return time.perf_counter() - began, 0


@contextmanager
def unbound(world: SignedWorld) -> Iterator[int]:
    """Debian's, one thread, validating; its port."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="hushwire-unbound-") as folder:
        path = Path(folder, "unbound.conf")
        path.write_text(UNBOUND.format(port=port, anchor=world.anchor_path, forward=world.forward, folder=folder))
        process = subprocess.Popen(("unbound", "-d", "-c", str(path)), stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            else:
                raise RuntimeError("unbound did not start")
            yield port
        finally:
            process.terminate()
            process.wait(5)


UNBOUND = """
server:
    interface: 127.0.0.1
    port: {port}
    username: ""
    chroot: ""
    directory: "{folder}"
    pidfile: ""
    use-syslog: no
    num-threads: 1
    do-not-query-localhost: no
    trust-anchor-file: "{anchor}"
    unblock-lan-zones: yes
    msg-cache-size: 4m
    rrset-cache-size: 8m
forward-zone:
    name: "."
    forward-addr: {forward}
remote-control:
    control-enable: no
"""

if __name__ == "__main__":
    print(*ask(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
