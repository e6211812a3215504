"""What an administrator may set about IKE, with the defaults that a host without an administrator should have."""

from dataclasses import dataclass, field

from hushwire.crypto.keys import PublicKey
from hushwire.ike.proposals import EspOffer, IkeOffer
from hushwire.policy.pad import Identity
from hushwire.wire.registry import EncrID, EsnID, IntegID, KeID, PrfID

_AEADS = (
    (EncrID.AES_GCM_16, 256),
    (EncrID.AES_GCM_16, 128),
    (EncrID.CHACHA20_POLY1305, 256),
)
_CBCS = ((EncrID.AES_CBC, 256), (EncrID.AES_CBC, 128))
_PRFS = (PrfID.HMAC_SHA2_256, PrfID.HMAC_SHA2_384, PrfID.HMAC_SHA2_512)
_INTEGS = (IntegID.HMAC_SHA2_256_128, IntegID.HMAC_SHA2_384_192, IntegID.HMAC_SHA2_512_256)
_GROUPS = (
    KeID.CURVE25519,
    KeID.ECP_256,
    KeID.ECP_384,
    KeID.ECP_521,
    KeID.CURVE448,
    KeID.MODP_3072,
    KeID.MODP_4096,
    KeID.MODP_2048,
)
_ESNS = (EsnID.ESN, EsnID.NO_ESN)

IKE_OFFERS = (IkeOffer(_AEADS, (), _PRFS, _GROUPS), IkeOffer(_CBCS, _INTEGS, _PRFS, _GROUPS))
# A fresh key exchange is liked; some daemons, as they come, rekey a Child SA without one (RFC 7296 s1.3.1).
_REKEY_GROUPS = (*_GROUPS, KeID.NONE)
ESP_OFFERS = (EspOffer(_AEADS, (), _ESNS, _REKEY_GROUPS), EspOffer(_CBCS, _INTEGS, _ESNS, _REKEY_GROUPS))


@dataclass(frozen=True, slots=True)
class Settings:
    """Times are in seconds."""

    identity: Identity
    """What we say we are."""
    key: PublicKey | None
    """The public half of what the keeper signs with; None with shared keys only."""
    ike_offers: tuple[IkeOffer, ...] = IKE_OFFERS
    esp_offers: tuple[EspOffer, ...] = ESP_OFFERS
    encapsulate: bool = False
    """Ask for ESP in UDP without a NAT, as the userspace plane needs."""
    ike_port: int = 500
    nat_port: int = 4500
    ike_lifetime: float = 4 * 3600.0
    """Until an IKE SA is rekeyed; it is closed a tenth later."""
    child_lifetime: float = 3600.0
    """Until a Child SA is rekeyed; the plane drops it a tenth later."""
    child_packets: int = 1 << 31
    """Until a Child SA is rekeyed; it stops at twice that, before a 32-bit sequence number wraps (RFC 4303 s3.3.3)."""
    liveness: float = 30.0
    """Of silence from the peer, before we ask whether it is there (RFC 7296 s2.4)."""
    retransmit: tuple[float, ...] = field(default=(0.5, 1.0, 2.0, 4.0, 8.0, 8.0))
    """Waits before each retransmission, and after the last before we give up."""
    keepalive: float = 20.0
    """Between the octets that keep a NAT's mapping (RFC 3948 s4)."""
    half_open: float = 10.0
    """Life of an IKE SA whose peer has not yet proved anything."""
    patience: float = 30.0
    """Seconds that the keeper, the plane and the Node have to answer an IKE SA, before it is given up."""
    cookie_threshold: int = 30
    """Half-open IKE SAs from which everybody is asked for a cookie (RFC 7296 s2.6)."""
    half_open_per_source: int = 5
    """Half-open IKE SAs of one IPv4 address or IPv6 /64."""
    half_open_total: int = 10_000
    replay_window: int = 1024
    """Packets."""
