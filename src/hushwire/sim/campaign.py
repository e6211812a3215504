"""sim: many seeds, one after another, and how to see again what a failing one did."""

import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hushwire.sim.ladder import ladder
from hushwire.sim.trial import Plan, Trial
from hushwire.sim.world import Violation


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one seed."""

    seed: int
    failure: str
    """One line; empty if everything held."""
    frames: int
    """Datagrams sent."""
    lost: int
    made: int
    """IKE SAs and Child SAs that came to be, at either end."""
    heard: int
    """Packets that applications got."""

    def __str__(self) -> str:
        return f"{self.failure}; see it with: hushwire sim --seed {self.seed} --ladder"


def campaign(seeds: Iterable[int], plan: Plan) -> Iterator[Result]:
    """Try each seed."""
    for seed in seeds:
        yield attempt(Trial(seed, plan))


def attempt(trial: Trial) -> Result:
    """Run one trial to its end, whatever that is."""
    failure = ""
    try:
        trial.run()
    except Violation as violation:
        failure = str(violation)
    except Exception as bug:
        # Whatever a bug raises ends its trial and not the campaign.
        where = traceback.extract_tb(bug.__traceback__)[-1]
        failure = f"{type(bug).__name__}: {bug} ({where.filename.rpartition('/')[2]}:{where.lineno})"
    world = trial.world
    made = sum(notice.kind in MADE for host in trial.hosts for _, notice in host.notices)
    lost = sum(frame.copies == 0 for frame in world.wire)
    heard = sum(len(host.heard) for host in trial.hosts)
    return Result(world.seed, " ".join(failure.split()), len(world.wire), lost, made, heard)


def replay(seed: int, plan: Plan) -> tuple[Result, str]:
    """One seed again, with its ladder."""
    trial = Trial(seed, plan)
    result = attempt(trial)
    return result, ladder(trial.world, *trial.hosts)


MADE = ("ike.established", "ike.rekeyed", "child.up")
"""Notices of what was made."""
