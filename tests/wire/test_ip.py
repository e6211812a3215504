"""IPv4 and IPv6 headers, and the Internet checksum."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.wire.cursor import DecodeError
from hushwire.wire.ip import (
    FlowFields,
    Layout,
    checksum,
    read_flow,
    read_layout,
    transport_checksum,
    updated_checksum,
    write_header,
)
from hushwire.wire.registry import IPProtocol

A4, B4 = IPv4Address("192.0.2.1").packed, IPv4Address("198.51.100.2").packed
A6, B6 = IPv6Address("2001:db8::1").packed, IPv6Address("2001:db8::2").packed
PORTS = b"\x01\xf4\x11\x94"  # 500 and 4500.


def packet_6(first: int, body: bytes) -> bytes:
    return write_header(A6, B6, first, len(body)) + body


def extension(following: int, size: int = 8) -> bytes:
    return bytes((following, size // 8 - 1)) + bytes(size - 2)


def fragment(following: int, offset: int, more: bool) -> bytes:
    return bytes((following, 0)) + (offset * 8 | more).to_bytes(2, "big") + bytes(4)


# --- Headers --------------------------------------------------------------------------------------------------------


def test_a_golden_ipv4_header() -> None:
    octets = write_header(A4, B4, IPProtocol.ESP, 100, hops=63, traffic_class=0xB8, identification=7)
    assert octets == (
        b"\x45\xb8\x00\x78"  # Version 4, five words; EF; 120 octets.
        b"\x00\x07\x40\x00"  # Identification 7, DF.
        b"\x3f\x32\x4e\x5e"  # 63 hops, ESP, the checksum.
        b"\xc0\x00\x02\x01\xc6\x33\x64\x02"
    )
    assert checksum(octets) == 0
    assert write_header(A4, B4, 6, 0, dont_fragment=False)[6:8] == b"\x00\x00"


def test_a_golden_ipv6_header() -> None:
    assert write_header(A6, B6, IPProtocol.UDP, 100, hops=1, traffic_class=0xB8) == (
        b"\x6b\x80\x00\x00\x00\x64\x11\x01" + A6 + B6  # Version 6, EF, no flow label; 100 octets after it; UDP; 1 hop.
    )


@pytest.mark.parametrize("wrap", [bytes, memoryview])
def test_the_flow_of_a_packet(wrap: Callable[[bytes], bytes | memoryview]) -> None:
    packet = wrap(write_header(A4, B4, IPProtocol.UDP, 4) + PORTS)
    assert read_flow(packet) == FlowFields(A4, B4, 17, 500, 4500)
    assert hash(read_flow(packet)) == hash(FlowFields(A4, B4, 17, 500, 4500))
    assert read_layout(packet) == Layout(17, 9, 20, 24, False)
    packet = wrap(packet_6(IPProtocol.TCP, PORTS))
    assert read_flow(packet) == FlowFields(A6, B6, 6, 500, 4500)
    assert read_layout(packet) == Layout(6, 6, 40, 44, False)


@pytest.mark.parametrize("protocol", [6, 17, 33, 132, 136])
def test_protocols_with_ports(protocol: int) -> None:
    assert read_flow(write_header(A4, B4, protocol, 4) + PORTS)[2:] == (protocol, 500, 4500)
    with pytest.raises(DecodeError, match=f"3 octets of protocol {protocol}"):
        read_flow(write_header(A4, B4, protocol, 3) + PORTS)


def test_icmp_has_type_and_code_and_others_have_nothing() -> None:
    assert read_flow(write_header(A4, B4, IPProtocol.ICMP, 2) + b"\x03\x04")[2:] == (1, 3, 4)
    assert read_flow(packet_6(IPProtocol.ICMPV6, b"\x80\x00"))[2:] == (58, 128, 0)
    assert read_flow(packet_6(IPProtocol.ESP, PORTS))[2:] == (50, 0, 0)
    assert read_flow(packet_6(IPProtocol.NO_NEXT_HEADER, b""))[2:] == (59, 0, 0)
    with pytest.raises(DecodeError):
        read_flow(packet_6(IPProtocol.ICMPV6, b"\x80"))


def test_ipv4_options_are_passed_over() -> None:
    packet = bytearray(write_header(A4, B4, IPProtocol.UDP, 8) + b"\x94\x04\x00\x00" + PORTS)
    packet[0] = 0x46
    assert read_flow(bytes(packet)) == FlowFields(A4, B4, 17, 500, 4500)
    assert read_layout(packet).upper_at == 24


def test_padding_after_the_packet_is_no_part_of_it() -> None:
    assert read_layout(write_header(A4, B4, 6, 4) + PORTS + bytes(9)).end_at == 24
    assert read_layout(packet_6(6, PORTS) + bytes(9)).end_at == 44


@pytest.mark.parametrize(("octets", "later"), [(b"\x20\x00", False), (b"\x00\x01", True), (b"\x3f\x00", True)])
def test_ipv4_fragments(octets: bytes, later: bool) -> None:
    packet = write_header(A4, B4, IPProtocol.UDP, 4) + PORTS
    packet = packet[:6] + octets + packet[8:]
    assert read_layout(packet).later_fragment is later
    assert read_flow(packet)[2:] == ((17, 0, 0) if later else (17, 500, 4500))


def test_ipv6_fragments() -> None:
    first = packet_6(44, fragment(17, 0, True) + PORTS)
    assert read_layout(first) == Layout(17, 40, 48, 52, False)
    assert read_flow(first)[2:] == (17, 500, 4500)
    later = packet_6(44, fragment(17, 1, False) + PORTS)
    assert read_layout(later) == Layout(17, 40, 48, 52, True)
    assert read_flow(later)[2:] == (17, 0, 0)


def test_ipv6_extension_headers_are_walked() -> None:
    body = extension(60) + extension(43, 24) + extension(44, 16) + fragment(6, 0, False) + PORTS
    packet = packet_6(0, body)
    assert read_layout(packet) == Layout(6, 40 + 48, 40 + 56, 40 + 60, False)
    assert read_flow(packet)[2:] == (6, 500, 4500)


def test_ipv6_extension_headers_are_bounded() -> None:
    assert read_flow(packet_6(60, extension(60) * 7 + extension(6) + PORTS)).protocol == 6
    with pytest.raises(DecodeError, match="without end"):
        read_flow(packet_6(60, extension(60) * 8 + extension(6) + PORTS))


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x50" + bytes(60),
        write_header(A4, B4, 6, 0)[:19],
        b"\x44" + write_header(A4, B4, 6, 0)[1:],
        b"\x4f" + write_header(A4, B4, 6, 0)[1:],
        write_header(A4, B4, 6, 1),
        write_header(A6, B6, 6, 0)[:39],
        write_header(A6, B6, 6, 1),
        packet_6(0, bytes(7)),
        packet_6(0, b"\x06\x01" + bytes(6)),
        packet_6(0, b"\x06\xff" + bytes(60)),
        packet_6(44, bytes(7)),
    ],
)
def test_crooked_packets(packet: bytes) -> None:
    with pytest.raises(DecodeError):
        read_layout(packet)


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x45\x00\x00\x30", b"\x60\0\0\0\0\x20\x2b"]))
def test_any_octets_are_a_flow_or_a_decode_error(octets: bytes, beginning: bytes) -> None:
    packet = beginning + octets
    try:
        layout = read_layout(packet)
        flow = read_flow(packet)
    except DecodeError:
        return
    assert layout.protocol_at < layout.upper_at <= layout.end_at <= len(packet)
    assert packet[layout.protocol_at] == layout.protocol == flow.protocol
    assert flow.source in packet


# --- Checksums ------------------------------------------------------------------------------------------------------


def slow_checksum(octets: bytes) -> int:
    """RFC 1071 s4.1, word by word."""
    total = 0
    padded = octets + bytes(len(octets) % 2)
    for at in range(0, len(padded), 2):
        total += padded[at] << 8 | padded[at + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def test_golden_checksums() -> None:
    # RFC 1071 s3's example: the words sum to 0xddf2.
    assert checksum(b"\x00\x01\xf2\x03\xf4\xf5\xf6\xf7") == 0xDDF2 ^ 0xFFFF
    assert checksum(b"") == checksum(bytes(20)) == 0xFFFF
    assert checksum(b"\xff" * 20) == 0
    assert checksum(memoryview(b"\x01")) == 0xFEFF


@given(st.binary(max_size=80) | st.integers(0, 40).map(lambda size: b"\xff" * size))
def test_the_checksum_is_rfc_1071s(octets: bytes) -> None:
    assert checksum(octets) == slow_checksum(octets)


@given(st.data())
def test_an_updated_checksum_is_that_of_the_whole(data: st.DataObject) -> None:
    words = st.sampled_from([b"\x00\x00", b"\xff\xff", b"\x12\x34"]) | st.binary(min_size=2, max_size=2)
    many = st.lists(words, min_size=1, max_size=8).map(b"".join)
    before, old, after = data.draw(many), data.draw(many), data.draw(many)
    new = data.draw(st.binary(min_size=len(old), max_size=len(old)))
    # Something is not zero, as in every IP packet: a sum of nothing but zeros has two complements (RFC 1624 s3).
    before = b"\x45\x00" + before
    assert updated_checksum(checksum(before + old + after), old, new) == checksum(before + new + after)


def test_rfc_1624_s4() -> None:
    assert updated_checksum(0xDD2F, b"\x55\x55", b"\x32\x85") == 0x0000


@pytest.mark.parametrize(("source", "destination", "pseudo"), [(A4, B4, "!4s4sxBH"), (A6, B6, "!16s16sI3xB")])
def test_the_pseudo_header(source: bytes, destination: bytes, pseudo: str) -> None:
    segment = b"odd octets!"
    lengths = (17, len(segment)) if len(source) == 4 else (len(segment), 17)
    by_the_book = pack(pseudo, source, destination, *lengths) + segment
    assert transport_checksum(source, destination, 17, segment) == slow_checksum(by_the_book)
