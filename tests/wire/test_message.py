"""Whole messages against octets written by hand, and hostile ones (ATTACKS rows 1, 2 and 6)."""

from ipaddress import IPv4Address

import pytest

from hushwire.wire import message as message_module
from hushwire.wire.cursor import Cursor, DecodeError
from hushwire.wire.message import (
    Header,
    Message,
    UnsupportedVersion,
    notify,
    one,
    read_header,
    read_message,
    read_payloads,
    sealed_prefix,
    write_message,
    write_payloads,
)
from hushwire.wire.payload import (
    Encrypted,
    EncryptedFragment,
    IDi,
    KeyExchange,
    Nonce,
    Notify,
    Proposal,
    SecurityAssociation,
    TrafficSelector,
    Transform,
    TSi,
    Unknown,
    VendorID,
)
from hushwire.wire.registry import (
    EncrID,
    ExchangeType,
    IDType,
    KeID,
    NotifyType,
    PayloadType,
    PrfID,
    ProtocolID,
    TransformType,
)

SPI_I, SPI_R = b"\x01\x02\x03\x04\x05\x06\x07\x08", b"\x11\x12\x13\x14\x15\x16\x17\x18"

# RFC 7296 s1.2: HDR, SAi1, KEi, Ni and, before them, N(COOKIE).
SA_INIT = (
    SPI_I + bytes(8) + b"\x29\x20\x22\x08"  # First payload 41, version 2.0, exchange 34, the I flag alone.
    b"\x00\x00\x00\x00"  # Message ID 0.
    b"\x00\x00\x00\x8c"  # 140 octets.
    b"\x21\x00\x00\x0c\x00\x00\x40\x06\xc0\x0c\x1e\x00"  # N, next 33, 12 octets: no SPI, 16390, the cookie.
    b"\x22\x00\x00\x28"  # SA, next 34, 40 octets.
    b"\x00\x00\x00\x24\x01\x01\x00\x03"  # Last proposal, 36 octets; number 1, IKE, no SPI, three transforms.
    b"\x03\x00\x00\x0c\x01\x00\x00\x14\x80\x0e\x01\x00"  # ENCR AES_GCM_16 with 256 bits.
    b"\x03\x00\x00\x08\x02\x00\x00\x05"  # PRF HMAC_SHA2_256.
    b"\x00\x00\x00\x08\x04\x00\x00\x1f"  # KE CURVE25519; the last.
    b"\x28\x00\x00\x28\x00\x1f\x00\x00" + b"\x5a" * 32 +  # KE, next 40, 40 octets, method 31.
    b"\x00\x00\x00\x14" + b"\xa5" * 16  # Ni, the last payload, 20 octets.
)  # fmt: skip
SA_INIT_VALUE = Message(
    Header(SPI_I, bytes(8), ExchangeType.IKE_SA_INIT, initiator=True, response=False, message_id=0),
    (
        Notify(NotifyType.COOKIE, b"\xc0\x0c\x1e\x00"),
        SecurityAssociation(
            (
                Proposal(
                    1,
                    ProtocolID.IKE,
                    b"",
                    (
                        Transform(TransformType.ENCR, EncrID.AES_GCM_16, 256),
                        Transform(TransformType.PRF, PrfID.HMAC_SHA2_256),
                        Transform(TransformType.KE, KeID.CURVE25519),
                    ),
                ),
            )
        ),
        KeyExchange(KeID.CURVE25519, b"\x5a" * 32),
        Nonce(b"\xa5" * 16),
    ),
)

# RFC 7296 s3.14: HDR, SK; here the response to IKE_AUTH.
AUTH = (
    SPI_I + SPI_R + b"\x2e\x20\x23\x20"  # First payload 46, version 2.0, exchange 35, the R flag alone.
    b"\x00\x00\x00\x01\x00\x00\x00\x27"  # Message ID 1, 39 octets.
    b"\x24\x00\x00\x0b"  # SK: the first payload inside is 36 (IDr); 11 octets.
    b"sealed!"
)
AUTH_VALUE = Message(
    Header(SPI_I, SPI_R, ExchangeType.IKE_AUTH, initiator=False, response=True, message_id=1),
    (Encrypted(PayloadType.IDR, b"sealed!"),),
    AUTH[:-7],
)

# RFC 7383 s2.5: HDR, SKF; the second of three fragments, so that its Next Payload is zero.
FRAGMENT = (
    SPI_I + SPI_R + b"\x35\x20\x23\x08"  # First payload 53, version 2.0, exchange 35, the I flag.
    b"\x00\x00\x00\x01\x00\x00\x00\x2b"  # Message ID 1, 43 octets.
    b"\x00\x00\x00\x0f\x00\x02\x00\x03"  # SKF: 15 octets, 2 of 3.
    b"sealed!"
)
FRAGMENT_VALUE = Message(
    Header(SPI_I, SPI_R, ExchangeType.IKE_AUTH, initiator=True, response=False, message_id=1),
    (EncryptedFragment(PayloadType.NONE, 2, 3, b"sealed!"),),
    FRAGMENT[:-7],
)

# RFC 7296 s2.5: an extension that we must understand or refuse, then a payload after it.
CRITICAL = (
    SPI_I + SPI_R + b"\x63\x2f\x25\x00"  # First payload 99, version 2.15, exchange 37, no flag.
    b"\x00\x00\x00\x07\x00\x00\x00\x29"  # Message ID 7, 41 octets.
    b"\x2b\xff\x00\x05\x00"  # Type 99, next 43, critical and all reserved bits, 5 octets.
    b"\x00\x80\x00\x08hush"  # V, marked critical although everybody knows it.
)
CRITICAL_VALUE = Message(
    Header(SPI_I, SPI_R, ExchangeType.INFORMATIONAL, False, False, 7, version=0x2F),
    (Unknown(PayloadType(99), True, b"\x00"), VendorID(b"hush")),
)

CORPUS = {
    "IKE_SA_INIT": (SA_INIT, SA_INIT_VALUE),
    "IKE_AUTH": (AUTH, AUTH_VALUE),
    "fragment": (FRAGMENT, FRAGMENT_VALUE),
    "critical": (CRITICAL, CRITICAL_VALUE),
}
corpus = pytest.mark.parametrize(("octets", "value"), CORPUS.values(), ids=CORPUS)


def message_of(body: bytes, first: int = 43, version: int = 0x20) -> bytes:
    """A message of right length around payloads that need not be right."""
    head = SPI_I + SPI_R + bytes((first, version, 37, 8)) + bytes(4)
    return head + (28 + len(body)).to_bytes(4, "big") + body


def outcome(octets: bytes) -> Message | DecodeError:
    """What reading gives; any other exception is a failure."""
    try:
        return read_message(octets)
    except DecodeError as error:
        return error


@corpus
def test_golden(octets: bytes, value: Message) -> None:
    assert read_message(octets) == value
    assert read_header(octets) == value.header


@pytest.mark.parametrize("name", ["IKE_SA_INIT", "IKE_AUTH", "fragment"])
def test_golden_written(name: str) -> None:
    octets, value = CORPUS[name]
    assert write_message(value.header, value.payloads) == octets


def test_a_critical_bit_is_written_for_unknown_payloads_alone() -> None:
    octets = write_message(CRITICAL_VALUE.header, CRITICAL_VALUE.payloads)
    assert octets == CRITICAL.replace(b"\x2b\xff", b"\x2b\x80").replace(b"\x00\x80\x00\x08", b"\x00\x00\x00\x08")


def test_golden_prefixes() -> None:
    assert sealed_prefix(AUTH_VALUE.header, PayloadType.IDR, 7) == AUTH[:-7]
    assert sealed_prefix(FRAGMENT_VALUE.header, PayloadType.NONE, 7, (2, 3)) == FRAGMENT[:-7]


def test_what_was_inside() -> None:
    address = IPv4Address("192.0.2.1")
    inside = (IDi(IDType.NULL, b""), TSi((TrafficSelector(0, 0, 65535, address, address),)))
    octets = (
        b"\x2c\x00\x00\x08\x0d\x00\x00\x00"  # IDi, next 44, 8 octets, ID_NULL.
        b"\x00\x00\x00\x18\x01\x00\x00\x00\x07\x00\x00\x10\x00\x00\xff\xff\xc0\x00\x02\x01\xc0\x00\x02\x01"
    )
    assert read_payloads(35, octets) == inside
    assert write_payloads(inside) == (PayloadType.IDI, octets)
    # A liveness check has nothing inside (RFC 7296 s1.4).
    assert read_payloads(0, b"") == ()
    assert write_payloads(()) == (PayloadType.NONE, b"")


def test_lookups() -> None:
    nonce, cookie, other = Nonce(bytes(16)), Notify(NotifyType.COOKIE, b"1"), Notify(NotifyType.COOKIE, b"2")
    message = Message(SA_INIT_VALUE.header, (cookie, nonce, other))
    assert message.one(Nonce) is nonce
    assert message.one(KeyExchange) is None
    assert message.notify(NotifyType.COOKIE) is cookie
    assert message.notify(NotifyType.REKEY_SA) is None
    assert one(message.payloads, Nonce) is nonce
    assert notify(message.payloads, NotifyType.COOKIE) is cookie
    with pytest.raises(DecodeError, match="more than one payload Nonce"):
        one((nonce, nonce), Nonce)


@corpus
def test_every_truncation_is_a_decode_error(octets: bytes, value: Message) -> None:
    for length in range(len(octets)):
        with pytest.raises(DecodeError):
            read_message(octets[:length])
        with pytest.raises(DecodeError):
            read_header(octets[:length])
        # The same with a length field that agrees, so that the payloads are reached.
        shorter = octets[:24] + length.to_bytes(4, "big") + octets[28:length]
        assert outcome(shorter) != value


@corpus
def test_every_single_octet_corruption_is_a_value_or_a_decode_error(octets: bytes, value: Message) -> None:
    for at in range(len(octets)):
        for octet in range(256):
            crooked = octets[:at] + bytes((octet,)) + octets[at + 1 :]
            message = outcome(crooked)
            if isinstance(message, Message):
                assert read_message(write_message(message.header, message.payloads)).payloads == message.payloads
            else:
                assert 0 <= message.offset <= len(crooked)


@pytest.mark.parametrize(
    ("what", "octets"),
    [
        ("nothing", b""),
        ("payload of zero length", message_of(b"\x00\x00\x00\x00")),
        ("payload shorter than its header", message_of(b"\x00\x00\x00\x03")),
        ("zero length that would loop for ever", message_of(b"\x2b\x00\x00\x00" * 8)),
        ("half a payload header", message_of(b"\x00\x00\x00")),
        ("first payload missing", message_of(b"")),
        ("next payload missing", message_of(b"\x2b\x00\x00\x04")),
        ("payload after SK", message_of(b"\x2b\x00\x00\x05x\x00\x00\x00\x04", first=46)),
        ("payload after SKF", message_of(b"\x2b\x00\x00\x09\x00\x01\x00\x01x\x00\x00\x00\x04", first=53)),
        ("SK after SK", message_of(b"\x2e\x00\x00\x04\x2b\x00\x00\x04", first=46)),
        ("SKF too short", message_of(b"\x2b\x00\x00\x07\x00\x01\x00", first=53)),
        ("no initiator's SPI", bytes(8) + SA_INIT[8:]),
        ("length of zero", SA_INIT[:24] + bytes(4) + SA_INIT[28:]),
        ("length of 4 GiB", SA_INIT[:24] + b"\xff\xff\xff\xff" + SA_INIT[28:]),
        ("longer than a datagram", message_of(b"\x00\x00\xff\xff" + bytes(65531))),
    ],
)
def test_crooked_messages(what: str, octets: bytes) -> None:
    with pytest.raises(DecodeError):
        read_message(octets)


@pytest.mark.parametrize("inside", [b"\x2b\x00\x00\x04", b"\x2b\x00\x00\x08\x00\x01\x00\x01"])
@pytest.mark.parametrize("first", [46, 53])
def test_nothing_sealed_is_inside_what_was_sealed(first: int, inside: bytes) -> None:
    with pytest.raises(DecodeError, match="SK inside SK"):
        read_payloads(first, inside)


def test_octets_after_the_last_payload_are_refused_inside_too() -> None:
    with pytest.raises(DecodeError, match="too many"):
        read_payloads(0, b"\x00")


def test_an_invalid_spi_report_may_come_from_nobody() -> None:
    octets = bytes(16) + message_of(b"\x00\x00\x00\x0c\x00\x00\x00\x0bspis", first=41)[16:]
    assert read_message(octets).notify(NotifyType.INVALID_SPI) == Notify(NotifyType.INVALID_SPI, b"spis")


# --- Row 1: what the guards keep out, shown with each taken out ----------------------------------------------------


def test_a_lying_length_control(monkeypatch: pytest.MonkeyPatch) -> None:
    octets = message_of(b"\x00\x00\x00\xffhush")
    with pytest.raises(DecodeError):
        read_message(octets)

    def unguarded(cursor: Cursor, length: int) -> int:
        cursor.at += length
        return cursor.at - length

    monkeypatch.setattr(Cursor, "_advance", unguarded)
    monkeypatch.setattr(Cursor, "end", lambda _: None)
    assert read_message(octets).payloads == (VendorID(b"hush"),)


def test_trailing_octets_control(monkeypatch: pytest.MonkeyPatch) -> None:
    octets = message_of(b"\x00\x00\x00\x08hush" + b"smuggled")
    with pytest.raises(DecodeError, match="8 octets too many"):
        read_message(octets)
    monkeypatch.setattr(Cursor, "end", lambda _: None)
    assert read_message(octets).payloads == (VendorID(b"hush"),)


# --- Row 2 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [43, 41, 99])
def test_a_flood_of_payloads_control(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def flood(count: int) -> bytes:
        body = (bytes((kind, 0, 0, 8)) + bytes(4)) * (count - 1) + b"\x00\x00\x00\x08" + bytes(4)
        return message_of(body, first=kind)

    assert len(read_message(flood(64)).payloads) == 64
    with pytest.raises(DecodeError, match="more than 64 payloads"):
        read_message(flood(65))
    with pytest.raises(DecodeError, match="more than 64 payloads"):
        read_payloads(kind, flood(65)[28:])
    monkeypatch.setattr(message_module, "MAX_PAYLOADS", 1 << 16)
    assert len(read_message(flood(5000)).payloads) == 5000


# --- Row 6 ----------------------------------------------------------------------------------------------------------

# RFC 2408 s3.1: an ISAKMP header of Main Mode, and an SA payload that is not one of ours.
MAIN_MODE = (
    SPI_I + bytes(8) + b"\x01\x10\x02\x00"  # First payload 1, version 1.0, exchange 2, no flag.
    b"\x00\x00\x00\x00\x00\x00\x00\x28"  # Message ID 0, 40 octets.
    b"\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x01"
)


@pytest.mark.parametrize("version", [0x00, 0x10, 0x30, 0x31, 0xFF])
def test_another_major_version_is_told_apart(version: int) -> None:
    octets = message_of(b"\x00\x00\x00\x08hush", version=version)
    for read in (read_header, read_message):
        with pytest.raises(UnsupportedVersion) as error:
            read(octets)
        assert error.value.version == error.value.header.version == version
        assert error.value.header.spi_i == SPI_I
    # Control: the version octet is the only guard.
    assert read_message(octets[:17] + b"\x20" + octets[18:]).payloads == (VendorID(b"hush"),)


def test_a_message_of_another_version_need_not_have_our_length() -> None:
    with pytest.raises(UnsupportedVersion, match=r"IKE version 3\.0 at octet 17"):
        read_message(message_of(b"", version=0x30) + b"whatever follows in IKEv3")


def test_ikev1_and_its_payload_numbers() -> None:
    with pytest.raises(UnsupportedVersion):
        read_message(MAIN_MODE)
    # In an IKEv2 message number 1 is no SA: the two number spaces never meet (CVE-2015-3991).
    assert read_message(MAIN_MODE[:17] + b"\x20" + MAIN_MODE[18:]).payloads == (
        Unknown(PayloadType(1), False, b"\x00\x00\x00\x01\x00\x00\x00\x01"),
    )


# --- Writing --------------------------------------------------------------------------------------------------------


def test_nothing_is_written_after_sk() -> None:
    with pytest.raises(ValueError, match="after SK"):
        write_payloads((Encrypted(PayloadType.IDI, b""), Nonce(bytes(16))))


def test_no_message_is_written_that_no_datagram_holds() -> None:
    largest = Unknown(PayloadType(99), False, bytes(65535 - 28 - 4))
    assert len(write_message(AUTH_VALUE.header, (largest,))) == 65535
    with pytest.raises(ValueError, match="65540 octets"):
        write_message(AUTH_VALUE.header, (VendorID(b"x"), largest))
