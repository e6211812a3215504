"""Anonymous peers (RFC 7619), as rules let them be: two Nodes, and what becomes of their packets."""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from hushwire.config import Anonymous, Rule
from hushwire.events import AddressesChanged, Connect, Disconnect, KnownPin
from hushwire.names.reverse import reverse_name
from hushwire.policy.assurance import Assurance
from hushwire.policy.spd import Action

from .conftest import ADDRESS, KEY, MOVED, named

ALICE, BOB, EVE = ADDRESS["alice"], ADDRESS["bob"], ADDRESS["eve"]
ALL = ip_network("192.0.2.0/24")
SIGNED = Rule(ALL, Assurance.ENCRYPTED)
"""Strangers, with a key."""
PEER, US, BOTH = (replace(SIGNED, anonymous=anonymous) for anonymous in (Anonymous.PEER, Anonymous.US, Anonymous.BOTH))


def met(net: Any, alice: Rule, bob: Rule) -> tuple[Any, Any]:
    hosts = net.host("alice", alice), net.host("bob", bob)
    net.start()
    return hosts


def scheme(host: Any) -> str:
    """By what the other proved itself."""
    (sa,) = host.node.ike.sas
    return str(sa.authenticated.verified.scheme)


@pytest.mark.parametrize(
    ("alice", "bob", "schemes"),
    [
        (BOTH, BOTH, ("NULL", "NULL")),
        (US, PEER, ("ED25519", "NULL")),
        (PEER, US, ("NULL", "ED25519")),
        (PEER, PEER, ("ED25519", "ED25519")),
    ],
    ids=["both", "initiator", "responder", "neither"],
)
def test_both_sides_or_one(make_net: Any, alice: Rule, bob: Rule, schemes: tuple[str, str]) -> None:
    """RFC 7619 s2: each end chooses for itself, as far as the other's rule allows it."""
    net = make_net()
    one, two = met(net, alice, bob)
    assert net.fate(one, BOB) is Action.PROTECT
    assert net.fate(two, ALICE) is Action.PROTECT
    assert (scheme(one), scheme(two)) == schemes
    for host, by in ((one, schemes[0]), (two, schemes[1])):
        (notice,) = host.about("ike.established")
        assert notice["level"] == "encrypted"
        assert (notice["identity"] == "anonymous") is (by == "NULL")


@pytest.mark.parametrize("refuses", ["initiator", "responder"])
def test_off_unless_a_rule_allows_it(make_net: Any, refuses: str) -> None:
    """RFC 7619 s2: AUTHENTICATION_FAILED where policy wants the peer to authenticate itself."""
    net = make_net()
    alice, bob = met(net, *((SIGNED, US) if refuses == "initiator" else (US, SIGNED)))
    assert net.fate(alice, BOB, patience=5) is Action.BLOCK
    assert not alice.sad
    assert not bob.sad
    told = [notice["reason"] for notice in alice.about("peer.failed")]
    assert all("AUTHENTICATION_FAILED" in reason for reason in told)
    assert told


def test_an_anonymous_initiator_of_a_named_server(make_net: Any) -> None:
    """RFC 7619 s1, the first case: who connects knows whom to; the other does not know who that is."""
    net = make_net()
    alice, bob = met(net, named("bob", anonymous=Anonymous.US), PEER)
    assert net.ask(alice, Connect, "bob.example").ok
    assert [notice["level"] for notice in alice.about("ike.established")] == ["named"]
    assert [(n["level"], n["identity"]) for n in bob.about("ike.established")] == [("encrypted", "anonymous")]
    assert net.fate(alice, BOB) is Action.PROTECT


def test_who_is_known_has_to_prove_it(make_net: Any) -> None:
    """RFC 7619 s3: where an authenticated IKE SA is possible, none that is not."""
    net = make_net()
    alice, bob = met(net, BOTH, BOTH)
    net.zone[reverse_name(BOB)] = ((), (KEY["bob"].public,))
    assert net.fate(alice, BOB, patience=30) is Action.BLOCK
    assert net.fate(bob, ALICE, patience=30) is Action.BLOCK


def test_a_key_that_appears_ends_what_nobody_proved(make_net: Any) -> None:
    """RFC 7619 s3, a little later."""
    net = make_net()
    alice, bob = met(net, BOTH, PEER)
    assert net.fate(alice, BOB) is Action.PROTECT
    net.zone[reverse_name(ALICE)] = ((), (KEY["alice"].public,))
    net.wait(4000)
    assert net.fate(bob, ALICE, patience=30) is Action.BLOCK


def test_who_was_there_with_a_key_and_is_anonymous_now_is_told_of(make_net: Any) -> None:
    """A level never sinks silently; under this rule it may sink."""
    net = make_net()
    alice, _ = met(net, PEER, SIGNED)
    assert net.fate(alice, BOB) is Action.PROTECT
    net.ask(alice, Disconnect, str(BOB))
    again = net.host("bob", replace(US, anonymous=Anonymous.BOTH))
    net.step(again, AddressesChanged(again.addresses))
    assert net.fate(alice, BOB, patience=40) is Action.PROTECT
    (notice,) = alice.about("known.changed")
    assert (notice["subject"], notice["proves"]) == (str(BOB), "nothing")


@pytest.mark.parametrize("pinned", [True, False])
def test_who_is_pinned_may_not_stay_anonymous(make_net: Any, pinned: bool) -> None:
    """RFC 7619 s3.  It is refused in words; without the pin it is a stranger like any other."""
    net = make_net()
    alice, bob = met(net, BOTH, BOTH)
    if pinned:
        assert net.ask(alice, KnownPin, str(BOB), KEY["bob"].public.fingerprint).ok
    assert net.fate(alice, BOB, patience=20) is (Action.BLOCK if pinned else Action.PROTECT)
    assert net.fate(bob, ALICE, patience=20) is (Action.BLOCK if pinned else Action.PROTECT)
    if pinned:
        assert "stays anonymous" in alice.about("peer.failed")[-1]["reason"]
        assert alice.about("known.changed")[-1]["proves"] == "nothing"


def test_an_anonymous_peer_speaks_for_no_address_of_who_was_introduced(make_net: Any) -> None:
    """RFC 7619 s2.5: bob.example is at that address, and Eve has taken it."""
    net = make_net()
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    alice = net.host("alice", BOTH, named("bob"))
    eve = net.host("eve", BOTH)
    eve.addresses = (BOB,)
    net.start()
    assert net.fate(eve, ALICE, patience=30) is Action.BLOCK
    assert not alice.sad


def test_two_behind_one_address(make_net: Any) -> None:
    """RFC 7619 s2.5: the second gets nothing, and the first keeps what he has."""
    net = make_net()
    alice, bob = met(net, BOTH, BOTH)
    assert net.fate(bob, ALICE) is Action.PROTECT
    (first,) = alice.node.ike.sas
    eve = net.host("eve", BOTH)
    eve.addresses = (BOB,)
    net.step(eve, AddressesChanged(eve.addresses))
    # Alice's answers reach both; whose they are not drops them.
    assert net.fate(eve, ALICE, patience=20) is Action.BLOCK
    assert not eve.sad
    assert alice.node.ike.sas == [first]
    assert net.fate(alice, BOB) is Action.PROTECT


def test_who_has_forgotten_comes_back(make_net: Any) -> None:
    """RFC 7619 s2.3: the new IKE SA is refused, the old one is asked whether it lives, and makes room."""
    net = make_net()
    alice, _ = met(net, BOTH, BOTH)
    assert net.fate(alice, BOB) is Action.PROTECT
    (first,) = alice.node.ike.sas
    bob = net.host("bob", BOTH)
    net.step(bob, AddressesChanged(bob.addresses))
    net.run()
    assert net.packet(bob, ALICE) is Action.BLOCK
    net.wait(2)
    assert alice.node.ike.sas[0] is first
    assert net.fate(bob, ALICE, patience=60) is Action.PROTECT
    assert first not in alice.node.ike.sas


@pytest.mark.parametrize(("alice", "bob"), [(BOTH, BOTH), (US, PEER), (PEER, US)], ids=["both", "one", "other"])
def test_both_begin_at_once(make_net: Any, alice: Rule, bob: Rule) -> None:
    """One IKE SA is left, the same at both."""
    net = make_net()
    one, two = met(net, alice, bob)
    net.packet(one, BOB)
    net.packet(two, ALICE)
    net.wait(1)
    assert net.fate(one, BOB) is net.fate(two, ALICE) is Action.PROTECT
    net.wait(20)
    (ours,), (theirs,) = one.node.ike.sas, two.node.ike.sas
    assert (ours.spi_i, ours.spi_r) == (theirs.spi_i, theirs.spi_r)
    assert net.fate(one, BOB) is net.fate(two, ALICE) is Action.PROTECT


def test_two_addresses_of_ours_are_two_ways(make_net: Any) -> None:
    """One anonymous peer may speak to both: it takes nothing of itself."""
    net = make_net()
    alice, bob = net.host("alice", BOTH), net.host("bob", BOTH)
    bob.addresses = (BOB, MOVED)
    net.start()
    assert net.fate(alice, BOB) is net.fate(alice, MOVED) is Action.PROTECT
    assert {sa.remote.address for sa in alice.node.ike.sas} == {BOB, MOVED}
    assert net.packet(bob, ALICE, local=BOB) is net.packet(bob, ALICE, local=MOVED) is Action.PROTECT
