"""names.binding with two questions for keys: every combination of what they come to (law 3; RFC 7671 s5.1)."""

import hashlib
from enum import Enum
from ipaddress import IPv4Address, IPv6Address

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from hushwire.crypto.keys import PublicKey
from hushwire.events import Answered, Outcome
from hushwire.names import binding
from hushwire.names.binding import MAX_TTL, Binding, Unbound, bind, questions
from hushwire.names.ipseckey import IPSECKEY, MAX_TRIED, KeyRecord, write_record
from hushwire.names.tlsa import TLSA, owner, write_fingerprint

NAME, TARGET = "alice.example", "host.example"
V4, V6, SOMEWHERE = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"), IPv4Address("198.51.100.9")
KEY, OTHER = (
    PublicKey.of(ed25519.Ed25519PrivateKey.from_private_bytes(bytes((seed,)) * 32).public_key()) for seed in (1, 2)
)
SECURE, DENIED, INSECURE, ERROR = Outcome.SECURE, Outcome.DENIED, Outcome.INSECURE, Outcome.ERROR


class Said(Enum):
    """What a question for keys comes to."""

    KEYS = "secure, and of use"
    USELESS = "secure, and nothing of use"
    DENIED = "denied"
    INSECURE = "insecure"
    ERROR = "error"


def answer(rdtype: int, outcome: Outcome, *rdata: bytes, ttl: int = 300, alias: str = "", name: str = NAME) -> Answered:
    return Answered(1, owner(name) if rdtype == TLSA else name, rdtype, outcome, rdata, ttl, canonical=alias)


def a(outcome: Outcome = SECURE, alias: str = "") -> Answered:
    return answer(1, outcome, *([V4.packed] if outcome in (SECURE, INSECURE) else []), alias=alias)


def aaaa(outcome: Outcome = DENIED, alias: str = "") -> Answered:
    return answer(28, outcome, *([V6.packed] if outcome in (SECURE, INSECURE) else []), alias=alias)


def keys(*records: KeyRecord, alias: str = "") -> Answered:
    return answer(IPSECKEY, SECURE if records else DENIED, *map(write_record, records), alias=alias)


def tlsa(*fingerprints: bytes) -> Answered:
    return answer(TLSA, SECURE if fingerprints else DENIED, *map(write_fingerprint, fingerprints))


PLAIN = KeyRecord(10, None, KEY)
KEY_RDATA, FINGERPRINT_RDATA = write_record(PLAIN), write_fingerprint(OTHER.fingerprint)
USELESS = {IPSECKEY: b"\0\0\1junk", TLSA: bytes((3, 0, 1)) + OTHER.fingerprint}


def said(rdtype: int, what: Said) -> Answered:
    useful = KEY_RDATA if rdtype == IPSECKEY else FINGERPRINT_RDATA
    match what:
        case Said.KEYS:
            return answer(rdtype, SECURE, useful)
        case Said.USELESS:
            return answer(rdtype, SECURE, USELESS[rdtype])
        case Said.DENIED:
            return answer(rdtype, DENIED)
        case Said.INSECURE:
            return answer(rdtype, INSECURE, useful)
    return answer(rdtype, ERROR, ttl=0)


BOUND = None
"""There is a binding."""

TABLE = {
    # Of IPSECKEY, the row; of TLSA, the column.
    #                KEYS   USELESS   DENIED    INSECURE  ERROR
    Said.KEYS:      (BOUND, BOUND,    BOUND,    BOUND,    BOUND),
    Said.USELESS:   (BOUND, SECURE,   SECURE,   INSECURE, ERROR),
    Said.DENIED:    (BOUND, SECURE,   DENIED,   INSECURE, ERROR),
    Said.INSECURE:  (BOUND, INSECURE, INSECURE, INSECURE, ERROR),
    Said.ERROR:     (BOUND, ERROR,    ERROR,    ERROR,    ERROR),
}  # fmt: skip
CASES = [(row, column, cell) for row, cells in TABLE.items() for column, cell in zip(Said, cells, strict=True)]


@pytest.mark.parametrize(("of_key", "of_tlsa", "expected"), CASES)
def test_every_combination_of_the_two(of_key: Said, of_tlsa: Said, expected: Outcome | None) -> None:
    """Securely none is what both deny; a signed key is one, whatever became of the other question."""
    answers = said(IPSECKEY, of_key), said(TLSA, of_tlsa)
    if expected is BOUND:
        bound = bind(NAME, a(), aaaa(), *answers)
        assert bound.keys == ((KEY,) if of_key is Said.KEYS else ())
        assert bound.fingerprints == ((OTHER.fingerprint,) if of_tlsa is Said.KEYS else ())
        # What says nothing, or nothing that counts, is told.
        lost = {Said.ERROR: "no answer", Said.INSECURE: "not signed"}
        for what, rdtype in ((of_key, "IPSECKEY"), (of_tlsa, "TLSA")):
            assert (f"{rdtype}: {lost.get(what)}" in bound.ignored) is (what in lost)
        return
    with pytest.raises(Unbound) as caught:
        bind(NAME, a(), aaaa(), *answers)
    assert caught.value.outcome is expected


@pytest.mark.parametrize(("of_key", "of_tlsa", "expected"), CASES)
@pytest.mark.parametrize("of_a", [INSECURE, ERROR])
def test_an_address_that_is_not_known_is_never_made_up_for(
    of_a: Outcome, of_key: Said, of_tlsa: Said, expected: Outcome | None
) -> None:
    """Who suppresses one family shall not steer to the other, nor who forges one be believed for good keys."""
    for addresses in ((a(of_a), aaaa(SECURE)), (a(), aaaa(of_a))):
        with pytest.raises(Unbound) as caught:
            bind(NAME, *addresses, said(IPSECKEY, of_key), said(TLSA, of_tlsa))
        assert caught.value.outcome is (ERROR if ERROR in (of_a, expected) else INSECURE)


def test_control_if_one_question_were_enough_who_suppresses_the_other_would_get_clear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows 29 and 31: the owner's key is in TLSA alone, and the attacker drops that question."""
    answers = a(), aaaa(), keys()
    with pytest.raises(Unbound) as caught:
        bind(NAME, *answers, said(TLSA, Said.ERROR))
    assert caught.value.outcome is ERROR
    monkeypatch.setattr(binding, "questions", lambda name: questions(name)[:3])
    with pytest.raises(Unbound) as caught:
        bind(NAME, *answers, None)
    assert caught.value.outcome is DENIED


def test_fingerprints() -> None:
    bound = bind(NAME, a(), aaaa(), keys(), tlsa(KEY.fingerprint))
    assert bound.fingerprints == bound.fingerprints_at(V4) == (hashlib.sha256(KEY.spki).digest(),)
    assert bound.fingerprints_at(SOMEWHERE) == bound.keys == bound.keys_at(V4) == ()
    assert bound.gateway is None


@pytest.mark.parametrize(
    "parameters", [(usage, selector, kind) for usage in range(5) for selector in (0, 1, 2) for kind in (0, 1, 2, 3)]
)
def test_only_dane_ee_spki_sha256(parameters: tuple[int, int, int]) -> None:
    """RFC 7671 s5.1; all else speaks of certificates, or of octets that no raw key's SHA-256 is compared with."""
    published = answer(TLSA, SECURE, bytes(parameters) + KEY.fingerprint)
    if parameters == (3, 1, 1):
        assert bind(NAME, a(), aaaa(), keys(), published).fingerprints == (KEY.fingerprint,)
        return
    with pytest.raises(Unbound, match="no usable key; TLSA {} {} {} is not used".format(*parameters)) as caught:
        bind(NAME, a(), aaaa(), keys(), published)
    assert caught.value.outcome is SECURE
    assert bind(NAME, a(), aaaa(), keys(PLAIN), published).keys == (KEY,)


def test_a_thousand_fingerprints() -> None:
    many = [number.to_bytes(32, "big") for number in range(1000)]
    bound = bind(NAME, a(), aaaa(), keys(), tlsa(*many))
    assert bound.fingerprints == tuple(many[:MAX_TRIED])
    assert "992 fingerprints more than the 8 used" in bound.ignored
    junk = answer(TLSA, SECURE, *(bytes((3, 1, 1)) + bytes(length) for length in range(33, 200)), FINGERPRINT_RDATA)
    bound = bind(NAME, a(), aaaa(), keys(), junk)
    assert bound.fingerprints == (OTHER.fingerprint,)
    assert len(bound.ignored) <= MAX_TRIED


def test_the_shortest_life_counts_but_not_that_of_an_error() -> None:
    long_lived = answer(IPSECKEY, SECURE, KEY_RDATA, ttl=3600)
    assert bind(NAME, a(), aaaa(), long_lived, answer(TLSA, SECURE, FINGERPRINT_RDATA, ttl=20)).ttl == 20
    assert bind(NAME, a(), aaaa(), long_lived, answer(TLSA, ERROR, ttl=0)).ttl == 300
    with pytest.raises(Unbound) as caught:
        bind(NAME, a(), aaaa(), answer(IPSECKEY, DENIED, ttl=900), answer(TLSA, DENIED, ttl=30))
    assert caught.value.ttl == 30


LONG = ".".join(["a" * 60] * 4) + ".example"


def test_a_name_without_room_for_one_below_it() -> None:
    """RFC 1035 s2.3.4: `_500._udp.` before it makes no name, so nothing is asked and there is none."""
    assert len(questions(NAME)) == 4
    assert questions(NAME)[3] == ("_500._udp.alice.example", TLSA)
    assert questions(LONG) == ((LONG, 1), (LONG, 28), (LONG, IPSECKEY))
    three = answer(1, SECURE, V4.packed, name=LONG), answer(28, DENIED, name=LONG)
    with pytest.raises(Unbound) as caught:
        bind(LONG, *three, answer(IPSECKEY, DENIED, name=LONG), None)
    assert caught.value.outcome is DENIED
    assert bind(LONG, *three, answer(IPSECKEY, SECURE, KEY_RDATA, name=LONG), None).keys == (KEY,)


# --- names that roam ---


@pytest.mark.parametrize("of_aaaa", list(Outcome))
@pytest.mark.parametrize("of_a", list(Outcome))
def test_who_roams_needs_no_address(of_a: Outcome, of_aaaa: Outcome) -> None:
    bound = bind(NAME, a(of_a), aaaa(of_aaaa), keys(PLAIN), tlsa(OTHER.fingerprint), roams=True)
    assert bound.keys_at(SOMEWHERE) == (KEY,)
    assert bound.fingerprints_at(SOMEWHERE) == (OTHER.fingerprint,)
    # What is not signed is no address of it even so.
    assert bound.addresses == (*([V6] if of_aaaa is SECURE else []), *([V4] if of_a is SECURE else []))


@pytest.mark.parametrize(("of_key", "of_tlsa", "expected"), CASES)
def test_who_roams_needs_a_key_like_anybody(of_key: Said, of_tlsa: Said, expected: Outcome | None) -> None:
    def ask() -> Binding:
        return bind(NAME, a(ERROR), aaaa(ERROR), said(IPSECKEY, of_key), said(TLSA, of_tlsa), roams=True)

    if expected is BOUND:
        assert ask().roams
        return
    with pytest.raises(Unbound) as caught:
        ask()
    assert caught.value.outcome is expected


def test_a_gateway_holds_who_roams_to_it() -> None:
    at_home = KeyRecord(1, V4, OTHER)
    bound = bind(NAME, a(), aaaa(), keys(at_home, PLAIN), tlsa(), roams=True)
    assert bound.keys_at(V4) == (OTHER, KEY)
    assert bound.keys_at(SOMEWHERE) == (KEY,)
    # Not its address now: then the record speaks of nobody.
    assert bind(NAME, a(ERROR), aaaa(), keys(at_home, PLAIN), tlsa(), roams=True).keys == (KEY,)


# --- aliases ---


def test_where_aliases_lead() -> None:
    bound = bind(NAME, a(alias=TARGET), aaaa(alias=TARGET), keys(PLAIN, alias=TARGET), tlsa())
    assert (bound.name, bound.canonical) == (NAME, TARGET)
    assert bind(NAME, a(), aaaa(), keys(PLAIN), tlsa()).canonical == NAME


def test_a_denial_need_not_say_where_it_was() -> None:
    assert bind(NAME, a(alias=TARGET), aaaa(), keys(PLAIN, alias=TARGET), tlsa()).canonical == TARGET


@pytest.mark.parametrize(
    "answers",
    [
        (a(alias=TARGET), aaaa(), keys(PLAIN, alias="other.example")),
        (a(alias=TARGET), aaaa(alias="other.example"), keys(PLAIN, alias=TARGET)),
        (a(alias=TARGET), aaaa(), keys(PLAIN)),
        (a(), aaaa(), keys(PLAIN, alias=TARGET)),
        (a(), aaaa(alias=TARGET), keys()),
    ],
)
def test_answers_that_lead_to_different_names(answers: tuple[Answered, Answered, Answered]) -> None:
    """The key of one host at the address of another: true of no moment, and no reason for clear."""
    with pytest.raises(Unbound, match="different names") as caught:
        bind(NAME, *answers, tlsa())
    assert caught.value.outcome is ERROR


def test_what_is_not_validated_leads_nowhere() -> None:
    """A forged CNAME beside keys that the name's owner vouched for."""
    forged = answer(IPSECKEY, INSECURE, KEY_RDATA, alias="evil.example")
    assert bind(NAME, a(), aaaa(), forged, tlsa(OTHER.fingerprint)).canonical == NAME


@pytest.mark.parametrize("gateway", [NAME, TARGET])
def test_a_gateway_that_is_the_name_itself(gateway: str) -> None:
    answers = a(alias=TARGET), aaaa(alias=TARGET), keys(KeyRecord(1, gateway, KEY), alias=TARGET), tlsa()
    bound = bind(NAME, *answers)
    assert bound.records == (KeyRecord(1, None, KEY),)
    assert bound.keys_at(V4) == (KEY,)


@pytest.mark.parametrize("gateway", [TARGET, "alice.example.evil.example", "lice.example"])
def test_a_gateway_by_another_name(gateway: str) -> None:
    with pytest.raises(Unbound, match=f"gateway {gateway} is no address of the name"):
        bind(NAME, a(), aaaa(), keys(KeyRecord(1, gateway, KEY)), tlsa())


def test_a_synthetic_address_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that had one of ours would take over the traffic of the name it stands for."""
    theirs = answer(1, SECURE, IPv4Address("198.18.0.16").packed)
    with pytest.raises(Unbound, match="synthetic") as caught:
        bind(NAME, theirs, aaaa(), keys(PLAIN), tlsa())
    assert caught.value.outcome is SECURE
    # The control.
    monkeypatch.setattr(binding, "is_synthetic", lambda address: False)
    assert bind(NAME, theirs, aaaa(), keys(PLAIN), tlsa()).addresses == (IPv4Address("198.18.0.16"),)


def test_lives_are_capped() -> None:
    assert bind(NAME, a(ERROR), aaaa(ERROR), answer(IPSECKEY, SECURE, KEY_RDATA, ttl=2**31),
                answer(TLSA, DENIED, ttl=2**31), roams=True).ttl == MAX_TTL  # fmt: skip
