"""The inner IP packet: its flow, and the header transport mode takes off and puts on again (RFC 791, 8200, 3948)."""

import struct
from dataclasses import dataclass
from enum import IntEnum

from hushwire.policy.sad import Direction
from hushwire.policy.selector import Flow
from hushwire.wire.address import IPAddress, address_from_octets


class Protocol(IntEnum):
    """IANA protocol numbers that the plane treats each in its own way."""

    HOP_BY_HOP = 0
    IPV4 = 4
    TCP = 6
    UDP = 17
    IPV6 = 41
    ROUTING = 43
    FRAGMENT = 44
    NO_NEXT_HEADER = 59
    DESTINATION_OPTIONS = 60
    SCTP = 132
    UDP_LITE = 136


PORTED = frozenset((Protocol.TCP, Protocol.UDP, Protocol.SCTP, Protocol.UDP_LITE))
_EXTENSIONS = frozenset((Protocol.HOP_BY_HOP, Protocol.ROUTING, Protocol.DESTINATION_OPTIONS))
_EXTENSIONS_AT_MOST = 8
_CHECKSUM_AT: dict[int, int] = {Protocol.TCP: 16, Protocol.UDP: 6}


class Malformed(Exception):
    """These octets are no IP packet."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What an IP packet says of itself."""

    source: IPAddress
    destination: IPAddress
    next_header: int
    """Protocol number of what follows the header that transport mode takes off."""
    header: int
    """Octets of that header: all of an IPv4 header, the fixed part of an IPv6 header."""
    length: int
    """Octets of the whole packet."""
    protocol: int
    """Protocol number of the upper layer; the same as `next_header` unless IPv6 extension headers lie between."""
    source_port: int
    destination_port: int
    """0 where the protocol has no ports, or this is not the first fragment."""
    fragment: bool

    def flow(self, direction: Direction) -> Flow:
        """As seen from the host that sends it (OUT) or receives it (IN)."""
        source, destination = (self.source, self.source_port), (self.destination, self.destination_port)
        local, remote = (source, destination) if direction is Direction.OUT else (destination, source)
        return Flow(local[0], remote[0], self.protocol, local[1], remote[1])


def read_packet(octets: bytes | bytearray | memoryview) -> Packet:
    """Parse an IP packet that is all there; what follows its end (link padding) is not counted.  Raises Malformed."""
    view = memoryview(octets)
    if not view:
        raise Malformed("empty")
    version = view[0] >> 4
    if version == 4:
        return _read_ipv4(view)
    if version == 6:
        return _read_ipv6(view)
    raise Malformed(f"IP version {version}")


def _read_ipv4(view: memoryview) -> Packet:
    header = (view[0] & 15) * 4
    if header < 20 or len(view) < header:
        raise Malformed("IPv4 header")
    length, fragment, protocol = struct.unpack_from(">2xH2xHxB", view)
    if not header <= length <= len(view):
        raise Malformed("IPv4 total length")
    offset = fragment & 0x1FFF
    ports = _ports(view[header:length], protocol) if not offset else (0, 0)
    addresses = address_from_octets(bytes(view[12:16])), address_from_octets(bytes(view[16:20]))
    return Packet(*addresses, protocol, header, length, protocol, *ports, bool(offset or fragment & 0x2000))


def _read_ipv6(view: memoryview) -> Packet:
    if len(view) < 40:
        raise Malformed("IPv6 header")
    payload, next_header = struct.unpack_from(">4xHB", view)
    length = 40 + payload
    if length > len(view):
        raise Malformed("IPv6 payload length")
    protocol, at, fragment, first = next_header, 40, False, True
    for _ in range(_EXTENSIONS_AT_MOST):
        if protocol in _EXTENSIONS:
            size = (view[at + 1] + 1) * 8 if at + 2 <= length else 8
        elif protocol == Protocol.FRAGMENT:
            size, fragment = 8, True
            first = at + 8 <= length and not struct.unpack_from(">H", view, at + 2)[0] & 0xFFF8
        else:
            break
        if at + size > length:
            raise Malformed("IPv6 extension header")
        protocol, at = view[at], at + size
        if not first:
            break
    ports = _ports(view[at:length], protocol) if first else (0, 0)
    addresses = address_from_octets(bytes(view[8:24])), address_from_octets(bytes(view[24:40]))
    return Packet(*addresses, next_header, 40, length, protocol, *ports, fragment)


def _ports(upper: memoryview, protocol: int) -> tuple[int, int]:
    if protocol not in PORTED or len(upper) < 4:
        return 0, 0
    source, destination = struct.unpack_from(">HH", upper)
    return source, destination


VNET = 10
"""Octets of the virtio-net header that a TUN with IFF_VNET_HDR puts before each packet."""
_KEY4, _KEY6 = struct.Struct(">B5xHxB2x8s4s"), struct.Struct(">B5xBx32s4s")
_SPLIT4, _SPLIT6 = struct.Struct(">H8xB5xHxB2x8s"), struct.Struct(">H8xB5xBx32s")
_OFFLOADS, _PORTS = struct.Struct(">H"), struct.Struct("4s")
FlowKey = tuple[object, ...]


def flow_key(octets: bytes | bytearray | memoryview) -> FlowKey | None:
    """What names the flow of a plain TCP or UDP packet in a cache; None of any other, which is parsed each time."""
    if len(octets) >= 24 and octets[0] == 0x45 and octets[9] in PORTED:
        key = _KEY4.unpack_from(octets)
        return None if key[1] & 0x3FFF else (0, *key)
    if len(octets) >= 44 and octets[0] >> 4 == 6 and octets[6] in PORTED:
        return (0, *_KEY6.unpack_from(octets))
    return None


def split_flow_key(head: memoryview, octets: memoryview, at: int) -> FlowKey:
    """The same of a packet read apart: virtio-net header and all or none of the IP header, and the rest.

    The key of a packet that is not plain, or that comes with work to do in its virtio-net header, is in no cache.
    """
    size = len(head)
    if size == VNET + 20:
        return _SPLIT4.unpack_from(head) + _PORTS.unpack_from(octets, at)
    if size == VNET + 40:
        return _SPLIT6.unpack_from(head) + _PORTS.unpack_from(octets, at)
    return _OFFLOADS.unpack_from(head) + (_KEY4 if octets[at] == 0x45 else _KEY6).unpack_from(octets, at)


class TransportHeader:
    """The IP header of what comes in through one transport mode SA, ready but for its length and protocol.

    RFC 3948 s3.1.2: the outer header ended at the UDP socket, and a NAT may have changed it; so the header is made anew
    from the addresses that the SA is for.
    """

    __slots__ = ("_pseudo", "_sum", "_template", "size")

    def __init__(self, source: IPAddress, destination: IPAddress) -> None:
        pair = source.packed + destination.packed
        self._pseudo = ones_sum(pair)
        if source.version == 4:
            self._template = struct.pack(">BBHHHBBH", 0x45, 0, 0, 0, 0x4000, 64, 0, 0) + pair
            self._sum = ones_sum(self._template)
        else:
            self._template = struct.pack(">IHBB", 6 << 28, 0, 0, 64) + pair
            self._sum = 0
        self.size = len(self._template)

    def write(self, next_header: int, payload: int) -> bytearray:
        """The header of a packet with so many octets after it."""
        header = bytearray(self._template)
        if self.size == 20:
            length = 20 + payload
            struct.pack_into(">H", header, 2, length)
            header[9] = next_header
            struct.pack_into(">H", header, 10, fold(self._sum + length + next_header) ^ 0xFFFF)
        else:
            struct.pack_into(">HB", header, 4, payload, next_header)
        return header

    def pseudo_sum(self, protocol: int, length: int) -> int:
        """The sum of the pseudo-header (RFC 9293 s3.1, RFC 8200 s8.1), not complemented."""
        return fold(self._pseudo + protocol + length)

    def mend_checksum(self, protocol: int, upper: memoryview) -> None:
        """Make the TCP or UDP checksum right for these addresses.

        RFC 3948 s3.1.2: the sender summed over addresses that a NAT has changed since.  An SA does not say what they
        were, so the sum is computed anew; the ICV has vouched for the octets under it.
        """
        at = self.checksum_at(protocol, upper)
        if at is None:
            return
        upper[at : at + 2] = b"\0\0"
        checksum = fold(self.pseudo_sum(protocol, len(upper)) + ones_sum(upper)) ^ 0xFFFF
        struct.pack_into(">H", upper, at, checksum or 0xFFFF)

    @staticmethod
    def checksum_at(protocol: int, upper: memoryview) -> int | None:
        """Where the checksum is that covers the addresses; None if there is none."""
        at = _CHECKSUM_AT.get(protocol)
        if at is None or len(upper) < at + 2:
            return None
        # RFC 768: zero says that the sender made none.
        return None if protocol == Protocol.UDP and not any(upper[6:8]) else at


def ones_sum(octets: bytes | bytearray | memoryview) -> int:
    """The ones' complement sum (RFC 1071): the remainder modulo 0xFFFF, since 0x10000 is 1 there."""
    number = int.from_bytes(octets, "big")
    if len(octets) & 1:
        number <<= 8
    return number % 0xFFFF or (0xFFFF if number else 0)


def fold(total: int) -> int:
    """A sum of 16-bit words in 16 bits."""
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total
