"""ESP's header and trailer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.wire.cursor import DecodeError
from hushwire.wire.esp import MAX_SPI, MIN_SPI, EspHeader, read_header, read_trailer, write_header, write_trailer


def test_a_golden_header() -> None:
    octets = b"\xca\xfe\xba\xbe\x00\x00\x00\x07"
    assert read_header(octets + b"sealed") == EspHeader(0xCAFEBABE, 7)
    assert read_header(memoryview(octets)) == EspHeader(0xCAFEBABE, 7)
    assert write_header(0xCAFEBABE, 7) == octets
    assert write_header(0xCAFEBABE, (5 << 32) + 7) == octets


@pytest.mark.parametrize("spi", [0, 1, 255])
def test_reserved_spis(spi: int) -> None:
    with pytest.raises(DecodeError, match=f"SPI {spi} "):
        read_header(write_header(spi, 1))


def test_the_ends_of_the_spis() -> None:
    assert read_header(write_header(MIN_SPI, 1)).spi == 256
    assert read_header(write_header(MAX_SPI, 1)).spi == 0xFFFFFFFF
    with pytest.raises(DecodeError):
        read_header(write_header(MAX_SPI, 1)[:7])


@pytest.mark.parametrize(
    ("payload", "trailer"),
    [
        (b"", b"\x01\x02\x02\x04"),
        (b"a", b"\x01\x01\x04"),
        (b"ab", b"\x00\x04"),
        (b"abc", b"\x01\x02\x03\x03\x04"),
        (b"abcd", b"\x01\x02\x02\x04"),
    ],
)
def test_golden_trailers(payload: bytes, trailer: bytes) -> None:
    assert write_trailer(len(payload), 4) == trailer
    assert read_trailer(payload + trailer) == (len(payload), 4)


@given(st.binary(max_size=300), st.integers(0, 255), st.sampled_from([1, 2, 4, 8, 16, 128, 256]))
def test_trailers(payload: bytes, next_header: int, alignment: int) -> None:
    plaintext = payload + write_trailer(len(payload), next_header, alignment)
    assert len(plaintext) % alignment == 0
    assert read_trailer(plaintext) == read_trailer(memoryview(plaintext)) == (len(payload), next_header)


@pytest.mark.parametrize(
    "plaintext",
    [b"", b"\x04", b"\x01\x04", b"a\x02\x04", b"\x01\x03\x02\x04", b"abcd\x00\x01\x02\x03\x04\x04", b"\xff\xff"],
)
def test_crooked_trailers(plaintext: bytes) -> None:
    with pytest.raises(DecodeError):
        read_trailer(plaintext)
