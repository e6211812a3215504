"""INITIAL_CONTACT: who has lost everything says so, and only of himself (RFC 7296 s2.4; ATTACKS row 22)."""

from dataclasses import replace
from typing import Any

import pytest

from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.ike.negotiation import Wanted
from hushwire.ike.report import Established
from hushwire.ike.state import State
from hushwire.policy.pad import Identity
from hushwire.wire.registry import NotifyType

MALLORY = PrivateKey.from_seed(Secret(b"m" * 32))


@pytest.mark.parametrize("before", [False, True])
def test_it_is_said_to_whom_one_has_no_sa_with(pair: Any, before: bool) -> None:
    if before:
        pair.initiate()
        pair.deliver()
        pair.wait(1)
    start = len(pair.seen)
    sa = pair.initiate()
    pair.deliver()
    request = next(send.data for name, send in pair.seen[start:] if name == "alice" and send.data[18] == 35)
    assert (pair.open(sa, request).notify(NotifyType.INITIAL_CONTACT) is None) is before


def test_of_several_that_begin_together_one_says_it(pair: Any) -> None:
    """To a peer's addresses of both IP versions: what the one says must not end what the other has brought about."""
    both = [pair.initiate(), pair.initiate()]
    pair.deliver()
    for sa, says in zip(both, (True, False), strict=True):
        request = next(
            send.data for name, send in pair.seen
            if name == "alice" and send.data[18] == 35 and send.data[:8] == sa.spi_i
        )  # fmt: skip
        assert (pair.open(sa, request).notify(NotifyType.INITIAL_CONTACT) is not None) is says


@pytest.mark.parametrize("guard", ["in", "out"])
def test_first_contact_touches_nobody_else(standing: Any, guard: str, monkeypatch: Any) -> None:
    """ATTACKS row 22: Mallory, let in as herself, says INITIAL_CONTACT."""
    pair = standing
    host = pair.bob.endpoint._host
    mallory = Identity.fqdn("mallory.example")
    entry = replace(pair.bob.entries[pair.alice.settings.identity], identity=mallory, keys=(MALLORY.public,))
    pair.bob.entries[mallory] = entry
    kept = pair.bob.sa
    second = type(pair.alice)("mallory", "192.0.2.1", MALLORY)
    second.knows(pair.bob)
    if guard == "out":
        first = kept.authenticated
        host.peers[mallory] = [kept]
        assert first is not None
        monkeypatch.setattr(kept, "established", -1.0)
    pair.now = replace(pair.now, monotonic=1.0)
    alice, pair.alice = pair.alice, second
    pair.initiate()
    pair.deliver()
    assert len(pair.bob.told(Established)) == 2
    assert (kept.state is State.ESTABLISHED) is (guard == "in")
    pair.alice = alice


def test_first_contact_ends_what_was_before(standing: Any) -> None:
    """RFC 7296 s2.4: Alice has lost everything and comes anew."""
    pair = standing
    pair.now = replace(pair.now, monotonic=100.0)
    fresh = type(pair.alice)("alice", "192.0.2.1", pair.alice.key, seed=b"again")
    fresh.knows(pair.bob)
    old = pair.bob.sa
    pair.alice = fresh
    pair.initiate()
    pair.deliver()
    assert old.state is State.CLOSED
    assert len(pair.bob.sas) == 1
    assert len(pair.bob.plane) == 2
    pair.agree()


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_name_that_leads_to_a_known_peer_does_not_end_what_stands_with_it(
    standing: Any, guard: str, monkeypatch: Any
) -> None:
    """ATTACKS row 36: evil.example has Bob's address.  Alice seeks evil there, and Bob hears that."""
    pair = standing
    kept = pair.bob.sa
    if guard == "out":
        monkeypatch.setattr(type(pair.alice.endpoint._host), "speaks_with", lambda *_: False)
    pair.now = replace(pair.now, monotonic=1.0)
    entry = pair.alice.entries[pair.bob.settings.identity]
    evil = replace(entry, identity=Identity.fqdn("evil.example"), keys=(MALLORY.public,))
    pair.alice.endpoint.initiate(
        evil, pair.alice.address, pair.bob.address, Wanted(evil.selectors, evil.mode), pair.now
    )
    pair.collect()
    pair.deliver()
    assert (kept.state is State.ESTABLISHED) is (guard == "in")


def test_nor_does_one_that_a_program_asked_for_say_it(pair: Any) -> None:
    """It may lead to another address of a known peer, which we do not know."""
    bob = pair.bob.settings.identity
    pair.alice.entries[bob] = replace(pair.alice.entries[bob], introduced=False)
    sa = pair.initiate()
    pair.deliver()
    request = next(send.data for name, send in pair.seen if name == "alice" and send.data[18] == 35)
    assert pair.open(sa, request).notify(NotifyType.INITIAL_CONTACT) is None


@pytest.mark.parametrize("guard", ["in", "out"])
def test_an_ike_sa_from_an_address_that_is_gone_is_no_rival(standing: Any, guard: str) -> None:
    """Alice roams: what she had from her old address ends unheard, and the new one is not taken for a crossing."""
    pair = standing
    old = pair.alice.sa
    # The lower of two stays when both ends have begun, so the new one would go.
    old.origin = (bytes(8), True)
    if guard == "in":
        pair.alice.endpoint.delete(old, pair.now)
        pair.collect()
        pair.wire.clear()
        assert old.state is State.ESTABLISHED
    pair.now = replace(pair.now, monotonic=pair.now.monotonic + 1)
    new = pair.initiate()
    pair.deliver()
    assert (new.state is State.ESTABLISHED and not new.deleting) is (guard == "in")
