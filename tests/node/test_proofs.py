"""What was proved once, against what is known now: an administrator's word about keys reaches who is there already."""

from typing import Any

import pytest

from hushwire.config import Rule
from hushwire.events import KnownPin, TrustChanged
from hushwire.policy.assurance import Assurance
from hushwire.policy.spd import Action

from .conftest import ADDRESS, KEY, named

BOB = ADDRESS["bob"]


@pytest.mark.parametrize("pinned", ["bob", "eve"])
def test_a_key_that_is_pinned_ends_what_another_has_proved(net: Any, pinned: str) -> None:
    """Whatever the DNS says, and as soon as that says something new."""
    alice = net.hosts["alice"]
    assert net.fate(alice, BOB) is Action.PROTECT
    assert net.ask(alice, KnownPin, "bob.example", KEY[pinned].public.fingerprint).ok
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public, KEY["other"].public))
    net.wait(2 * net.ttl)
    assert net.fate(alice, BOB, patience=20) is (Action.PROTECT if pinned == "bob" else Action.BLOCK)
    assert bool(alice.about("known.changed")) is (pinned == "eve")


def test_whom_the_configuration_trusts_the_trust_store_does_not_end(make_net: Any) -> None:
    """His key was never in it."""
    net = make_net()
    rule = Rule("bob.example", Assurance.TRUSTED, key="bob.pem", address=BOB)
    alice = net.host("alice", rule, pinned={"bob.example": KEY["bob"].public})
    net.host("bob", named("alice"))
    net.start()
    assert net.fate(alice, BOB) is Action.PROTECT
    before = list(alice.node.ike.sas)
    assert net.ask(alice, TrustChanged).ok
    net.wait(5)
    assert alice.node.ike.sas == before
    assert not alice.about("trust.withdrawn")
