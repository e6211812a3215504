"""Two IKE end points back to back: no network, no processes, time by hand."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.crypto.auth import Scheme, shared_key_auth, sign
from hushwire.crypto.cipher import IkeCipher
from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.entropy import SeededEntropy
from hushwire.events import Datagram, DeleteSA, Installed, InstallSA, Notice, Refused, Send, Sign, Signed
from hushwire.ike.child import ChildSA
from hushwire.ike.endpoint import Endpoint
from hushwire.ike.errors import Unauthorized
from hushwire.ike.negotiation import Wanted
from hushwire.ike.report import AuthorizationWanted
from hushwire.ike.sa import IkeSA
from hushwire.ike.settings import Settings
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import ANYBODY, Identity, PadEntry
from hushwire.policy.sad import SA, Mode
from hushwire.policy.selector import Selector
from hushwire.timers import Now
from hushwire.wire.address import Endpoint as UdpEndpoint
from hushwire.wire.message import Header, Message, read_message, read_payloads, sealed_prefix, write_payloads
from hushwire.wire.payload import Encrypted, Payload
from hushwire.wire.registry import ExchangeType, PrfID

PSK = Secret(b"a shared key of the tests, long enough")


class Peer:
    """One host: an Endpoint, its key, its plane as a dict, and what it was told."""

    def __init__(self, name: str, address: str, key: PrivateKey, seed: bytes = b"", **settings: Any) -> None:
        self.name, self.address, self.key = name, ip_address(address), key
        identity = Identity.fqdn(f"{name}.example")
        self.settings = Settings(identity, key.public, **settings)
        self.endpoint = Endpoint(self.settings, SeededEntropy(name.encode() + seed), itertools.count(1))
        self.kept: dict[bytes, PrivateKey] = {}
        """What its keeper signs with beside `key`, by fingerprint."""
        self.entries: dict[Identity, PadEntry] = {}
        self.plane: dict[int, SA] = {}
        self.deleted: list[DeleteSA] = []
        self.installations: list[SA] = []
        """All that the plane ever held."""
        self.reports: list[object] = []
        self.notices: list[Notice] = []
        self.refuse: Callable[[SA], bool] = lambda sa: False
        """What the plane does not install."""
        self.held: list[object] | None = None
        """Set to a list, it takes what would be signed, authorized or installed, for perform() later."""

    def knows(self, other: "Peer", **changes: Any) -> None:
        entry = PadEntry(
            f"{other.name}.example", other.settings.identity, (other.address,), (other.key.public,), None,
            Assurance.NAMED, 1, Mode.TRANSPORT, (Selector.between(self.address, other.address),),
        )  # fmt: skip
        self.entries[entry.identity] = replace(entry, **changes)

    def told(self, kind: type) -> list[Any]:
        return [report for report in self.reports if isinstance(report, kind)]

    def reasons(self) -> list[str]:
        """Why things were dropped or failed."""
        return [str(dict(notice.fields).get("reason", "")) for notice in self.notices]

    @property
    def sas(self) -> list[IkeSA]:
        return self.endpoint.sas

    @property
    def sa(self) -> IkeSA:
        (sa,) = self.endpoint.sas
        return sa

    @property
    def child(self) -> ChildSA:
        (child,) = self.sa.children.values()
        return child


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
                    if me.held is not None and isinstance(item, Sign | InstallSA | AuthorizationWanted):
                        me.held.append(item)
                    else:
                        self.perform(me, item)

    def release(self, me: Peer) -> None:
        """Do what was held."""
        held, me.held = me.held or [], None
        for item in held:
            self.perform(me, item)
        self.collect()

    def perform(self, me: Peer, item: object) -> None:
        match item:
            case Send():
                self.seen.append((me.name, item))
                self.wire += [(me, send) for send in self.filter(me, item)]
            case Sign(request, key, scheme, octets):
                method, _, prf = scheme.partition("/")
                if method == "SHARED_KEY":
                    signature = shared_key_auth(PrfID[prf], PSK, octets)
                else:
                    signature = sign(me.kept.get(key, me.key), Scheme[scheme], octets)
                me.endpoint.signed(Signed(request, signature), self.now)
            case InstallSA(request, sa) if me.refuse(sa):
                me.endpoint.installed(Refused(request, "not by this plane"), self.now)
            case InstallSA(request, sa):
                me.plane[sa.spi] = sa
                me.installations.append(sa)
                me.endpoint.installed(Installed(request), self.now)
            case DeleteSA(name):
                me.deleted.append(item)
                if name.spi in me.plane and me.plane[name.spi].destination == name.destination:
                    del me.plane[name.spi]
            case AuthorizationWanted(request, identity, remote, reqid, key):
                entries = [entry for entry in me.entries.values() if identity is None and entry.reqid == reqid]
                entry = me.entries.get(identity) or next(iter(entries), None) or me.entries.get(ANYBODY)
                if entry is not None and entry.btns and key is not None:
                    entry = entry.met(key)
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

    # --- speaking for one of them, by hand ---

    def peer_of(self, sa: IkeSA) -> Peer:
        return self.alice if sa.host is self.alice.endpoint._host else self.bob

    def seal(
        self, sa: IkeSA, exchange: ExchangeType, payloads: Sequence[Payload] = (), *, response: bool = False,
        message_id: int | None = None, plaintext: tuple[int, bytes] | None = None, initiator: bool | None = None,
    ) -> bytes:  # fmt: skip
        """A message as the owner of `sa` would send it, with its keys."""
        number = sa.window.next_id if message_id is None else message_id
        speaks = sa.initiator if initiator is None else initiator
        header = Header(sa.spi_i, sa.spi_r, exchange, speaks, response, number)
        first, octets = write_payloads(payloads) if plaintext is None else plaintext
        cipher = self._cipher(sa, sa.initiator)
        prefix = sealed_prefix(header, first, cipher.sealed_length(len(octets)))  # type: ignore[arg-type]
        return prefix + cipher.seal(prefix, octets)

    def open(self, sa: IkeSA, datagram: bytes) -> Message:
        """What a message under the keys of `sa`, from either end, says."""
        message = read_message(datagram)
        first, octets = self.plaintext(sa, datagram)
        return Message(message.header, read_payloads(first, octets))

    def plaintext(self, sa: IkeSA, datagram: bytes) -> tuple[int, bytes]:
        message = read_message(datagram)
        sealed = message.payloads[-1]
        assert isinstance(sealed, Encrypted)
        return sealed.first, self._cipher(sa, message.header.initiator).open(message.associated, sealed.body)

    def _cipher(self, sa: IkeSA, initiator: bool) -> IkeCipher:
        keys = (sa.keys.ei, sa.keys.ai) if initiator else (sa.keys.er, sa.keys.ar)
        return IkeCipher(sa.suite, *keys, SeededEntropy(b"by hand"))

    def feed(
        self, me: Peer, data: bytes, source: UdpEndpoint | None = None, to: UdpEndpoint | None = None
    ) -> list[bytes]:
        """Give `me` a datagram; what it sends at once is returned, and not carried."""
        you = self.bob if me is self.alice else self.alice
        source, to = source or UdpEndpoint(you.address, 500), to or UdpEndpoint(me.address, 500)
        kept, self.wire = self.wire, []
        me.endpoint.receive(Datagram(to, source, data), self.now)
        self.collect()
        sent, self.wire = [send.data for _, send in self.wire], kept
        return sent

    def ask(self, sa: IkeSA, exchange: ExchangeType, payloads: Sequence[Payload] = (), **how: Any) -> Message | None:
        """A request as the owner of `sa` would make it, of which that owner's Endpoint knows nothing; the answer."""
        me = self.peer_of(sa)
        you = self.bob if me is self.alice else self.alice
        octets = self.seal(sa, exchange, payloads, **how)
        sa.window.next_id += 1
        for data in self.feed(you, octets, sa.local, sa.remote):
            if read_message(data).header.response:
                return self.open(sa, data)
        return None

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


ADDRESSES = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}
ALICE_KEY = PrivateKey.from_seed(Secret(b"a" * 32))
BOB_KEY = PrivateKey.from_seed(Secret(b"b" * 32))


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    def make(alice: dict[str, Any] | None = None, bob: dict[str, Any] | None = None, **keys: Any) -> Pair:
        start, end = ADDRESSES[keys.pop("family", 4)]
        one = Peer("alice", start, keys.get("alice_key", ALICE_KEY), **(alice or {}))
        two = Peer("bob", end, keys.get("bob_key", BOB_KEY), **(bob or {}))
        one.knows(two)
        two.knows(one)
        return Pair(one, two)

    return make


@pytest.fixture
def pair(make_pair: Callable[..., Pair]) -> Pair:
    return make_pair()


@pytest.fixture
def standing(pair: Pair) -> Pair:
    """A pair with an IKE SA and a Child SA, made by Alice."""
    pair.initiate()
    pair.deliver()
    assert pair.alice.child.spi_in == pair.bob.child.spi_out
    return pair


@pytest.fixture
def make_key() -> Callable[[KeyKind], PrivateKey]:
    return PrivateKey.generate
