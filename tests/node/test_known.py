"""The memory of peers: who is known by which key, who gives way when there is no room, and what is written to disk."""

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hushwire.events import Forget, Remember
from hushwire.node.known import APART, COUNTED, MOST, Changed, KnownPeers, New, NoRoom, Same, subject_of
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import Known

KEY, OTHER = b"\x01" * 32, b"\x02" * 32
BEGAN = 1.8e9
ENCRYPTED, CONTINUOUS, NAMED = Assurance.ENCRYPTED, Assurance.CONTINUOUS, Assurance.NAMED


class Memory(KnownPeers):
    """With what was to be persisted."""

    def __init__(self, most: int = MOST) -> None:
        self.disk: dict[str, Known] = {}
        self.writes = 0
        super().__init__(self._persist, most)

    def _persist(self, effect: Remember | Forget) -> None:
        self.writes += 1
        if isinstance(effect, Remember):
            self.disk[effect.known.subject] = effect.known
        else:
            del self.disk[effect.subject]


def friends(memory: KnownPeers, subjects: Iterable[str]) -> None:
    """Each of them is met twice."""
    for subject in subjects:
        memory.meet(subject, KEY, ENCRYPTED, BEGAN)
        memory.meet(subject, KEY, ENCRYPTED, BEGAN + APART)


# --- Meeting ----------------------------------------------------------------------------------------------------------


def test_the_first_key_is_taken_and_the_same_is_known_again() -> None:
    memory = Memory()
    first = Known("bob.example", KEY, BEGAN, BEGAN, 1, ENCRYPTED)
    assert memory.of("bob.example") is None
    assert memory.meet("bob.example", KEY, ENCRYPTED, BEGAN) == New(first)
    again = replace(first, last=BEGAN + APART, times=2)
    assert memory.meet("bob.example", KEY, ENCRYPTED, BEGAN + APART) == Same(first, again)
    assert memory.of("bob.example") == again == memory.disk["bob.example"]


def test_a_changed_key_is_told_and_its_subject_is_no_stranger() -> None:
    memory = Memory()
    friends(memory, ["bob.example"])
    before = memory.of("bob.example")
    assert before is not None
    after = Known("bob.example", OTHER, BEGAN + 9999, BEGAN + 9999, 3, ENCRYPTED)
    assert memory.meet("bob.example", OTHER, ENCRYPTED, BEGAN + 9999) == Changed(before, after)
    assert memory.of("bob.example") == after == memory.disk["bob.example"]
    assert isinstance(memory.meet("bob.example", OTHER, ENCRYPTED, BEGAN + 9999), Same)


@pytest.mark.parametrize("times", [0, 1, 2, 9])
def test_a_changed_key_of_who_is_pinned_is_told_and_changes_nothing(times: int) -> None:
    memory = Memory()
    for each in range(times):
        memory.meet("bob.example", KEY, ENCRYPTED, BEGAN + each * COUNTED)
    pinned = memory.pin("bob.example", KEY, BEGAN)
    assert isinstance(pinned, Known)
    assert (pinned.times, pinned.pinned) == (times, True)
    writes = memory.writes
    for _ in range(3):
        assert memory.meet("bob.example", OTHER, NAMED, BEGAN + 1e6) == Changed(pinned, pinned)
    assert (memory.of("bob.example"), memory.writes) == (pinned, writes)


def test_who_was_pinned_before_it_came_is_since_its_first_time() -> None:
    memory = Memory()
    memory.pin("bob.example", KEY, BEGAN)
    met = memory.meet("bob.example", KEY, ENCRYPTED, BEGAN + 5)
    assert isinstance(met, Same)
    assert met.known == Known("bob.example", KEY, BEGAN + 5, BEGAN + 5, 1, ENCRYPTED, pinned=True)


def test_a_pin_keeps_what_is_known_of_its_key_and_nothing_of_another() -> None:
    memory = Memory()
    friends(memory, ["bob.example"])
    before = memory.of("bob.example")
    assert before is not None
    assert memory.pin("bob.example", KEY, BEGAN + 9999) == replace(before, pinned=True)
    assert memory.pin("bob.example", OTHER, BEGAN) == Known(
        "bob.example", OTHER, BEGAN, BEGAN, 0, Assurance.CLEAR, True
    )


def test_what_is_forgotten_is_new() -> None:
    memory = Memory()
    friends(memory, ["bob.example"])
    known = memory.of("bob.example")
    assert memory.forget("bob.example") == known
    assert memory.forget("bob.example") is None
    assert (memory.disk, len(memory)) == ({}, 0)
    assert isinstance(memory.meet("bob.example", OTHER, ENCRYPTED, BEGAN), New)


def test_a_level_rises_at_once_and_never_sinks() -> None:
    memory = Memory()
    for level, highest in ((ENCRYPTED, ENCRYPTED), (NAMED, NAMED), (ENCRYPTED, NAMED), (CONTINUOUS, NAMED)):
        memory.meet("bob.example", KEY, level, BEGAN)
        assert memory.disk["bob.example"].level is highest
    met = memory.meet("bob.example", KEY, ENCRYPTED, BEGAN + COUNTED)
    assert isinstance(met, Same)
    # Whoever asks whether it sank, hears what it was.
    assert (met.before.level, met.known.level, met.known.times) == (NAMED, NAMED, 2)


# --- Time -------------------------------------------------------------------------------------------------------------


def test_who_connects_often_at_once_is_no_friend() -> None:
    memory = Memory()
    for each in range(1000):
        memory.meet("mallory.example", KEY, ENCRYPTED, BEGAN + each * (APART - 1) / 1000)
    known = memory.of("mallory.example")
    assert known is not None
    assert (known.times, known.is_friend, memory.writes) == (1, False, 1)
    memory.meet("mallory.example", KEY, ENCRYPTED, BEGAN + APART)
    assert memory.disk["mallory.example"].is_friend


def test_disk_is_written_once_an_hour_at_most() -> None:
    memory = Memory()
    day = 24 * 3600
    for each in range(0, day, 10):
        memory.meet("bob.example", KEY, ENCRYPTED, BEGAN + each)
    known = memory.of("bob.example")
    assert known is not None
    assert known == memory.disk["bob.example"]
    assert known.times == memory.writes <= 2 + day / COUNTED
    assert BEGAN + day - known.last <= COUNTED


def test_a_clock_that_was_far_ahead_does_not_hide_a_peer_for_years() -> None:
    memory = Memory()
    memory.meet("bob.example", KEY, ENCRYPTED, BEGAN + 1e9)
    memory.meet("bob.example", KEY, ENCRYPTED, BEGAN)
    assert memory.of("bob.example") == Known("bob.example", KEY, BEGAN, BEGAN, 1, ENCRYPTED)
    memory.meet("bob.example", KEY, ENCRYPTED, BEGAN + APART)
    assert memory.disk["bob.example"].times == 2


# --- Room -------------------------------------------------------------------------------------------------------------


def test_strangers_give_way_oldest_first() -> None:
    memory = Memory(most=3)
    for name in ("a", "b", "c"):
        memory.meet(name, KEY, ENCRYPTED, BEGAN)
    memory.meet("a", KEY, NAMED, BEGAN)
    memory.meet("d", KEY, ENCRYPTED, BEGAN)
    assert set(memory.disk) == {"b", "c", "d"}


def test_where_all_are_friends_a_new_one_is_told_that_there_is_no_room() -> None:
    memory = Memory(most=2)
    friends(memory, ["a"])
    memory.pin("b", KEY, BEGAN)
    writes = memory.writes
    assert memory.meet("c", KEY, ENCRYPTED, BEGAN) == NoRoom()
    assert memory.pin("c", KEY, BEGAN) == NoRoom()
    assert (set(memory.disk), memory.of("c"), memory.writes) == ({"a", "b"}, None, writes)
    # Those who are there are served as ever, and one less makes room.
    assert isinstance(memory.pin("a", OTHER, BEGAN), Known)
    memory.forget("b")
    assert isinstance(memory.meet("c", KEY, ENCRYPTED, BEGAN), New)


def flood(memory: KnownPeers, most: int) -> None:
    """Four times as many strangers as fit, each with a key of its own, some of whom insist."""
    for number in range(4 * most):
        subject, key = f"2001:db8::{number:x}", number.to_bytes(32)
        memory.meet(subject, key, ENCRYPTED, BEGAN + number)
        if not number % 8:
            memory.meet(subject, key, ENCRYPTED, BEGAN + number + 1)


OLD = [f"old{number}.example" for number in range(1000)]


def test_no_flood_of_strangers_evicts_who_was_seen_twice() -> None:
    memory = Memory()
    friends(memory, OLD)
    memory.pin("pinned.example", KEY, BEGAN)
    memory.meet(OLD[0], OTHER, ENCRYPTED, BEGAN + APART)
    flood(memory, MOST)
    assert len(memory) == len(memory.disk) == MOST
    kept = [memory.of(subject) for subject in (*OLD, "pinned.example")]
    assert None not in kept
    assert isinstance(memory.meet(OLD[1], OTHER, ENCRYPTED, BEGAN + 1e6), Changed)


def test_control_with_one_generation_the_flood_evicts_him(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Known, "is_friend", False)
    most = MOST // 32
    memory = Memory(most)
    friends(memory, OLD)
    flood(memory, most)
    assert [subject for subject in OLD if memory.of(subject) is not None] == []
    # And so whoever comes in his name is taken for him.
    assert isinstance(memory.meet(OLD[1], OTHER, ENCRYPTED, BEGAN + 1e6), New)


# --- A restart --------------------------------------------------------------------------------------------------------


def test_what_was_on_disk_is_recalled_and_written_no_more() -> None:
    memory, after = Memory(), Memory()
    friends(memory, OLD)
    memory.meet("once.example", KEY, ENCRYPTED, BEGAN)
    after.recall(sorted(memory.disk.values(), key=lambda known: known.last))
    assert {subject: after.of(subject) for subject in memory.disk} == memory.disk
    assert after.writes == 0


def test_what_is_recalled_is_bounded_and_does_not_replace_what_was_met_since() -> None:
    memory = Memory(most=2)
    memory.disk = {"a": Known("a", KEY, BEGAN, BEGAN, 1, ENCRYPTED)}
    memory.meet("b", OTHER, ENCRYPTED, BEGAN)
    memory.recall([Known(name, KEY, BEGAN, BEGAN, 1, ENCRYPTED) for name in ("b", "a")])
    assert len(memory) == 2
    known = memory.of("b")
    assert known is not None
    assert known.fingerprint == OTHER
    memory.recall([Known("c", KEY, BEGAN, BEGAN, 5, ENCRYPTED)])
    assert len(memory) == 2


def test_a_list_comes_in_parts_in_the_order_of_its_subjects() -> None:
    memory = Memory()
    friends(memory, ["b", "d"])
    for name in ("c", "a", "e"):
        memory.meet(name, KEY, ENCRYPTED, BEGAN)
    assert [known.subject for known in memory.after("", 3)] == ["a", "b", "c"]
    assert [known.subject for known in memory.after("c", 3)] == ["d", "e"]
    assert memory.after("e", 3) == []


@pytest.mark.parametrize(
    ("typed", "subject"),
    [("Bob.Example.", "bob.example"), (" 192.0.2.1 ", "192.0.2.1"), ("2001:DB8:0::1", "2001:db8::1")],
)
def test_subjects_as_people_type_them(typed: str, subject: str) -> None:
    assert subject_of(typed) == subject


@pytest.mark.parametrize("typed", ["", "a b", "192.0.2.256", "bob..example", "2001:db8::/32", "x" * 300])
def test_what_is_no_subject(typed: str) -> None:
    with pytest.raises(ValueError, match="no host name"):
        subject_of(typed)


# --- Whatever happens -------------------------------------------------------------------------------------------------

SUBJECTS = st.sampled_from("abcdefgh")
KEYS = st.sampled_from((KEY, OTHER))
LEVELS = st.sampled_from(Assurance)
ROOM = 5


class Life(RuleBasedStateMachine):
    """A small memory, beside a plain list of what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory(ROOM)
        self.wall = BEGAN
        self.kept: dict[str, bytes] = {}
        """Who is more than a stranger, as far as we saw, and with which key."""

    @rule(seconds=st.floats(-2 * COUNTED, 2 * COUNTED))
    def wait(self, seconds: float) -> None:
        self.wall += seconds

    @rule(subject=SUBJECTS, key=KEYS, level=LEVELS)
    def meet(self, subject: str, key: bytes, level: Assurance) -> None:
        before = self.memory.of(subject)
        match self.memory.meet(subject, key, level, self.wall):
            case New(known):
                assert (known.fingerprint, known.level, known.first) == (key, level, self.wall)
                assert before is None
            case Same(was, known):
                assert was == before
                assert (known.fingerprint, known.level, known.pinned) == (key, max(was.level, level), was.pinned)
                assert was.times <= known.times <= was.times + 1
            case Changed(was, known):
                assert was == before
                assert was.fingerprint != key
                assert known == was if was.pinned else (known.fingerprint, known.times) == (key, was.times + 1)
                if subject in self.kept and not was.pinned:
                    self.kept[subject] = key
            case NoRoom():
                assert before is None
                assert len(self.kept) == ROOM
        self.note()

    @rule(subject=SUBJECTS, key=KEYS)
    def pin(self, subject: str, key: bytes) -> None:
        if isinstance(self.memory.pin(subject, key, self.wall), NoRoom):
            assert len(self.kept) == ROOM
        else:
            self.kept[subject] = key

    @rule(subject=SUBJECTS)
    def forget(self, subject: str) -> None:
        self.memory.forget(subject)
        self.kept.pop(subject, None)

    @rule()
    def restart(self) -> None:
        before, self.memory = self.memory, Memory(ROOM)
        self.memory.disk = dict(before.disk)
        self.memory.recall(sorted(before.disk.values(), key=lambda known: known.last))

    def note(self) -> None:
        friends = (known for known in self.memory.after("", 99) if known.is_friend)
        self.kept |= {known.subject: known.fingerprint for known in friends}

    @invariant()
    def holds(self) -> None:
        remembered = {known.subject: known for known in self.memory.after("", 99)}
        assert len(self.memory) == len(remembered) <= ROOM
        assert remembered == self.memory.disk
        assert {subject: remembered[subject].fingerprint for subject in self.kept} == self.kept


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(SUBJECTS, KEYS, st.floats(0, 5000)), max_size=40))
def test_what_is_in_memory_is_what_is_on_disk(meetings: list[tuple[str, bytes, float]]) -> None:
    memory, wall = Memory(ROOM), BEGAN
    for subject, key, seconds in meetings:
        wall += seconds
        memory.meet(subject, key, ENCRYPTED, wall)
        assert memory.disk == {known.subject: known for known in memory.after("", 99)}
