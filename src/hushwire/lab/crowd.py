"""A host with more and more strangers at work, each of whom has proved a key of his own, stepped by hand."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_network
from statistics import median

from hushwire.config import Config, PlaneChoice, Rule
from hushwire.config import Host as HostConfig
from hushwire.crypto.auth import Scheme, sign
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.entropy import SeededEntropy
from hushwire.events import (
    Acquire,
    AddressesChanged,
    Answered,
    Datagram,
    Effect,
    Event,
    Installed,
    InstallPolicy,
    InstallSA,
    Lookup,
    Outcome,
    Send,
    Sign,
    Signed,
)
from hushwire.node import Node, Secrets, peers
from hushwire.policy.assurance import Assurance
from hushwire.policy.selector import Flow
from hushwire.timers import Now

OWN = IPv4Address("192.0.2.1")
EVERYBODY = Rule(ip_network("10.0.0.0/8"), Assurance.ENCRYPTED)
HERS = Rule(ip_network("192.0.2.0/24"), Assurance.ENCRYPTED)
PACE = 0.2
"""Virtual seconds between strangers: more of them at once are told to wait."""
ROUNDS = 100
"""Of each kind of event, at each size."""
PARTS = 5
"""Of each the median is told."""
KNOWN, NEW, MET = (
    "a packet to a peer at work",
    "a packet to a stranger, until IKE_SA_INIT",
    "a stranger's IKE_AUTH, answered",
)
EVENTS = (KNOWN, NEW, MET)
"""What is measured."""


class Station:
    """A Node, and all that it asks for done at once; the datagrams that leave it wait."""

    def __init__(self, seed: str, address: IPv4Address, rule: Rule) -> None:
        self.key = PrivateKey.from_seed(Secret(seed.encode().ljust(32)))
        secrets = Secrets(self.key.public, {}, {})
        config = Config(HostConfig(f"{seed}.example"), rules=(rule,))
        self.node = Node(config, secrets, PlaneChoice.KERNEL, SeededEntropy(seed.encode()))
        self.address = address
        self.sent: list[Send] = []
        self.took = 0.0
        """Seconds that its Node took."""

    def step(self, now: Now, event: Event) -> None:
        began = time.perf_counter()
        effects = self.node.step(now, event)
        self.node.deadline()
        self.took += time.perf_counter() - began
        for effect in effects:
            if isinstance(effect, Send):
                self.sent.append(effect)
            elif (answer := self._answer(effect)) is not None:
                self.step(now, answer)

    def _answer(self, effect: Effect) -> Event | None:
        match effect:
            case Sign(request, _, scheme, octets):
                return Signed(request, sign(self.key, Scheme[scheme], octets))
            case Lookup(request, name, rdtype):
                return Answered(request, name, rdtype, Outcome.DENIED, ttl=1 << 20)
            case InstallSA(request) | InstallPolicy(request):
                return Installed(request)
        return None


class Busy:
    """The host, and whoever comes."""

    def __init__(self) -> None:
        self.host = Station("host", OWN, EVERYBODY)
        self._now = Now(0.0, 1.8e9)
        self._count = 0
        """Strangers until now."""
        self._took: dict[str, list[float]] = defaultdict(list)
        self.host.step(self._now, AddressesChanged((OWN,)))

    def grow(self, size: int) -> None:
        """Have so many at work."""
        with _room():
            while self._count < size:
                self._come()

    def sample(self) -> dict[str, tuple[float, ...]]:
        """Microseconds that each kind of event takes now, some times."""
        self._took.clear()
        with _room():
            for number in range(ROUNDS):
                self._come()
                self._pass(KNOWN, _address(number * (self._count // ROUNDS)))
                self._pass(NEW, _address((1 << 16) - 1 - self._count))
        return {what: tuple(median(self._took[what][part::PARTS]) for part in range(PARTS)) for what in EVENTS}

    def _come(self) -> None:
        """A stranger comes, and from then on he is at work."""
        address = _address(self._count)
        stranger = Station(f"stranger {self._count}", address, HERS)
        self._count += 1
        self._tick()
        stranger.step(self._now, AddressesChanged((address,)))
        trap = stranger.node.peers.by_name(str(HERS.peer))
        assert trap is not None
        stranger.step(self._now, Acquire(Flow(address, OWN, 0), trap.reqid, 1))
        for kind in ("IKE_SA_INIT", MET):
            self._carry(stranger, self.host, kind)
            self._carry(self.host, stranger)
        peer = self.host.node.peers.by_name(str(address))
        if peer is None or not peer.reached:
            raise RuntimeError(f"{address} is not at work")

    def _pass(self, what: str, remote: IPv4Address) -> None:
        """A packet leaves."""
        self._tick()
        peer = self.host.node.peers.by_name(str(remote)) or self.host.node.peers.by_name(str(EVERYBODY.peer))
        assert peer is not None
        before, self.host.sent = self.host.took, []
        self.host.step(self._now, Acquire(Flow(OWN, remote, 0), peer.reqid, 1))
        if len(self.host.sent) != (what is NEW):
            raise RuntimeError(f"{what}: {len(self.host.sent)} messages were sent to {remote}")
        self._took[what].append((self.host.took - before) * 1e6)
        self.host.sent.clear()

    def _carry(self, sender: Station, to: Station, what: str = "") -> None:
        sent, sender.sent = sender.sent, []
        before = to.took
        for send in sent:
            to.step(self._now, Datagram(send.remote, send.local, send.data))
        self._took[what].append((to.took - before) * 1e6)

    def _tick(self) -> None:
        self._now = Now(self._now.monotonic + PACE, self._now.wall + PACE)


@contextmanager
def _room() -> Iterator[None]:
    """A host takes no more than it has room for; here it is to be seen what would come of more."""
    before, peers.MOST_BORN = peers.MOST_BORN, peers.MOST_NUMBERS // 2
    try:
        yield
    finally:
        peers.MOST_BORN = before


def _address(number: int) -> IPv4Address:
    """Each in a prefix of his own: of one prefix few are let in at once."""
    return IPv4Address(0x0A000001 + (number << 8))
