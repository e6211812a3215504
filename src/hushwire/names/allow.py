"""Which strangers' names are looked up, and how often (DESIGN.md law 7; ATTACKS rows 41, 45).

A question costs us, the name's servers and whoever's address it names.  So an administrator says which names may be
asked for at all, and nobody can make us ask fast.
"""

from collections.abc import Sequence
from ipaddress import ip_network

from hushwire.wire.address import IPAddress

PER_SECOND, BURST = 10.0, 20.0
"""New names a second, from all strangers together."""
PER_SOURCE, SOURCE_SPAN = 3, 60.0
"""New names from one /24 or /64, in so many seconds."""
MOST_SOURCES = 4096
"""Prefixes remembered at once."""


class AllowList:
    """Names and `*.` patterns; an empty list allows none."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._exact = {pattern for pattern in patterns if not pattern.startswith("*")}
        self._below = {pattern[2:] for pattern in patterns if pattern.startswith("*.")}
        self._all = "*" in patterns

    def allows(self, name: str) -> bool:
        """`name` is canonical."""
        if self._all or name in self._exact:
            return True
        below = name.partition(".")[2]
        while below:
            if below in self._below:
                return True
            below = below.partition(".")[2]
        return False


class Pace:
    """How fast strangers may make us begin something for them."""

    def __init__(
        self, per_second: float = PER_SECOND, burst: float = BURST, *, per_source: int = PER_SOURCE,
        span: float = SOURCE_SPAN,
    ) -> None:  # fmt: skip
        """So many a second from all together, and `per_source` from each /24 or /64 in `span` seconds."""
        self._per_second, self._burst = per_second, burst
        self._per_source, self._span = per_source, span
        self._tokens = burst
        self._filled = 0.0
        self._sources: dict[str, list[float]] = {}

    def admits(self, source: IPAddress, now: float) -> bool:
        """Whether there is room for one more from there; if so it is counted.  `now`: monotonic seconds."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._per_second)
        self._filled = now
        prefix = _prefix(source)
        recent = [when for when in self._sources.get(prefix, ()) if when > now - self._span]
        if self._tokens < 1 or len(recent) >= self._per_source:
            return False
        self._tokens -= 1
        self._sources.pop(prefix, None)
        if len(self._sources) >= MOST_SOURCES:
            del self._sources[next(iter(self._sources))]
        self._sources[prefix] = [*recent, now]
        return True

    def take_back(self, source: IPAddress) -> None:
        """The last one that was counted from there was welcome."""
        if recent := self._sources.get(_prefix(source)):
            recent.pop()


def _prefix(source: IPAddress) -> str:
    return str(ip_network((source, 24 if source.version == 4 else 64), strict=False))
