"""Peers' names and addresses in the DNS: which questions are open, and whose they are."""

from collections.abc import Callable

from hushwire.events import Answered, Effect, Lookup
from hushwire.names.lookup import Change
from hushwire.node.peer import Peer
from hushwire.timers import Now

ASK_AGAIN = 5.0
"""Seconds that must have passed since a name was looked up, for a peer's odd address or key, or for a program after an
error, to have it asked again."""


class Asking:
    """A peer's lookup knows what it asked for; this knows whose it was."""

    def __init__(self, emit: Callable[[Effect], None]) -> None:
        self._emit = emit
        self._open: dict[int, Peer] = {}

    def look_up(self, peer: Peer, now: Now) -> None:
        """Ask all about a peer, unless that is under way."""
        if peer.lookup is not None and not peer.lookup.asking:
            self._ask(peer, peer.lookup.start(now))

    def timeout(self, peer: Peer, now: Now) -> Change | None:
        """Ask again what is too old."""
        assert peer.lookup is not None
        questions, change = peer.lookup.timeout(now)
        self._ask(peer, questions)
        return change

    def answered(self, event: Answered) -> Peer | None:
        """Whose question it was."""
        return self._open.pop(event.request, None)

    def _ask(self, peer: Peer, questions: list[Lookup]) -> None:
        for question in questions:
            self._open[question.request] = peer
            self._emit(question)
