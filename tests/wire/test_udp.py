"""UDP headers and what comes to port 4500."""

import pytest

from hushwire.wire.cursor import DecodeError
from hushwire.wire.ip import transport_checksum
from hushwire.wire.udp import KEEPALIVE, NON_ESP_MARKER, Traffic, UdpHeader, classify, read_header, write_datagram

A, B = b"\xc0\x00\x02\x01", b"\xc6\x33\x64\x02"


@pytest.mark.parametrize(
    ("datagram", "traffic"),
    [
        (NON_ESP_MARKER + b"IKE", Traffic.IKE),
        (NON_ESP_MARKER, Traffic.IKE),
        (b"\x00\x00\x01\x00" + bytes(40), Traffic.ESP),
        (KEEPALIVE, Traffic.KEEPALIVE),
        (KEEPALIVE * 4, Traffic.ESP),
    ],
)
def test_what_comes_to_port_4500(datagram: bytes, traffic: Traffic) -> None:
    assert classify(datagram) is traffic
    assert classify(memoryview(datagram)) is traffic


@pytest.mark.parametrize("datagram", [b"", b"\x00", b"\xff\xff", bytes(3)])
def test_what_is_none_of_the_three(datagram: bytes) -> None:
    with pytest.raises(DecodeError):
        classify(datagram)


def test_a_golden_datagram() -> None:
    datagram = write_datagram(A, B, 500, 4500, b"hush")
    assert datagram[:6] == b"\x01\xf4\x11\x94\x00\x0c"
    assert datagram[8:] == b"hush"
    assert transport_checksum(A, B, 17, datagram) == 0
    header = UdpHeader(500, 4500, 12, int.from_bytes(datagram[6:8], "big"))
    assert read_header(datagram) == read_header(datagram + b"padding") == header


def test_a_sum_of_zero_is_sent_as_65535() -> None:
    # The two octets that make all words sum to 65535: RFC 768 has them sent with 65535, for 0 means no checksum.
    unsummed = write_datagram(A, B, 1, 2, bytes(2))
    balance = unsummed[6:8]
    assert write_datagram(A, B, 1, 2, balance)[6:8] == b"\xff\xff"


@pytest.mark.parametrize("segment", [b"", bytes(7), bytes(8), b"\0\1\0\2\0\7\0\0", b"\0\1\0\2\0\x09\0\0"])
def test_crooked_headers(segment: bytes) -> None:
    with pytest.raises(DecodeError):
        read_header(segment)
