"""wire: the payloads of IKEv2 as values (RFC 7296 s3.3 to s3.15, RFC 7383 s2.5).

Each class reads its own body (what follows the generic header) from a cursor that holds nothing else, and writes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import ClassVar, Self

from hushwire.wire.address import IPAddress
from hushwire.wire.cursor import Cursor, DecodeError
from hushwire.wire.registry import (
    AuthMethod,
    CertEncoding,
    CPType,
    EncrID,
    EsnID,
    IDType,
    IntegID,
    KeID,
    NotifyType,
    OpenEnum,
    PayloadType,
    PrfID,
    ProtocolID,
    TransformType,
    TSType,
)

MAX_PROPOSALS = 64
MAX_TRANSFORMS = 256
MAX_SPIS = 256
MAX_IDENTITY = 1024
OPAQUE_PORTS = (65535, 0)


@dataclass(frozen=True, slots=True)
class Transform:
    """One algorithm of a proposal (RFC 7296 s3.3.2)."""

    type: TransformType
    id: int
    """An EncrID, PrfID, IntegID, KeID or EsnID, as the type says; a plain int where the type is unknown."""
    key_length: int | None = None
    """Bits; None: the attribute is absent."""
    attributes: tuple[tuple[int, int | bytes], ...] = ()
    """All others, as (type, value); an int was sent as Type/Value, octets as Type/Length/Value."""

    def write(self) -> bytes:
        key_length = b"" if self.key_length is None else _U16_U16.pack(_SHORT | _KEY_LENGTH, self.key_length)
        return _TYPE_ID.pack(self.type, self.id) + key_length + b"".join(map(_write_attribute, self.attributes))


@dataclass(frozen=True, slots=True)
class Proposal:
    """One way to protect an SA, with a choice of transforms (RFC 7296 s3.3.1)."""

    number: int
    """From 1 up in what is offered; repeated in what is chosen."""
    protocol: ProtocolID
    spi: bytes
    """The sender's: 4 octets for ESP and AH, 8 when an IKE SA is rekeyed, none at first."""
    transforms: tuple[Transform, ...]


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    """SA: proposals in order of preference, or the chosen one (RFC 7296 s3.3)."""

    kind: ClassVar[PayloadType] = PayloadType.SA

    proposals: tuple[Proposal, ...]

    @classmethod
    def read(cls, body: Cursor) -> Self:
        proposals: list[Proposal] = []
        more = True
        while more:
            if len(proposals) == MAX_PROPOSALS:
                raise DecodeError(f"more than {MAX_PROPOSALS} proposals", body.at)
            more, length = _read_link(body, _MORE_PROPOSALS)
            proposals.append(_read_proposal(body.sub(length)))
            if sum(len(proposal.transforms) for proposal in proposals) > MAX_TRANSFORMS:
                raise DecodeError(f"more than {MAX_TRANSFORMS} transforms", body.at)
        body.end()
        return cls(tuple(proposals))

    def write(self) -> bytes:
        return _write_chain([_write_proposal(proposal) for proposal in self.proposals], _MORE_PROPOSALS)


@dataclass(frozen=True, slots=True)
class KeyExchange:
    """KE: a public value of a key exchange method (RFC 7296 s3.4)."""

    kind: ClassVar[PayloadType] = PayloadType.KE

    group: KeID
    data: bytes

    @classmethod
    def read(cls, body: Cursor) -> Self:
        group, _reserved = body.unpack(_U16_U16)
        return cls(KeID(group), body.rest())

    def write(self) -> bytes:
        return _U16_U16.pack(self.group, 0) + self.data


@dataclass(frozen=True, slots=True)
class Identification:
    """Who one is (RFC 7296 s3.5)."""

    type: IDType
    data: bytes

    @classmethod
    def read(cls, body: Cursor) -> Self:
        (kind,) = body.unpack(_U8_RESERVED)
        data = body.rest()
        if len(data) > MAX_IDENTITY:
            raise DecodeError(f"identity of {len(data)} octets", body.at)
        return cls(IDType(kind), data)

    def write(self) -> bytes:
        return _U8_RESERVED.pack(self.type) + self.data


@dataclass(frozen=True, slots=True)
class IDi(Identification):
    """IDi: the initiator's identity, or the one it claims."""

    kind: ClassVar[PayloadType] = PayloadType.IDI


@dataclass(frozen=True, slots=True)
class IDr(Identification):
    """IDr: the responder's identity, or the one the initiator hopes for."""

    kind: ClassVar[PayloadType] = PayloadType.IDR


@dataclass(frozen=True, slots=True)
class Certificate:
    """CERT: a certificate or a raw key (RFC 7296 s3.6, RFC 7670 s3)."""

    kind: ClassVar[PayloadType] = PayloadType.CERT

    encoding: CertEncoding
    data: bytes

    @classmethod
    def read(cls, body: Cursor) -> Self:
        return cls(CertEncoding(body.u8()), body.rest())

    def write(self) -> bytes:
        return bytes((self.encoding,)) + self.data


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """CERTREQ: what kind of CERT is wanted (RFC 7296 s3.7)."""

    kind: ClassVar[PayloadType] = PayloadType.CERTREQ

    encoding: CertEncoding
    authorities: bytes
    """For X.509, SHA-1 hashes of trust anchors' keys, 20 octets each; meaningless with raw keys."""

    @classmethod
    def read(cls, body: Cursor) -> Self:
        return cls(CertEncoding(body.u8()), body.rest())

    def write(self) -> bytes:
        return bytes((self.encoding,)) + self.authorities


@dataclass(frozen=True, slots=True)
class Authentication:
    """AUTH: the signature or MAC over the AUTH octets (RFC 7296 s3.8)."""

    kind: ClassVar[PayloadType] = PayloadType.AUTH

    method: AuthMethod
    data: bytes

    @classmethod
    def read(cls, body: Cursor) -> Self:
        (method,) = body.unpack(_U8_RESERVED)
        return cls(AuthMethod(method), body.rest())

    def write(self) -> bytes:
        return _U8_RESERVED.pack(self.method) + self.data


@dataclass(frozen=True, slots=True)
class Nonce:
    """Ni or Nr (RFC 7296 s3.9)."""

    kind: ClassVar[PayloadType] = PayloadType.NONCE

    data: bytes

    @classmethod
    def read(cls, body: Cursor) -> Self:
        data = body.rest()
        # RFC 7296 s3.9: a nonce has 16 to 256 octets.
        if not 16 <= len(data) <= 256:
            raise DecodeError(f"nonce of {len(data)} octets", body.at)
        return cls(data)

    def write(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class Notify:
    """N: an error or a status (RFC 7296 s3.10)."""

    kind: ClassVar[PayloadType] = PayloadType.NOTIFY

    type: NotifyType
    data: bytes = b""
    protocol: ProtocolID = ProtocolID.NONE
    """Of the SA it speaks of, where it speaks of one by SPI."""
    spi: bytes = b""

    @classmethod
    def read(cls, body: Cursor) -> Self:
        protocol, spi_size, kind = body.unpack(_U8_U8_U16)
        spi = body.take(spi_size)
        return cls(NotifyType(kind), body.rest(), ProtocolID(protocol), spi)

    def write(self) -> bytes:
        return _U8_U8_U16.pack(self.protocol, len(self.spi), self.type) + self.spi + self.data


@dataclass(frozen=True, slots=True)
class Delete:
    """D: SAs that the sender no longer accepts (RFC 7296 s3.11)."""

    kind: ClassVar[PayloadType] = PayloadType.DELETE

    protocol: ProtocolID
    spis: tuple[bytes, ...] = ()
    """The sender's inbound SPIs, all of one size; none for the IKE SA, which the header names."""

    @classmethod
    def read(cls, body: Cursor) -> Self:
        protocol, spi_size, count = body.unpack(_U8_U8_U16)
        if count > MAX_SPIS or (count and not spi_size):
            raise DecodeError(f"{count} SPIs of {spi_size} octets", body.at)
        spis = tuple([body.take(spi_size) for _ in range(count)])
        body.end()
        return cls(ProtocolID(protocol), spis)

    def write(self) -> bytes:
        spi_size = len(self.spis[0]) if self.spis else 0
        if any(len(spi) != spi_size for spi in self.spis):
            raise ValueError("SPIs of different sizes in one Delete")
        return _U8_U8_U16.pack(self.protocol, spi_size, len(self.spis)) + b"".join(self.spis)


@dataclass(frozen=True, slots=True)
class VendorID:
    """V: who made the implementation, or an extension (RFC 7296 s3.12)."""

    kind: ClassVar[PayloadType] = PayloadType.VENDOR

    data: bytes

    @classmethod
    def read(cls, body: Cursor) -> Self:
        return cls(body.rest())

    def write(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class TrafficSelector:
    """A range of addresses and ports (RFC 7296 s3.13.1)."""

    protocol: int
    """IANA protocol number; 0 is any."""
    first_port: int
    """For ICMP, type * 256 + code.  65535 to 0 is OPAQUE: no port is known (RFC 4301 s4.4.1.1)."""
    last_port: int
    first_address: IPAddress
    last_address: IPAddress

    @property
    def type(self) -> TSType:
        return TSType.IPV4_ADDR_RANGE if self.first_address.version == 4 else TSType.IPV6_ADDR_RANGE

    def write(self) -> bytes:
        addresses = self.first_address.packed + self.last_address.packed
        return _SELECTOR.pack(self.type, self.protocol, 8 + len(addresses), self.first_port, self.last_port) + addresses


@dataclass(frozen=True, slots=True)
class UnknownSelector:
    """A traffic selector of a type that is none of the two: kept, so that a narrowing can leave it out."""

    type: TSType
    protocol: int
    """The second octet, whatever it means in that type."""
    body: bytes

    def write(self) -> bytes:
        return _U8_U8_U16.pack(self.type, self.protocol, _U8_U8_U16.size + len(self.body)) + self.body


AnySelector = TrafficSelector | UnknownSelector


@dataclass(frozen=True, slots=True)
class TrafficSelectors:
    """Which packets a Child SA carries (RFC 7296 s3.13)."""

    selectors: tuple[AnySelector, ...]

    @classmethod
    def read(cls, body: Cursor) -> Self:
        (count,) = body.unpack(_U8_RESERVED)
        # RFC 7296 s3.13: there is one selector or more.
        if not count:
            raise DecodeError("no traffic selector", body.at)
        selectors = tuple([_read_selector(body) for _ in range(count)])
        body.end()
        return cls(selectors)

    def write(self) -> bytes:
        return _U8_RESERVED.pack(len(self.selectors)) + b"".join([selector.write() for selector in self.selectors])


@dataclass(frozen=True, slots=True)
class TSi(TrafficSelectors):
    """TSi: the initiator's side of the traffic."""

    kind: ClassVar[PayloadType] = PayloadType.TSI


@dataclass(frozen=True, slots=True)
class TSr(TrafficSelectors):
    """TSr: the responder's side of the traffic."""

    kind: ClassVar[PayloadType] = PayloadType.TSR


@dataclass(frozen=True, slots=True)
class Encrypted:
    """SK: the sealed rest of a message, and always its last payload (RFC 7296 s3.14)."""

    kind: ClassVar[PayloadType] = PayloadType.SK

    first: PayloadType
    """The type of the first payload inside."""
    body: bytes
    """IV, ciphertext and ICV."""

    @classmethod
    def read(cls, first: int, body: Cursor) -> Self:
        return cls(PayloadType(first), body.rest())

    def write(self) -> bytes:
        return self.body


@dataclass(frozen=True, slots=True)
class EncryptedFragment:
    """SKF: a sealed part of a message (RFC 7383 s2.5)."""

    kind: ClassVar[PayloadType] = PayloadType.SKF

    first: PayloadType
    """In fragment 1, the type of the first payload inside; NONE in all others."""
    number: int
    """1..total."""
    total: int
    body: bytes
    """IV, ciphertext and ICV."""

    @classmethod
    def read(cls, first: int, body: Cursor) -> Self:
        number, total = body.unpack(_U16_U16)
        # RFC 7383 s2.5, s2.6: fragments are numbered from 1 to the total.
        if not 1 <= number <= total:
            raise DecodeError(f"fragment {number} of {total}", body.at)
        return cls(PayloadType(first), number, total, body.rest())

    def write(self) -> bytes:
        return _U16_U16.pack(self.number, self.total) + self.body


@dataclass(frozen=True, slots=True)
class Configuration:
    """CP: what the sender's host is to be told (RFC 7296 s3.15)."""

    kind: ClassVar[PayloadType] = PayloadType.CP

    type: CPType
    attributes: tuple[tuple[int, bytes], ...]
    """(type, value) each."""

    @classmethod
    def read(cls, body: Cursor) -> Self:
        (kind,) = body.unpack(_U8_RESERVED)
        attributes: list[tuple[int, bytes]] = []
        while body:
            number, length = body.unpack(_U16_U16)
            # RFC 7296 s3.15.1: the reserved bit is ignored.
            attributes.append((number & 0x7FFF, body.take(length)))
        return cls(CPType(kind), tuple(attributes))

    def write(self) -> bytes:
        attributes = [_U16_U16.pack(number, len(value)) + value for number, value in self.attributes]
        return _U8_RESERVED.pack(self.type) + b"".join(attributes)


@dataclass(frozen=True, slots=True)
class Unknown:
    """A payload of a type that is not among these."""

    type: PayloadType
    critical: bool
    """Whether the message must be refused by who does not understand it (RFC 7296 s2.5)."""
    body: bytes

    @property
    def kind(self) -> PayloadType:
        return self.type

    def write(self) -> bytes:
        return self.body


Known = (
    SecurityAssociation | KeyExchange | IDi | IDr | Certificate | CertificateRequest | Authentication | Nonce | Notify
    | Delete | VendorID | TSi | TSr | Configuration
)  # fmt: skip
Clear = Known | Unknown
"""What may stand anywhere."""
Sealed = Encrypted | EncryptedFragment
"""What may stand last in a message, and nowhere else."""
Payload = Clear | Sealed


def read_payload(number: int, critical: bool, body: Cursor) -> Clear:
    """One payload's body.  A known payload may not be critical: the bit is ignored (RFC 7296 s2.5)."""
    known = _KNOWN.get(number)
    return Unknown(PayloadType(number), critical, body.rest()) if known is None else known.read(body)


def _read_proposal(body: Cursor) -> Proposal:
    number, protocol, spi_size, count = body.unpack(_PROPOSAL)
    spi = body.take(spi_size)
    at = body.at
    try:
        return Proposal(number, ProtocolID(protocol), spi, _read_transforms(count, body.rest()))
    except DecodeError as error:
        raise DecodeError(error.what, at + error.offset) from None


# The same few offers come in every handshake; each is read once.
@lru_cache(maxsize=256)
def _read_transforms(count: int, octets: bytes) -> tuple[Transform, ...]:
    body = Cursor(octets)
    transforms: list[Transform] = []
    for left in range(count, 0, -1):
        at = body.at
        more, length = _read_link(body, _MORE_TRANSFORMS)
        if more != (left > 1):
            raise DecodeError(f"{left} transforms left, and the chain says otherwise", at)
        transforms.append(_read_transform(body.sub(length)))
    body.end()
    return tuple(transforms)


def _write_proposal(proposal: Proposal) -> bytes:
    transforms = proposal.transforms
    return (
        _PROPOSAL.pack(proposal.number, proposal.protocol, len(proposal.spi), len(transforms))
        + proposal.spi
        + _write_chain([transform.write() for transform in transforms], _MORE_TRANSFORMS)
    )


def _read_transform(body: Cursor) -> Transform:
    number, value = body.unpack(_TYPE_ID)
    key_length = None
    attributes: list[tuple[int, int | bytes]] = []
    while body:
        kind, field = body.unpack(_U16_U16)
        if kind == _SHORT | _KEY_LENGTH and key_length is None:
            key_length = field
        elif kind & 0x7FFF == _KEY_LENGTH:
            # RFC 7296 s3.3.5: there is one, and it is never of the variable-length kind.
            raise DecodeError("a second or misshapen key length", body.at)
        else:
            attributes.append((kind & 0x7FFF, field if kind & _SHORT else body.take(field)))
    registry = _TRANSFORM_IDS.get(number)
    id_ = value if registry is None else registry(value)
    return Transform(TransformType(number), id_, key_length, tuple(attributes))


def _write_attribute(attribute: tuple[int, int | bytes]) -> bytes:
    kind, value = attribute
    return _U16_U16.pack(_SHORT | kind, value) if isinstance(value, int) else _U16_U16.pack(kind, len(value)) + value


def _read_link(body: Cursor, another: int) -> tuple[bool, int]:
    """The header that proposals and transforms share: whether one follows, and how many octets are left of this one."""
    at = body.at
    more, length = body.unpack(_LINK)
    if more not in (0, another):
        raise DecodeError(f"{more} where 0 or {another} belongs", at)
    return bool(more), length - _LINK.size


def _write_chain(bodies: Sequence[bytes], another: int) -> bytes:
    last = len(bodies) - 1
    return b"".join([_LINK.pack(another * (n < last), _LINK.size + len(body)) + body for n, body in enumerate(bodies)])


def _read_selector(body: Cursor) -> AnySelector:
    at = body.at
    kind, protocol, length = body.unpack(_U8_U8_U16)
    body = body.sub(length - _U8_U8_U16.size)
    if kind not in _ADDRESSES:
        return UnknownSelector(TSType(kind), protocol, body.rest())
    address, size = _ADDRESSES[kind]
    first_port, last_port = body.unpack(_U16_U16)
    first, last = body.take(size), body.take(size)
    body.end()
    if first > last or (first_port > last_port and (first_port, last_port) != OPAQUE_PORTS):
        raise DecodeError("a range that ends before it begins", at)
    return TrafficSelector(protocol, first_port, last_port, address(first), address(last))


_U16_U16 = Struct("!HH")
_U8_U8_U16 = Struct("!BBH")
_U8_RESERVED = Struct("!B3x")
_TYPE_ID = Struct("!BxH")
_LINK = Struct("!BxH")
_PROPOSAL = Struct("!BBBB")
_SELECTOR = Struct("!BBHHH")
_MORE_PROPOSALS = 2
_MORE_TRANSFORMS = 3
_SHORT = 0x8000
_KEY_LENGTH = 14
_ADDRESSES: dict[int, tuple[type[IPv4Address | IPv6Address], int]] = {
    TSType.IPV4_ADDR_RANGE: (IPv4Address, 4),
    TSType.IPV6_ADDR_RANGE: (IPv6Address, 16),
}
_TRANSFORM_IDS: dict[int, type[OpenEnum]] = {
    TransformType.ENCR: EncrID,
    TransformType.PRF: PrfID,
    TransformType.INTEG: IntegID,
    TransformType.ESN: EsnID,
    **dict.fromkeys([TransformType.KE, *range(TransformType.ADDKE1, TransformType.ADDKE7 + 1)], KeID),
}
_KNOWN: dict[int, type[Known]] = {
    payload.kind: payload
    for payload in (
        SecurityAssociation, KeyExchange, IDi, IDr, Certificate, CertificateRequest, Authentication, Nonce, Notify,
        Delete, VendorID, TSi, TSr, Configuration,
    )
}  # fmt: skip
