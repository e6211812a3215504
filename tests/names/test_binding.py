"""names.binding: the four outcomes (law 3); key, name and address as one (law 2); ATTACKS rows 29-31, 36, 40."""

import dataclasses
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto.keys import PublicKey
from hushwire.events import Answered, Outcome
from hushwire.names import binding
from hushwire.names.binding import Binding, Unbound, bind
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, read_records, write_record
from hushwire.names.tlsa import TLSA, owner, write_fingerprint

NAME = "alice.example"
V4, V6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
KEY, OTHER = (
    PublicKey.of(ed25519.Ed25519PrivateKey.from_private_bytes(bytes((seed,)) * 32).public_key()) for seed in (1, 2)
)


def answer(rdtype: int, *rdata: bytes, outcome: Outcome | None = None, ttl: int = 300, name: str = NAME) -> Answered:
    if outcome is None:
        outcome = Outcome.SECURE if rdata else Outcome.DENIED
    return Answered(1, name, rdtype, outcome, rdata, ttl, "SERVFAIL" if outcome is Outcome.ERROR else "")


def a(*addresses: str, outcome: Outcome | None = None, ttl: int = 300) -> Answered:
    return answer(1, *(IPv4Address(address).packed for address in addresses), outcome=outcome, ttl=ttl)


def aaaa(*addresses: str, outcome: Outcome | None = None, ttl: int = 300) -> Answered:
    return answer(28, *(IPv6Address(address).packed for address in addresses), outcome=outcome, ttl=ttl)


def keys(*records: KeyRecord, outcome: Outcome | None = None, ttl: int = 300) -> Answered:
    return answer(IPSECKEY, *(write_record(record) for record in records), outcome=outcome, ttl=ttl)


def tlsa(*keys: PublicKey, outcome: Outcome | None = None, ttl: int = 3600) -> Answered:
    rdata = (write_fingerprint(key.fingerprint) for key in keys)
    return answer(TLSA, *rdata, outcome=outcome, ttl=ttl, name=owner(NAME))


PLAIN = KeyRecord(10, None, KEY)


def test_bound() -> None:
    bound = bind(NAME, a("192.0.2.1", ttl=600), aaaa("2001:db8::1", ttl=60), keys(PLAIN, ttl=3600), tlsa())
    assert bound.name == NAME
    assert bound.addresses == (V6, V4)
    assert bound.keys == (KEY,)
    assert bound.keys_at(V4) == (KEY,)
    assert bound.keys_at(IPv4Address("192.0.2.9")) == ()
    assert bound.records == (PLAIN,)
    assert (bound.ttl, bound.ignored) == (60, ())


@pytest.mark.parametrize(("ttl", "capped"), [(0, 5), (5, 5), (300, 300), (86400, 86400), (2**31 - 1, 86400)])
def test_ttl_is_capped(ttl: int, capped: int) -> None:
    assert bind(NAME, a("192.0.2.1", ttl=ttl), aaaa(ttl=2**31), keys(PLAIN, ttl=2**31), tlsa(ttl=2**31)).ttl == capped


def test_nothing_else_makes_a_binding() -> None:
    bound = bind(NAME, a("192.0.2.1"), aaaa(), keys(PLAIN), tlsa())
    with pytest.raises(TypeError, match="bind"):
        Binding(NAME, NAME, (V4,), (PLAIN,), (), 300, (), False, object())
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(bound, addresses=(IPv4Address("198.51.100.1"),))


OUTCOMES = list(Outcome)


@pytest.mark.parametrize("of_key", OUTCOMES)
@pytest.mark.parametrize("of_aaaa", OUTCOMES)
@pytest.mark.parametrize("of_a", OUTCOMES)
def test_every_combination_of_outcomes(of_a: Outcome, of_aaaa: Outcome, of_key: Outcome) -> None:
    """Rows 29-31: what a spoilt, unsigned or suppressed answer can and cannot do."""
    known = {Outcome.SECURE, Outcome.INSECURE}
    outcomes = {of_a, of_aaaa, of_key}

    def ask() -> Binding:
        return bind(
            NAME,
            a(*(["192.0.2.1"] if of_a in known else []), outcome=of_a),
            aaaa(*(["2001:db8::1"] if of_aaaa in known else []), outcome=of_aaaa),
            keys(*([PLAIN] if of_key in known else []), outcome=of_key),
            tlsa(),
        )

    if of_key is Outcome.SECURE and outcomes <= {Outcome.SECURE, Outcome.DENIED} and Outcome.SECURE in {of_a, of_aaaa}:
        assert ask().keys == (KEY,)
        return
    with pytest.raises(Unbound) as caught:
        ask()
    if Outcome.ERROR in outcomes:
        assert caught.value.outcome is Outcome.ERROR
    elif Outcome.INSECURE in outcomes:
        assert caught.value.outcome is Outcome.INSECURE
    else:
        # Law 3: only a signed denial of the key may lead to clear; a signed key without addresses does not.
        assert caught.value.outcome is (Outcome.DENIED if of_key is Outcome.DENIED else Outcome.SECURE)


def test_unusable_keys_never_lead_to_clear() -> None:
    with pytest.raises(Unbound, match="no usable key") as caught:
        bind(NAME, a("192.0.2.1"), aaaa(), answer(IPSECKEY, b"\0\0\1junk"), tlsa())
    assert caught.value.outcome is Outcome.SECURE


@pytest.mark.parametrize(
    "stray",
    [
        (a("192.0.2.1"), aaaa(), answer(IPSECKEY, write_record(PLAIN), name="evil.example"), tlsa()),
        (answer(1, V4.packed, name="evil.example"), aaaa(), keys(PLAIN), tlsa()),
        (a("192.0.2.1"), a("192.0.2.1"), keys(PLAIN), tlsa()),
        (a("192.0.2.1"), aaaa(), keys(PLAIN), answer(TLSA, write_fingerprint(KEY.fingerprint))),
        (a("192.0.2.1"), aaaa(), keys(PLAIN), None),
    ],
)
def test_answers_to_other_questions(stray: tuple[Answered, Answered, Answered, Answered | None]) -> None:
    with pytest.raises(Unbound, match="another question") as caught:
        bind(NAME, *stray)
    assert caught.value.outcome is Outcome.ERROR


REBINDING = [
    "127.0.0.1", "127.255.0.9", "0.0.0.0", "0.1.2.3", "169.254.1.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255", "192.0.2.77", "::1", "::", "fe80::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:192.0.2.1",
    "2001:db8::77",
]  # fmt: skip
OWN = {ip_address("192.0.2.77"), ip_address("2001:db8::77")}


def answers_with(address: str) -> tuple[Answered, Answered, Answered, Answered]:
    four = [address] if ip_address(address).version == 4 else []
    six = [address] if ip_address(address).version == 6 else []
    return a(*four), aaaa(*six), keys(PLAIN), tlsa()


@pytest.mark.parametrize("address", REBINDING)
def test_rebinding(address: str) -> None:
    """Row 40: a name may not lead to this host, this link, or everybody."""
    with pytest.raises(Unbound, match="no usable address") as caught:
        bind(NAME, *answers_with(address), own=OWN)
    assert caught.value.outcome is Outcome.SECURE


@pytest.mark.parametrize("address", REBINDING)
def test_rebinding_does_not_hide_a_good_address(address: str) -> None:
    four, six, *key = answers_with(address)
    good = dataclasses.replace(four, rdata=(*four.rdata, V4.packed), outcome=Outcome.SECURE)
    bound = bind(NAME, good, six, key[0], key[1], own=OWN)
    assert bound.addresses == (V4,)
    assert len(bound.ignored) == 1


@pytest.mark.parametrize("address", REBINDING)
def test_control_without_the_filter_rebinding_works(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binding, "why_not_a_peer", lambda address, own: None)
    assert bind(NAME, *answers_with(address), own=OWN).addresses == (ip_address(address),)


def test_gateway_elsewhere_counts_for_nothing() -> None:
    """RFC 4025 s4.1.2: the gateway of evil.example draws nobody's traffic to itself."""
    elsewhere = KeyRecord(1, IPv4Address("198.51.100.66"), OTHER)
    named = KeyRecord(2, "gate.example", OTHER)
    published = keys(elsewhere, named, PLAIN)
    # The control: by the records alone, the attacker's would be the first choice.
    assert read_records(published.rdata)[0][0] == elsewhere
    bound = bind(NAME, a("192.0.2.1"), aaaa(), published, tlsa())
    assert bound.records == (PLAIN,)
    assert any("198.51.100.66" in reason for reason in bound.ignored)
    assert any("gate.example" in reason for reason in bound.ignored)
    with pytest.raises(Unbound, match="no usable key") as caught:
        bind(NAME, a("192.0.2.1"), aaaa(), keys(elsewhere, named), tlsa())
    assert caught.value.outcome is Outcome.SECURE


def test_a_gateway_that_is_an_address_speaks_for_that_address_only() -> None:
    bound = bind(NAME, a("192.0.2.1"), aaaa("2001:db8::1"), keys(KeyRecord(1, V4, OTHER), PLAIN), tlsa())
    assert bound.keys_at(V4) == (OTHER, KEY)
    assert bound.keys_at(V6) == (KEY,)


def test_a_thousand_addresses() -> None:
    many = [f"198.51.{number // 250}.{number % 250 + 1}" for number in range(1000)]
    bound = bind(NAME, a(*many), aaaa(), keys(PLAIN), tlsa())
    assert len(bound.addresses) == binding.MAX_ADDRESSES
    assert "984 addresses more" in bound.ignored[-1]


def test_octets_that_are_no_address() -> None:
    bound = bind(NAME, answer(1, b"\1\2\3", V4.packed), aaaa(), keys(PLAIN), tlsa())
    assert bound.addresses == (V4,)
    assert bound.ignored == ("an address has 4 or 16 octets, not 3",)


RDATA = st.lists(
    st.binary(max_size=80)
    | st.sampled_from([V4.packed, V6.packed, write_record(PLAIN), write_fingerprint(KEY.fingerprint)]),
    max_size=20,
)


@given(RDATA, RDATA, RDATA, RDATA, st.integers(-(2**31), 2**32), st.sampled_from([Outcome.SECURE, Outcome.DENIED]))
def test_any_rdata_binds_or_does_not(
    of_a: list[bytes], of_aaaa: list[bytes], of_key: list[bytes], of_tlsa: list[bytes], ttl: int, outcome: Outcome
) -> None:
    """Property 5 of ATTACKS: any octets give a Binding that keeps its word, or Unbound with a bounded reason."""
    try:
        bound = bind(
            NAME,
            answer(1, *of_a, outcome=Outcome.SECURE, ttl=ttl),
            answer(28, *of_aaaa, outcome=outcome, ttl=ttl),
            answer(IPSECKEY, *of_key, outcome=Outcome.SECURE, ttl=ttl),
            answer(TLSA, *of_tlsa, outcome=outcome, ttl=ttl, name=owner(NAME)),
        )
    except Unbound as caught:
        unbound = caught
    else:
        unbound = None
    if unbound is not None:
        assert unbound.outcome is Outcome.SECURE
        assert len(str(unbound)) < 4096
        return
    assert 0 < len(bound.addresses) <= binding.MAX_ADDRESSES
    assert 0 < len(bound.records) + len(bound.fingerprints) <= 16
    assert len(bound.records) <= 8
    assert len(bound.fingerprints) <= 8
    assert all(record.gateway in (None, *bound.addresses) for record in bound.records)
    assert binding.MIN_TTL <= bound.ttl <= binding.MAX_TTL
    assert not any(binding.why_not_a_peer(address) for address in bound.addresses)
