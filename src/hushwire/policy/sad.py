"""The security association database's entries (RFC 4301 s4.4.2), as both planes install them."""

from dataclasses import dataclass
from enum import Enum

from hushwire.crypto.secret import Secret
from hushwire.policy.selector import Selector
from hushwire.wire.address import IPAddress
from hushwire.wire.registry import EncrID, IntegID


class Direction(Enum):
    IN = "in"
    OUT = "out"


class Mode(Enum):
    TRANSPORT = "transport"
    TUNNEL = "tunnel"


@dataclass(frozen=True, slots=True)
class EspSuite:
    """The transforms of an ESP SA (RFC 7296 s3.3.2)."""

    encr: EncrID
    key_bits: int
    """Length of the cipher's key in bits, salt not counted: 128, 192 or 256."""
    integ: IntegID = IntegID.NONE
    """NONE with an AEAD."""
    esn: bool = False
    """64-bit sequence numbers (RFC 4303 s2.2.1)."""

    def __str__(self) -> str:
        integ = f"/{self.integ.name}" if self.integ else ""
        return f"{self.encr.name}-{self.key_bits}{integ}{'/ESN' if self.esn else ''}"


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """ESP in UDP (RFC 3948)."""

    source_port: int
    destination_port: int


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When an SA is to be replaced (soft) and when it stops (hard).  0: no such limit."""

    soft_seconds: int = 0
    hard_seconds: int = 0
    soft_bytes: int = 0
    hard_bytes: int = 0
    soft_packets: int = 0
    hard_packets: int = 0


@dataclass(frozen=True, slots=True)
class SA:
    """One direction of a Child SA, keys included."""

    spi: int
    """32 bits, above 255 (RFC 4303 s2.1)."""
    direction: Direction
    source: IPAddress
    """Outer source address."""
    destination: IPAddress
    """Outer destination address."""
    mode: Mode
    suite: EspSuite
    encr_key: Secret
    """Cipher key followed by the AEAD's salt, as KEYMAT gives it (RFC 7296 s2.17, RFC 4106 s8.1)."""
    integ_key: Secret
    """Empty with an AEAD."""
    selector: Selector
    """Inner traffic allowed through it."""
    reqid: int
    """Ties the SA to its policy."""
    lifetime: Lifetime
    encapsulation: Encapsulation | None = None
    replay_window: int = 1024
    """Packets."""
    acquire: int = 0
    """The sequence number of the Acquire that this answers; 0: none."""


@dataclass(frozen=True, slots=True)
class SAName:
    """What names an SA within a host (RFC 4301 s4.1)."""

    spi: int
    destination: IPAddress
