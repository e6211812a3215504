"""The trust store's text: what is written is read back, what stands stays, what is wrong is told with its line."""

import hashlib
import string
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.policy.pad import fingerprint_text
from hushwire.policy.trust import LONGEST_LABEL, BadTrust, Trusted, TrustStore, label_of, read_fingerprint

ONE, TWO, THREE = (hashlib.sha256(text).digest() for text in (b"one", b"two", b"three"))
FILE = f"""\
# Vienna
{fingerprint_text(ONE)} 2026-11-23 north router
{fingerprint_text(TWO)}    south router   # read to me on the telephone

# Graz
\t{fingerprint_text(THREE)}
"""

fingerprints = st.binary(min_size=32, max_size=32)
labels = st.text(max_size=140).map(label_of)
keys = st.builds(Trusted, fingerprints, labels, st.just("") | st.dates().map(date.isoformat))
comments = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])).map("#{}".format)
blanks = st.text(" \t\r\f\v", max_size=3)


@given(st.lists(keys, unique_by=lambda key: key.fingerprint))
def test_what_is_written_is_read_back(keys: list[Trusted]) -> None:
    assert list(TrustStore.from_text(TrustStore(keys).to_text())) == keys


@given(st.lists(keys.map(str) | comments | blanks, unique=True))
def test_a_file_is_written_as_it_was_read(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    assert TrustStore.from_text(text).to_text() == text


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_a_store_or_a_line_that_is_named(text: str) -> None:
    mistake = ""
    try:
        store = TrustStore.from_text(text)
    except BadTrust as bad:
        mistake = str(bad)
    if mistake:
        assert mistake.startswith("line ")
        assert "\n" not in mistake
    else:
        assert store.to_text() == (text if text.endswith("\n") or not text else f"{text}\n")


@given(st.text())
def test_a_label_is_made_of_any_text(text: str) -> None:
    assert Trusted(ONE, label_of(text)).label == label_of(label_of(text))


def test_what_a_line_means() -> None:
    assert list(TrustStore.from_text(FILE)) == [
        Trusted(ONE, "north router", "2026-11-23"), Trusted(TWO, "south router"), Trusted(THREE),
    ]  # fmt: skip


def test_the_forms_of_a_line_end() -> None:
    assert list(TrustStore.from_text(FILE.removesuffix("\n"))) == list(TrustStore.from_text(FILE))
    assert list(TrustStore.from_text(FILE.replace("\n", "\r\n"))) == list(TrustStore.from_text(FILE))


def test_a_change_is_a_line_of_difference() -> None:
    store = TrustStore.from_text(FILE)
    four = Trusted(hashlib.sha256(b"four").digest(), "bob", "2026-11-24")
    assert store.add(four)
    assert store.to_text() == f"{FILE}{four}\n"
    store.remove(TWO)
    assert store.to_text() == "".join(f"{line}\n" for line in FILE.splitlines() if "south" not in line) + f"{four}\n"


def test_look_up() -> None:
    store = TrustStore.from_text(FILE)
    assert store.get(ONE) == Trusted(ONE, "north router", "2026-11-23")
    assert store.get(bytes(32)) is None
    assert store.labelled("south router") == [Trusted(TWO, "south router")]
    assert store.labelled("router") == []
    assert len(store) == 3


def test_a_key_is_added_once_and_removed_once() -> None:
    store = TrustStore([Trusted(ONE, "first")])
    assert not store.add(Trusted(ONE, "second"))
    assert list(store) == [Trusted(ONE, "first")]
    assert store.remove(ONE) == Trusted(ONE, "first")
    assert (len(store), store.to_text(), store.get(ONE)) == (0, "", None)
    with pytest.raises(KeyError):
        store.remove(ONE)
    assert store.add(Trusted(ONE, "second"))


class Counted(bytes):
    """A fingerprint that counts how often one is compared with it."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__eq__(other)

    __hash__ = bytes.__hash__


@pytest.mark.parametrize("size", [10, 10_000])
def test_look_up_does_not_grow(size: int) -> None:
    store = TrustStore(Trusted(number.to_bytes(32, "big"), f"host {number}") for number in range(size))
    Counted.compared = 0
    found = store.get(Counted((size - 1).to_bytes(32, "big")))
    assert found is not None
    assert found.label == f"host {size - 1}"
    # Two whose hashes are the same in the bits that the table looks at, and differ in others, are not compared.
    assert Counted.compared == 1


KEY = fingerprint_text(ONE)
ALPHABET = f"{string.ascii_letters}{string.digits}+/"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("bob", "'bob' is no fingerprint; write SHA256: and 43 characters of base64"),
        (KEY[:-1], "is no fingerprint"),
        (f"{KEY}A", "is no fingerprint"),
        (ONE.hex(), f"is not how a fingerprint is written here; write it as {KEY}"),
        (f"{KEY}=", f"write it as {KEY}"),
        (f"{KEY} a\tb\x1b[31m", "write words with one space between them"),
        (f"{KEY} a\u202eb", "'a\\u202eb'"),
        (f"{KEY} 2026-11-23 2026-11-24", "begins with a date"),
        (f"{KEY} {KEY}", "reads as a fingerprint; write a name"),
        (f"{KEY} {'x' * (LONGEST_LABEL + 1)}", f"{LONGEST_LABEL + 1} characters; {LONGEST_LABEL} are enough"),
        ("ssh-ed25519 AAAA bob", "`hushwire trust add FILE` makes them of keys"),
        ("-----BEGIN PUBLIC KEY-----", "`hushwire trust add FILE` makes them of keys"),
        (f"{fingerprint_text(TWO)} again", f"{fingerprint_text(TWO)} is in line 3 already; keep one of the two"),
        ("\ufeff" + KEY, "'\\ufeffSHA256:"),
    ],
)
def test_a_bad_line(line: str, said: str) -> None:
    with pytest.raises(BadTrust) as caught:
        TrustStore.from_text(f"# first\n\n{fingerprint_text(TWO)}\n{line}\n{fingerprint_text(THREE)}\n")
    assert str(caught.value).startswith("line 4: ")
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Trusted(ONE[:31]), "31 octets"),
        (lambda: Trusted(ONE, added="20261123"), "write it as in 2026-11-23"),
        (lambda: Trusted(ONE, added="2026-02-30"), "no date"),
        (lambda: Trusted(ONE, "a # b"), "#"),
        (lambda: Trusted(ONE, "a\nb"), "'a\\nb'"),
        (lambda: Trusted(ONE, " a"), "one space"),
        (lambda: Trusted(ONE, "2026-11-23"), "date"),
        (lambda: Trusted(ONE, TWO.hex(":")), "fingerprint"),
    ],
)
def test_what_no_line_could_hold(make: Callable[[], Trusted], said: str) -> None:
    with pytest.raises(BadTrust) as caught:
        make()
    assert said in str(caught.value)


BASE64 = b64encode(ONE).decode()


@pytest.mark.parametrize(
    "typed",
    [
        KEY, f"{KEY}=", KEY.replace("SHA256", "sha256"), BASE64, BASE64.rstrip("="), f"  {KEY}\n",
        ONE.hex(), ONE.hex().upper(), ONE.hex(":"), ONE.hex(" ", 2), f"SHA256:{ONE.hex()}",
    ],
)  # fmt: skip
def test_a_fingerprint_as_people_type_it(typed: str) -> None:
    assert read_fingerprint(typed) == ONE


@given(fingerprints, st.integers(0, 42), st.sampled_from(ALPHABET) | st.characters())
def test_a_character_mistyped_is_another_key_or_none(fingerprint: bytes, at: int, wrong: str) -> None:
    body = fingerprint_text(fingerprint).removeprefix("SHA256:")
    typed = body[:at] + wrong + body[at + 1 :]
    assert (read_or_none(f"SHA256:{typed}") == fingerprint) is (typed == body)


@pytest.mark.parametrize(
    "typed", ["", "SHA256:", "SHA256", BASE64[:-2], f"{BASE64}=", ONE.hex()[:-1], "\u0661" * 64, "é" * 43]
)
def test_no_fingerprint(typed: str) -> None:
    with pytest.raises(BadTrust):
        read_fingerprint(typed)


def test_the_last_character_has_no_other_form() -> None:
    """Two bits of it are of no use: read loosely, a slip there would still be the key."""
    others = [f"{KEY[:-1]}{wrong}" for wrong in ALPHABET if wrong != KEY[-1]]
    assert len([typed for typed in others if b64decode(f"{typed[7:]}=") == ONE]) == 3
    for typed in others:
        assert read_or_none(typed) != ONE


def read_or_none(typed: str) -> bytes | None:
    try:
        return read_fingerprint(typed)
    except BadTrust:
        return None


def test_a_fingerprint_is_of_the_key_that_a_peer_sends() -> None:
    """The node looks up `PublicKey.fingerprint`; the words that `Identity` has for it are a line of the file."""
    public = PrivateKey.generate(KeyKind.ED25519).public
    assert TrustStore.from_text(fingerprint_text(public.fingerprint)).get(public.fingerprint) is not None
