"""wire: IPv4 and IPv6 headers, as far as IPsec looks into packets (RFC 791, RFC 8200, RFC 1071, RFC 1624).

The data plane comes here with every packet, so addresses stay octets and values are tuples.
"""

from struct import Struct
from typing import NamedTuple

from hushwire.wire.cursor import DecodeError
from hushwire.wire.registry import IPProtocol

MAX_EXTENSION_HEADERS = 8


class Layout(NamedTuple):
    """Where the parts of a packet are, in octets from its beginning."""

    protocol: int
    """Of the upper layer."""
    protocol_at: int
    """The octet that names the upper layer: the one to overwrite when ESP comes between."""
    upper_at: int
    """The upper layer's first octet."""
    end_at: int
    """The end that the header gives; what follows is padding (RFC 4303 s2.7) and no part of the packet."""
    later_fragment: bool
    """Whether this is a fragment other than the first: its upper layer's header is in another packet."""


class FlowFields(NamedTuple):
    """The selector fields of a packet (RFC 4301 s4.4.1.1); hashable, so that a plane may remember them."""

    source: bytes
    """4 or 16 octets."""
    destination: bytes
    protocol: int
    source_port: int
    """ICMP's type, as Linux has it; 0 in a later fragment and where the protocol has no ports."""
    destination_port: int
    """ICMP's code."""


def read_flow(packet: bytes | memoryview) -> FlowFields:
    """The selector fields of an IPv4 or IPv6 packet."""
    protocol, _, upper_at, end_at, later_fragment = read_layout(packet)
    addresses = slice(12, 16), slice(16, 20)
    if packet[0] >> 4 == 6:
        addresses = slice(8, 24), slice(24, 40)
    source, destination = bytes(packet[addresses[0]]), bytes(packet[addresses[1]])
    layout = None if later_fragment else _PORTS.get(protocol)
    if layout is None:
        return FlowFields(source, destination, protocol, 0, 0)
    if upper_at + layout.size > end_at:
        raise DecodeError(f"{end_at - upper_at} octets of protocol {protocol}", upper_at)
    return FlowFields(source, destination, protocol, *layout.unpack_from(packet, upper_at))


def read_layout(packet: bytes | memoryview) -> Layout:
    """The layout of an IPv4 or IPv6 packet.  Header checksums are left to whoever got it from a wire."""
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        return _layout_4(packet)
    if version == 6:
        return _layout_6(packet)
    raise DecodeError(f"IP version {version}")


def write_header(
    source: bytes,
    destination: bytes,
    protocol: int,
    payload_length: int,
    *,
    hops: int = 64,
    traffic_class: int = 0,
    dont_fragment: bool = True,
    identification: int = 0,
) -> bytes:
    """The header before `payload_length` octets, of the addresses' family.  The last two are IPv4's alone."""
    if len(source) == 16:
        return _IPV6.pack(6 << 28 | traffic_class << 20, payload_length, protocol, hops, source, destination)
    length = _IPV4.size + payload_length
    fragment = _DONT_FRAGMENT * dont_fragment
    fields = 0x45, traffic_class, length, identification, fragment, hops, protocol
    unsummed = _IPV4.pack(*fields, 0, source, destination)
    return _IPV4.pack(*fields, checksum(unsummed), source, destination)


def checksum(octets: bytes | memoryview) -> int:
    """The Internet checksum (RFC 1071); zero over octets that hold their own."""
    return _folded(int.from_bytes(octets, "big") << 8 * (len(octets) & 1))


def updated_checksum(old_sum: int, old: bytes, new: bytes) -> int:
    """The checksum after `old` became `new`, which has the same even length and place (RFC 1624 s3, eqn. 3)."""
    complement = (1 << 8 * len(old)) - 1 - int.from_bytes(old, "big")
    return _folded((0xFFFF - old_sum) + complement + int.from_bytes(new, "big"))


def transport_checksum(source: bytes, destination: bytes, protocol: int, segment: bytes | memoryview) -> int:
    """The checksum of TCP, UDP or ICMPv6 with its pseudo-header (RFC 8200 s8.1; IPv4's has the same sum)."""
    return checksum(b"".join((source, destination, _PSEUDO.pack(len(segment), protocol), segment)))


def _folded(total: int) -> int:
    # 2**16 is 1 modulo 65535, so the one's complement sum of all 16-bit words is the whole number's remainder; but a
    # sum that is not zero folds to 65535, never to 0.
    remainder = total % 0xFFFF
    return 0xFFFF - remainder if remainder or not total else 0


def _layout_4(packet: bytes | memoryview) -> Layout:
    if len(packet) < _IPV4.size:
        raise DecodeError(f"IPv4 packet of {len(packet)} octets")
    upper_at = (packet[0] & 15) * 4
    end_at = packet[2] << 8 | packet[3]
    if not _IPV4.size <= upper_at <= end_at <= len(packet):
        raise DecodeError(f"header of {upper_at} and packet of {end_at} octets in {len(packet)}")
    return Layout(packet[9], 9, upper_at, end_at, bool((packet[6] & 0x1F) | packet[7]))


def _layout_6(packet: bytes | memoryview) -> Layout:
    if len(packet) < _IPV6.size:
        raise DecodeError(f"IPv6 packet of {len(packet)} octets")
    protocol, protocol_at, at = packet[6], 6, _IPV6.size
    end_at = at + (packet[4] << 8 | packet[5])
    if end_at > len(packet):
        raise DecodeError(f"packet of {end_at} octets in {len(packet)}", 4)
    for _ in range(MAX_EXTENSION_HEADERS + 1):
        if protocol not in _EXTENSIONS:
            return Layout(protocol, protocol_at, at, end_at, False)
        if at + 8 > end_at:
            break
        fragment = protocol == IPProtocol.FRAGMENT
        size = 8 if fragment else packet[at + 1] * 8 + 8
        if at + size > end_at:
            break
        protocol, protocol_at = packet[at], at
        if fragment and packet[at + 2] << 8 | packet[at + 3] & 0xF8:
            return Layout(protocol, protocol_at, at + size, end_at, True)
        at += size
    raise DecodeError("extension headers without end", at)


_IPV4 = Struct("!BBHHHBBH4s4s")
_IPV6 = Struct("!IHBB16s16s")
_PSEUDO = Struct("!II")
_DONT_FRAGMENT = 0x4000
_EXTENSIONS = frozenset(
    map(int, (IPProtocol.HOP_BY_HOP, IPProtocol.ROUTING, IPProtocol.FRAGMENT, IPProtocol.DESTINATION_OPTIONS))
)
_TWO_PORTS, _TYPE_CODE = Struct("!HH"), Struct("!BB")
_PORTS: dict[int, Struct] = {
    IPProtocol.TCP: _TWO_PORTS,
    IPProtocol.UDP: _TWO_PORTS,
    IPProtocol.UDP_LITE: _TWO_PORTS,
    IPProtocol.DCCP: _TWO_PORTS,
    IPProtocol.SCTP: _TWO_PORTS,
    IPProtocol.ICMP: _TYPE_CODE,
    IPProtocol.ICMPV6: _TYPE_CODE,
}
