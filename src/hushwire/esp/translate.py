"""Another address in a packet, for a name-bound one (DESIGN.md law 2; RFC 1624, RFC 3022 s4, RFC 7915 s4.5).

Checksums are updated, not made anew: what was wrong before is wrong after.
"""

from hushwire.wire import ip
from hushwire.wire.cursor import DecodeError
from hushwire.wire.registry import IPProtocol


class Foreign(DecodeError):
    """An ICMP error about a packet between others: whoever sent it has no say there."""


def translate(packet: bytes | memoryview, old: bytes, new: bytes) -> bytes:
    """The packet with `new` as that end of it which is `old`; in what an ICMP error quotes, too.

    Raises DecodeError if it is no packet; Foreign if it quotes one that was not between the same two ends.
    """
    layout = ip.read_layout(packet)
    octets = bytearray(packet)
    far = _replace(octets, old, new)
    if layout.later_fragment:
        return bytes(octets)
    start, protocol = layout.upper_at, layout.protocol
    _mend(octets, start, layout.end_at, protocol, old, new)
    if start < layout.end_at and _is_error(protocol, octets[start]):
        quote = bytes(octets[start + 8 : layout.end_at])
        told = _translated_quote(quote, old, new, far)
        octets[start + 8 : layout.end_at] = told
        _update(octets, start + 2, _even(quote), _even(told))
    return bytes(octets)


def quoted(packet: bytes | memoryview) -> bytes | None:
    """The beginning of the packet that an ICMP error is about; None if this is no such error.  Raises DecodeError."""
    layout = ip.read_layout(packet)
    start = layout.upper_at
    if layout.later_fragment or start >= layout.end_at or not _is_error(layout.protocol, packet[start]):
        return None
    return bytes(packet[start + 8 : layout.end_at])


def mend_sealed(octets: memoryview, start: int, end: int, protocol: int, delta: int) -> None:
    """Update the checksum of a TCP or UDP segment that stands by itself, by what `difference` said of its ends."""
    at = start + _CHECKSUM_AT.get(protocol, end)
    if at + 2 > end:
        return
    was = octets[at] << 8 | octets[at + 1]
    if not was and protocol == IPProtocol.UDP:
        return
    total = (was ^ 0xFFFF) + delta
    total = (total & 0xFFFF) + (total >> 16)
    total = ((total & 0xFFFF) + (total >> 16)) ^ 0xFFFF
    if not total and protocol in _NEVER_ZERO:
        total = 0xFFFF
    octets[at], octets[at + 1] = total >> 8, total & 0xFF


def difference(old: bytes, new: bytes) -> int:
    """By how much a sum of 16-bit words grows when `new` comes for `old` (RFC 1624 s3, eqn. 3)."""
    return (int.from_bytes(new, "big") - int.from_bytes(old, "big")) % 0xFFFF


def _replace(octets: bytearray, old: bytes, new: bytes) -> bytes:
    """Rewrite the end that is `old` in an IP header, its checksum included; the other end's address."""
    at, size = (12, 4) if octets[0] >> 4 == 4 else (8, 16)
    source, destination = slice(at, at + size), slice(at + size, at + 2 * size)
    if len(old) != size or (octets[source] != old and octets[destination] != old):
        raise DecodeError("a packet of others", at)
    mine, other = (source, destination) if octets[source] == old else (destination, source)
    octets[mine] = new
    if size == 4:
        _update(octets, 10, old, new)
    return bytes(octets[other])


def _translated_quote(quote: bytes, old: bytes, new: bytes, far: bytes) -> bytes:
    """The packet that an ICMP error quotes, which may be cut short anywhere."""
    octets = bytearray(quote)
    size = 20 if len(old) == 4 else 40
    if len(octets) < size or octets[0] >> 4 != (4 if size == 20 else 6):
        raise Foreign("an ICMP error that quotes no packet of its own family")
    try:
        other = _replace(octets, old, new)
    except DecodeError:
        raise Foreign("an ICMP error about a packet of others") from None
    if other != far:
        raise Foreign("an ICMP error about a packet of others")
    if size == 20:
        start, protocol = (octets[0] & 15) * 4, octets[9]
        later = (octets[6] & 0x1F) | octets[7]
    else:
        # Behind extension headers the quoted checksum stays as it is: nobody verifies it, nor could.
        start, protocol, later = size, octets[6], 0
    if not later:
        _mend(octets, start, len(octets), protocol, old, new)
    return bytes(octets)


def _mend(octets: bytearray, start: int, end: int, protocol: int, old: bytes, new: bytes) -> None:
    """Update the upper layer's checksum, if the addresses go into it."""
    mend_sealed(memoryview(octets), start, end, protocol, difference(old, new))


def _update(octets: bytearray, at: int, old: bytes, new: bytes) -> None:
    octets[at : at + 2] = ip.updated_checksum(octets[at] << 8 | octets[at + 1], old, new).to_bytes(2, "big")


def _even(octets: bytes) -> bytes:
    return octets + bytes(len(octets) % 2)


def _is_error(protocol: int, kind: int) -> bool:
    """RFC 792, RFC 4443 s2.1: of the ICMP messages, those that quote a packet."""
    return (protocol == IPProtocol.ICMP and kind in _ERRORS) or (protocol == IPProtocol.ICMPV6 and kind < 128)


_ERRORS = frozenset((3, 4, 5, 11, 12))
"""Unreachable, source quench, redirect, time exceeded, parameter problem."""
_CHECKSUM_AT: dict[int, int] = {
    IPProtocol.TCP: 16, IPProtocol.UDP: 6, IPProtocol.UDP_LITE: 6, IPProtocol.DCCP: 6, IPProtocol.ICMPV6: 2,
}  # fmt: skip
"""Where the checksum is that the addresses go into (RFC 9293, 768, 3828, 4340, 8200 s8.1).  SCTP has none such."""
_NEVER_ZERO = frozenset((IPProtocol.UDP, IPProtocol.UDP_LITE))
"""RFC 768, RFC 3828 s3.1: a sum of zero is sent as 0xFFFF, since zero says that there is none."""
