"""That what the front holds is bounded, whoever asks and however often: a Front by itself, no sockets, no waiting."""

from collections.abc import Callable
from struct import pack

import pytest

from hushwire.daemon.front import MAX_KNOWN, Front
from hushwire.daemon.unbound import Fetched
from hushwire.events import Asked, Release, Verdict
from hushwire.names import message
from hushwire.names.message import IN, Question

ZONE = b"\x05alice\x07example\x00"


@pytest.mark.parametrize("step", [0.0, 0.01, 10.0], ids=["at once", "some expire", "one by one"])
def test_more_names_that_a_rule_speaks_of_than_are_remembered(step: float) -> None:
    stage = Stage(ruled=True)
    for number in range(MAX_KNOWN + 2):
        stage.now = number * step
        stage.front.expire(stage.now)
        stage.ask(number, message.A)
        stage.front.release(Release(stage.told[-1].request, Verdict.REFUSE, reason="no"), stage.now)
    assert len(stage.replies) == len(stage.told) == MAX_KNOWN + 2
    # The last is still known, and the first is asked for anew.
    stage.ask(MAX_KNOWN + 1, message.AAAA)
    assert len(stage.told) == MAX_KNOWN + 2
    stage.ask(0, message.A)
    assert len(stage.told) == MAX_KNOWN + 3


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

    def ask(self, number: int, rdtype: int, rdclass: int = IN) -> None:
        """For addresses, or other records, of the name of that number."""
        question = b"\x08%08d" % number + ZONE + pack("!2H", rdtype, rdclass)
        self.front.ask(
            pack("!6H", number & 0xFFFF, message.RD, 1, 0, 0, 0) + question, True, self.replies.append, self.now
        )
