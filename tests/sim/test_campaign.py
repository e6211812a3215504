"""A small campaign; what a failure looks like; the command line."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from hushwire.cli.sim import sim
from hushwire.esp.plane import Bypass, Plane
from hushwire.sim.campaign import campaign, replay
from hushwire.sim.trial import STORM, Plan, Trial

SEEDS = range(50)


def test_everything_holds_in_a_small_campaign() -> None:
    results = list(campaign(SEEDS, Plan()))
    assert [(result.seed, result.failure) for result in results if result.failure] == []
    # Otherwise nothing was tried.
    assert all(result.lost and result.made > 4 and result.heard > 50 for result in results)


def test_seeds_tell_different_stories() -> None:
    stories = set()
    for seed in range(5):
        trial = Trial(seed, Plan(storm=60, settle=1, grace=0.25))
        trial.world.run(60)
        stories.add((trial.alice.config, trial.bob.config))
    assert len(stories) == 5


def test_an_exception_is_a_failure_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plane, "outbound", lambda self, packet, now: 1 / 0)
    failures = [result.failure for result in campaign(range(2), Plan())]
    assert [failure.split(" (")[0] for failure in failures] == ["ZeroDivisionError: division by zero"] * 2


def test_a_failing_seed_can_be_seen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plane, "outbound", lambda self, packet, now: [Bypass(packet)])
    result, drawn = replay(3, Plan())
    assert result.failure.startswith("P1: ")
    assert str(result).endswith("hushwire sim --seed 3 --ladder")
    assert "clear" in drawn.splitlines()[-1]


def test_worse_weather_is_another_run() -> None:
    (calm,), (worse,) = (campaign([1], Plan(weather)) for weather in (replace(STORM, loss=0.0), STORM))
    assert calm.lost == 0
    assert worse.lost > 0


def test_command_line() -> None:
    done = CliRunner().invoke(sim, ["--seeds", "2", "--first", "7"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("2 seeds from 7: 0 failed.")


def test_command_line_replays_with_the_ladder() -> None:
    done = CliRunner().invoke(sim, ["--seed", "7", "--ladder", "--loss", "0"])
    assert done.exit_code == 0, done.output
    assert "HDR, SAi1, KEi, Ni" in done.output
    assert done.output.endswith("seed 7: everything held\n")


def test_command_line_tells_of_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plane, "outbound", lambda self, packet, now: [Bypass(packet)])
    done = CliRunner().invoke(sim, ["--seeds", "1", "--first", "3"])
    assert done.exit_code == 1
    assert done.output.startswith("seed 3: P1: ")
    assert "hushwire sim --seed 3 --ladder" in done.output
