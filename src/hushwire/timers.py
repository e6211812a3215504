"""Time as a value.  Nobody below the daemon reads a clock."""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

NEVER = math.inf
"""The deadline of what is not waited for."""


@dataclass(frozen=True, slots=True)
class Now:
    """The two clocks of one step."""

    monotonic: float
    """Seconds since an arbitrary start; never goes back.  For every timer."""
    wall: float
    """Seconds since 1970-01-01 UTC; may jump.  For RRSIG and policy expiry only."""


Kind = TypeVar("Kind", bound=Enum)


class Timers(Generic[Kind]):
    """A table of deadlines, one per kind: an owner has few, so a minimum over a dict beats a heap."""

    __slots__ = ("_deadlines",)

    def __init__(self) -> None:
        self._deadlines: dict[Kind, float] = {}

    def set(self, kind: Kind, when: float) -> None:
        """Arm `kind` for monotonic time `when`, replacing what was armed."""
        self._deadlines[kind] = when

    def stop(self, kind: Kind) -> None:
        """Disarm `kind`; nothing happens if it was not armed."""
        self._deadlines.pop(kind, None)

    def deadline(self) -> float:
        """The earliest armed time; NEVER if none."""
        return min(self._deadlines.values(), default=NEVER)

    def due(self, now: Now) -> list[Kind]:
        """Disarm and return what is due, earliest first."""
        late = sorted((when, kind.name, kind) for kind, when in self._deadlines.items() if when <= now.monotonic)
        for _, _, kind in late:
            del self._deadlines[kind]
        return [kind for _, _, kind in late]
