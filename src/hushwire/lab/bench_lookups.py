"""Look-ups a second through the capturing resolver, against unbound with the same upstream, in turn in one run.

One client keeps a number of questions under way by UDP.  First to the resolver's process alone, with a stand-in for the
node; then on a host of the lab, to all of its hushwire, where rules speak of names, and nobody has asked for them yet.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from statistics import median

import dns.message

from hushwire.daemon.unbound import Configuration
from hushwire.lab.dns import TSIG_NAME, SignedWorld
from hushwire.lab.hushwire import Hushwire, named
from hushwire.lab.namespaces import Host, Topology
from hushwire.lab.peer import eventually
from hushwire.lab.resolving import Node, only, resolving
from hushwire.lab.story import LISTENER
from hushwire.lab.unbound import Unbound
from hushwire.names import message
from hushwire.node.peers import MOST_BORN

NAMES = 50
FRESH = 500
"""Names of a round, where each is asked for once."""
TTL = 300
"""Seconds, of all that the lab's host is told: nothing is to be asked for anew meanwhile."""
UNDER_WAY = 64
"""Questions that the client has sent and that are not answered."""
PATIENCE = 5.0
"""Seconds until the client gives up."""
ADDRESS = IPv4Address("192.0.2.1")
PLAIN = "127.0.0.53"
"""Where unbound answers on the lab's host."""
RULES = f"""listen = ["{LISTENER}"]
[[rule]]
peer = "bob.example"
group = "private"
[[rule]]
peer = "*.bob.example"
group = "private-or-clear"
"""
"""Names below alice.example are nobody's business."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Of one round."""

    lookups: float
    """Answered, a second."""
    lost: int
    """Questions that got no answer, or one without an address."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One figure."""

    what: str
    ours: tuple[Rate, ...]
    theirs: tuple[Rate, ...]

    def __str__(self) -> str:
        lines = [self.what]
        for name, rates in (("hushwire", self.ours), ("unbound", self.theirs)):
            each = sorted(rate.lookups for rate in rates)
            lost = sum(rate.lost for rate in rates)
            lines.append(f"  {name:9}{median(each):7.0f} look-ups/s ({each[0]:.0f} to {each[-1]:.0f}), {lost} lost")
        ratios = sorted(one.lookups / other.lookups for one, other in zip(self.ours, self.theirs, strict=True))
        lines.append(f"  ratio    {median(ratios):7.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), {len(ratios)} rounds")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Report:
    """All figures."""

    comparisons: tuple[Comparison, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.comparisons))


def compare(rounds: int, lookups: int, tell: Callable[[str], None] = lambda line: None) -> Report:
    """hushwire and unbound in turn, for every figure."""
    return Report((_alone(rounds, lookups, tell), *_on_a_host(rounds, lookups, tell)))


def _alone(rounds: int, lookups: int, tell: Callable[[str], None]) -> Comparison:
    """The resolver's process, and a node that releases each name whenever it is asked."""
    names = [f"n{number}.alice.example" for number in range(NAMES)]
    with SignedWorld() as world:
        for name in names:
            world.publish(name, [ADDRESS])
        configuration = Configuration(str(world.anchor_path), forward=(world.forward,))
        node = Node(dict.fromkeys(names, only(ADDRESS)))
        with resolving(configuration, node, names.__contains__) as resolver, Unbound(world) as unbound:
            return _in_turn(
                "resolver's process alone, a stand-in for the node, cached names that a rule speaks of", rounds,
                lambda number: rate("127.0.0.1", resolver.port, names, lookups),
                lambda number: rate("127.0.0.1", unbound.port, names, lookups), tell,
            )  # fmt: skip


def _on_a_host(rounds: int, lookups: int, tell: Callable[[str], None]) -> Iterator[Comparison]:
    """All of hushwire, on alice; her programs ask."""
    # The node has room for so many names at once.
    fresh = min(FRESH, (MOST_BORN - NAMES) // rounds)
    known = ["bob.example", *(f"n{number}.bob.example" for number in range(NAMES - 1))]
    ruled, free = ([f"f{n}.{zone}" for n in range(rounds * fresh)] for zone in ("bob.example", "alice.example"))
    with _host(known[1:], ruled, free) as alice:

        def figure(what: str, names: Sequence[str], lookups: int) -> Comparison:
            def one(server: str, number: int) -> Rate:
                asked = names if lookups else names[number * fresh : (number + 1) * fresh]
                return rate(server, 53, asked, lookups, alice.prefix)

            return _in_turn(what, rounds, lambda number: one(LISTENER, number), lambda number: one(PLAIN, number), tell)

        yield figure("a host, names that a rule speaks of, asked for before", known, lookups)
        yield figure("a host, names that a rule speaks of, that nobody asked for before", ruled, 0)
        yield figure("a host, names that no rule speaks of, that nobody asked for before", free, 0)


def _in_turn(
    what: str, rounds: int, ours: Callable[[int], Rate], theirs: Callable[[int], Rate], tell: Callable[[str], None]
) -> Comparison:
    pairs = []
    for number in range(rounds):
        pairs.append((ours(number), theirs(number)))
        one, other = pairs[-1]
        tell(f"{what}: round {number + 1} of {rounds}: hushwire {one.lookups:.0f}, unbound {other.lookups:.0f}")
    return Comparison(what, *map(tuple, zip(*pairs, strict=True)))


@contextmanager
def _host(*zones: Sequence[str]) -> Iterator[Host]:
    """Alice, on whom hushwire and unbound answer, and who has a protected way to bob; `zones`: names of each."""
    with Topology() as topology:
        topology.bridge()
        alice, bob, dns = (topology[name] for name in ("alice", "bob", "dns"))
        with SignedWorld(str(dns.v4), 53, prefix=dns.prefix, ttl=TTL) as world:

            def hire(host: Host, peers: Sequence[str], more: str = "") -> Hushwire:
                config = named(f"{host.name}.example", peers, world.forward, world.anchor_path, more=more)
                daemon = Hushwire(host, config)
                world.publish(f"{host.name}.example", [host.v4, host.v6], [daemon.key.public], TTL)
                return daemon

            # Before anybody asks: a signed denial is good for all names between two that there are.
            for names in zones:
                _publish(world, dns, names)
            at_bob, at_alice = hire(bob, ["alice.example"]), hire(alice, [], RULES)
            with at_bob, at_alice, Unbound(world, PLAIN, 53, alice.prefix):
                ask = ("kdig", f"@{LISTENER}", "+retry=0", "+timeout=9", "bob.example", "A")
                if not eventually(lambda: "NOERROR" in alice.run(*ask, check=False).stdout, 20):
                    raise RuntimeError(f"no way from alice to bob:\n{at_alice.log.read_text()}")
                yield alice


def _publish(world: SignedWorld, dns: Host, names: Sequence[str]) -> None:
    """By DNS Update, a message of which holds some hundred."""
    zone = names[0].partition(".")[2]
    for at in range(0, len(names), 500):
        lines = [f"update add {name}. {TTL} A {ADDRESS}" for name in names[at : at + 500]]
        head = (f"server {dns.v4}", f"key hmac-sha256:{TSIG_NAME} {world.secret}", f"zone {zone}.")
        world.run(*dns.prefix, "knsupdate", "-v", str(world.write("update", "\n".join((*head, *lines, "send\n")))))


def rate(server: str, port: int, names: Sequence[str], lookups: int, prefix: Sequence[str] = ()) -> Rate:
    """A client of its own, on the other processor; without `lookups`, each name once, and it is the first to ask."""
    words = (sys.executable, "-m", "hushwire.lab.bench_lookups", server, str(port), str(lookups), *names)
    done = subprocess.run((*prefix, *words), capture_output=True, text=True, check=False, timeout=60 + lookups / 500)
    if done.returncode != 0:
        raise RuntimeError(f"{server}: {done.stderr[-2000:]}")
    seconds, lost = done.stdout.split()
    return Rate(((lookups or len(names)) - int(lost)) / float(seconds), int(lost))


def ask(server: str, port: int, lookups: int, names: Sequence[str]) -> tuple[float, int]:
    """Seconds that it took, and how many of the questions were lost."""
    queries = [bytearray(dns.message.make_query(name, "A", use_edns=0).to_wire()) for name in names]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((server, port))
        sock.settimeout(PATIENCE)
        for query in queries if lookups else ():
            # Those that are cached are meant.
            sock.send(query)
            sock.recv(4096)
        lookups = lookups or len(names)
        began = time.perf_counter()
        sent = answered = lost = 0
        while answered < lookups:
            while sent < lookups and sent - answered < UNDER_WAY:
                query = queries[sent % len(queries)]
                query[:2] = (sent & 0xFFFF).to_bytes(2, "big")
                sock.send(query)
                sent += 1
            try:
                octets = sock.recv(4096)
            except TimeoutError:
                return time.perf_counter() - began - PATIENCE, lost + lookups - answered
            answered += 1
            lost += octets[3] & 15 != message.NOERROR or octets[6:8] == bytes(2)
        return time.perf_counter() - began, lost


if __name__ == "__main__":
    print(*ask(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))
