"""Whom we met before, and with which key: the leap of faith at first contact and no later (RFC 5387 s5.7).

As ssh's known_hosts, but bounded, and safe from a flood: strangers who came once give way to each other, and never
does anyone to them who came twice.
"""

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import chain

from hushwire.events import Forget, Remember
from hushwire.names.name import host_name
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import Known

MOST = 1 << 17
"""Subjects that are remembered."""
APART = 600.0
"""Seconds between first and second time: who connects twice at once is no old friend."""
COUNTED = 3600.0
"""Seconds between the times that are counted thereafter, each of which is written to disk."""


@dataclass(frozen=True, slots=True)
class New:
    """It was not known, and is from now on."""

    known: Known


@dataclass(frozen=True, slots=True)
class Same:
    """It proved the same key as ever."""

    before: Known
    """What was known until now: its level is the one that must not sink silently."""
    known: Known
    """What is known now."""


@dataclass(frozen=True, slots=True)
class Changed:
    """It proved another key than the one remembered, and is known by that from now on, unless it is pinned."""

    before: Known
    known: Known


@dataclass(frozen=True, slots=True)
class NoRoom:
    """It is not known, nor will be: all room is taken by those who were met twice, or are pinned."""


Meeting = New | Same | Changed | NoRoom


class KnownPeers:
    """The memory.  What changes in it is emitted as Remember and Forget, few enough that each may go to disk."""

    def __init__(self, emit: Callable[[Remember | Forget], None], most: int = MOST) -> None:
        self._emit = emit
        self._most = most
        self._strangers: OrderedDict[str, Known] = OrderedDict()
        """Those who came once, the oldest first."""
        self._friends: dict[str, Known] = {}

    def __len__(self) -> int:
        return len(self._strangers) + len(self._friends)

    def of(self, subject: str) -> Known | None:
        """What is remembered of a subject."""
        return self._friends.get(subject) or self._strangers.get(subject)

    def meet(self, subject: str, fingerprint: bytes, level: Assurance, wall: float) -> Meeting:
        """A subject has proved a key, which is worth that level without regard to what is remembered."""
        before = self.of(subject)
        if before is None:
            known = Known(subject, fingerprint, wall, wall, 1, level)
            return New(known) if self._remember(known) else NoRoom()
        if before.fingerprint != fingerprint:
            # How often it was met stays: else a changed key would open it to be flooded out of the memory.
            known = Known(subject, fingerprint, wall, wall, before.times + 1, level)
            return Changed(before, before if before.pinned else self._replace(before, known))
        return Same(before, self._replace(before, _met(before, level, wall)))

    def pin(self, subject: str, fingerprint: bytes, wall: float) -> Known | NoRoom:
        """An administrator knows its key: whatever was remembered gives way to that."""
        before = self.of(subject)
        same = before is not None and before.fingerprint == fingerprint
        base = before if before is not None and same else Known(subject, fingerprint, wall, wall, 0, Assurance.CLEAR)
        known = replace(base, pinned=True)
        return known if self._remember(known) else NoRoom()

    def forget(self, subject: str) -> Known | None:
        """The next key that it proves is its first.  What was forgotten, if anything."""
        known = self._strangers.pop(subject, None) or self._friends.pop(subject, None)
        if known is not None:
            self._emit(Forget(subject))
        return known

    def recall(self, recalled: Iterable[Known]) -> None:
        """What was remembered before a restart, the longest unseen first."""
        for known in recalled:
            if self.of(known.subject) is None:
                self._place(known)

    def after(self, subject: str, count: int) -> list[Known]:
        """The first so many beyond a subject, in the order of their text."""
        beyond = (each for each in chain(self._friends, self._strangers) if each > subject)
        found = (self.of(each) for each in heapq.nsmallest(count, beyond))
        return [known for known in found if known is not None]

    def _replace(self, before: Known, known: Known) -> Known:
        if known is not before:
            self._remember(known)
        return known

    def _remember(self, known: Known) -> bool:
        placed = self._place(known)
        if placed:
            self._emit(Remember(known))
        return placed

    def _place(self, known: Known) -> bool:
        """Put it where it belongs, in the oldest stranger's place if there is no other; whether there was room."""
        if len(self) >= self._most and self.of(known.subject) is None:
            if not self._strangers:
                return False
            oldest, _ = self._strangers.popitem(last=False)
            self._emit(Forget(oldest))
        if known.is_friend:
            self._strangers.pop(known.subject, None)
            self._friends[known.subject] = known
        else:
            self._strangers[known.subject] = known
        return True


def _met(before: Known, level: Assurance, wall: float) -> Known:
    """What is known of whom we met again."""
    apart = (0.0, APART)[before.times] if before.times < 2 else COUNTED
    counts = wall - before.last >= apart
    # A clock that was once far ahead must not keep it from being counted for years.
    set_back = before.last - wall >= COUNTED
    if not counts and not set_back and level <= before.level:
        return before
    return replace(
        before,
        first=min(before.first, wall) if set_back or before.times else wall,
        last=wall if counts or set_back else before.last,
        times=before.times + counts,
        level=max(before.level, level),
    )


def subject_of(text: str) -> str:
    """The canonical form of a name or address that a person typed.  Raises ValueError."""
    try:
        return str(ip_address(text.strip()))
    except ValueError:
        return host_name(text.strip())
