"""Two IKE end points back to back: no network, no processes, time by hand."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from hushwire.crypto.auth import Scheme, shared_key_auth, sign
from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.entropy import SeededEntropy
from hushwire.events import Datagram, DeleteSA, Installed, InstallSA, Notice, Send, Sign, Signed
from hushwire.ike.endpoint import Endpoint
from hushwire.ike.errors import Unauthorized
from hushwire.ike.negotiation import Wanted
from hushwire.ike.report import AuthorizationWanted
from hushwire.ike.sa import IkeSA
from hushwire.ike.settings import Settings
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity, PadEntry
from hushwire.policy.sad import SA, Mode
from hushwire.policy.selector import Selector
from hushwire.timers import Now
from hushwire.wire.registry import PrfID

PSK = Secret(b"a shared key of the tests, long enough")


class Peer:
    """One host: an Endpoint, its key, its plane as a dict, and what it was told."""

    def __init__(self, name: str, address: str, key: PrivateKey, **settings: Any) -> None:
        self.name, self.address, self.key = name, IPv4Address(address), key
        identity = Identity.fqdn(f"{name}.example")
        self.settings = Settings(identity, key.public, **settings)
        self.endpoint = Endpoint(self.settings, SeededEntropy(name.encode()), itertools.count(1))
        self.entries: dict[Identity, PadEntry] = {}
        self.plane: dict[int, SA] = {}
        self.reports: list[object] = []
        self.notices: list[Notice] = []

    def knows(self, other: "Peer", **changes: Any) -> None:
        entry = PadEntry(
            f"{other.name}.example", other.settings.identity, (other.address,), (other.key.public,), None,
            Assurance.NAMED, 1, Mode.TRANSPORT, (Selector.between(self.address, other.address),),
        )  # fmt: skip
        self.entries[entry.identity] = replace(entry, **changes)

    def told(self, kind: type) -> list[Any]:
        return [report for report in self.reports if isinstance(report, kind)]

    @property
    def sas(self) -> list[IkeSA]:
        return self.endpoint.sas


@dataclass
class Pair:
    """Alice, Bob, and the datagrams between them."""

    alice: Peer
    bob: Peer
    now: Now = field(default_factory=lambda: Now(0.0, 1.8e9))
    wire: list[tuple[Peer, Send]] = field(default_factory=list)
    filter: Callable[[Peer, Send], list[Send]] = lambda sender, send: [send]
    seen: list[tuple[str, Send]] = field(default_factory=list)

    def initiate(self, initiator: Peer | None = None) -> IkeSA:
        me = initiator or self.alice
        you = self.bob if me is self.alice else self.alice
        entry = me.entries[you.settings.identity]
        sa = me.endpoint.initiate(entry, me.address, you.address, Wanted(entry.selectors, entry.mode), self.now)
        self.collect()
        return sa

    def collect(self) -> None:
        """Perform what both ask for, until nothing is left but datagrams."""
        for me in (self.alice, self.bob):
            while asked := me.endpoint.drain():
                for item in asked:
                    self._perform(me, item)

    def _perform(self, me: Peer, item: object) -> None:
        match item:
            case Send():
                self.seen.append((me.name, item))
                self.wire += [(me, send) for send in self.filter(me, item)]
            case Sign(request, _, scheme, octets):
                method, _, prf = scheme.partition("/")
                if method == "SHARED_KEY":
                    signature = shared_key_auth(PrfID[prf], PSK, octets)
                else:
                    signature = sign(me.key, Scheme[scheme], octets)
                me.endpoint.signed(Signed(request, signature), self.now)
            case InstallSA(request, sa):
                me.plane[sa.spi] = sa
                me.endpoint.installed(Installed(request), self.now)
            case DeleteSA(name):
                me.plane.pop(name.spi, None)
            case AuthorizationWanted(request, identity, remote):
                entry = me.entries.get(identity)
                if entry is None or not entry.speaks_from(remote.address):
                    me.endpoint.authorized(request, Unauthorized(f"{identity} is not known"), self.now)
                else:
                    me.endpoint.authorized(request, entry, self.now)
            case Notice():
                me.notices.append(item)
            case _:
                me.reports.append(item)

    def deliver(self) -> None:
        """Carry datagrams until there are no more."""
        self.collect()
        for _ in range(500):
            if not self.wire:
                return
            sender, send = self.wire.pop(0)
            receiver = self.bob if sender is self.alice else self.alice
            receiver.endpoint.receive(Datagram(send.remote, send.local, send.data), self.now)
            self.collect()
        raise AssertionError("the two never stop talking")

    def wait(self, seconds: float) -> None:
        """Let time pass, stopping at every deadline."""
        end = self.now.monotonic + seconds
        for _ in range(10_000):
            soonest = min(self.alice.endpoint.deadline(), self.bob.endpoint.deadline())
            if soonest > end:
                break
            self.now = Now(max(soonest, self.now.monotonic), self.now.wall)
            for me in (self.alice, self.bob):
                if me.endpoint.deadline() <= self.now.monotonic:
                    me.endpoint.timeout(self.now)
            self.deliver()
        self.now = Now(end, self.now.wall)

    def agree(self) -> None:
        """Both planes hold the same pairs with the same keys."""
        for spi, sa in self.alice.plane.items():
            twin = self.bob.plane[spi]
            assert (twin.encr_key, twin.integ_key, twin.suite) == (sa.encr_key, sa.integ_key, sa.suite)
            assert (twin.source, twin.destination, twin.mode) == (sa.source, sa.destination, sa.mode)
            assert twin.direction is not sa.direction
        assert set(self.alice.plane) == set(self.bob.plane)


ALICE_KEY = PrivateKey.from_seed(Secret(b"a" * 32))
BOB_KEY = PrivateKey.from_seed(Secret(b"b" * 32))


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    def make(alice: dict[str, Any] | None = None, bob: dict[str, Any] | None = None, **keys: PrivateKey) -> Pair:
        one = Peer("alice", "192.0.2.1", keys.get("alice_key", ALICE_KEY), **(alice or {}))
        two = Peer("bob", "192.0.2.2", keys.get("bob_key", BOB_KEY), **(bob or {}))
        one.knows(two)
        two.knows(one)
        return Pair(one, two)

    return make


@pytest.fixture
def pair(make_pair: Callable[..., Pair]) -> Pair:
    return make_pair()


@pytest.fixture
def make_key() -> Callable[[KeyKind], PrivateKey]:
    return PrivateKey.generate
