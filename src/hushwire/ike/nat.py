"""NAT detection (RFC 7296 s2.23)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from hushwire.entropy import Entropy
from hushwire.wire.address import Endpoint
from hushwire.wire.payload import Notify
from hushwire.wire.registry import NotifyType


@dataclass(frozen=True, slots=True)
class Nat:
    """Which ends sit behind a NAT, or say so in order to have ESP in UDP."""

    local: bool = False
    remote: bool = False

    def __bool__(self) -> bool:
        return self.local or self.remote


def detection_hash(spi_i: bytes, spi_r: bytes, endpoint: Endpoint) -> bytes:
    """SHA-1 over SPIs, address and port; it guards nothing, so SHA-1 is no weakness here."""
    octets = spi_i + spi_r + endpoint.address.packed + endpoint.port.to_bytes(2)
    return hashlib.sha1(octets, usedforsecurity=False).digest()


def notifies(spi_i: bytes, spi_r: bytes, local: Endpoint, remote: Endpoint, pretend: Entropy | None) -> list[Notify]:
    """The two notifies to send.  `pretend` draws a source hash that fits nothing, so that the peer takes ESP in UDP."""
    source = pretend.public(20) if pretend else detection_hash(spi_i, spi_r, local)
    return [
        Notify(NotifyType.NAT_DETECTION_SOURCE_IP, source),
        Notify(NotifyType.NAT_DETECTION_DESTINATION_IP, detection_hash(spi_i, spi_r, remote)),
    ]


def detect(received: Sequence[Notify], spi_i: bytes, spi_r: bytes, local: Endpoint, remote: Endpoint) -> Nat | None:
    """What the peer's notifies say; None if it sent none and so cannot traverse NATs."""
    sources = [n.data for n in received if n.type == NotifyType.NAT_DETECTION_SOURCE_IP]
    destinations = [n.data for n in received if n.type == NotifyType.NAT_DETECTION_DESTINATION_IP]
    if not sources or not destinations:
        return None
    return Nat(
        local=detection_hash(spi_i, spi_r, local) not in destinations,
        remote=detection_hash(spi_i, spi_r, remote) not in sources,
    )
