"""Before authentication: half-open IKE SAs, bounded per source and in total, and cookies (RFC 7296 s2.6, RFC 8019)."""

import hmac
from typing import TYPE_CHECKING

from hushwire.entropy import Entropy
from hushwire.timers import Now
from hushwire.wire.address import Endpoint, IPAddress

if TYPE_CHECKING:
    from hushwire.ike.sa import IkeSA

SECRET_LIFE = 60.0
"""Seconds a cookie secret is new; its cookies are good for as long again."""


class HalfOpen:
    """The IKE SAs whose peers have proved nothing yet, by what an IKE_SA_INIT request can be told from."""

    def __init__(self) -> None:
        self._by_request: dict[tuple[bytes, Endpoint], IkeSA] = {}
        self._per_source: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._by_request)

    def find(self, spi_i: bytes, remote: Endpoint) -> "IkeSA | None":
        """The IKE SA that an earlier copy of the request made."""
        return self._by_request.get((spi_i, remote))

    def of_source(self, address: IPAddress) -> int:
        return self._per_source.get(source_prefix(address), 0)

    def add(self, sa: "IkeSA", remote: Endpoint) -> None:
        self._by_request[sa.spi_i, remote] = sa
        source = source_prefix(remote.address)
        self._per_source[source] = self._per_source.get(source, 0) + 1
        sa.half_open_at = remote

    def discard(self, sa: "IkeSA") -> None:
        """The IKE SA was proved, or is gone."""
        remote, sa.half_open_at = sa.half_open_at, None
        if remote is None or self._by_request.pop((sa.spi_i, remote), None) is None:
            return
        source = source_prefix(remote.address)
        left = self._per_source[source] - 1
        if left:
            self._per_source[source] = left
        else:
            del self._per_source[source]


def source_prefix(address: IPAddress) -> bytes:
    """Whose share a source counts against: an IPv4 address, or an IPv6 /64 since whoever has one has all of it."""
    return address.packed if address.version == 4 else address.packed[:8]


class Cookies:
    """Stateless proof that a peer receives where it says it sends from."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._since = float("-inf")
        self._secret = b""
        self._previous = b""

    def bake(self, spi_i: bytes, nonce: bytes, remote: Endpoint, now: Now) -> bytes:
        """The cookie for this request: 32 octets."""
        self._turn(now)
        return _cookie(self._secret, spi_i, nonce, remote)

    def accepts(self, cookie: bytes, spi_i: bytes, nonce: bytes, remote: Endpoint, now: Now) -> bool:
        """Whether we baked it for this very request, lately (ATTACKS row 12)."""
        self._turn(now)
        return any(
            secret != b"" and hmac.compare_digest(cookie, _cookie(secret, spi_i, nonce, remote))
            for secret in (self._secret, self._previous)
        )

    def _turn(self, now: Now) -> None:
        age = now.monotonic - self._since
        if age >= SECRET_LIFE:
            self._previous = self._secret if age < 2 * SECRET_LIFE else b""
            self._secret, self._since = self._entropy.private(32), now.monotonic


def _cookie(secret: bytes, spi_i: bytes, nonce: bytes, remote: Endpoint) -> bytes:
    # RFC 7296 s2.6: over Ni, IPi and SPIi; the port too, since a NAT that changes it makes another peer.
    # The family says where the address ends and the nonce begins.
    place = remote.port.to_bytes(2) + bytes([remote.address.version]) + remote.address.packed
    octets = spi_i + place + nonce
    return hmac.digest(secret, octets, "sha256")
