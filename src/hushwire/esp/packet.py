"""The inner IP packet: its flow, and the header transport mode takes off and puts on again (RFC 791, 8200, 3948)."""

import struct
from dataclasses import dataclass

from hushwire.policy.sad import Direction
from hushwire.policy.selector import Flow
from hushwire.wire import ip
from hushwire.wire.address import IPAddress, address_from_octets
from hushwire.wire.registry import IPProtocol

Octets = bytes | bytearray | memoryview
PORTED = frozenset(map(int, (IPProtocol.TCP, IPProtocol.UDP, IPProtocol.SCTP, IPProtocol.UDP_LITE)))
"""Protocols whose flows are told apart by their first four octets."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What an IP packet says of itself."""

    fields: ip.FlowFields
    next_header: int
    """Protocol number of what follows the header that transport mode takes off."""
    header: int
    """Octets of that header: all of an IPv4 header, the fixed part of an IPv6 header."""
    length: int
    """Octets of the whole packet."""
    fragment: bool

    @property
    def version(self) -> int:
        return 4 if len(self.fields.source) == 4 else 6

    def flow(self, direction: Direction) -> Flow:
        """As seen from the host that sends it (OUT) or receives it (IN)."""
        source, destination = address_from_octets(self.fields.source), address_from_octets(self.fields.destination)
        _, _, protocol, source_port, destination_port = self.fields
        if direction is Direction.OUT:
            return Flow(source, destination, protocol, source_port, destination_port)
        return Flow(destination, source, protocol, destination_port, source_port)


def read_packet(octets: bytes | memoryview) -> Packet:
    """Parse an IP packet that is all there; what follows its end is not counted.  Raises DecodeError."""
    layout, fields = ip.read_layout(octets), ip.read_flow(octets)
    if octets[0] >> 4 == 4:
        fragment = bool(octets[6] & 0x3F or octets[7])
        return Packet(fields, layout.protocol, layout.upper_at, layout.end_at, fragment)
    return Packet(fields, octets[6], 40, layout.end_at, octets[6] == IPProtocol.FRAGMENT)


VNET = 10
"""Octets of the virtio-net header that a TUN with IFF_VNET_HDR puts before each packet."""
_KEY4, _KEY6 = struct.Struct(">B5xHxB2x8s4s"), struct.Struct(">B5xBx32s4s")
_SPLIT4, _SPLIT6 = struct.Struct(">H8xB5xHxB2x8s"), struct.Struct(">H8xB5xBx32s")
_OFFLOADS, _PORTS = struct.Struct(">H"), struct.Struct("4s")
FlowKey = tuple[object, ...]


def flow_key(octets: Octets) -> FlowKey | None:
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
    """The IP header of what comes in through one transport mode SA.

    RFC 3948 s3.1.2: the outer header ended at the UDP socket, and a NAT may have changed it; so the header is made anew
    from the addresses that the SA is for.
    """

    __slots__ = ("_destination", "_source", "_sum", "size")

    def __init__(self, source: IPAddress, destination: IPAddress) -> None:
        self._source, self._destination = source.packed, destination.packed
        self._sum = int.from_bytes(self._source + self._destination, "big")
        self.size = 20 if source.version == 4 else 40

    def write(self, next_header: int, payload: int) -> bytes:
        """The header of a packet with so many octets after it."""
        return ip.write_header(self._source, self._destination, next_header, payload)

    def pseudo_sum(self, protocol: int, length: int) -> int:
        """The sum of the pseudo-header (RFC 9293 s3.1, RFC 8200 s8.1), not complemented."""
        return (self._sum + protocol + length) % 0xFFFF or 0xFFFF

    def mend_checksum(self, protocol: int, upper: memoryview) -> None:
        """Make the TCP or UDP checksum right for these addresses.

        RFC 3948 s3.1.2: the sender summed over addresses that a NAT has changed since.  An SA does not say what they
        were, so the sum is computed anew; the ICV has vouched for the octets under it.
        """
        at = checksum_at(protocol, upper)
        if at is not None:
            upper[at : at + 2] = b"\0\0"
            checksum = ip.transport_checksum(self._source, self._destination, protocol, upper)
            struct.pack_into(">H", upper, at, checksum or 0xFFFF)


def checksum_at(protocol: int, upper: memoryview) -> int | None:
    """Where the checksum is that a NAT's addresses go into; None if there is none."""
    at = _CHECKSUM_AT.get(protocol)
    if at is None or len(upper) < at + 2:
        return None
    # RFC 768: zero says that the sender made none.
    return None if protocol == IPProtocol.UDP and not any(upper[6:8]) else at


_CHECKSUM_AT: dict[int, int] = {IPProtocol.TCP: 16, IPProtocol.UDP: 6}
