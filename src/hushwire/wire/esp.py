"""wire: the ESP packet's header, and the trailer inside its ciphertext (RFC 4303 s2)."""

from struct import Struct
from typing import NamedTuple

from hushwire.wire.cursor import DecodeError

HEADER_SIZE = 8
MIN_SPI = 256
"""RFC 4303 s2.1: 1 to 255 are reserved, and 0 is never sent."""
MAX_SPI = 0xFFFFFFFF


class EspHeader(NamedTuple):
    spi: int
    sequence: int
    """The low 32 bits, whether or not the SA has extended sequence numbers."""


def read_header(packet: bytes | memoryview) -> EspHeader:
    """The first eight octets of an ESP packet."""
    if len(packet) < HEADER_SIZE:
        raise DecodeError(f"ESP packet of {len(packet)} octets")
    header = EspHeader._make(_HEADER.unpack_from(packet))
    if header.spi < MIN_SPI:
        raise DecodeError(f"SPI {header.spi}")
    return header


def write_header(spi: int, sequence: int) -> bytes:
    """The header; of `sequence` only the low 32 bits are sent (RFC 4303 s2.2.1)."""
    return _HEADER.pack(spi, sequence & 0xFFFFFFFF)


def read_trailer(plaintext: bytes | memoryview) -> tuple[int, int]:
    """The length of the payload before the padding, and the Next Header."""
    size = len(plaintext)
    payload_length = size - 2 - plaintext[size - 2] if size >= 2 else -1
    # RFC 4303 s2.4: the padding is 1, 2, 3...; to see that it is costs little, and there is no other use for it.
    if payload_length < 0 or plaintext[payload_length : size - 2] != _PADDING[: size - 2 - payload_length]:
        raise DecodeError("padding that is not 1, 2, 3...", size)
    return payload_length, plaintext[size - 1]


def write_trailer(payload_length: int, next_header: int, alignment: int = 4) -> bytes:
    """Padding, Pad Length and Next Header, so that the whole is a multiple of `alignment` octets (RFC 4303 s2.4)."""
    padding = -(payload_length + 2) % alignment
    return _PADDING[:padding] + bytes((padding, next_header))


_HEADER = Struct("!II")
_PADDING = bytes(range(1, 256))
