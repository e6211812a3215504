"""The host's key is switched while IKE SAs stand: each is made anew with the new key before the old one goes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import DeleteSA, InstallSA, Sign
from hushwire.ike import reauth
from hushwire.ike.auth import REPLACES
from hushwire.ike.negotiation import Wanted
from hushwire.ike.report import Closed, Established
from hushwire.ike.state import State
from hushwire.policy.sad import Direction, Mode
from hushwire.policy.selector import Selector
from hushwire.wire.address import host_network
from hushwire.wire.payload import Notify
from hushwire.wire.registry import ExchangeType, NotifyType

NEW = {"alice": PrivateKey.from_seed(Secret(b"A" * 32)), "bob": PrivateKey.from_seed(Secret(b"B" * 32))}
PORTS = (443, 25, 53)


def other(pair: Any, me: Any) -> Any:
    return pair.bob if me is pair.alice else pair.alice


def published(pair: Any, me: Any, *, withdraw: bool = False) -> None:
    """The peer knows the new key; the old one as well, unless that is withdrawn."""
    keys = (NEW[me.name].public,) if withdraw else (me.key.public, NEW[me.name].public)
    you = other(pair, me)
    you.entries[me.settings.identity] = replace(you.entries[me.settings.identity], keys=keys)


def switch(pair: Any, me: Any) -> int:
    key = NEW[me.name]
    me.kept[key.public.fingerprint] = key
    count: int = me.endpoint.switch_key(key.public, pair.now)
    return count


def proved_by(pair: Any, me: Any) -> set[bytes]:
    """Fingerprints by which the other end knows `me` in the IKE SAs that stand."""
    found = set()
    for sa in other(pair, me).sas:
        assert sa.authenticated is not None
        found.add(sa.authenticated.verified.public.fingerprint)
    return found


class Gaps:
    """Watches whether either end is ever without a way to send, or sends what the other cannot open."""

    def __init__(self, pair: Any, selectors: int = 1) -> None:
        self.pair, self.selectors = pair, selectors
        self.found: list[str] = []
        self._perform = pair.perform
        pair.perform = self.perform

    def perform(self, me: Any, item: object) -> None:
        self._perform(me, item)
        if isinstance(item, InstallSA | DeleteSA):
            self.look()

    def look(self) -> None:
        for me in (self.pair.alice, self.pair.bob):
            newest: dict[Any, Any] = {}
            for sa in me.plane.values():
                if sa.direction is Direction.OUT:
                    newest[sa.selector] = sa
            if len(newest) < self.selectors:
                self.found.append(f"{me.name} has {len(newest)} ways to send")
            for sa in newest.values():
                twin = other(self.pair, me).plane.get(sa.spi)
                if twin is None or twin.direction is not Direction.IN:
                    self.found.append(f"{me.name} sends what nobody can open: {sa.spi:08x}")


def settled(pair: Any, gaps: Gaps, *switched: Any) -> None:
    """One IKE SA with all its Child SAs, by the new keys of those that switched; and there was never a gap."""
    for me in switched:
        assert proved_by(pair, me) == {NEW[me.name].public.fingerprint}
    assert len(pair.alice.sa.children) == len(pair.bob.sa.children) == gaps.selectors
    assert len(pair.alice.plane) == 2 * gaps.selectors
    assert gaps.found == []
    pair.agree()


@pytest.fixture
def several(make_pair: Callable[..., Any]) -> Any:
    """An IKE SA with three Child SAs, one for each port at Bob."""
    pair = make_pair()
    a, b = host_network(pair.alice.address), host_network(pair.bob.address)
    ours = [Selector(a, b, 6, 0, port) for port in PORTS]
    theirs = [Selector(b, a, 6, port, 0) for port in PORTS]
    for me, selectors in ((pair.alice, ours), (pair.bob, theirs)):
        me.knows(other(pair, me), selectors=tuple(selectors))
    (entry,) = pair.alice.entries.values()
    pair.alice.endpoint.initiate(
        entry, pair.alice.address, pair.bob.address, Wanted((ours[0],), Mode.TRANSPORT), pair.now
    )
    pair.deliver()
    for selector in ours[1:]:
        pair.alice.endpoint.create_child(pair.alice.sa, Wanted((selector,), Mode.TRANSPORT), pair.now)
        pair.deliver()
    assert len(pair.alice.plane) == len(pair.bob.plane) == 6
    return pair


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_new_ike_sa_before_the_old_one_goes(standing: Any, name: str) -> None:
    pair = standing
    me = getattr(pair, name)
    old, gaps = me.sa, Gaps(pair)
    published(pair, me)
    assert proved_by(pair, me) == {me.key.public.fingerprint}
    assert switch(pair, me) == 1
    pair.wait(3)
    assert old.state is State.CLOSED
    assert me.sa is not old
    settled(pair, gaps, me)
    # It is done once, and then it is quiet.
    sent = len(pair.seen)
    pair.wait(20)
    assert len(pair.seen) == sent


def test_control_the_old_one_deleted_first_leaves_a_gap(standing: Any) -> None:
    pair = standing
    gaps = Gaps(pair)
    published(pair, pair.alice)
    switch(pair, pair.alice)
    pair.alice.endpoint.delete(pair.alice.sa, pair.now)
    pair.deliver()
    pair.initiate()
    pair.deliver()
    assert proved_by(pair, pair.alice) == {NEW["alice"].public.fingerprint}
    assert any("0 ways to send" in found for found in gaps.found)


def test_control_a_peer_that_is_not_told_sends_what_we_cannot_open_yet(
    standing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hushwire.ike.auth.REPLACES", NotifyType(0xE878))
    pair = standing
    pair.bob.endpoint._host.exchanges = pair.alice.endpoint._host.exchanges
    gaps = Gaps(pair)
    published(pair, pair.alice)
    unheard = "hushwire.wire.message.Message.notify"
    notify = type(pair.open(pair.alice.sa, pair.seen[-1][1].data)).notify
    monkeypatch.setattr(unheard, lambda self, kind: None if kind == 0xE878 else notify(self, kind))
    switch(pair, pair.alice)
    pair.wait(1)
    assert any(found.startswith("bob sends what nobody can open") for found in gaps.found)


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_all_child_sas_are_made_anew(several: Any, name: str) -> None:
    pair = several
    me, gaps = getattr(pair, name), Gaps(several, 3)
    before = set(pair.alice.plane)
    published(pair, me)
    switch(pair, me)
    pair.wait(4)
    settled(pair, gaps, me)
    assert {child.selector.remote_port or child.selector.local_port for child in me.sa.children.values()} == set(PORTS)
    assert not before & set(pair.alice.plane)


def test_the_old_one_stays_while_a_child_sa_is_refused(several: Any) -> None:
    pair = several
    old = pair.alice.sa
    published(pair, pair.alice)
    switch(pair, pair.alice)
    pair.bob.refuse = lambda sa: 53 in (sa.selector.local_port, sa.selector.remote_port)
    pair.wait(60)
    assert old.state is State.ESTABLISHED
    assert len(old.children) == 3
    pair.bob.refuse = lambda sa: False
    pair.wait(170)
    assert old.state is State.CLOSED
    assert len(pair.alice.sa.children) == 3
    pair.agree()


@pytest.mark.parametrize("name", ["alice", "bob"])
def test_a_peer_that_does_not_know_the_new_key_yet_keeps_the_old_ike_sa(standing: Any, name: str) -> None:
    pair = standing
    me = getattr(pair, name)
    old, gaps = me.sa, Gaps(pair)
    switch(pair, me)
    pair.wait(100)
    assert [sa for sa in pair.alice.sas if sa.state is State.ESTABLISHED] == [pair.alice.sa]
    assert me.sa is old
    attempts = sum(isinstance(report, Closed) and report.sa is not old for report in me.reports)
    # 0, 5, 15, 35, 75 seconds: bounded, and it does not stop.
    assert attempts == 5
    published(pair, me)
    pair.wait(2 * reauth.LAST_WAIT)
    assert old.state is State.CLOSED
    settled(pair, gaps, me)


@pytest.mark.parametrize("seed", [b"1", b"2", b"3", b"4", b"5", b"6"])
@pytest.mark.parametrize("late", [None, 0.0, 0.1, 6.0])
def test_both_ends_switch(make_pair: Any, seed: bytes, late: float | None) -> None:
    """None: at once, so that their messages cross."""
    pair = make_pair(alice={"seed": seed}, bob={"seed": seed})
    pair.initiate()
    pair.deliver()
    gaps, both = Gaps(pair), (pair.alice, pair.bob)
    for me in both:
        published(pair, me)
    switch(pair, pair.alice)
    if late is not None:
        pair.wait(late)
    switch(pair, pair.bob)
    for me in both if late is None else ():
        me.endpoint.timeout(pair.now)
    pair.wait(30)
    settled(pair, gaps, *both)


@pytest.mark.parametrize("held", [Sign, InstallSA])
@pytest.mark.parametrize("name", ["alice", "bob"])
def test_the_key_is_switched_while_ike_auth_is_under_way(pair: Any, name: str, held: type) -> None:
    """The exchange goes on with the key that it began with, and what it makes is then made anew."""
    me = getattr(pair, name)
    published(pair, me)
    me.held = []
    pair.initiate()
    pair.deliver()
    # Let it go as far as it is to go: authorized, signed, to be installed.
    for _ in range(3):
        if not any(isinstance(item, held) for item in me.held):
            items, me.held = me.held, []
            for item in items:
                pair.perform(me, item)
            pair.deliver()
    assert any(isinstance(item, held) for item in me.held)
    switch(pair, me)
    pair.release(me)
    pair.deliver()
    first = me.told(Established)[0].sa
    assert first.proved_with == me.key.public
    pair.wait(3)
    assert first.state is State.CLOSED
    assert me.sa.proved_with == NEW[name].public
    assert proved_by(pair, me) == {NEW[name].public.fingerprint}
    pair.agree()


@pytest.mark.parametrize("rekeyer", ["alice", "bob"])
def test_a_rekey_does_not_make_an_old_key_new(standing: Any, rekeyer: str) -> None:
    pair = standing
    switch(pair, pair.alice)
    pair.wait(1)
    me = getattr(pair, rekeyer)
    me.endpoint.rekey(me.sa, pair.now, ike=True)
    pair.wait(2)
    heir = pair.alice.sa
    assert heir.proved_with == pair.alice.key.public
    published(pair, pair.alice)
    pair.wait(2 * reauth.LAST_WAIT)
    assert heir.state is State.CLOSED
    assert proved_by(pair, pair.alice) == {NEW["alice"].public.fingerprint}
    pair.agree()


@pytest.mark.parametrize("rekeyer", ["alice", "bob"])
@pytest.mark.parametrize("ike", [True, False])
def test_a_rekey_at_the_same_time(standing: Any, rekeyer: str, ike: bool) -> None:
    pair = standing
    me, gaps = getattr(pair, rekeyer), Gaps(pair)
    published(pair, pair.alice)
    switch(pair, pair.alice)
    me.endpoint.rekey(me.sa, pair.now, ike=ike)
    pair.wait(10)
    settled(pair, gaps, pair.alice)


def test_initial_contact_is_not_said_and_the_old_one_is_named(standing: Any) -> None:
    pair = standing
    old = pair.alice.sa
    published(pair, pair.alice)
    switch(pair, pair.alice)
    pair.wait(1)
    auth = [send for name, send in pair.seen if name == "alice" and send.data[18] == ExchangeType.IKE_AUTH][-1]
    said = {p.type: p.data for p in pair.open(pair.alice.sa, auth.data).payloads if isinstance(p, Notify)}
    assert NotifyType.INITIAL_CONTACT not in said
    assert said[REPLACES] == old.spi_i


def test_with_a_shared_key_nothing_is_made_anew(make_pair: Any) -> None:
    pair = make_pair()
    for me in (pair.alice, pair.bob):
        me.knows(other(pair, me), psk=b"shared", keys=())
    pair.initiate()
    pair.deliver()
    old = pair.alice.sa
    assert switch(pair, pair.alice) == 0
    pair.wait(20)
    assert pair.alice.sa is old


def test_an_ike_sa_without_children_is_just_deleted(standing: Any) -> None:
    pair = standing
    pair.alice.sa.children.disown(pair.alice.child.spi_in)
    pair.deliver()
    assert not pair.alice.plane
    switch(pair, pair.alice)
    pair.wait(1)
    assert pair.alice.sas == pair.bob.sas == []


@pytest.mark.parametrize("exchange", [ExchangeType.IKE_SA_INIT, ExchangeType.IKE_AUTH, ExchangeType.INFORMATIONAL])
@pytest.mark.parametrize("name", ["alice", "bob"])
@pytest.mark.parametrize("response", [False, True])
def test_a_message_is_lost(several: Any, exchange: ExchangeType, name: str, response: bool) -> None:
    """Each message of each end once; what is sent meanwhile is always opened at the other end."""
    pair = several
    lost: set[bytes] = set()

    def lose(sender: Any, send: Any) -> list[Any]:
        hit = send.data[18] == exchange and bool(send.data[19] & 0x20) is response
        if hit and sender.name == name and send.data not in lost and len(lost) < 4:
            lost.add(send.data)
            return []
        return [send]

    gaps = Gaps(pair, 3)
    pair.filter = lose
    for me in (pair.alice, pair.bob):
        published(pair, me)
        switch(pair, me)
        pair.wait(0.2)
    pair.wait(60)
    settled(pair, gaps, pair.alice, pair.bob)


def test_disconnected_meanwhile_it_does_not_come_back(standing: Any) -> None:
    pair = standing
    published(pair, pair.alice)
    switch(pair, pair.alice)
    pair.alice.endpoint.timeout(pair.now)
    pair.collect()
    old = next(sa for sa in pair.alice.sas if sa.state is State.ESTABLISHED)
    pair.alice.endpoint.delete(old, pair.now)
    pair.wait(30)
    assert pair.alice.sas == []
    assert not pair.alice.plane
    assert not pair.bob.plane


def test_a_peer_that_dies_meanwhile_is_given_up_by_liveness(standing: Any) -> None:
    pair = standing
    published(pair, pair.alice)
    pair.filter = lambda sender, send: []
    switch(pair, pair.alice)
    pair.wait(200)
    assert pair.alice.sas == []
    assert not pair.alice.plane
