"""names.reverse: a reverse zone speaks for its addresses and may name gateways (RFC 4025 s2.5; ATTACKS rows 36, 39)."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from hushwire.crypto.keys import PublicKey
from hushwire.events import Answered, Outcome
from hushwire.names.binding import MAX_TTL, MIN_TTL, Unbound, bind
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, write_record
from hushwire.names.name import host_name
from hushwire.names.reverse import bind_address, reverse_name
from hushwire.names.tlsa import TLSA, owner
from hushwire.wire.address import IPAddress

V4, V6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
GATEWAY = IPv4Address("192.0.2.254")
KEY, OTHER = (
    PublicKey.of(ed25519.Ed25519PrivateKey.from_private_bytes(bytes((seed,)) * 32).public_key()) for seed in (1, 2)
)


def keys(*records: KeyRecord, of: IPAddress = V4, outcome: Outcome = Outcome.SECURE, ttl: int = 300) -> Answered:
    return Answered(1, reverse_name(of), IPSECKEY, outcome, tuple(map(write_record, records)), ttl)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.1", "1.2.0.192.in-addr.arpa"),
        # RFC 3596 s2.5's own example.
        ("4321:0:1:2:3:4:567:89ab",
         "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa"),
    ],
)  # fmt: skip
def test_reverse_name(address: str, name: str) -> None:
    assert reverse_name(ip_address(address)) == host_name(name) == name


@pytest.mark.parametrize("address", [V4, V6])
@pytest.mark.parametrize("itself", [True, False])
def test_the_key_of_the_address(address: IPAddress, itself: bool) -> None:
    bound = bind_address(address, keys(KeyRecord(10, address if itself else None, KEY), of=address))
    assert (bound.name, bound.canonical) == (reverse_name(address),) * 2
    assert bound.addresses == (address,)
    assert (bound.gateway, bound.fingerprints, bound.ignored, bound.ttl) == (None, (), (), 300)
    assert bound.keys_at(address) == (KEY,)
    assert bound.keys_at(GATEWAY) == ()


@pytest.mark.parametrize("gateway", [GATEWAY, V6])
def test_a_gateway(gateway: IPAddress) -> None:
    """The owner of the address says who speaks for it; the key is then the gateway's, and not the address's."""
    bound = bind_address(V4, keys(KeyRecord(10, gateway, KEY), KeyRecord(20, None, OTHER)))
    assert (bound.addresses, bound.gateway) == ((V4,), gateway)
    assert bound.keys_at(gateway) == (KEY,)
    assert bound.keys_at(V4) == (OTHER,)


def test_the_preferred_record_says_whether_there_is_a_gateway() -> None:
    """RFC 4025 s2.2: the lowest precedence first."""
    bound = bind_address(V4, keys(KeyRecord(10, GATEWAY, KEY), KeyRecord(5, None, OTHER)))
    assert bound.gateway is None
    assert bound.keys_at(V4) == (OTHER,)


def test_control_a_name_does_not_get_a_gateway() -> None:
    """The same record at a name draws nobody's traffic anywhere: the name's owner need not own the address (law 2)."""
    name, records = "evil.example", keys(KeyRecord(10, GATEWAY, KEY))
    a = Answered(1, name, 1, Outcome.SECURE, (V4.packed,), 300)
    denied = (Answered(1, name, 28, Outcome.DENIED), Answered(1, owner(name), TLSA, Outcome.DENIED))
    with pytest.raises(Unbound, match=r"gateway 192\.0\.2\.254 is no address of the name"):
        bind(name, a, denied[0], replace(records, name=name), denied[1])
    assert bind_address(V4, records).gateway == GATEWAY


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INSECURE, Outcome.ERROR])
def test_only_a_secure_answer_speaks_for_an_address(outcome: Outcome) -> None:
    records = [KeyRecord(10, None, KEY)] if outcome is Outcome.INSECURE else []
    with pytest.raises(Unbound) as caught:
        bind_address(V4, keys(*records, outcome=outcome))
    assert caught.value.outcome is outcome
    assert caught.value.name == reverse_name(V4)


@pytest.mark.parametrize(
    ("gateway", "reason"),
    [
        ("gate.example", "is a name"),
        (IPv4Address("127.0.0.1"), "is loopback"),
        (IPv4Address("192.0.2.77"), "is this host"),
        (IPv6Address("fe80::1"), "is link-local"),
        (IPv4Address("224.0.0.1"), "is multicast"),
        (IPv4Address("198.18.0.16"), "is synthetic"),
    ],
)
def test_gateways_that_are_left_out(gateway: IPAddress | str, reason: str) -> None:
    record, own = KeyRecord(10, gateway, KEY), (IPv4Address("192.0.2.77"),)
    with pytest.raises(Unbound, match=f"no usable key; gateway {gateway} {reason}") as caught:
        bind_address(V4, keys(record), own)
    assert caught.value.outcome is Outcome.SECURE
    bound = bind_address(V4, keys(record, KeyRecord(20, None, OTHER)), own)
    assert bound.keys == (OTHER,)
    assert bound.ignored[0].startswith(f"gateway {gateway} {reason}")


def test_an_address_that_is_no_peers() -> None:
    with pytest.raises(Unbound, match="this host") as caught:
        bind_address(V4, keys(KeyRecord(10, None, KEY)), {V4})
    assert caught.value.outcome is Outcome.SECURE


def test_an_answer_to_another_question() -> None:
    for stray in (keys(KeyRecord(10, None, KEY), of=GATEWAY), replace(keys(KeyRecord(10, None, KEY)), rdtype=1)):
        with pytest.raises(Unbound, match="another question") as caught:
            bind_address(V4, stray)
        assert caught.value.outcome is Outcome.ERROR


def test_an_alias_of_a_part_of_a_zone() -> None:
    """RFC 2317: the provider has aliases for each address of a customer with less than an octet's worth."""
    theirs = "1.0/26.2.0.192.in-addr.arpa"
    bound = bind_address(V4, replace(keys(KeyRecord(10, None, KEY)), canonical=theirs))
    assert (bound.name, bound.canonical) == (reverse_name(V4), theirs)


RECORDS = st.sampled_from([KeyRecord(10, gateway, KEY) for gateway in (None, V4, V6, GATEWAY, "gate.example")])


@given(st.lists(st.binary(max_size=80) | RECORDS.map(write_record), max_size=20), st.integers(-(2**31), 2**32))
def test_any_rdata_binds_or_does_not(rdata: list[bytes], ttl: int) -> None:
    try:
        bound = bind_address(V4, Answered(1, reverse_name(V4), IPSECKEY, Outcome.SECURE, tuple(rdata), ttl))
    except Unbound as caught:
        unbound = caught
    else:
        unbound = None
    if unbound is not None:
        assert unbound.outcome is Outcome.SECURE
        assert len(str(unbound)) < 4096
        return
    assert bound.addresses == (V4,)
    assert bound.keys_at(bound.gateway or V4)
    assert MIN_TTL <= bound.ttl <= MAX_TTL
