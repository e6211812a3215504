"""When to look at which peer again: what is stale is passed over, and does not pile up."""

from hushwire.config import Rule
from hushwire.node.alarms import LEAST, Alarms
from hushwire.node.peer import Peer
from hushwire.timers import NEVER


def peers(count: int) -> list[Peer]:
    return [Peer(number, (Rule(f"n{number}.example"),), None) for number in range(1, count + 1)]


def alarms() -> Alarms:
    return Alarms(lambda peer: peer.not_before)


def test_the_first_of_all_and_each_once() -> None:
    some, theirs = peers(4), alarms()
    for peer, when in zip(some, (30.0, 10.0, 20.0, NEVER), strict=True):
        peer.not_before = when
    theirs.touch(some)
    assert theirs.next() == 10.0
    assert theirs.due(20.0) == [some[1], some[2]]
    assert theirs.due(29.0) == []
    assert theirs.due(1e9) == [some[0]]
    assert theirs.next() == NEVER


def test_what_was_put_off_or_taken_back_does_not_ring() -> None:
    (one, other), theirs = peers(2), alarms()
    one.not_before, other.not_before = 10.0, 20.0
    theirs.touch([one, other])
    one.not_before, other.not_before = 30.0, NEVER
    theirs.touch([one, other])
    assert theirs.next() == 30.0
    assert theirs.due(25.0) == []
    one.not_before = 5.0
    theirs.touch([one])
    assert theirs.due(5.0) == [one]
    assert theirs.next() == NEVER


def test_what_is_stale_does_not_pile_up() -> None:
    (one,), theirs = peers(1), alarms()
    for second in range(10_000):
        one.not_before = float(second)
        theirs.touch([one])
    assert len(theirs._heap) <= 2 + LEAST
    assert theirs.due(1e9) == [one]
