"""That what the front holds is bounded, whoever asks and however often: a Front by itself, no sockets, no waiting."""

import gc
from collections.abc import Callable
from struct import pack

import pytest

from hushwire.daemon.front import MAX_KNOWN, MAX_QUESTIONS, PATIENCE, Front, _Pending
from hushwire.daemon.unbound import Fetched
from hushwire.events import Asked, Release, Verdict
from hushwire.names import message
from hushwire.names.message import IN, Question

TXT = 16


@pytest.mark.parametrize("step", [0.0, 0.01, 10.0], ids=["at once", "some expire", "one by one"])
def test_more_names_that_a_rule_speaks_of_than_are_remembered(step: float) -> None:
    stage = Stage(ruled=True)
    for number in range(MAX_KNOWN + 2):
        stage.now = number * step
        stage.front.expire(stage.now)
        stage.ask(number, message.A)
        stage.release(Verdict.REFUSE)
        stage.answer(ttl=0)
    assert len(stage.replies) == len(stage.told) == MAX_KNOWN + 2
    # The last is still known, and the first is asked for anew.
    stage.ask(MAX_KNOWN + 1, message.AAAA)
    assert len(stage.told) == MAX_KNOWN + 2
    stage.ask(0, message.A)
    assert len(stage.told) == MAX_KNOWN + 3


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
    stage.front.expire(PATIENCE)
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

    def release(self, verdict: Verdict) -> None:
        """The last name that the node was asked about."""
        self.front.release(Release(self.told[-1].request, verdict, reason="so it says"), self.now)

    def answer(self, records: int = 1, rdata: bytes = b"\1x", ttl: int = 300) -> None:
        """The last question."""
        question, take = self.fetches.pop()
        head = pack("!6H", 0, message.QR, 1, records, 0, 0) + question.name + pack("!2H", question.rdtype, IN)
        record = pack("!3HIH", 0xC00C, question.rdtype, IN, ttl, len(rdata)) + rdata
        take(Fetched(head + record * records, secure=True))


def owner(number: int) -> bytes:
    return b"\x08%08d\x05alice\x07example\x00" % number
