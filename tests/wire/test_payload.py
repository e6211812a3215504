"""Payloads against octets written by hand from RFC 7296's figures, and what each refuses."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from hushwire.wire import payload as payload_module
from hushwire.wire.cursor import Cursor, DecodeError
from hushwire.wire.payload import (
    Authentication,
    Certificate,
    CertificateRequest,
    Configuration,
    Delete,
    EncryptedFragment,
    IDi,
    IDr,
    KeyExchange,
    Known,
    Nonce,
    Notify,
    Proposal,
    SecurityAssociation,
    TrafficSelector,
    Transform,
    TSi,
    TSr,
    UnknownSelector,
    VendorID,
)
from hushwire.wire.registry import (
    AuthMethod,
    CertEncoding,
    CPType,
    EncrID,
    EsnID,
    IDType,
    KeID,
    NotifyType,
    PayloadType,
    PrfID,
    ProtocolID,
    TransformType,
    TSType,
)

KEY_256 = b"\x80\x0e\x01\x00"  # Attribute 14 (Key Length) in Type/Value form: 256.
AES = b"\x01\x00\x00\x14" + KEY_256  # ENCR, reserved, AES_GCM_16.
PRF = b"\x02\x00\x00\x05"  # PRF, reserved, HMAC_SHA2_256.


def link(more: int, body: bytes) -> bytes:
    """The header of a proposal or transform."""
    return bytes((more, 0)) + (len(body) + 4).to_bytes(2, "big") + body


def one_proposal(transforms: bytes, count: int) -> bytes:
    return link(0, b"\x01\x01\x00" + bytes((count,)) + transforms)


def one_transform(body: bytes) -> Transform:
    (proposal,) = SecurityAssociation.read(Cursor(one_proposal(link(0, body), 1))).proposals
    (transform,) = proposal.transforms
    return transform


GOLDEN: list[tuple[Known, bytes]] = [
    (
        SecurityAssociation(
            (
                Proposal(
                    1,
                    ProtocolID.ESP,
                    b"\xca\xfe\xba\xbe",
                    (
                        Transform(TransformType.ENCR, EncrID.AES_GCM_16, 256),
                        Transform(TransformType.ESN, EsnID.NO_ESN),
                    ),
                ),
                Proposal(2, ProtocolID.AH, b"\x00\x00\x01\x00", ()),
            )
        ),
        b"\x02\x00\x00\x20"  # More proposals, reserved, 32 octets.
        b"\x01\x03\x04\x02"  # Number 1, ESP, SPI of 4 octets, 2 transforms.
        b"\xca\xfe\xba\xbe"
        b"\x03\x00\x00\x0c\x01\x00\x00\x14\x80\x0e\x01\x00"  # More, 12 octets, ENCR, AES_GCM_16, Key Length 256.
        b"\x00\x00\x00\x08\x05\x00\x00\x00"  # Last, 8 octets, ESN, none.
        b"\x00\x00\x00\x0c\x02\x02\x04\x00\x00\x00\x01\x00",  # Last, 12 octets; number 2, AH, SPI of 4, no transform.
    ),
    (KeyExchange(KeID.CURVE25519, b"\xaa\xbb"), b"\x00\x1f\x00\x00\xaa\xbb"),
    (IDi(IDType.FQDN, b"a.example"), b"\x02\x00\x00\x00a.example"),
    (IDr(IDType.NULL, b""), b"\x0d\x00\x00\x00"),
    (Certificate(CertEncoding.RAW_PUBLIC_KEY, b"\x30\x2a"), b"\x0f\x30\x2a"),
    (CertificateRequest(CertEncoding.PKCS7_X509, bytes(20)), b"\x01" + bytes(20)),
    (Authentication(AuthMethod.DIGITAL_SIGNATURE, b"\x0csig"), b"\x0e\x00\x00\x00\x0csig"),
    (Nonce(bytes(16)), bytes(16)),
    (Nonce(bytes(256)), bytes(256)),
    (Notify(NotifyType.COOKIE, b"biscuit"), b"\x00\x00\x40\x06biscuit"),
    (
        Notify(NotifyType.REKEY_SA, protocol=ProtocolID.ESP, spi=b"\x01\x02\x03\x04"),
        b"\x03\x04\x40\x09\x01\x02\x03\x04",  # ESP, SPI of 4 octets, 16393.
    ),
    (Delete(ProtocolID.IKE), b"\x01\x00\x00\x00"),
    (Delete(ProtocolID.ESP, (b"abcd", b"efgh")), b"\x03\x04\x00\x02abcdefgh"),
    (VendorID(b"hush"), b"hush"),
    (
        TSi(
            (
                TrafficSelector(6, 80, 443, IPv4Address("192.0.2.1"), IPv4Address("192.0.2.255")),
                UnknownSelector(TSType.SECLABEL, 0, b"label"),
            )
        ),
        b"\x02\x00\x00\x00"  # Two selectors, reserved.
        b"\x07\x06\x00\x10\x00\x50\x01\xbb\xc0\x00\x02\x01\xc0\x00\x02\xff"  # IPv4 range, TCP, 16 octets, 80 to 443.
        b"\x0a\x00\x00\x09label",  # Type 10, 9 octets.
    ),
    (
        TSr((TrafficSelector(0, 65535, 0, IPv6Address("2001:db8::"), IPv6Address("2001:db8::ffff")),)),
        b"\x01\x00\x00\x00"
        b"\x08\x00\x00\x28\xff\xff\x00\x00"  # IPv6 range, any protocol, 40 octets, OPAQUE.
        b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\0"
        b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\xff\xff",
    ),
    (
        Configuration(CPType.REQUEST, ((1, b""), (3, b"\x08\x08\x08\x08"))),
        b"\x01\x00\x00\x00\x00\x01\x00\x00\x00\x03\x00\x04\x08\x08\x08\x08",
    ),
]


def outcome(kind: type[Known], octets: bytes) -> Known | DecodeError:
    """What reading gives; any other exception is a failure."""
    try:
        return kind.read(Cursor(octets))
    except DecodeError as error:
        return error


@pytest.mark.parametrize(("value", "octets"), GOLDEN)
def test_golden(value: Known, octets: bytes) -> None:
    assert value.write() == octets
    assert type(value).read(Cursor(octets)) == value


@pytest.mark.parametrize(("value", "octets"), GOLDEN)
def test_every_truncation_is_a_value_or_a_decode_error(value: Known, octets: bytes) -> None:
    for length in range(len(octets)):
        assert outcome(type(value), octets[:length]) != value


def test_reserved_bits_are_ignored() -> None:
    assert KeyExchange.read(Cursor(b"\x00\x1f\xff\xffx")) == KeyExchange(KeID.CURVE25519, b"x")
    assert IDi.read(Cursor(b"\x02\xff\xff\xffx")) == IDi(IDType.FQDN, b"x")
    assert Configuration.read(Cursor(b"\x01\xff\xff\xff\x80\x01\x00\x00")) == Configuration(CPType.REQUEST, ((1, b""),))


# --- Security associations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "transform"),
    [
        (b"\x01\xff\x00\x14" + KEY_256, Transform(TransformType.ENCR, EncrID.AES_GCM_16, 256)),
        (b"\x02\x00\x00\x05", Transform(TransformType.PRF, PrfID.HMAC_SHA2_256)),
        (b"\x06\x00\x00\x24", Transform(TransformType.ADDKE1, KeID.ML_KEM_768)),
        (b"\x0c\x00\x00\x25", Transform(TransformType.ADDKE7, KeID.ML_KEM_1024)),
        (b"\x63\x00\x12\x34", Transform(TransformType(99), 0x1234)),
        (b"\x01\x00\xff\xff\x80\x0f\x00\x07", Transform(TransformType.ENCR, EncrID(65535), None, ((15, 7),))),
        (b"\x01\x00\x00\x0c\x00\x0f\x00\x02hi", Transform(TransformType.ENCR, EncrID.AES_CBC, None, ((15, b"hi"),))),
    ],
)
def test_transforms(octets: bytes, transform: Transform) -> None:
    read = one_transform(octets)
    assert read == transform
    assert type(read.id) is type(transform.id)


@pytest.mark.parametrize(
    ("what", "octets"),
    [
        ("no proposal", b""),
        ("half a link", b"\x00\x00\x00"),
        ("proposal shorter than its link", b"\x00\x00\x00\x03\x01\x01\x00\x00"),
        ("proposal longer than the payload", b"\x00\x00\x00\x09\x01\x01\x00\x00"),
        ("proposal of zero length", b"\x02\x00\x00\x00"),
        ("octets after the last proposal", one_proposal(b"", 0) + b"\x00"),
        ("more proposals promised", b"\x02" + one_proposal(b"", 0)[1:]),
        ("a link that is neither", b"\x03" + one_proposal(b"", 0)[1:]),
        ("SPI longer than the proposal", link(0, b"\x01\x01\x04\x00abc")),
        ("fewer transforms than counted", one_proposal(link(0, PRF), 2)),
        ("more transforms than counted", one_proposal(link(3, PRF) + link(0, PRF), 1)),
        ("more transforms than counted, the first called last", one_proposal(link(0, PRF) + link(0, PRF), 1)),
        ("last transform called not last", one_proposal(link(3, PRF), 1)),
        ("transform link that is neither", one_proposal(link(2, PRF) + link(0, PRF), 2)),
        ("transform of zero length", one_proposal(b"\x00\x00\x00\x00" + PRF, 1)),
        ("transform longer than the proposal", one_proposal(b"\x00\x00\x00\x09" + PRF, 1)),
        ("transform too short", one_proposal(link(0, PRF[:3]), 1)),
        ("half an attribute", one_proposal(link(0, PRF + b"\x80\x0e\x01"), 1)),
        ("attribute longer than the transform", one_proposal(link(0, PRF + b"\x00\x0f\x00\x01"), 1)),
        ("two key lengths", one_proposal(link(0, AES + KEY_256), 1)),
        ("key length of variable length", one_proposal(link(0, PRF + b"\x00\x0e\x00\x02\x01\x00"), 1)),
        ("nested attributes without end", one_proposal(link(0, PRF + b"\x00\x0f\xff\xff" * 8), 1)),
    ],
)
def test_crooked_proposals(what: str, octets: bytes) -> None:
    with pytest.raises(DecodeError):
        SecurityAssociation.read(Cursor(octets))


def test_an_error_within_a_transform_says_where() -> None:
    octets = one_proposal(link(3, PRF) + link(0, AES + KEY_256), 2)
    with pytest.raises(DecodeError) as error:
        SecurityAssociation.read(Cursor(octets))
    assert error.value.offset == len(octets)


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("MAX_PROPOSALS", SecurityAssociation((Proposal(1, ProtocolID.IKE, b"", ()),) * 65)),
        (
            "MAX_TRANSFORMS",
            SecurityAssociation((Proposal(1, ProtocolID.IKE, b"", (Transform(TransformType.PRF, 5),) * 129),) * 2),
        ),
        ("MAX_SPIS", Delete(ProtocolID.ESP, (b"spis",) * 257)),
        ("MAX_IDENTITY", IDi(IDType.KEY_ID, bytes(1025))),
    ],
)
def test_counts_are_bounded(limit: str, value: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    octets = value.write()
    with pytest.raises(DecodeError):
        type(value).read(Cursor(octets))
    # Control: without the limit the flood gets in.
    monkeypatch.setattr(payload_module, limit, 1 << 16)
    assert type(value).read(Cursor(octets)) == value


def test_the_largest_proposal_list_passes() -> None:
    proposal = Proposal(1, ProtocolID.IKE, b"", (Transform(TransformType.PRF, PrfID.HMAC_SHA2_256),) * 4)
    value = SecurityAssociation((proposal,) * 64)
    assert SecurityAssociation.read(Cursor(value.write())) == value


# --- The others -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 15, 257])
def test_a_nonce_has_16_to_256_octets(length: int) -> None:
    with pytest.raises(DecodeError, match=f"nonce of {length} octets"):
        Nonce.read(Cursor(bytes(length)))


@pytest.mark.parametrize(
    ("what", "kind", "octets"),
    [
        ("SPI longer than the payload", Notify, b"\x03\x05\x40\x09spis"),
        ("65535 SPIs of no octets", Delete, b"\x03\x00\xff\xff"),
        ("one SPI of no octets", Delete, b"\x03\x00\x00\x01"),
        ("one SPI fewer", Delete, b"\x03\x04\x00\x02spis"),
        ("octets after the SPIs", Delete, b"\x03\x04\x00\x01spis!"),
        ("SPIs that are not counted", Delete, b"\x03\x04\x00\x00spis"),
        ("no selector", TSi, b"\x00\x00\x00\x00"),
        ("one selector fewer", TSi, b"\x02\x00\x00\x00\x0a\x00\x00\x04"),
        ("octets after the selectors", TSr, b"\x01\x00\x00\x00\x0a\x00\x00\x04!"),
        ("selector of zero length", TSi, b"\x01\x00\x00\x00\x0a\x00\x00\x00"),
        ("IPv4 range of 15 octets", TSi, b"\x01\x00\x00\x00\x07\x00\x00\x0f" + bytes(11)),
        ("IPv4 range of 17 octets", TSi, b"\x01\x00\x00\x00\x07\x00\x00\x11" + bytes(13)),
        ("IPv6 range of 16 octets", TSi, b"\x01\x00\x00\x00\x08\x00\x00\x10" + bytes(12)),
        ("ports that end before they begin", TSi, b"\x01\x00\x00\x00\x07\x00\x00\x10\x00\x02\x00\x01" + bytes(8)),
        (
            "addresses that end before they begin",
            TSi,
            b"\x01\x00\x00\x00\x07\x00\x00\x10\x00\x00\xff\xff\x02\x00\x00\x00\x01\xff\xff\xff",
        ),
        ("attribute longer than the payload", Configuration, b"\x01\x00\x00\x00\x00\x01\x00\x01"),
        ("half an attribute", Configuration, b"\x01\x00\x00\x00\x00\x01\x00"),
    ],
)
def test_crooked_payloads(what: str, kind: type[Known], octets: bytes) -> None:
    with pytest.raises(DecodeError):
        kind.read(Cursor(octets))


def test_a_delete_is_not_written_of_spis_of_two_sizes() -> None:
    with pytest.raises(ValueError, match="sizes"):
        Delete(ProtocolID.ESP, (b"1234", b"12345678")).write()


@pytest.mark.parametrize(("number", "total"), [(0, 0), (0, 1), (2, 1), (65535, 0)])
def test_a_fragment_has_a_number_up_to_the_total(number: int, total: int) -> None:
    octets = EncryptedFragment(PayloadType.NONE, number, total, b"body").write()
    with pytest.raises(DecodeError, match=f"fragment {number} of {total}"):
        EncryptedFragment.read(0, Cursor(octets))
