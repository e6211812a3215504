"""Each exchange between two of ours, told as the RFC tells it."""

from typing import Any

import pytest

from hushwire.ike.children import LINGER
from hushwire.ike.report import ChildUp, Closed, Established
from hushwire.ike.state import State


def established(pair: Any) -> Any:
    sa = pair.initiate()
    pair.deliver()
    assert sa.state is State.ESTABLISHED
    return sa


def test_two_messages_each_way_make_an_ike_sa_and_a_child(pair: Any) -> None:
    established(pair)
    assert [name for name, _ in pair.seen] == ["alice", "bob", "alice", "bob"]
    for peer in (pair.alice, pair.bob):
        assert len(peer.told(Established)) == len(peer.told(ChildUp)) == 1
        assert len(peer.plane) == 2
    pair.agree()


def test_delete_of_the_ike_sa_takes_everything(pair: Any) -> None:
    sa = established(pair)
    pair.alice.endpoint.delete(sa, pair.now)
    pair.deliver()
    assert not pair.alice.plane
    assert not pair.bob.plane
    assert not pair.alice.sas
    assert not pair.bob.sas


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_rekey_of_the_child(pair: Any, who: str) -> None:
    established(pair)
    before = set(pair.alice.plane)
    me = getattr(pair, who)
    me.endpoint.rekey(me.sas[0], pair.now, ike=False)
    pair.deliver()
    assert len(pair.alice.plane) == 2
    assert not before & set(pair.alice.plane)
    pair.agree()


@pytest.mark.parametrize("who", ["alice", "bob"])
@pytest.mark.parametrize("replaced", [True, False])
def test_what_was_replaced_may_be_opened_for_a_while(pair: Any, who: str, replaced: bool) -> None:
    """RFC 7296 s2.8: its last packets may be overtaken by the Delete.  Where nothing replaces it, it is over."""
    established(pair)
    [old] = pair.alice.sas[0].children.values()
    me = getattr(pair, who)
    if replaced:
        me.endpoint.rekey(me.sas[0], pair.now, ike=False)
    else:
        me.endpoint.delete(me.sas[0], pair.now)
    pair.deliver()
    inbound, outbound = ({gone.linger for gone in pair.alice.deleted if gone.sa == name} for name in old.names)
    assert (inbound, outbound) == ({LINGER if replaced else 0.0}, {0.0})


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_rekey_of_the_ike_sa_moves_the_children(pair: Any, who: str) -> None:
    established(pair)
    before = set(pair.alice.plane)
    me = getattr(pair, who)
    old = me.sas[0].spi
    me.endpoint.rekey(me.sas[0], pair.now, ike=True)
    pair.deliver()
    for peer in (pair.alice, pair.bob):
        (sa,) = peer.sas
        assert sa.state is State.ESTABLISHED
        assert len(sa.children) == 1
    assert me.sas[0].spi != old
    assert set(pair.alice.plane) == before
    me.endpoint.rekey(me.sas[0], pair.now, ike=False)
    pair.deliver()
    pair.agree()
    pair.bob.endpoint.delete(pair.bob.sas[0], pair.now)
    pair.deliver()
    assert not pair.alice.sas
    assert not pair.bob.sas


@pytest.mark.parametrize("ike", [False, True])
def test_both_rekey_at_once(pair: Any, ike: bool) -> None:
    established(pair)
    for me in (pair.alice, pair.bob):
        me.endpoint.rekey(me.sas[0], pair.now, ike=ike)
    pair.deliver()
    pair.wait(60)
    assert len(pair.alice.plane) == 2
    pair.agree()
    assert len(pair.alice.sas) == len(pair.bob.sas) == 1
    assert not pair.alice.told(Closed) or ike


def test_both_begin_at_once_and_one_ike_sa_stays(pair: Any) -> None:
    pair.initiate(pair.alice)
    pair.initiate(pair.bob)
    pair.deliver()
    assert len(pair.alice.sas) == len(pair.bob.sas) == 1
    assert len(pair.alice.plane) == 2
    pair.agree()


def test_silence_closes(pair: Any) -> None:
    established(pair)
    pair.filter = lambda sender, send: []
    pair.wait(120)
    assert not pair.alice.sas
    assert not pair.alice.plane
    assert not pair.bob.sas


def test_liveness_keeps_an_idle_sa(pair: Any) -> None:
    established(pair)
    pair.wait(600)
    assert len(pair.alice.sas) == 1
    assert len(pair.bob.sas) == 1


def test_a_day_of_rekeys(pair: Any) -> None:
    established(pair)
    pair.wait(86_400)
    assert len(pair.alice.plane) == 2
    pair.agree()
    assert len(pair.alice.told(ChildUp)) > 20
