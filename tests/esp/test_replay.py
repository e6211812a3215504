"""The window against the obvious one: a set of all that was ever seen (ATTACKS 58)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.esp.replay import SUBSPACE, Replayed, ReplayWindow

sizes = st.sampled_from([32, 64, 100, 1024])


class Oracle:
    """A receiver with unbounded memory; what it accepts is defined, not computed."""

    def __init__(self, size: int) -> None:
        self.size, self.seen = size, set[int]()

    def accepts(self, sequence: int) -> bool:
        top = max(self.seen, default=0)
        new = sequence > 0 and sequence not in self.seen and sequence > top - self.size
        if new:
            self.seen.add(sequence)
        return new


def accepts(window: ReplayWindow, sequence: int) -> bool:
    try:
        window.check(sequence)
    except Replayed:
        return False
    window.update(sequence)
    return True


@given(sizes, st.integers(0, 5), st.lists(st.integers(-40, 40) | st.integers(-1100, 3000)))
def test_against_the_oracle(size: int, start: int, steps: list[int]) -> None:
    window, oracle = ReplayWindow(size), Oracle(size)
    sequence = start
    for step in steps:
        sequence = max(0, sequence + step)
        assert accepts(window, sequence) == oracle.accepts(sequence)


@given(
    sizes,
    st.integers(SUBSPACE - 3000, SUBSPACE + 3000) | st.integers(3 * SUBSPACE - 3000, 3 * SUBSPACE + 3000),
    st.lists(st.integers(-31, 40) | st.integers(-1100, 100_000)),
)
def test_extended_numbers_over_the_boundary(size: int, start: int, steps: list[int]) -> None:
    """The low half alone is given; the high half is found for all that is in the window or ahead of it."""
    window, oracle = ReplayWindow(size), Oracle(size)
    window.top, oracle.seen = start, {start}
    sequence = start
    for step in steps:
        sequence = max(window.top - size + 1, sequence + step)
        assert window.infer(sequence % SUBSPACE) == sequence
        assert accepts(window, sequence) == oracle.accepts(sequence)


def test_before_the_first_packet_there_is_nothing() -> None:
    window = ReplayWindow(64)
    assert window.infer(SUBSPACE - 5) < 1
    for sequence in (0, window.infer(SUBSPACE - 5)):
        with pytest.raises(Replayed):
            window.check(sequence)


def test_a_forged_number_does_not_move_the_window() -> None:
    """check() alone leaves no trace; the control is a window that counts before the ICV, and then loses packet 1."""
    window, control = ReplayWindow(64), ReplayWindow(64)
    window.check(SUBSPACE - 1)
    window.check(1)
    control.update(SUBSPACE - 1)
    with pytest.raises(Replayed):
        control.check(1)
