"""names.name: one canonical form, and what is refused."""

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.names.name import BadName, host_name, read_name, write_name


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("Alice.Example", "alice.example"),
        ("alice.example.", "alice.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_ipsec.alice.example", "_ipsec.alice.example"),
        ("localhost", "localhost"),
        ("4.3.2.1.in-addr.arpa", "4.3.2.1.in-addr.arpa"),
        (".".join(["a" * 63] * 3 + ["b" * 61]), ".".join(["a" * 63] * 3 + ["b" * 61])),
    ],
)
def test_canonical(text: str, canonical: str) -> None:
    assert host_name(text) == canonical
    assert host_name(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty label"),
        (".", "empty label"),
        ("alice..example", "empty label"),
        ("alice.example..", "empty label"),
        ("alice\0.example", "may hold"),
        ("alice.example\n", "may hold"),
        ("alice .example", "may hold"),
        ("-alice.example", "may hold"),
        ("alice-.example", "may hold"),
        ("al/ice.example", "may hold"),
        ("bücher.example", "xn--"),
        ("\u212a.example", "xn--"),
        ("192.0.2.1", "number"),
        ("a" * 64 + ".example", "63"),
        (".".join(["a" * 63] * 4), "253"),
        (".".join(["a" * 63] * 3 + ["b" * 62]), "253"),
        ("a." * 100_000, "253"),
    ],
)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(BadName, match=reason) as caught:
        host_name(text)
    assert str(caught.value).isascii(), "the message may go to a log"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_is_refused(text: str) -> None:
    try:
        name = host_name(text)
    except BadName:
        return
    assert host_name(name) == name
    assert read_name(write_name(name)) == (name, len(write_name(name)))


@given(st.binary(max_size=300))
def test_any_octets_are_a_name_or_are_refused(octets: bytes) -> None:
    try:
        name, length = read_name(octets)
    except BadName:
        return
    assert write_name(name) == octets[:length].lower()


def test_wire_form_as_dnspython_writes_it() -> None:
    wire = dns.name.from_text("alice.example.").to_wire()
    assert wire is not None
    assert write_name("alice.example") == wire
    assert read_name(wire + b"rest") == ("alice.example", len(wire))


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\0",
        b"\xc0\x00",
        b"\x05ali",
        b"\x05alice",
        b"\x05alice\xc0\x00",
        b"\x03a.b\0",
        b"\x40" + b"a" * 64 + b"\0",
        b"\x01a" * 128 + b"\0",
    ],
)
def test_wire_forms_refused(octets: bytes) -> None:
    with pytest.raises(BadName):
        read_name(octets)
