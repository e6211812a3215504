"""names.tlsa: one form each way; dnspython reads what is written; whatever is not 3 1 1 is left alone."""

import dns.rdata
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.names.name import BadName
from hushwire.names.tlsa import BadTlsa, owner, read_fingerprint, read_fingerprints, write_fingerprint


def test_where_it_is() -> None:
    assert owner("alice.example") == "_500._udp.alice.example"
    with pytest.raises(BadName, match="longer"):
        owner(".".join(["a" * 61] * 4))


def test_a_key_and_its_record() -> None:
    public = PrivateKey.generate(KeyKind.ED25519).public
    rdata = write_fingerprint(public.fingerprint)
    theirs = dns.rdata.from_wire("IN", "TLSA", rdata, 0, len(rdata))
    assert (theirs.usage, theirs.selector, theirs.mtype, theirs.cert) == (3, 1, 1, public.fingerprint)
    assert read_fingerprint(rdata) == public.fingerprint


@given(st.binary(max_size=40))
def test_any_octets(rdata: bytes) -> None:
    found, skipped = read_fingerprints([rdata])
    assert [write_fingerprint(fingerprint) for fingerprint in found] == ([] if skipped else [rdata])


@pytest.mark.parametrize(
    ("rdata", "reason"),
    [
        (b"", "0 octets"),
        (b"\3\1", "2 octets"),
        (b"\3\0\1" + bytes(32), "3 0 1"),
        (b"\2\1\1" + bytes(32), "2 1 1"),
        (b"\3\1\2" + bytes(64), "3 1 2"),
        (b"\3\1\1" + bytes(31), "31 octets"),
        (b"\3\1\1" + bytes(33), "33 octets"),
    ],
)
def test_what_is_no_fingerprint(rdata: bytes, reason: str) -> None:
    with pytest.raises(BadTlsa, match=reason):
        read_fingerprint(rdata)


def test_a_set() -> None:
    good, other = bytes(32), bytes([1] * 32)
    found, skipped = read_fingerprints([write_fingerprint(good), write_fingerprint(other), b"\3\0\1" + good])
    assert found == {good, other}
    assert len(skipped) == 1


def test_a_fingerprint_of_another_length_is_not_written() -> None:
    with pytest.raises(ValueError, match="20 octets"):
        write_fingerprint(bytes(20))
