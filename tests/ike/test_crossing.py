"""Requests of both ends that cross, as RFC 7296 s2.25 tells them, a test for each sentence; and in every pairing."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.crypto.kex import generate
from hushwire.entropy import SeededEntropy
from hushwire.ike.informational import check_liveness, delete_child
from hushwire.ike.negotiation import Wanted
from hushwire.ike.proposals import esp_proposals, ike_proposals
from hushwire.ike.report import ChildDown, ChildUp, Closed
from hushwire.ike.settings import ESP_OFFERS, IKE_OFFERS
from hushwire.ike.state import State
from hushwire.policy.sad import Mode
from hushwire.policy.selector import Selector
from hushwire.wire.payload import Delete, KeyExchange, Nonce, Notify, SecurityAssociation, TrafficSelector, TSi, TSr
from hushwire.wire.registry import ExchangeType, KeID, NotifyType, ProtocolID

CREATE, INFORMATIONAL = ExchangeType.CREATE_CHILD_SA, ExchangeType.INFORMATIONAL
A, B = (ip_address(text) for text in ("192.0.2.1", "192.0.2.2"))


def asking(*first: Any) -> list[Any]:
    """A CREATE_CHILD_SA request for a Child SA, by hand."""
    ours, theirs = (TrafficSelector(0, 0, 65535, address, address) for address in (A, B))
    offer = SecurityAssociation(esp_proposals(ESP_OFFERS, b"\1\2\3\4", with_ke=False))
    return [*first, offer, Nonce(bytes(32)), TSi((ours,)), TSr((theirs,)), Notify(NotifyType.USE_TRANSPORT_MODE)]


def errors(message: Any) -> list[Any]:
    return [payload.type for payload in message.payloads if isinstance(payload, Notify) and payload.type.is_error]


def rekeying(child: Any) -> list[Any]:
    return asking(Notify(NotifyType.REKEY_SA, b"", ProtocolID.ESP, child.spi_in))


# --- RFC 7296 s2.25.1 ---


def close_child(me: Any, pair: Any) -> None:
    sa, child = me.sa, me.child
    sa.start(lambda: delete_child(sa, child))
    pair.collect()


def test_asked_to_close_a_child_it_is_closing_it_answers_without_delete(standing: Any) -> None:
    pair = standing
    close_child(pair.alice, pair)
    close_child(pair.bob, pair)
    requests = list(pair.wire)
    pair.wire = []
    (answer,) = pair.feed(pair.alice, requests[1][1].data)
    assert pair.open(pair.alice.sa, answer).payloads == ()
    pair.wire = requests[:1]
    pair.deliver()
    assert not pair.alice.plane
    assert not pair.bob.plane


def test_asked_to_close_a_child_it_is_rekeying_it_answers_with_delete(standing: Any) -> None:
    pair = standing
    pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=False)
    close_child(pair.bob, pair)
    requests = list(pair.wire)
    spi = pair.alice.child.spi_in
    pair.wire = []
    (answer,) = pair.feed(pair.alice, requests[1][1].data)
    assert pair.open(pair.alice.sa, answer).one(Delete).spis == (spi,)
    # And its own request finds no such Child SA, which is no harm.
    pair.wire = [(pair.alice, pair.seen[-1][1]), requests[0]]
    pair.deliver()
    assert not pair.bob.plane
    assert not pair.alice.plane


def test_asked_to_rekey_a_child_it_is_closing_it_answers_temporary_failure(standing: Any) -> None:
    pair = standing
    close_child(pair.bob, pair)
    assert errors(pair.ask(pair.alice.sa, CREATE, rekeying(pair.alice.child))) == [NotifyType.TEMPORARY_FAILURE]


def test_asked_to_rekey_a_child_it_is_rekeying_it_answers_as_usual(standing: Any) -> None:
    pair = standing
    pair.bob.endpoint.rekey(pair.bob.sa, pair.now, ike=False)
    pair.collect()
    answer = pair.ask(pair.alice.sa, CREATE, rekeying(pair.alice.child))
    assert not errors(answer)
    assert answer.one(SecurityAssociation)


def test_asked_to_close_a_child_that_is_not_there_it_answers_without_delete(standing: Any) -> None:
    answer = standing.ask(standing.alice.sa, INFORMATIONAL, [Delete(ProtocolID.ESP, (rb"\9\9\9\9",))])
    assert answer.payloads == ()
    assert len(standing.bob.plane) == 2


# --- RFC 7296 s2.25.2 ---


def ike_rekey(spi: bytes = b"new SPIi") -> list[Any]:
    share = generate(KeID.CURVE25519, SeededEntropy(b"by hand"))
    proposals = ike_proposals(IKE_OFFERS, spi, first_ke=KeID.CURVE25519)
    return [SecurityAssociation(proposals), Nonce(bytes(32)), KeyExchange(KeID.CURVE25519, share.public)]


@pytest.mark.parametrize("busy", ["creating", "rekeying", "closing"])
def test_asked_to_rekey_the_ike_sa_while_it_changes_a_child_it_answers_temporary_failure(
    standing: Any, busy: str
) -> None:
    pair = standing
    if busy == "creating":
        wanted = Wanted((Selector.between(B, A),), Mode.TRANSPORT)
        pair.bob.endpoint.create_child(pair.bob.sa, wanted, pair.now)
    elif busy == "rekeying":
        pair.bob.endpoint.rekey(pair.bob.sa, pair.now, ike=False)
    else:
        close_child(pair.bob, pair)
    pair.collect()
    assert errors(pair.ask(pair.alice.sa, CREATE, ike_rekey())) == [NotifyType.TEMPORARY_FAILURE]
    assert pair.bob.sa.state is State.ESTABLISHED


def test_asked_to_rekey_the_ike_sa_while_it_rekeys_it_it_answers_as_usual(standing: Any) -> None:
    pair = standing
    pair.bob.endpoint.rekey(pair.bob.sa, pair.now, ike=True)
    pair.collect()
    assert not errors(pair.ask(pair.alice.sa, CREATE, ike_rekey()))


def test_asked_to_rekey_the_ike_sa_while_it_closes_it_it_answers_temporary_failure(standing: Any) -> None:
    pair = standing
    pair.bob.endpoint.delete(pair.bob.sa, pair.now)
    pair.collect()
    assert errors(pair.ask(pair.alice.sa, CREATE, ike_rekey())) == [NotifyType.TEMPORARY_FAILURE]


def test_asked_to_close_the_ike_sa_while_it_rekeys_it_it_answers_and_forgets_its_own(standing: Any) -> None:
    pair = standing
    pair.bob.endpoint.rekey(pair.bob.sa, pair.now, ike=True)
    pair.collect()
    assert pair.ask(pair.alice.sa, INFORMATIONAL, [Delete(ProtocolID.IKE)]).payloads == ()
    assert not pair.bob.sas
    assert not pair.bob.plane


def test_asked_to_close_the_ike_sa_while_it_closes_it_it_answers_and_forgets_its_own(standing: Any) -> None:
    pair = standing
    pair.bob.endpoint.delete(pair.bob.sa, pair.now)
    pair.collect()
    assert pair.ask(pair.alice.sa, INFORMATIONAL, [Delete(ProtocolID.IKE)]).payloads == ()
    assert not pair.bob.sas


@pytest.mark.parametrize("rekey", [False, True])
def test_asked_for_a_child_while_it_rekeys_the_ike_sa_it_answers_temporary_failure(standing: Any, rekey: bool) -> None:
    pair = standing
    pair.bob.endpoint.rekey(pair.bob.sa, pair.now, ike=True)
    pair.collect()
    request = rekeying(pair.alice.child) if rekey else asking()
    assert errors(pair.ask(pair.alice.sa, CREATE, request)) == [NotifyType.TEMPORARY_FAILURE]


def test_asked_to_delete_a_child_while_it_rekeys_the_ike_sa_it_answers_as_usual(standing: Any) -> None:
    pair = standing
    pair.bob.endpoint.rekey(pair.bob.sa, pair.now, ike=True)
    pair.collect()
    spi = pair.bob.child.spi_in
    answer = pair.ask(pair.alice.sa, INFORMATIONAL, [Delete(ProtocolID.ESP, (pair.alice.child.spi_in,))])
    assert answer.one(Delete).spis == (spi,)


@pytest.mark.parametrize("one", ["rekey", "rekey ike", "delete", "delete ike", "new"])
@pytest.mark.parametrize("other", ["rekey", "rekey ike", "delete", "delete ike", "new"])
@pytest.mark.parametrize("lose", [None, 0, 1, 2, 3])
def test_whatever_crosses_the_two_agree_in_the_end(standing: Any, one: str, other: str, lose: int | None) -> None:
    """ATTACKS row 25 and promise P6."""
    pair = standing
    for me, you, what in ((pair.alice, pair.bob, one), (pair.bob, pair.alice, other)):
        match what:
            case "delete":
                close_child(me, pair)
            case "delete ike":
                me.endpoint.delete(me.sa, pair.now)
            case "new":
                wanted = Wanted((Selector.between(me.address, you.address),), Mode.TRANSPORT)
                me.endpoint.create_child(me.sa, wanted, pair.now)
            case _:
                me.endpoint.rekey(me.sa, pair.now, ike=what == "rekey ike")
    count = iter(range(10_000))
    pair.collect()
    pair.filter = lambda sender, send: [] if next(count) == lose else [send]
    pair.deliver()
    pair.wait(120)
    assert len(pair.alice.sas) == len(pair.bob.sas)
    assert len(pair.alice.sas) == ("delete ike" not in (one, other))
    pair.agree()
    both = {one, other}
    if both <= {"rekey", "rekey ike"}:
        assert len(pair.alice.plane) == 2
    if "delete ike" in both:
        assert not pair.alice.plane


def test_reports_pair_up(standing: Any) -> None:
    pair = standing
    pair.wait(86_400)
    pair.alice.endpoint.delete(pair.alice.sa, pair.now)
    pair.deliver()
    for me in (pair.alice, pair.bob):
        assert len(me.told(ChildUp)) == len(me.told(ChildDown))
        assert len(me.told(Closed)) > 1
        assert not me.endpoint._host.waiting
        assert not me.endpoint._host.peers


# --- IKE SAs: RFC 7296 s1.3.2, s2.8.2, s2.18 ---


@pytest.mark.parametrize("missing", [Nonce, KeyExchange])
def test_a_rekey_of_the_ike_sa_without_one_of_its_payloads(standing: Any, missing: type) -> None:
    request = [payload for payload in ike_rekey() if not isinstance(payload, missing)]
    assert errors(standing.ask(standing.alice.sa, CREATE, request)) == [NotifyType.INVALID_SYNTAX]
    assert not standing.bob.sas
    assert not standing.bob.plane


@pytest.mark.parametrize("spi", [bytes(8), b"", b"\1\2\3\4"])
def test_a_rekey_of_the_ike_sa_needs_an_spi(standing: Any, spi: bytes) -> None:
    assert errors(standing.ask(standing.alice.sa, CREATE, ike_rekey(spi))) == [NotifyType.INVALID_SYNTAX]


@pytest.mark.parametrize("public", [bytes(32), bytes(31), b"\1" + bytes(31)])
def test_a_rekey_of_the_ike_sa_with_a_bad_public_value(standing: Any, public: bytes) -> None:
    request = [*ike_rekey()[:2], KeyExchange(KeID.CURVE25519, public)]
    assert errors(standing.ask(standing.alice.sa, CREATE, request)) == [NotifyType.INVALID_SYNTAX]


def test_a_rekey_of_the_ike_sa_with_a_group_that_is_not_taken(make_pair: Any) -> None:
    only = tuple(replace(offer, ke=(KeID.ECP_256,)) for offer in IKE_OFFERS)
    pair = make_pair()
    pair.initiate()
    pair.deliver()
    pair.bob.endpoint._host.settings = replace(pair.bob.settings, ike_offers=only)
    pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=True)
    pair.deliver()
    assert pair.alice.sa.suite.ke is pair.bob.sa.suite.ke is KeID.ECP_256
    assert len(pair.alice.sa.children) == 1


def test_a_refused_rekey_of_the_ike_sa_is_tried_again(standing: Any) -> None:
    pair, only = standing, tuple(replace(offer, ke=(KeID.ECP_256,)) for offer in IKE_OFFERS)
    old, offers = pair.alice.sa, pair.alice.settings
    pair.alice.endpoint._host.settings = replace(offers, ike_offers=only[:1])
    pair.bob.endpoint._host.settings = replace(pair.bob.settings, ike_offers=only[1:])
    pair.alice.endpoint.rekey(old, pair.now, ike=True)
    pair.deliver()
    assert "ike.rekey-failed" in [notice.kind for notice in pair.alice.notices]
    assert old.state is State.ESTABLISHED
    assert old.rekeying is False
    pair.alice.endpoint._host.settings = offers
    pair.bob.endpoint._host.settings = pair.bob.settings
    pair.wait(6)
    assert old.state is State.CLOSED
    assert len(pair.alice.sa.children) == 1


@pytest.mark.parametrize("bad", ["no ke", "no nonce", "no sa", "another group", "no spi", "bad ke"])
def test_a_bad_answer_to_a_rekey_of_the_ike_sa(standing: Any, bad: str) -> None:
    pair = standing
    pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=True)
    pair.collect()
    (_, request), pair.wire = pair.wire[0], []
    view = pair.bob.sa
    (data,) = pair.feed(pair.bob, request.data)
    offer, nonce, ke = pair.open(view, data).payloads
    chosen = offer.proposals[0]
    answer = {
        "no ke": [offer, nonce], "no nonce": [offer, ke], "no sa": [nonce, ke],
        "another group": [offer, nonce, replace(ke, group=KeID.ECP_256)],
        "no spi": [SecurityAssociation((replace(chosen, spi=bytes(8)),)), nonce, ke],
        "bad ke": [offer, nonce, replace(ke, data=bytes(32))],
    }[bad]  # fmt: skip
    pair.feed(pair.alice, pair.seal(view, CREATE, answer, response=True, message_id=2))
    if bad == "bad ke":
        assert pair.alice.sa.rekeying is False
    else:
        assert not pair.alice.sas
        assert not pair.alice.plane


def test_an_ike_sa_rekeyed_twice_by_the_peer(standing: Any) -> None:
    """Before the old one is deleted, a second heir is refused; its children have one owner."""
    pair = standing
    assert not errors(pair.ask(pair.alice.sa, CREATE, ike_rekey()))
    assert errors(pair.ask(pair.alice.sa, CREATE, ike_rekey(b"another!"))) == [NotifyType.TEMPORARY_FAILURE]
    assert len(pair.bob.sas) == 2
    pair.wait(80)
    assert len([sa for sa in pair.bob.sas if sa.state is State.REKEYED]) == 0


def test_an_heir_that_goes_leaves_the_children_with_the_old_one(standing: Any) -> None:
    """While ours is under way the peer makes an heir, deletes it, and deletes the old one: nothing stays."""
    pair = standing
    pair.bob.endpoint.rekey(pair.bob.sa, pair.now, ike=True)
    pair.collect()
    old = pair.bob.sa
    assert not errors(pair.ask(pair.alice.sa, CREATE, ike_rekey()))
    assert old.successor is not None
    old.successor.close("by the peer")
    assert old.successor is None
    assert old.children
    pair.ask(pair.alice.sa, INFORMATIONAL, [Delete(ProtocolID.IKE)])
    assert not pair.bob.plane


def test_what_is_deleted_while_it_is_rekeyed_does_not_live_on(standing: Any) -> None:
    pair = standing
    pair.alice.endpoint.rekey(pair.alice.sa, pair.now, ike=True)
    pair.collect()
    pair.alice.endpoint.delete(pair.alice.sa, pair.now)
    pair.deliver()
    pair.wait(60)
    assert not pair.alice.sas
    assert not pair.bob.sas
    assert not pair.bob.plane


def test_an_old_ike_sa_whose_delete_never_comes_is_let_go(standing: Any) -> None:
    pair = standing
    assert not errors(pair.ask(pair.alice.sa, CREATE, ike_rekey()))
    old = next(sa for sa in pair.bob.sas if sa.state is State.REKEYED)
    pair.filter = lambda sender, send: []
    pair.wait(sum(pair.bob.settings.retransmit) + 1)
    assert old.state is State.CLOSED


@pytest.mark.parametrize("rekeyed_by", ["alice", "bob"])
@pytest.mark.parametrize("seed", [b"1", b"2", b"3", b"4"])
def test_both_began_and_one_is_rekeyed_before_the_other_stands(make_pair: Any, seed: bytes, rekeyed_by: str) -> None:
    pair = make_pair(alice={"seed": seed}, bob={"seed": seed})
    first, second = pair.initiate(pair.alice), pair.initiate(pair.bob)
    held: list[Any] = []

    def hold(sender: Any, send: Any) -> list[Any]:
        begins = send.data[:8] == second.spi_i and send.data[18] == ExchangeType.IKE_AUTH
        rekeys = send.data[18] == CREATE and bool(send.data[19] & 0x20)
        if (begins and not answers) or (rekeys and answers):
            held.append((sender, send))
            return []
        return [send]

    answers = False
    pair.filter = hold
    pair.deliver()
    assert first.state is State.ESTABLISHED
    begun, answers = list(held), True
    held.clear()
    me = {"alice": pair.alice, "bob": pair.bob}[rekeyed_by]
    (sa,) = (sa for sa in me.sas if sa.state is State.ESTABLISHED)
    me.endpoint.rekey(sa, pair.now, ike=True)
    pair.deliver()
    # One end has the heir, and the other waits for the answer that makes it, while the second IKE SA comes to stand.
    pair.wire += begun
    pair.deliver()
    pair.filter = lambda sender, send: [send]
    pair.wire += held
    pair.deliver()
    pair.wait(1)
    assert pair.alice.sa.spi_i == pair.bob.sa.spi_i
    assert pair.alice.child.spi_in == pair.bob.child.spi_out
    pair.agree()


def test_a_child_that_expired_at_the_peer_alone_is_succeeded_by_what_replaced_it(standing: Any) -> None:
    pair = standing
    old = pair.bob.child
    lost: list[Any] = []

    def lose_deletes(sender: Any, send: Any) -> list[Any]:
        delete = sender is pair.bob and send.data[18] == INFORMATIONAL and not send.data[19] & 0x20
        lost.extend([send] if delete else [])
        return [] if delete else [send]

    pair.filter = lose_deletes
    for me in (pair.alice, pair.bob):
        me.endpoint.rekey(me.sa, pair.now, ike=False)
    pair.collect()
    # Bob's rekey is done and its Delete is lost; alice's request is late, and what it replaces expires at his end.
    late = [each for each in pair.wire if each[0] is pair.alice]
    pair.wire = [each for each in pair.wire if each[0] is pair.bob]
    pair.deliver()
    assert lost
    pair.bob.endpoint.expire(old.names[0], pair.now, hard=True)
    pair.wire += late
    pair.deliver()
    assert len(pair.alice.plane) == len(pair.bob.plane) == 2
    pair.agree()


def test_a_child_that_expires_while_its_replacement_is_installed_leaves_a_whole_one(standing: Any) -> None:
    pair = standing
    old = pair.alice.child
    pair.alice.held = []
    pair.bob.endpoint.rekey(pair.bob.sa, pair.now, ike=False)
    pair.deliver()
    pair.alice.endpoint.expire(old.names[0], pair.now, hard=True)
    pair.release(pair.alice)
    pair.deliver()
    assert len(pair.alice.plane) == len(pair.bob.plane) == 2
    pair.agree()


@pytest.mark.parametrize("again", ["alice", "bob"])
def test_an_heir_is_rekeyed_before_it_has_taken_over(standing: Any, again: str) -> None:
    pair = standing
    old = pair.alice.sa
    late: list[Any] = []

    def hold(sender: Any, send: Any) -> list[Any]:
        request = send.data[:8] == old.spi_i and not send.data[19] & 0x20
        if request and (sender is pair.alice or send.data[18] == INFORMATIONAL):
            late.append((sender, send))
            return []
        return [send]

    pair.filter = hold
    for me in (pair.alice, pair.bob):
        me.endpoint.rekey(me.sa, pair.now, ike=True)
    pair.deliver()
    # For bob the heir has taken over, while alice waits for the answer to her own rekey.
    (heir,) = (sa for sa in pair.alice.sas if sa is not old)
    assert old.state is State.ESTABLISHED
    me = {"alice": pair.alice, "bob": pair.bob}[again]
    me.endpoint.rekey(next(sa for sa in me.sas if sa.spi_i == heir.spi_i), pair.now, ike=True)
    pair.deliver()
    pair.filter = lambda sender, send: [send]
    pair.wire += sorted(late, key=lambda each: each[1].data[18], reverse=True)
    pair.deliver()
    pair.wait(2)
    assert pair.alice.sa.spi_i == pair.bob.sa.spi_i
    assert pair.alice.child.spi_in == pair.bob.child.spi_out
    assert len(pair.alice.plane) == 2
    pair.agree()


def test_what_waited_to_take_over_and_is_gone_does_not_come_back(standing: Any) -> None:
    pair = standing
    old = pair.alice.child
    pair.bob.endpoint.rekey(pair.bob.sa, pair.now, ike=False)
    pair.filter = lambda sender, send: [send] if sender is pair.alice or send.data[18] == CREATE else []
    pair.deliver()
    # A request of alice's hangs, so that what the expiry of the old one asks for has to wait behind it.
    pair.filter = lambda sender, send: []
    pair.alice.sa.start(lambda: check_liveness(pair.alice.sa))
    pair.alice.endpoint.expire(old.names[0], pair.now, hard=True)
    pair.alice.sa.children.remove(pair.alice.child)
    pair.filter = lambda sender, send: [send]
    pair.wait(2)
    assert not pair.alice.plane
