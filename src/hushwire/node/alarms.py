"""When to look at which peer again: of thousands, those only that something has happened to."""

from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import count

from hushwire.node.peer import Peer
from hushwire.timers import NEVER

LEAST = 64
"""Stale entries that are not worth the trouble."""


class Alarms:
    """A heap of which some entries are stale: who was touched since has a newer one."""

    def __init__(self, deadline_of: Callable[[Peer], float]) -> None:
        """`deadline_of`: monotonic time at which something is to be done for a peer; NEVER: nothing is."""
        self._deadline_of = deadline_of
        self._heap: list[tuple[float, int, Peer]] = []
        self._numbers = count()
        self._set: dict[Peer, float] = {}
        """When to look at each, as far as it is in the heap."""

    def touch(self, peers: Iterable[Peer]) -> None:
        """Something has happened to these; what is to be done for them may be something else by now."""
        for peer in peers:
            when = self._deadline_of(peer)
            if when == NEVER:
                self._set.pop(peer, None)
            elif self._set.get(peer) != when:
                self._set[peer] = when
                heappush(self._heap, (when, next(self._numbers), peer))
        if len(self._heap) > 2 * len(self._set) + LEAST:
            self._heap = [(when, next(self._numbers), peer) for peer, when in self._set.items()]
            heapify(self._heap)

    def next(self) -> float:
        """Monotonic time of the first."""
        while self._heap:
            when, _, peer = self._heap[0]
            if self._set.get(peer) == when:
                return when
            heappop(self._heap)
        return NEVER

    def due(self, now: float) -> list[Peer]:
        """Those whose time has come.  Who is still due afterwards has to be touched."""
        found = []
        while self.next() <= now:
            _, _, peer = heappop(self._heap)
            del self._set[peer]
            found.append(peer)
        return found
