"""INFORMATIONAL: Delete, liveness, and what one peer can say of another's SAs (RFC 7296 s1.4, s2.4)."""

from typing import Any

import pytest

from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.ike.report import ChildDown, Closed
from hushwire.ike.state import State
from hushwire.wire.payload import Configuration, Delete, Notify
from hushwire.wire.registry import CPType, ExchangeType, NotifyType, ProtocolID

INFORMATIONAL = ExchangeType.INFORMATIONAL


def test_delete_of_a_child_is_answered_with_its_other_half(standing: Any) -> None:
    spi = standing.bob.child.spi_in
    answer = standing.ask(standing.alice.sa, INFORMATIONAL, [Delete(ProtocolID.ESP, (standing.alice.child.spi_in,))])
    assert answer.one(Delete) == Delete(ProtocolID.ESP, (spi,))
    assert not standing.bob.plane
    assert standing.bob.sa.state is State.ESTABLISHED


def test_a_delete_twice_is_answered_without_the_second_time(standing: Any) -> None:
    spi = standing.alice.child.spi_in
    answer = standing.ask(
        standing.alice.sa, INFORMATIONAL, [Delete(ProtocolID.ESP, (spi, spi)), Delete(ProtocolID.ESP, (spi,))]
    )
    assert len(answer.payloads) == 1
    assert standing.ask(standing.alice.sa, INFORMATIONAL, [Delete(ProtocolID.ESP, (spi,))]).payloads == ()
    assert len(standing.bob.told(ChildDown)) == 1


@pytest.mark.parametrize(
    "delete",
    [
        Delete(ProtocolID.AH, (b"\1\2\3\4",)), Delete(ProtocolID.ESP, (b"\1\2\3\4",) * 200),
        Delete(ProtocolID(77), (b"\1\2\3\4",)),
    ],
)  # fmt: skip
def test_a_delete_of_what_is_not_there(standing: Any, delete: Delete) -> None:
    assert standing.ask(standing.alice.sa, INFORMATIONAL, [delete]).payloads == ()
    assert len(standing.bob.plane) == 2


@pytest.mark.parametrize("whose", ["spi_in", "spi_out"])
def test_an_sa_is_named_by_the_spi_its_sender_receives_on(standing: Any, whose: str) -> None:
    delete = Delete(ProtocolID.ESP, (getattr(standing.alice.child, whose),))
    standing.ask(standing.alice.sa, INFORMATIONAL, [delete])
    assert bool(standing.bob.plane) is (whose == "spi_out")


def test_a_delete_touches_nobody_elses_children(standing: Any) -> None:
    """ATTACKS row 22: under a second IKE SA, the first one's SPIs mean nothing."""
    pair, spi = standing, standing.alice.child.spi_in
    kept, key = pair.bob.sa, PrivateKey.from_seed(Secret(b"m" * 32))
    mallory = type(pair.alice)("mallory", "192.0.2.1", key)
    mallory.knows(pair.bob)
    pair.bob.knows(mallory)
    pair.alice = mallory
    mine = pair.initiate()
    pair.deliver()
    assert mine.state is kept.state is State.ESTABLISHED
    for request in (
        [Delete(ProtocolID.ESP, (spi,))], [Notify(NotifyType.REKEY_SA, b"", ProtocolID.ESP, spi)],
        [Notify(NotifyType.INITIAL_CONTACT)], [Delete(ProtocolID.IKE)],
    ):  # fmt: skip
        assert pair.ask(mine, INFORMATIONAL, request).payloads == ()
    assert kept.children
    assert kept.state is State.ESTABLISHED
    assert len(pair.bob.plane) == 2


@pytest.mark.parametrize("more", [[], [Delete(ProtocolID.ESP, (b"\1\2\3\4",))], [Notify(NotifyType.INITIAL_CONTACT)]])
def test_delete_of_the_ike_sa(standing: Any, more: list[Any]) -> None:
    answer = standing.ask(standing.alice.sa, INFORMATIONAL, [*more, Delete(ProtocolID.IKE)])
    assert answer.payloads == ()
    assert not standing.bob.sas
    assert not standing.bob.plane
    assert standing.bob.told(Closed)[0].reason == "deleted by the peer"


def test_a_repeated_delete_of_the_ike_sa_finds_nothing(standing: Any) -> None:
    data = standing.seal(standing.alice.sa, INFORMATIONAL, [Delete(ProtocolID.IKE)])
    assert len(standing.feed(standing.bob, data)) == 1
    assert standing.feed(standing.bob, data) == []


def test_both_delete_at_once(standing: Any) -> None:
    for me in (standing.alice, standing.bob):
        me.endpoint.delete(me.sa, standing.now)
    standing.deliver()
    standing.wait(60)
    assert not standing.alice.sas
    assert not standing.bob.sas
    assert len(standing.alice.told(Closed)) == len(standing.bob.told(Closed)) == 1


def test_a_delete_that_nobody_answers_is_done_all_the_same(standing: Any) -> None:
    standing.filter = lambda sender, send: []
    standing.alice.endpoint.delete(standing.alice.sa, standing.now)
    standing.deliver()
    standing.wait(sum(standing.alice.settings.retransmit) + 1)
    assert not standing.alice.sas
    assert not standing.alice.plane
    assert "ike.delete-unanswered" in [notice.kind for notice in standing.alice.notices]


def test_an_attempt_that_is_no_longer_wanted(pair: Any) -> None:
    sa = pair.initiate()
    pair.alice.endpoint.delete(sa, pair.now)
    pair.deliver()
    pair.wait(30)
    assert sa.state is State.CLOSED
    assert not pair.alice.sas
    assert not pair.bob.sas


def test_authentication_failed_from_the_initiator_ends_it(standing: Any) -> None:
    """RFC 7296 s2.21.2."""
    answer = standing.ask(standing.alice.sa, INFORMATIONAL, [Notify(NotifyType.AUTHENTICATION_FAILED)])
    assert answer.payloads == ()
    assert not standing.bob.sas
    assert not standing.bob.plane


@pytest.mark.parametrize("kind", [NotifyType.NO_PROPOSAL_CHOSEN, NotifyType.INVALID_SPI, NotifyType.TEMPORARY_FAILURE])
def test_other_errors_in_a_request_are_heard_and_no_more(standing: Any, kind: NotifyType) -> None:
    assert standing.ask(standing.alice.sa, INFORMATIONAL, [Notify(kind, b"\1\2\3\4")]).payloads == ()
    assert standing.bob.sa.state is State.ESTABLISHED


def test_configuration_is_passed_over(standing: Any) -> None:
    assert standing.ask(standing.alice.sa, INFORMATIONAL, [Configuration(CPType(1), ((1, b""),))]).payloads == ()


# --- liveness ---


def test_an_empty_request_has_an_empty_answer(standing: Any) -> None:
    assert standing.ask(standing.alice.sa, INFORMATIONAL).payloads == ()


def test_silence_is_asked_about_and_then_ends_it(standing: Any) -> None:
    standing.filter = lambda sender, send: []
    before = len(standing.seen)
    standing.wait(standing.alice.settings.liveness - 1)
    assert len(standing.seen) == before
    standing.wait(2)
    assert len(standing.seen) > before
    standing.wait(sum(standing.alice.settings.retransmit) + 1)
    for me in (standing.alice, standing.bob):
        assert not me.sas
        assert not me.plane
        assert "no answer" in me.told(Closed)[0].reason


def test_what_is_not_integrity_checked_is_no_sign_of_life(standing: Any) -> None:
    """A forger cannot keep a dead SA alive."""
    standing.filter = lambda sender, send: []
    data = standing.seal(standing.alice.sa, INFORMATIONAL)
    for _ in range(80):
        standing.wait(1)
        standing.feed(standing.bob, data[:-1] + bytes([data[-1] ^ 1]))
    assert not standing.bob.sas


def test_an_answer_is_a_sign_of_life(standing: Any) -> None:
    standing.wait(10 * standing.alice.settings.liveness)
    assert standing.alice.sa.state is State.ESTABLISHED
    assert standing.now.monotonic - standing.alice.sa.heard <= 2 * standing.alice.settings.liveness


def test_the_deviation_leaves_no_sa_for_ever(pair: Any) -> None:
    """ATTACKS row 14: the last message is lost, and the initiator gone."""
    pair.filter = lambda sender, send: [send] if len(pair.seen) < 4 else []
    pair.initiate()
    pair.deliver()
    assert pair.bob.sa.state is State.ESTABLISHED
    pair.alice.sa.close("gone")
    pair.wait(90)
    assert not pair.bob.sas
    assert not pair.bob.plane


@pytest.mark.parametrize("seconds", [1_000, 20_000])
def test_no_deadline_is_ever_in_the_past(standing: Any, seconds: int) -> None:
    for me in (standing.alice, standing.bob):
        me.endpoint.timeout(standing.now)
    standing.wait(seconds)
    for me in (standing.alice, standing.bob):
        assert me.endpoint.deadline() > standing.now.monotonic
        assert len(me.endpoint._host.alarms) < 100
