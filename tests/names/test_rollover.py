"""names.rollover: caches and peers, modelled, follow the timetable, and none ever meets a key it does not know."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.names.binding import MIN_TTL
from hushwire.names.lookup import ANSWER_LIMIT, GRACE
from hushwire.names.rollover import LAST_RETRY, BadRollover, NotYet, Rollover, Seen, Step

OLD, NEW, OTHER = "aa" * 32, "bb" * 32, "cc" * 32
START = Rollover("alice.example", OLD, NEW, ttl=300, whole=True, fingerprints=False)


def seen(*keys: str, in_use: str = OLD, anywhere: tuple[str, ...] = ()) -> Seen:
    return Seen(frozenset(keys), frozenset((*keys, *anywhere)), in_use)


SHOWN = {Step.PUBLISH: seen(OLD, NEW), Step.SWITCH: seen(OLD, NEW, in_use=NEW), Step.WITHDRAW: seen(NEW, in_use=NEW)}
"""What is read after each step."""


def test_the_whole_way() -> None:
    rollover, now = START, 1000.0
    for step, pause in ((Step.PUBLISH, START.wait), (Step.SWITCH, START.wait), (Step.WITHDRAW, 0)):
        assert rollover.step is step
        rollover = rollover.done(SHOWN[step], now)
        assert rollover.not_before == now + pause
        now += pause + 7
    assert rollover.step is Step.DONE
    with pytest.raises(NotYet, match="over"):
        rollover.done(seen(NEW, in_use=NEW), now)


@pytest.mark.parametrize(
    ("step", "reading", "reason"),
    [
        (Step.PUBLISH, seen(OLD), "not both"),
        (Step.PUBLISH, seen(NEW), "not both"),
        (Step.PUBLISH, seen(OLD, anywhere=(NEW,)), "not both"),
        (Step.PUBLISH, seen(OLD, NEW, in_use=NEW), "old key"),
        (Step.SWITCH, seen(OLD, NEW), "does not hold the new key"),
        (Step.SWITCH, seen(OLD, NEW, in_use=OTHER), "does not hold the new key"),
        (Step.SWITCH, seen(OLD, in_use=NEW), "not published"),
        (Step.WITHDRAW, seen(OLD, NEW, in_use=NEW), "still published"),
        (Step.WITHDRAW, seen(NEW, in_use=NEW, anywhere=(OLD,)), "still published"),
        (Step.WITHDRAW, seen(in_use=NEW), "not published"),
        (Step.WITHDRAW, seen(NEW), "does not hold the new key"),
    ],
)
def test_what_a_reading_does_not_show_is_not_done(step: Step, reading: Seen, reason: str) -> None:
    with pytest.raises(NotYet, match=reason):
        replace(START, step=step).done(reading, 0.0)
    replace(START, step=step).done(SHOWN[step], 0.0)


@pytest.mark.parametrize(
    ("step", "reading"),
    [
        (Step.PUBLISH, seen(OLD, in_use=NEW)),
        (Step.SWITCH, seen(OLD)),
        (Step.SWITCH, seen(OLD, anywhere=(NEW,))),
        (Step.WITHDRAW, seen(OLD, NEW)),
        (Step.WITHDRAW, seen(OLD, in_use=NEW)),
    ],
)
def test_what_a_step_needs_is_seen_before_it(step: Step, reading: Seen) -> None:
    with pytest.raises(NotYet):
        replace(START, step=step).check(reading)


def test_what_each_step_leaves_is_what_the_next_needs() -> None:
    START.check(seen(OLD))
    for before, after in pairwise((Step.PUBLISH, Step.SWITCH, Step.WITHDRAW)):
        replace(START, step=after).check(SHOWN[before])


def test_failures_are_tried_again_later_and_later_and_stay_where_they_are() -> None:
    rollover, now, pauses = START, 0.0, []
    for _ in range(30):
        after = rollover.failed(now)
        assert after.step is START.step
        pauses.append(after.not_before - now)
        rollover, now = after, after.not_before
    assert pauses == sorted(pauses)
    assert pauses[0] < 10
    assert pauses[-1] == LAST_RETRY
    assert rollover.done(SHOWN[Step.PUBLISH], now).failures == 0


def test_a_key_that_vanished_is_published_again_and_waited_for() -> None:
    waiting = START.done(SHOWN[Step.PUBLISH], 0.0)
    again = waiting.undone(500.0)
    assert (again.step, again.not_before) == (Step.PUBLISH, 500.0)
    assert again.done(SHOWN[Step.PUBLISH], 510.0).not_before == 510 + START.wait
    for step in (Step.PUBLISH, Step.WITHDRAW, Step.DONE):
        with pytest.raises(ValueError, match=step.value):
            replace(START, step=step).undone(0.0)


def test_the_timetable_is_what_happens() -> None:
    announced = START.timetable(1000.0)
    rollover, now, happened = START, 1000.0, []
    while rollover.step is not Step.DONE:
        now = max(now, rollover.not_before)
        happened.append((now, rollover.step))
        rollover = rollover.done(SHOWN[rollover.step], now)
    assert announced == tuple(happened)
    assert rollover.timetable(now) == ()


def holds_for(ttl: int, left_in_cache: float) -> float:
    """Seconds that a peer trusts an answer of which `left_in_cache` of the TTL is left: as names.lookup does it."""
    return max(left_in_cache, MIN_TTL) + GRACE + ANSWER_LIMIT if left_in_cache <= ttl else 0.0


@given(
    ttl=st.integers(0, 86400),
    delays=st.tuples(st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 1e5)),
    cached_before=st.floats(0, 1),
    asked_after=st.floats(0, 1),
)
def test_no_peer_ever_meets_a_key_it_does_not_know(
    ttl: int, delays: tuple[float, float, float], cached_before: float, asked_after: float
) -> None:
    """A cache takes the set just before a change, a peer asks the cache at any time of its life."""
    rollover, now = replace(START, ttl=ttl, margin=0), 0.0
    happened: dict[Step, float] = {}
    for delay in delays:
        now = max(now, rollover.not_before) + delay
        happened[rollover.step] = now
        rollover = rollover.done(SHOWN[rollover.step], now)
    for change, next_use in ((Step.PUBLISH, Step.SWITCH), (Step.SWITCH, Step.WITHDRAW)):
        taken = happened[change] - 1e-6 * cached_before
        asked = taken + ttl * asked_after
        forgotten = asked + holds_for(ttl, taken + ttl - asked)
        assert forgotten <= happened[next_use] + 1e-3


def test_without_the_wait_a_peer_does() -> None:
    """The control of the test above."""
    hasty = replace(START.done(SHOWN[Step.PUBLISH], 0.0), not_before=0.0)
    assert hasty.timetable(0.0)[0][0] < holds_for(START.ttl, START.ttl)


@given(
    st.builds(
        Rollover,
        name=st.sampled_from(["alice.example", "a.b.c"]),
        old=st.just(OLD),
        new=st.just(NEW),
        ttl=st.integers(0, 2**31),
        whole=st.booleans(),
        fingerprints=st.booleans(),
        margin=st.integers(0, 86400),
        step=st.sampled_from(Step),
        not_before=st.floats(0, 1e10),
        failures=st.integers(0, 1000),
    )
)
def test_it_is_resumed_as_it_was(rollover: Rollover) -> None:
    assert Rollover.read(rollover.write()) == rollover


@pytest.mark.parametrize(
    "spoil",
    [
        lambda fields: fields.pop("old"),
        lambda fields: fields.update(more=1),
        lambda fields: fields.update(step="hurry"),
        lambda fields: fields.update(name="Alice.Example."),
        lambda fields: fields.update(new=OLD),
        lambda fields: fields.update(new="bb"),
        lambda fields: fields.update(new=7),
        lambda fields: fields.update(ttl=-1),
        lambda fields: fields.update(ttl=True),
        lambda fields: fields.update(not_before=float("nan")),
        lambda fields: fields.update(not_before=float("inf")),
        lambda fields: fields.update(whole=None),
    ],
)
def test_a_spoilt_state_is_refused(spoil: Callable[[dict[str, object]], object]) -> None:
    fields = json.loads(START.write())
    spoil(fields)
    with pytest.raises(BadRollover):
        Rollover.read(json.dumps(fields))


@given(st.text(max_size=50))
def test_any_text_is_no_rotation(text: str) -> None:
    with pytest.raises(BadRollover):
        Rollover.read(text)


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "[]", '{"step": "publish"}', "{}"])
def test_other_json_is_no_rotation(text: str) -> None:
    with pytest.raises(BadRollover):
        Rollover.read(text)
