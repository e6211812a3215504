"""names.ipseckey: RDATA to keys and back, dnspython as a second reader, and ATTACKS row 42."""

from ipaddress import IPv4Address, IPv6Address

import dns.name
import dns.rdata
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto import keys
from hushwire.crypto.keys import PublicKey
from hushwire.names import ipseckey
from hushwire.names.ipseckey import (
    BadKeyRecord,
    KeyRecord,
    read_record,
    read_records,
    write_record,
)

ED25519 = PublicKey.of(ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32).public_key())
ED448 = PublicKey.of(ed448.Ed448PrivateKey.from_private_bytes(b"\2" * 57).public_key())
P256 = PublicKey.of(ec.derive_private_key(3, ec.SECP256R1()).public_key())
P384 = PublicKey.of(ec.derive_private_key(4, ec.SECP384R1()).public_key())
MODULUS = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n
RSA = PublicKey.of(rsa.RSAPublicNumbers(65537, MODULUS).public_key())

KEYS = {"ed25519": ED25519, "ed448": ED448, "p256": P256, "p384": P384, "rsa": RSA}
IANA = {"rsa": 2, "ecdsa": 3, "ed25519": 4, "ed448": 4}
"""IPSECKEY Resource Record Parameters, Algorithm Type Field."""
GATEWAYS = [None, IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), "gate.example"]


def rsa_field(e: bytes, n: bytes, length: bytes | None = None) -> bytes:
    """RFC 3110's form, with the exponent's length as we please."""
    return (bytes((len(e),)) if length is None else length) + e + n


octets = ipseckey._octets


@pytest.mark.parametrize("gateway", GATEWAYS, ids=str)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_there_and_back(key: PublicKey, gateway: IPv4Address | IPv6Address | str | None) -> None:
    record = KeyRecord(10, gateway, key)
    assert read_record(write_record(record)) == record


@pytest.mark.parametrize("gateway", GATEWAYS, ids=str)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_dnspython_reads_what_we_write(key: PublicKey, gateway: IPv4Address | IPv6Address | str | None) -> None:
    record = KeyRecord(10, gateway, key)
    rdata = write_record(record)
    theirs = dns.rdata.from_wire("IN", "IPSECKEY", rdata, 0, len(rdata))
    assert (theirs.precedence, theirs.algorithm) == (10, IANA[str(key.kind).partition("-")[0]])
    assert rdata.endswith(theirs.key)
    expected = {None: "None", "gate.example": "gate.example."}.get(gateway, str(gateway))  # type: ignore[arg-type]
    assert str(theirs.gateway) == expected


def test_no_form_for_p521() -> None:
    public = PublicKey.of(ec.derive_private_key(5, ec.SECP521R1()).public_key())
    with pytest.raises(BadKeyRecord, match="p521"):
        write_record(KeyRecord(10, None, public))


def test_the_fields_octet_by_octet() -> None:
    """RFC 4025 s2.1 and RFC 9373: precedence, gateway type, algorithm 4, the gateway's labels, 32 octets."""
    rdata = write_record(KeyRecord(7, "example.com", ED25519))
    assert rdata[:3] == bytes((7, 3, 4))
    assert rdata[3:16] == b"\x07example\x03com\0"
    assert rdata[16:] == ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32).public_key().public_bytes_raw()


BAD: dict[str, bytes] = {
    "empty": b"",
    "header cut": b"\0\0",
    "no key": bytes((0, 0, 0)),
    "no key but octets": bytes((0, 0, 0)) + b"x",
    "DSA": bytes((0, 0, 1)) + b"x" * 200,
    "unknown algorithm": bytes((0, 0, 77)) + b"x" * 32,
    "wrong algorithm: Ed25519 as ECDSA": bytes((0, 0, 3)) + b"x" * 32,
    "wrong algorithm: Ed25519 as RSA": bytes((0, 0, 2)) + b"x" * 32,
    "unknown gateway type": bytes((0, 9, 4)) + b"x" * 32,
    "IPv4 gateway cut": bytes((0, 1, 4)) + b"abc",
    "IPv6 gateway cut": bytes((0, 2, 4)) + b"x" * 15,
    "gateway compressed": bytes((0, 3, 4)) + b"\xc0\x00" + b"x" * 32,
    "gateway name without end": bytes((0, 3, 4)) + b"\x05alice",
    "gateway the root": bytes((0, 3, 4)) + b"\0" + b"x" * 32,
    "gateway with a NUL": bytes((0, 3, 4)) + b"\x03a\0b\0" + b"x" * 32,
    "Ed25519 trailing octet": bytes((0, 0, 4)) + write_record(KeyRecord(0, None, ED25519))[3:] + b"\0",
    "Ed25519 short": bytes((0, 0, 4)) + b"x" * 31,
    "P-256 off the curve": bytes((0, 0, 3)) + b"\1" * 64,
    "P-256 with 04": bytes((0, 0, 3)) + b"\4" + write_record(KeyRecord(0, None, P256))[3:],
    "P-256 zero": bytes((0, 0, 3)) + bytes(64),
    "RSA empty": bytes((0, 0, 2)),
    "RSA 512": bytes((0, 0, 2)) + rsa_field(b"\1\0\1", b"\xff" * 64),
    "RSA 1024": bytes((0, 0, 2)) + rsa_field(b"\1\0\1", b"\xff" * 128),
    "RSA 16384": bytes((0, 0, 2)) + rsa_field(b"\1\0\1", b"\xff" * 2048),
    "RSA e=0": bytes((0, 0, 2)) + rsa_field(b"\0", octets(MODULUS)),
    "RSA e=1": bytes((0, 0, 2)) + rsa_field(b"\1", octets(MODULUS)),
    "RSA e=3": bytes((0, 0, 2)) + rsa_field(b"\3", octets(MODULUS)),
    "RSA e even": bytes((0, 0, 2)) + rsa_field(b"\1\0\2", octets(MODULUS)),
    "RSA e of 72 bits": bytes((0, 0, 2)) + rsa_field(b"\xff" * 9, octets(MODULUS)),
    "RSA e zero-led": bytes((0, 0, 2)) + rsa_field(b"\0\1\0\1", octets(MODULUS)),
    "RSA n zero-led": bytes((0, 0, 2)) + rsa_field(b"\1\0\1", b"\0" + octets(MODULUS)),
    "RSA n even": bytes((0, 0, 2)) + rsa_field(b"\1\0\1", octets(MODULUS - 1)),
    "RSA long form of a short exponent": bytes((0, 0, 2)) + rsa_field(b"\1\0\1", octets(MODULUS), b"\0\0\3"),
    "RSA long form cut": bytes((0, 0, 2)) + b"\0\1",
    "RSA long form of 256 octets": bytes((0, 0, 2)) + rsa_field(b"\1" * 256, octets(MODULUS), b"\0\1\0"),
    "RSA exponent beyond the end": bytes((0, 0, 2)) + b"\xff\1\0\1",
    "RSA 64 kB": bytes((0, 0, 2)) + rsa_field(b"\1\0\1", b"\xff" * 65000),
}


@pytest.mark.parametrize("rdata", BAD.values(), ids=BAD)
def test_bad_record(rdata: bytes) -> None:
    with pytest.raises(BadKeyRecord) as caught:
        read_record(rdata)
    assert 0 < len(str(caught.value)) < 300
    assert read_records([rdata]) == ((), (str(caught.value),))


def test_control_the_bounds_are_what_refuses_weak_rsa(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the guard out, a 1024-bit key comes in: what row 42 tests is the guard and not the library."""
    monkeypatch.setattr(keys, "MIN_RSA_BITS", 512)
    n = rsa.generate_private_key(65537, 1024).public_key().public_numbers().n
    weak = bytes((0, 0, 2)) + rsa_field(b"\1\0\1", octets(n))
    assert read_record(weak).key.kind is keys.KeyKind.RSA
    monkeypatch.undo()
    with pytest.raises(BadKeyRecord, match="1024 bits"):
        read_record(weak)


def test_bad_ones_do_not_hide_good_ones() -> None:
    good = KeyRecord(5, None, P256)
    records, skipped = read_records([*list(BAD.values())[:4], write_record(good)])
    assert records == (good,)
    assert len(skipped) == 4


def test_two_hundred_records() -> None:
    wanted = KeyRecord(0, None, ED25519)
    many = [write_record(KeyRecord(1 + number, None, P256)) for number in range(199)]
    records, skipped = read_records([*many, write_record(wanted)])
    assert len(records) == ipseckey.MAX_TRIED
    assert records[0] == wanted
    assert "192 more" in skipped[-1]


def test_preferred_first_and_each_once() -> None:
    late, early = KeyRecord(20, None, ED25519), KeyRecord(10, None, P256)
    rdatas = [write_record(late), write_record(early), write_record(late)]
    assert read_records(rdatas)[0] == (early, late)


@given(st.binary(max_size=600))
def test_any_octets_are_a_record_or_are_refused(rdata: bytes) -> None:
    try:
        record = read_record(rdata)
    except BadKeyRecord:
        return
    assert read_record(write_record(record)) == record


@given(
    st.sampled_from([write_record(KeyRecord(1, gateway, key)) for gateway in GATEWAYS for key in KEYS.values()]),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=4),
    st.integers(0, 600),
)
def test_a_record_with_octets_changed(rdata: bytes, changes: list[tuple[int, int]], length: int) -> None:
    spoilt = bytearray(rdata)
    for position, value in changes:
        spoilt[position % len(spoilt)] = value
    records, skipped = read_records([bytes(spoilt[:length])])
    assert len(records) + len(skipped) == 1
    for record in records:
        # One key has one form: what was read is what would be written, but for the case of a gateway's name.
        assert write_record(record).lower() == bytes(spoilt[:length]).lower()
