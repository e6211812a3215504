"""wire: whole IKEv2 messages (RFC 7296 s3.1, s3.2, RFC 7383 s2.5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import TypeVar, cast

from hushwire.wire.cursor import Cursor, DecodeError
from hushwire.wire.payload import Clear, Encrypted, EncryptedFragment, Notify, Payload, Sealed, Unknown, read_payload
from hushwire.wire.registry import ExchangeType, NotifyType, PayloadType

MAX_MESSAGE = 65535
MAX_PAYLOADS = 64
NO_SPI = bytes(8)

P = TypeVar("P", bound=Payload)


class UnsupportedVersion(DecodeError):
    """A message of another major version, of which only the header can be trusted to mean what ours does."""

    def __init__(self, header: "Header") -> None:
        super().__init__(f"IKE version {header.version >> 4}.{header.version & 15}", 17)
        self.header = header
        self.version = header.version


@dataclass(frozen=True, slots=True)
class Header:
    """The IKE header but for what follows from the payloads (RFC 7296 s3.1)."""

    spi_i: bytes
    """8 octets."""
    spi_r: bytes
    """8 octets, zero in the first message."""
    exchange: ExchangeType
    initiator: bool
    """The I flag: sent by the original initiator of the IKE SA."""
    response: bool
    """The R flag."""
    message_id: int
    version: int = 0x20
    """Major version in the upper four bits, minor in the lower."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it was read."""

    header: Header
    payloads: tuple[Payload, ...]
    associated: bytes = b""
    """All octets before the body of its SK or SKF, which their ICV covers too; empty when it has none."""

    def one(self, kind: type[P]) -> P | None:
        return one(self.payloads, kind)

    def notify(self, kind: NotifyType) -> Notify | None:
        return notify(self.payloads, kind)


def one(payloads: Sequence[Payload], kind: type[P]) -> P | None:
    """The payload of that class, if there is one; DecodeError if there are more."""
    found: P | None = None
    for payload in payloads:
        if type(payload) is kind:
            if found is not None:
                raise DecodeError(f"more than one payload {kind.__name__}")
            found = payload
    return found


def notify(payloads: Sequence[Payload], kind: NotifyType) -> Notify | None:
    """The first Notify of that type."""
    for payload in payloads:
        if type(payload) is Notify and payload.type == kind:
            return payload
    return None


def read_header(data: bytes) -> Header:
    """The header of a message, whose length is checked too."""
    return _read_header(Cursor(data))[0]


def read_message(data: bytes) -> Message:
    """One UDP datagram (without its non-ESP marker)."""
    cursor = Cursor(data)
    header, first = _read_header(cursor)
    payloads = _walk(first, cursor, outermost=True)
    last = payloads[-1] if payloads else None
    associated = data[: len(data) - len(last.body)] if isinstance(last, Sealed) else b""
    return Message(header, payloads, associated)


def read_payloads(first: int, data: bytes) -> tuple[Clear, ...]:
    """What was inside an SK or SKF, whose padding is already taken off."""
    return cast(tuple[Clear, ...], _walk(first, Cursor(data), outermost=False))


def write_message(header: Header, payloads: Sequence[Payload]) -> bytes:
    first, octets = write_payloads(payloads)
    length = _HEADER.size + len(octets)
    if length > MAX_MESSAGE:
        raise ValueError(f"a message of {length} octets")
    return _write_header(header, first, length) + octets


def write_payloads(payloads: Sequence[Payload]) -> tuple[PayloadType, bytes]:
    """The type of the first payload, and all of them in a row."""
    parts: list[bytes] = []
    following = PayloadType.NONE
    for payload in reversed(payloads):
        if isinstance(payload, Sealed):
            # RFC 7296 s3.14: SK is last, and its Next Payload is the type of the first payload inside.
            if parts:
                raise ValueError("a payload after SK")
            following = payload.first
        body = payload.write()
        critical = isinstance(payload, Unknown) and payload.critical
        parts += body, _GENERIC.pack(following, _CRITICAL * critical, _GENERIC.size + len(body))
        following = payload.kind
    return following, b"".join(reversed(parts))


def sealed_prefix(
    header: Header, first: PayloadType, sealed_length: int, fragment: tuple[int, int] | None = None
) -> bytes:
    """All octets before the body of a message whose only payload is SK, or SKF for fragment (number, total).

    They are the associated data of the body, which will have `sealed_length` octets.
    """
    numbers = b"" if fragment is None else _FRAGMENT.pack(*fragment)
    kind = PayloadType.SK if fragment is None else PayloadType.SKF
    length = _GENERIC.size + len(numbers) + sealed_length
    return _write_header(header, kind, _HEADER.size + length) + _GENERIC.pack(first, 0, length) + numbers


def _walk(first: int, cursor: Cursor, outermost: bool) -> tuple[Payload, ...]:
    payloads: list[Payload] = []
    number = first
    while number:
        if len(payloads) == MAX_PAYLOADS:
            raise DecodeError(f"more than {MAX_PAYLOADS} payloads", cursor.at)
        following, flags, length = cursor.unpack(_GENERIC)
        body = cursor.sub(length - _GENERIC.size)
        sealed = _SEALED.get(number)
        if sealed is None:
            payloads.append(read_payload(number, bool(flags & _CRITICAL), body))
            number = following
        elif outermost:
            payloads.append(sealed.read(following, body))
            number = PayloadType.NONE
        else:
            raise DecodeError("SK inside SK", body.at)
    cursor.end()
    return tuple(payloads)


def _read_header(cursor: Cursor) -> tuple[Header, int]:
    spi_i, spi_r, first, version, exchange, flags, message_id, length = cursor.unpack(_HEADER)
    initiator, response = bool(flags & _INITIATOR), bool(flags & _RESPONSE)
    header = Header(spi_i, spi_r, ExchangeType(exchange), initiator, response, message_id, version)
    # RFC 7296 s2.5: a higher minor version is read as our own.
    if version >> 4 != 2:
        raise UnsupportedVersion(header)
    if length != len(cursor.data) or length > MAX_MESSAGE:
        raise DecodeError(f"length {length} of a message of {len(cursor.data)} octets", 24)
    # RFC 7296 s3.1, s1.5: the initiator's SPI is never zero, but in an INVALID_SPI notification outside of any IKE SA.
    if spi_i == NO_SPI and exchange != ExchangeType.INFORMATIONAL:
        raise DecodeError("no initiator's SPI")
    return header, first


def _write_header(header: Header, first: PayloadType, length: int) -> bytes:
    flags = _INITIATOR * header.initiator | _RESPONSE * header.response
    return _HEADER.pack(
        header.spi_i, header.spi_r, first, header.version, header.exchange, flags, header.message_id, length
    )


_HEADER = Struct("!8s8sBBBBII")
_GENERIC = Struct("!BBH")
_FRAGMENT = Struct("!HH")
_INITIATOR, _RESPONSE, _CRITICAL = 0x08, 0x20, 0x80
_SEALED: dict[int, type[Sealed]] = {payload.kind: payload for payload in (Encrypted, EncryptedFragment)}
