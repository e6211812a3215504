"""Ethernet frames as the lab's relay sees them: what kind of traffic each is, and how one is rewritten."""

from dataclasses import dataclass
from enum import Enum

from hushwire.wire import ip, udp
from hushwire.wire.cursor import DecodeError
from hushwire.wire.registry import ExchangeType, IPProtocol

PACKET_AT = 14
"""Where the packet begins: after two addresses and a type."""
MAX_FRAGMENTED = 256
"""Packets in fragments that are remembered."""


class Kind(Enum):
    """What a frame carries.  A packet that is not recognised as something else is clear."""

    ESP = "esp"
    """Protocol 50, or in UDP (RFC 3948)."""
    IKE = "ike"
    KEEPALIVE = "keepalive"
    """Of a NAT's mapping: one octet to port 4500."""
    DNS = "dns"
    NEIGHBOUR = "neighbour"
    """ARP, neighbour discovery (RFC 4861) and multicast listeners (RFC 3810): never protected."""
    CLEAR = "clear"
    """All other IP."""
    OTHER = "other"
    """Not IP."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame on its way."""

    octets: bytes
    """From the destination's MAC address on."""
    source: str
    """The host whose interface sent it."""
    kind: Kind
    payload_at: int = 0
    """Where the UDP payload begins; 0 when it is no UDP, or a later fragment."""
    packet_end: int = 0
    """Where the IP packet ends."""

    @property
    def payload(self) -> bytes:
        """Of UDP; empty when it is none."""
        return self.octets[self.payload_at : self.packet_end] if self.payload_at else b""

    @property
    def ike(self) -> bytes:
        """The IKE message, without the marker that port 4500 puts before it; empty when it is none."""
        if self.kind != Kind.IKE:
            return b""
        ports = udp.read_header(self.octets[self.payload_at - udp.HEADER_SIZE :])
        return self.payload[4:] if udp.NAT_PORT in (ports.source_port, ports.destination_port) else self.payload

    @property
    def exchange(self) -> ExchangeType | None:
        """Of the IKE message."""
        message = self.ike
        return ExchangeType(message[18]) if len(message) > 18 else None

    @property
    def is_response(self) -> bool:
        """Whether the IKE message has the R flag (RFC 7296 s3.1)."""
        message = self.ike
        return len(message) > 19 and bool(message[19] & 0x20)

    def with_payload(self, payload: bytes) -> bytes:
        """The frame with another UDP payload, of any length, its lengths and checksums right."""
        if not self.payload_at:
            raise ValueError("no UDP to rewrite")
        upper_at = self.payload_at - udp.HEADER_SIZE
        header = bytearray(self.octets[PACKET_AT:upper_at])
        length = udp.HEADER_SIZE + len(payload)
        if header[0] >> 4 == 4:
            addresses = bytes(header[12:16]), bytes(header[16:20])
            header[2:4] = (len(header) + length).to_bytes(2, "big")
            header[10:12] = bytes(2)
            header[10:12] = ip.checksum(bytes(header)).to_bytes(2, "big")
        else:
            addresses = bytes(header[8:24]), bytes(header[24:40])
            header[4:6] = (len(header) - 40 + length).to_bytes(2, "big")
        ports = udp.read_header(self.octets[upper_at:])
        datagram = udp.write_datagram(*addresses, ports.source_port, ports.destination_port, payload)
        return self.octets[:PACKET_AT] + bytes(header) + datagram

    def replaced(self, old: bytes, new: bytes) -> bytes:
        """The frame with `new` for the first `old` behind the IP header: of any length in UDP, else of the same."""
        if self.payload_at:
            return self.with_payload(self.payload.replace(old, new, 1))
        if len(old) != len(new):
            raise ValueError("only UDP may change its length")
        upper_at = PACKET_AT + {_IPV4: 20, _IPV6: 40}.get(self.octets[12:14], 0)
        return self.octets[:upper_at] + self.octets[upper_at:].replace(old, new, 1)


class Classifier:
    """Tells frames apart.  It remembers, bounded, what the first fragment of a packet was, for the later ones."""

    def __init__(self) -> None:
        self._fragmented: dict[bytes, Kind] = {}

    def frame(self, octets: bytes, source: str) -> Frame:
        """What a frame from a host is."""
        ethertype = octets[12:14]
        if ethertype == _ARP:
            return Frame(octets, source, Kind.NEIGHBOUR)
        if ethertype not in (_IPV4, _IPV6):
            return Frame(octets, source, Kind.OTHER)
        packet = memoryview(octets)[PACKET_AT:]
        try:
            return self._ip(octets, packet, source)
        except DecodeError:
            return Frame(octets, source, Kind.CLEAR)

    def _ip(self, octets: bytes, packet: memoryview, source: str) -> Frame:
        layout = ip.read_layout(packet)
        identity = _fragment_identity(packet, layout)
        if layout.later_fragment:
            return Frame(octets, source, self._fragmented.get(identity, Kind.CLEAR))
        upper = packet[layout.upper_at : layout.end_at]
        kind, payload_at, packet_end = Kind.CLEAR, 0, PACKET_AT + layout.end_at
        match layout.protocol:
            case IPProtocol.ESP:
                kind = Kind.ESP
            case IPProtocol.UDP if len(upper) >= udp.HEADER_SIZE:
                kind = _udp(upper)
                payload_at = PACKET_AT + layout.upper_at + udp.HEADER_SIZE
            case IPProtocol.TCP if len(upper) >= 4 and 53 in (upper[0] << 8 | upper[1], upper[2] << 8 | upper[3]):
                kind = Kind.DNS
            case IPProtocol.ICMPV6 if upper and upper[0] in _NEIGHBOUR_MESSAGES:
                kind = Kind.NEIGHBOUR
        if identity:
            if len(self._fragmented) >= MAX_FRAGMENTED:
                del self._fragmented[next(iter(self._fragmented))]
            self._fragmented[identity] = kind
        return Frame(octets, source, kind, payload_at, packet_end)


def _udp(datagram: memoryview) -> Kind:
    """What a UDP datagram is, by its ports."""
    ports = {datagram[0] << 8 | datagram[1], datagram[2] << 8 | datagram[3]}
    if udp.NAT_PORT in ports:
        try:
            return _TRAFFIC[udp.classify(datagram[udp.HEADER_SIZE :])]
        except DecodeError:
            return Kind.CLEAR
    if udp.IKE_PORT in ports:
        return Kind.IKE
    return Kind.DNS if 53 in ports else Kind.CLEAR


def _fragment_identity(packet: memoryview, layout: ip.Layout) -> bytes:
    """What all fragments of one packet have in common; empty for a whole packet."""
    if packet[0] >> 4 == 4:
        fragmented = packet[6] & 0x3F or packet[7]
        return bytes(packet[12:20]) + bytes(packet[4:6]) if fragmented else b""
    # A Fragment header other than the last extension header is not looked for: no host here sends one.
    if packet[6] == IPProtocol.FRAGMENT:
        return bytes(packet[8:40]) + bytes(packet[44:48])
    return b""


_ARP, _IPV4, _IPV6 = b"\x08\x06", b"\x08\x00", b"\x86\xdd"
_NEIGHBOUR_MESSAGES = frozenset((*range(130, 138), 143))
_TRAFFIC = {udp.Traffic.ESP: Kind.ESP, udp.Traffic.IKE: Kind.IKE, udp.Traffic.KEEPALIVE: Kind.KEEPALIVE}
