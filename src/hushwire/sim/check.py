"""sim: what must hold after every event, and what must hold in the end (DESIGN.md sections 4 and 5)."""

import hashlib
from collections.abc import Iterator

from hushwire.crypto.suite import ENCR
from hushwire.ike.sa import IkeSA
from hushwire.ike.state import State
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity
from hushwire.policy.sad import SA, Direction, SAName
from hushwire.policy.spd import Action
from hushwire.sim.host import CANARY, Host, Witness
from hushwire.sim.world import Frame, Violation
from hushwire.wire import udp
from hushwire.wire.message import read_message
from hushwire.wire.payload import Encrypted


class Check(Witness):
    """The witness that raises Violation.

    P1: nothing in clear where the rule says block.  P2: nobody is `named` but by a key that its name's owner published.
    P3: no nonce twice under one key.  P4: no packet is delivered twice.  P5: the plane holds the SAs of the Node's
    children, and no other.  P6, in the end: one IKE SA and one Child SA at both ends, with the same keys.
    """

    def __init__(self) -> None:
        self._nonces: dict[tuple[bytes, bytes], bytes] = {}
        self._delivered: set[bytes] = set()

    def sent(self, host: Host, frame: Frame) -> None:
        if CANARY in frame.data and self.closed(host, frame.data):
            raise Violation(f"P1: {host.name} sends an application's packet in clear at {frame.time:.3f}")
        if frame.clear or frame.source.port != host.config.host.nat_port:
            return
        if udp.classify(frame.data) is udp.Traffic.ESP:
            self._check_esp(host, frame)
        else:
            self._check_sealed(host, frame)

    def closed(self, host: Host, packet: bytes) -> bool:
        """Whether an application's packet must not be seen in clear."""
        return any(rule.below is Action.BLOCK for rule in host.config.rules)

    def _check_esp(self, host: Host, frame: Frame) -> None:
        sas = host.installed.get((int.from_bytes(frame.data[:4]), frame.destination.address))
        if not sas:
            raise Violation(f"P3: {host.name} sends ESP of an SA that it never had at {frame.time:.3f}")
        iv = ENCR[sas[-1].suite.encr].iv
        self._check_nonce(host, sas[-1].encr_key.expose(), frame.data[8 : 8 + iv], frame)

    def _check_sealed(self, host: Host, frame: Frame) -> None:
        message = read_message(frame.data[4:])
        sealed = message.payloads[-1] if message.payloads else None
        if isinstance(sealed, Encrypted):
            view = host.views[message.header.spi_i, message.header.spi_r]
            key = view.keys.ei if message.header.initiator else view.keys.er
            self._check_nonce(host, key.expose(), sealed.body[: ENCR[view.suite.encr].iv], frame)

    def _check_nonce(self, host: Host, key: bytes, iv: bytes, frame: Frame) -> None:
        pair = hashlib.blake2b(key, digest_size=16).digest(), iv
        # RFC 7296 s2.1: IKE retransmits to the octet, and the same octets under the same nonce tell nothing new.
        if self._nonces.setdefault(pair, frame.data) != frame.data:
            raise Violation(f"P3: {host.name} uses a nonce twice at {frame.time:.3f}")

    def delivered(self, host: Host, payload: bytes) -> None:
        if payload in self._delivered:
            raise Violation(f"P4: {host.name} gets {payload!r} twice at {host.world.time:.3f}")
        self._delivered.add(payload)

    def stepped(self, host: Host) -> None:
        for sa in host.node.ike.sas:
            if sa.authenticated is not None and sa.authenticated.assurance is Assurance.NAMED:
                key, name = sa.authenticated.verified.public, sa.authenticated.entry.name
                if key is None or key.fingerprint not in host.world.zone.published(name):
                    raise Violation(f"P2: {host.name} takes somebody for {name} at {host.world.time:.3f}")
        if host.under_way == 0 and (difference := host.sad.keys() ^ children(host).keys()):
            spis = ", ".join(f"{name.spi:08x}" for name in sorted(difference, key=lambda name: name.spi))
            raise Violation(f"P5: {host.name}: of plane and Node only one knows {spis} at {host.world.time:.3f}")


def children(host: Host) -> dict[SAName, SA]:
    """What the plane ought to hold, by the Node's Child SAs."""
    return {
        SAName(half.spi, half.destination): half
        for sa in host.node.ike.sas
        for child in sa.children.values()
        for half in ((child.inbound,) if child.outbound_waits else (child.inbound, child.outbound))
    }


def unsettled(alice: Host, bob: Host) -> str:
    """Why P6 does not hold between two hosts now; empty if it does."""
    return next(_faults(alice, bob), "")


def _faults(alice: Host, bob: Host) -> Iterator[str]:
    for host in (alice, bob):
        if not host.up:
            yield f"{host.name} is down"
    ours, theirs = _of(alice, bob), _of(bob, alice)
    for host, sas in ((alice, ours), (bob, theirs)):
        if len(sas) != 1:
            yield f"{host.name} has {len(sas)} IKE SAs: {sas}"
        elif sas[0].state is not State.ESTABLISHED:
            yield f"{host.name} has {sas[0]}"
        elif len(sas[0].children) != 1:
            yield f"{host.name} has {len(sas[0].children)} Child SAs"
    (our, *_), (their, *_) = ours, theirs
    if (our.spi_i, our.spi_r) != (their.spi_i, their.spi_r) or our.initiator is their.initiator:
        yield f"the two have different IKE SAs: {our}, {their}"
    if our.keys != their.keys:
        yield "the two have different keys of their IKE SA"
    if alice.sad.keys() != bob.sad.keys() or len(alice.sad) != 2:
        yield f"the planes hold {len(alice.sad)} and {len(bob.sad)} SAs, not the same two"
    for name, sa in alice.sad.items():
        if not _twins(sa, bob.sad[name]):
            yield f"the two ends of SA {name.spi:08x} differ"
    if sorted(sa.direction.value for sa in alice.sad.values()) != [way.value for way in Direction]:
        yield "the Child SA is no pair"


def _of(host: Host, peer: Host) -> list[IkeSA]:
    identity = Identity.fqdn(peer.name)
    return [sa for sa in host.node.ike.sas if sa.peer is None or sa.peer.identity == identity]


def _twins(one: SA, other: SA) -> bool:
    return (
        (one.encr_key, one.integ_key, one.suite, one.mode, one.source, one.destination)
        == (other.encr_key, other.integ_key, other.suite, other.mode, other.source, other.destination)
        and one.direction is not other.direction
        and (one.selector.local, one.selector.remote) == (other.selector.remote, other.selector.local)
    )
