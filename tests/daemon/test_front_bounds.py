"""That what the front holds is bounded, in number, octets and time: a Front by itself, no sockets, no waiting."""

import gc
import tracemalloc
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from struct import pack

import pytest

from hushwire.daemon import front
from hushwire.daemon.front import MAX_KNOWN, MAX_QUESTIONS, PATIENCE, REMEMBERED, Front, _Pending
from hushwire.daemon.unbound import Fetched
from hushwire.events import Asked, Release, Verdict
from hushwire.names import message
from hushwire.names.message import IN, Question
from hushwire.wire.address import IPAddress

TXT = 16
V4, V6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")


@pytest.mark.parametrize("step", [0.0, 0.01, 10.0], ids=["at once", "some expire", "one by one"])
def test_more_names_that_a_rule_speaks_of_than_are_remembered(step: float) -> None:
    stage = Stage(ruled=True)
    for number in range(MAX_KNOWN + 2):
        stage.expire(number * step)
        stage.ask(number, message.A)
        stage.release(Verdict.REFUSE)
        stage.answer(ttl=0)
    assert len(stage.replies) == len(stage.told) == MAX_KNOWN + 2
    # The last is still known, and the first is asked for anew.
    stage.ask(MAX_KNOWN + 1, message.AAAA)
    assert len(stage.told) == MAX_KNOWN + 2
    stage.ask(0, message.A)
    assert len(stage.told) == MAX_KNOWN + 3


def test_a_name_for_which_somebody_waits_is_not_forgotten() -> None:
    stage = Stage(ruled=True)
    stage.ask(MAX_KNOWN, message.A)
    stage.answer(rdata=V4.packed)
    waited_for = stage.told.pop()
    for number in range(MAX_KNOWN):
        stage.ask(number, message.A)
        stage.release(Verdict.REFUSE)
        stage.answer(ttl=0)
    stage.told.append(waited_for)
    stage.release(Verdict.ONLY, V4)
    assert V4.packed in stage.replies[-1]


def test_questions_that_have_ended_are_not_held_by_one_that_has_not() -> None:
    stage = Stage()
    stage.ask(0, TXT)
    stage.now = PATIENCE / 2
    for number in range(1, 50):
        stage.ask(number, TXT)
        stage.answer()
    gc.collect()
    assert sum(isinstance(each, _Pending) for each in gc.get_objects()) == 1
    assert stage.front.deadline() == PATIENCE
    stage.expire(PATIENCE)
    assert (len(stage.replies), stage.front.deadline()) == (50, None)


def test_what_is_asked_of_the_upstream_is_bounded_when_the_node_refuses_at_once() -> None:
    stage = Stage(ruled=True)
    for number in range(MAX_QUESTIONS + 10):
        stage.ask(number, message.A)
        stage.release(Verdict.REFUSE)
    assert len(stage.replies) == MAX_QUESTIONS + 10
    assert len(stage.fetches) == MAX_QUESTIONS
    # There is room again as soon as the upstream has answered one.
    stage.answer()
    stage.ask(MAX_QUESTIONS + 20, message.A)
    assert len(stage.fetches) == MAX_QUESTIONS


SHAPES = {
    "large records": (60, 1, b"\xff" + bytes(255) * 240),
    "many records": (6, 2000, b"\3abc"),
    "small answers": (4000, 1, b"\3abc"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bounded", [True, False])
def test_answers_are_remembered_within_so_many_octets(
    shape: str, bounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for with DNSSEC's records and without; the control: without a bound they take more than that."""
    monkeypatch.setattr(front, "MAX_OCTETS", 4 << 20 if bounded else 1 << 40)
    names, records, rdata = SHAPES[shape]
    stage = Stage()
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(names):
            stage.ask(number, TXT)
            stage.answer(records, rdata)
            stage.ask(number, TXT, dnssec=True)
            assert not stage.fetches, "the newest is not remembered"
            stage.replies.clear()
        gc.collect()
        most = tracemalloc.get_traced_memory()[0]
        assert most > 1 << 20
        assert (most < 4 << 20) is bounded
        # What is too old is forgotten, though nobody asks for it again.
        stage.expire(REMEMBERED)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("ruled", [True, False])
def test_an_answer_that_waits_for_the_node_has_a_bound(ruled: bool) -> None:
    """Programs may have so many wait; the control: that of a name without a rule waits for nobody, and passes."""
    stage = Stage(ruled)
    stage.ask(1, message.A)
    stage.answer(1000, V4.packed)
    if ruled:
        stage.release(Verdict.PASS)
    (reply,) = stage.replies
    assert (reply[3] & 15, reply[6:8]) == ((2, bytes(2)) if ruled else (0, (1000).to_bytes(2, "big")))


def test_addresses_that_the_node_has_chosen_are_told_of_a_name_with_too_many() -> None:
    stage = Stage(ruled=True)
    stage.ask(1, message.A)
    stage.answer(1000, V4.packed)
    stage.release(Verdict.ONLY, V4)
    (reply,) = stage.replies
    assert (reply[3] & 15, reply[6:8], reply.count(V4.packed)) == (0, b"\0\1", 1)


def test_who_asks_for_the_other_family_later_does_not_lose_the_node() -> None:
    stage = Stage(ruled=True)
    stage.ask(1, message.A)
    stage.now = 3.0
    stage.ask(1, message.AAAA)
    stage.answer(rdata=V6.packed)
    assert len(stage.told) == 1
    stage.expire(PATIENCE)
    assert len(stage.replies) == 1
    stage.release(Verdict.ONLY, V6)
    assert V6.packed in stage.replies[1]


@pytest.mark.parametrize("told", [True, False])
def test_an_answer_that_comes_late_finds_what_the_node_said_as_old_as_it_is(told: bool) -> None:
    """The resolver tells the time before it hands over what the upstream said; the control: as if it did not."""
    stage = Stage(ruled=True)
    stage.ask(1, message.A)
    stage.release(Verdict.ONLY, V4)
    if told:
        stage.expire(REMEMBERED)
    stage.answer(rdata=V4.packed)
    assert (len(stage.told), len(stage.replies)) == ((2, 0) if told else (1, 1))


class Stage:
    """A Front, its upstream and its node, who say nothing by themselves."""

    def __init__(self, ruled: bool = False) -> None:
        self.now = 0.0
        self.told: list[Asked] = []
        self.replies: list[bytes] = []
        self.fetches: list[tuple[Question, Callable[[Fetched], None]]] = []
        self.front = Front(
            lambda name: ruled, lambda question, now, take: self.fetches.append((question, take)), self.told.append
        )

    def ask(self, number: int, rdtype: int, dnssec: bool = False) -> None:
        """For the records of the name of that number, over TCP."""
        question = owner(number) + pack("!2H", rdtype, IN)
        opt = b"\0" + pack("!2HIH", message.OPT, 1232, 0x8000 * dnssec, 0)
        octets = pack("!6H", number & 0xFFFF, message.RD, 1, 0, 0, 1) + question + opt
        self.front.ask(octets, False, self.replies.append, self.now)

    def expire(self, now: float) -> None:
        self.now = now
        self.front.expire(now)

    def release(self, verdict: Verdict, *addresses: IPAddress) -> None:
        """The last name that the node was asked about."""
        self.front.release(Release(self.told[-1].request, verdict, addresses, reason="so it says"), self.now)

    def answer(self, records: int = 1, rdata: bytes = b"\1x", ttl: int = 300) -> None:
        """The last question."""
        question, take = self.fetches.pop()
        head = pack("!6H", 0, message.QR, 1, records, 0, 0) + question.name + pack("!2H", question.rdtype, IN)
        record = pack("!3HIH", 0xC00C, question.rdtype, IN, ttl, len(rdata)) + rdata
        take(Fetched(head + record * records, secure=True))


def owner(number: int) -> bytes:
    return b"\x08%08d\x05alice\x07example\x00" % number
