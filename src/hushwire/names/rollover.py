"""The timetable of a key rotation, as a pure state machine.

    publish the new key beside the old | wait | switch this host to the new key | wait | withdraw the old key

At each moment every peer, however old the answer that it holds, knows the key in use.  A step counts as done when a
reading through the validator shows it, and is not begun before a reading shows that the one before it still holds.
What fails is tried again; nothing goes forward by default.

Times are wall clock: a rotation lives through restarts.  A clock set back makes it wait longer, which harms nobody.
"""

import json
from dataclasses import asdict, dataclass, replace
from enum import Enum

from hushwire.names.binding import MIN_TTL
from hushwire.names.lookup import ANSWER_LIMIT, GRACE
from hushwire.names.name import BadName, host_name

DEFAULT_MARGIN = 60
"""Seconds for secondary servers to follow the primary."""

FIRST_RETRY, LAST_RETRY = 5.0, 900.0
"""Seconds after a failure until the next attempt; doubled each time."""


class Step(Enum):
    """What is to be done next."""

    PUBLISH = "publish"
    SWITCH = "switch"
    WITHDRAW = "withdraw"
    DONE = "done"


MEANING = {
    Step.PUBLISH: "the new key beside the old",
    Step.SWITCH: "this host uses the new key",
    Step.WITHDRAW: "the old key",
    Step.DONE: "the old key is nobody's business any more",
}
NEXT = {Step.PUBLISH: Step.SWITCH, Step.SWITCH: Step.WITHDRAW, Step.WITHDRAW: Step.DONE}


class BadRollover(ValueError):
    """Text that is no rotation under way; one clear line."""


class NotYet(Exception):
    """A reading does not show what the step needs; one clear line."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a reading showed.  Keys are named by their fingerprints, in hexadecimal."""

    everywhere: frozenset[str]
    """Keys in every record set that this host publishes keys in, each set SECURE."""
    anywhere: frozenset[str]
    """Keys in one of them at least."""
    in_use: str
    """The key in this host's key file."""


@dataclass(frozen=True, slots=True)
class Rollover:
    """A rotation under way."""

    name: str
    """The host's, canonical."""
    old: str
    """Fingerprint, in hexadecimal."""
    new: str
    ttl: int
    """Seconds, of the host's key records."""
    whole: bool
    """Whether it publishes IPSECKEY records."""
    fingerprints: bool
    """Whether it publishes TLSA records."""
    margin: int = DEFAULT_MARGIN
    """Seconds added to each wait."""
    step: Step = Step.PUBLISH
    not_before: float = 0.0
    """Wall time at which `step` may be done."""
    failures: int = 0
    """Of `step`, in a row."""

    @property
    def wait(self) -> float:
        """Seconds after a change until no peer holds an answer from before it.

        A resolver may have asked just before and keeps the answer for its TTL; a peer that asks then keeps the rest of
        it, MIN_TTL at least, and GRACE while it asks again.
        """
        return self.ttl + MIN_TTL + GRACE + ANSWER_LIMIT + self.margin

    def check(self, seen: Seen) -> None:
        """May `step` be done, as far as readings say?  Or NotYet."""
        match self.step:
            case Step.PUBLISH:
                self._require(seen.in_use == self.old, "the key file does not hold the old key")
            case Step.SWITCH:
                self._require(self.new in seen.everywhere, "the new key is not published")
            case Step.WITHDRAW:
                self._require(seen.in_use == self.new, "the key file does not hold the new key")
                self._require(self.new in seen.everywhere, "the new key is not published")

    def done(self, seen: Seen, now: float) -> "Rollover":
        """`step` was done, and this is what was read after it: the next step, or NotYet."""
        match self.step:
            case Step.PUBLISH:
                self._require({self.old, self.new} <= seen.everywhere, "not both keys are published")
                self._require(seen.in_use == self.old, "the key file does not hold the old key")
            case Step.SWITCH:
                self._require(self.new in seen.everywhere, "the new key is not published")
                self._require(seen.in_use == self.new, "the key file does not hold the new key")
            case Step.WITHDRAW:
                self._require(self.new in seen.everywhere, "the new key is not published")
                self._require(self.old not in seen.anywhere, "the old key is still published")
                self._require(seen.in_use == self.new, "the key file does not hold the new key")
            case Step.DONE:
                raise NotYet("the rotation is over")
        pause = 0.0 if self.step is Step.WITHDRAW else self.wait
        return replace(self, step=NEXT[self.step], not_before=now + pause, failures=0)

    def failed(self, now: float) -> "Rollover":
        """`step` was not done, or that is not known: the same again, later."""
        pause = min(LAST_RETRY, FIRST_RETRY * 2 ** min(self.failures, 16))
        return replace(self, not_before=now + pause, failures=self.failures + 1)

    def undone(self, now: float) -> "Rollover":
        """The new key was published and is not any more, while the old one is in use: begin again, and wait in full."""
        if self.step is not Step.SWITCH:
            raise ValueError(f"nothing to begin again at {self.step.value}")
        return replace(self, step=Step.PUBLISH, not_before=now, failures=0)

    def timetable(self, now: float) -> tuple[tuple[float, Step], ...]:
        """When each step that is left is to be done, if none fails."""
        times: list[tuple[float, Step]] = []
        at = self
        while at.step is not Step.DONE:
            when = max(now, at.not_before)
            times.append((when, at.step))
            at = replace(at, step=NEXT[at.step], not_before=when + self.wait)
        return tuple(times)

    def write(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self) | {"step": self.step.value}, indent=2) + "\n"

    @classmethod
    def read(cls, text: str) -> "Rollover":
        """From JSON, or BadRollover."""
        try:
            fields = json.loads(text)
            step = Step(fields.pop("step"))
            rollover = cls(**fields, step=step)
            wellformed = (
                host_name(rollover.name) == rollover.name
                and all(len(bytes.fromhex(key)) == 32 for key in (rollover.old, rollover.new))
                and rollover.old != rollover.new
                and all(type(number) is int and number >= 0 for number in (rollover.ttl, rollover.margin))
                and type(rollover.failures) is int
                and rollover.failures >= 0
                and type(rollover.not_before) in (int, float)
                and rollover.not_before < LATEST
                and all(type(flag) is bool for flag in (rollover.whole, rollover.fingerprints))
            )
        except (ValueError, TypeError, KeyError, AttributeError, BadName, RecursionError):
            raise BadRollover("it holds no rotation under way") from None
        if not wellformed:
            raise BadRollover("it holds no rotation under way")
        return rollover

    def _require(self, condition: bool, otherwise: str) -> None:
        if not condition:
            raise NotYet(otherwise)


LATEST = 2.0**40
"""A wall time beyond any: what says infinity or no number is not waited for."""
