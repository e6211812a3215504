"""Child SAs: from negotiated values and KEYMAT to what a plane installs (RFC 7296 s2.17)."""

from dataclasses import dataclass

from hushwire.crypto.prf import ChildKeys
from hushwire.crypto.secret import Secret
from hushwire.ike.proof import Authenticated
from hushwire.policy.sad import SA, Direction, Encapsulation, EspSuite, Lifetime, Mode, SAName
from hushwire.policy.selector import Selector
from hushwire.wire.address import Endpoint

AEAD_BYTES = 1 << 40
"""Octets under one key until it is replaced: far within what AES-GCM bears with 64-bit nonces."""


@dataclass(slots=True, eq=False)
class ChildSA:
    """A pair of ESP SAs and where it stands in its life."""

    inbound: SA
    outbound: SA
    initiated: bool
    """Whether this host initiated the exchange that made it."""
    nonces: tuple[bytes, bytes]
    """Of that exchange; they decide which of two that were made at once stays (RFC 7296 s2.8.1)."""
    created: float
    """Monotonic seconds."""
    rekey_at: float
    """Monotonic seconds."""
    rekeying: bool = False
    """An exchange of ours that replaces it is under way or queued."""
    successor: "ChildSA | None" = None
    """What the peer's rekey of this one made."""
    outbound_waits: bool = False
    """The outbound SA is installed when the predecessor goes, so that nothing is sent before the peer can open it."""

    @property
    def spi_in(self) -> bytes:
        return self.inbound.spi.to_bytes(4)

    @property
    def spi_out(self) -> bytes:
        return self.outbound.spi.to_bytes(4)

    @property
    def names(self) -> tuple[SAName, SAName]:
        """Of both directions, as the plane knows them."""
        return (
            SAName(self.inbound.spi, self.inbound.destination),
            SAName(self.outbound.spi, self.outbound.destination),
        )

    @property
    def selector(self) -> Selector:
        return self.inbound.selector

    @property
    def mode(self) -> Mode:
        return self.inbound.mode


@dataclass(frozen=True, slots=True)
class ChildTerms:
    """What the two ends agreed on for a Child SA."""

    suite: EspSuite
    selector: Selector
    mode: Mode
    spi_in: bytes
    """4 octets, ours."""
    spi_out: bytes
    """4 octets, the peer's."""
    nonces: tuple[bytes, bytes]
    initiated: bool


def build(
    proof: Authenticated,
    terms: ChildTerms,
    keys: ChildKeys,
    path: tuple[Endpoint, Endpoint],
    lifetimes: tuple[float, int],
    *,
    encapsulated: bool,
    replay_window: int,
    now: float,
    rekey_at: float,
    acquire: int = 0,
) -> ChildSA:
    """The pair of SAs for an authenticated peer.  `path` is (local, remote); `lifetimes` seconds and packets."""
    local, remote = path
    seconds, packets = lifetimes
    # RFC 7296 s2.17: the first keys are of the SA from the exchange's initiator to its responder.
    forth, back = (keys.encr_i, keys.integ_i), (keys.encr_r, keys.integ_r)
    out_keys, in_keys = (forth, back) if terms.initiated else (back, forth)
    # The plane's own limit stands behind the IKE SA's timer, which normally comes first.
    life = Lifetime(
        int(1.05 * seconds) + 1, int(1.1 * seconds) + 2, AEAD_BYTES, 2 * AEAD_BYTES, packets, 2 * packets - 1
    )

    def direction(
        way: Direction, spi: bytes, source: Endpoint, destination: Endpoint, keys: tuple[Secret, Secret]
    ) -> SA:
        encr, integ = keys
        return SA(
            int.from_bytes(spi), way, source.address, destination.address, terms.mode, terms.suite, encr, integ,
            terms.selector, proof.entry.reqid, life,
            Encapsulation(source.port, destination.port) if encapsulated else None, replay_window, acquire,
        )  # fmt: skip

    return ChildSA(
        direction(Direction.IN, terms.spi_in, remote, local, in_keys),
        direction(Direction.OUT, terms.spi_out, local, remote, out_keys),
        terms.initiated,
        terms.nonces,
        now,
        rekey_at,
    )
