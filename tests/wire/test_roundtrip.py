"""Any value is read back from what it writes."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from hushwire.wire.cursor import Cursor
from hushwire.wire.message import (
    NO_SPI,
    Header,
    Message,
    read_header,
    read_message,
    read_payloads,
    sealed_prefix,
    write_message,
    write_payloads,
)
from hushwire.wire.payload import (
    OPAQUE_PORTS,
    AnySelector,
    Authentication,
    Certificate,
    CertificateRequest,
    Clear,
    Configuration,
    Delete,
    Encrypted,
    EncryptedFragment,
    IDi,
    IDr,
    KeyExchange,
    Nonce,
    Notify,
    Proposal,
    SecurityAssociation,
    TrafficSelector,
    Transform,
    TSi,
    TSr,
    Unknown,
    UnknownSelector,
    VendorID,
)
from hushwire.wire.registry import (
    AuthMethod,
    CertEncoding,
    CPType,
    ExchangeType,
    IDType,
    KeID,
    NotifyType,
    PayloadType,
    ProtocolID,
    TransformType,
    TSType,
)

u8, u15, u16, u32 = (st.integers(0, (1 << bits) - 1) for bits in (8, 15, 16, 32))
octets = st.binary(max_size=40)
protocols = u8.map(ProtocolID)
encodings = u8.map(CertEncoding)


def tuples_of(item: SearchStrategy, min_size: int = 0, max_size: int = 4) -> SearchStrategy:
    return st.lists(item, min_size=min_size, max_size=max_size).map(tuple)


attributes = st.tuples(u15.filter(lambda number: number != 14), u16 | octets)
transforms = st.builds(Transform, u8.map(TransformType), u16, st.none() | u16, tuples_of(attributes, max_size=2))
proposals = st.builds(Proposal, u8, protocols, st.binary(max_size=16), tuples_of(transforms))


@st.composite
def ranges(draw: st.DrawFn) -> TrafficSelector:
    family, bits = draw(st.sampled_from([(IPv4Address, 32), (IPv6Address, 128)]))
    addresses = sorted(draw(st.tuples(*[st.integers(0, (1 << bits) - 1)] * 2)))
    ports = draw(st.just(OPAQUE_PORTS) | st.tuples(u16, u16).map(sorted))
    return TrafficSelector(draw(u8), *ports, *map(family, addresses))


selectors: SearchStrategy[AnySelector] = ranges() | st.builds(
    UnknownSelector, u8.filter(lambda number: number not in (7, 8)).map(TSType), u8, octets
)
unknown_types = u8.filter(lambda number: not (number == 0 or 33 <= number <= 47 or number == 53)).map(PayloadType)
clear: SearchStrategy[Clear] = st.one_of(
    st.builds(SecurityAssociation, tuples_of(proposals, min_size=1, max_size=3)),
    st.builds(KeyExchange, u16.map(KeID), octets),
    st.builds(IDi, u8.map(IDType), octets),
    st.builds(IDr, u8.map(IDType), octets),
    st.builds(Certificate, encodings, octets),
    st.builds(CertificateRequest, encodings, octets),
    st.builds(Authentication, u8.map(AuthMethod), octets),
    st.builds(Nonce, st.binary(min_size=16, max_size=256)),
    st.builds(Notify, u16.map(NotifyType), octets, protocols, st.binary(max_size=255)),
    st.integers(1, 16).flatmap(
        lambda size: st.builds(Delete, protocols, tuples_of(st.binary(min_size=size, max_size=size)))
    ),
    st.builds(VendorID, octets),
    st.builds(TSi, tuples_of(selectors, min_size=1)),
    st.builds(TSr, tuples_of(selectors, min_size=1)),
    st.builds(Configuration, u8.map(CPType), tuples_of(st.tuples(u15, octets))),
    st.builds(Unknown, unknown_types, st.booleans(), octets),
)
types = u8.map(PayloadType)
sealed = st.builds(Encrypted, types, octets) | st.integers(1, 65535).flatmap(
    lambda total: st.builds(EncryptedFragment, types, st.integers(1, total), st.just(total), octets)
)
headers = st.builds(
    Header,
    st.binary(min_size=8, max_size=8).filter(lambda spi: spi != NO_SPI),
    st.binary(min_size=8, max_size=8),
    u8.map(ExchangeType),
    st.booleans(),
    st.booleans(),
    u32,
    st.integers(0x20, 0x2F),
)


@given(st.lists(clear, max_size=8))
def test_payloads(payloads: Sequence[Clear]) -> None:
    assert read_payloads(*write_payloads(payloads)) == tuple(payloads)


@given(headers, st.lists(clear, max_size=8))
def test_messages(header: Header, payloads: Sequence[Clear]) -> None:
    data = write_message(header, payloads)
    assert read_message(data) == Message(header, tuple(payloads))
    assert read_header(data) == header


@given(headers, st.lists(clear, max_size=3), sealed)
def test_sealed_messages(header: Header, payloads: Sequence[Clear], last: Encrypted | EncryptedFragment) -> None:
    data = write_message(header, [*payloads, last])
    message = read_message(data)
    assert message.payloads == (*payloads, last)
    assert message.associated + last.body == data
    if not payloads:
        fragment = (last.number, last.total) if isinstance(last, EncryptedFragment) else None
        assert sealed_prefix(header, last.first, len(last.body), fragment) == message.associated


@given(transforms)
def test_a_transform_is_read_the_same_from_the_cache(transform: Transform) -> None:
    payload = SecurityAssociation((Proposal(1, ProtocolID.IKE, b"", (transform,)),))
    data = payload.write()
    first, second = SecurityAssociation.read(Cursor(data)), SecurityAssociation.read(Cursor(data))
    assert first == second == payload
    assert type(first.proposals[0].transforms[0].type) is TransformType
