"""wire: UDP, and what comes to IPsec's two ports in it (RFC 768, RFC 3948 s2)."""

from enum import Enum
from struct import Struct
from typing import NamedTuple

from hushwire.wire.cursor import DecodeError
from hushwire.wire.ip import transport_checksum
from hushwire.wire.registry import IPProtocol

IKE_PORT = 500
NAT_PORT = 4500
NON_ESP_MARKER = bytes(4)
"""Stands before an IKE message on port 4500, where an ESP packet has its SPI, which is never zero."""
KEEPALIVE = b"\xff"
"""The whole payload of a NAT-keepalive packet."""
HEADER_SIZE = 8


class Traffic(Enum):
    """What a datagram on port 4500 is."""

    IKE = "IKE"
    ESP = "ESP"
    KEEPALIVE = "keepalive"


class UdpHeader(NamedTuple):
    source_port: int
    destination_port: int
    length: int
    """Octets, the header's eight included."""
    checksum: int
    """0: none was sent."""


def classify(datagram: bytes | memoryview) -> Traffic:
    """What came to port 4500."""
    if len(datagram) >= 4:
        return Traffic.IKE if datagram[:4] == NON_ESP_MARKER else Traffic.ESP
    if datagram == KEEPALIVE:
        return Traffic.KEEPALIVE
    raise DecodeError(f"datagram of {len(datagram)} octets")


def read_header(segment: bytes | memoryview) -> UdpHeader:
    """The UDP header at the beginning of an IP packet's upper layer."""
    if len(segment) < HEADER_SIZE:
        raise DecodeError(f"UDP in {len(segment)} octets")
    header = UdpHeader._make(_HEADER.unpack_from(segment))
    if not HEADER_SIZE <= header.length <= len(segment):
        raise DecodeError(f"UDP of {header.length} octets in {len(segment)}", 4)
    return header


def write_datagram(source: bytes, destination: bytes, source_port: int, destination_port: int, payload: bytes) -> bytes:
    """Header and payload, summed with the pseudo-header of the two addresses."""
    fields = source_port, destination_port, HEADER_SIZE + len(payload)
    total = transport_checksum(source, destination, IPProtocol.UDP, _HEADER.pack(*fields, 0) + payload)
    # RFC 768: a checksum of zero is sent as 65535, because zero says that there is none.
    return _HEADER.pack(*fields, total or 0xFFFF) + payload


_HEADER = Struct("!HHHH")
