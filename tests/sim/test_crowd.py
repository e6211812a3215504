"""Hosts that were never introduced, and programs that ask: a small campaign, and its controls."""

import pytest

from hushwire.events import Verdict
from hushwire.node import node as node_module
from hushwire.node.policies import Policies
from hushwire.sim.crowd import Crowd
from hushwire.sim.world import Violation

SEEDS = range(200)


def failures(seeds: range) -> list[str]:
    found = []
    for seed in seeds:
        crowd = Crowd(seed)
        try:
            crowd.run()
        except Violation as violation:
            found.append(f"seed {seed}: {violation}")
    return found


def test_everything_holds_in_a_small_campaign() -> None:
    assert failures(SEEDS) == []


def test_programs_are_told_everything_that_there_is_to_tell() -> None:
    told = dict.fromkeys(Verdict, 0)
    for seed in range(10):
        crowd = Crowd(seed)
        crowd.run()
        for verdict, times in crowd.told.items():
            told[verdict] += times
    assert all(times > 10 for times in told.values()), told


def test_control_clear_where_a_rule_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: a node that takes every rule for one that permits clear is found out."""
    monkeypatch.setattr("hushwire.node.capture.permits_clear", lambda rules: True)
    assert any("P1: " in failure for failure in failures(range(10)))


def test_control_addresses_that_others_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: who has another's old address could not be reached."""
    monkeypatch.setattr(Policies, "settle_contested", lambda self, now: None)
    assert any("P6: " in failure for failure in failures(range(20, 40)))


def test_control_a_level_that_sinks(monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: what was once protected would go in clear when it cannot be had any more."""
    monkeypatch.setattr(node_module.Peer, "reached", property(lambda _: False, lambda *_: None), raising=False)
    assert any("P1: " in failure for failure in failures(range(30)))
