"""Programs that asked for a name's addresses, and what they are told (DESIGN.md law 3; docs/names.md has the table)."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from hushwire.config import Start
from hushwire.events import Effect, Outcome, Release, Reply, Verdict
from hushwire.node.peer import FALL_AFTER, Peer
from hushwire.node.rulebook import permits_clear
from hushwire.timers import NEVER
from hushwire.wire.address import IPAddress

ASK_LIMIT = 4.0
"""Seconds until a program hears something, since resolvers' clients give up after five."""
LONGEST = 300
"""Seconds for which an answer may be kept, whatever the DNS says: as long as that we have to keep its policies."""
OTHER_FAMILY = 0.5
"""Seconds that one IP version's address waits for the other's, whose exchange may be under way."""
RETRY = 5
"""Seconds after which a program may ask again where the answer was not the best there could be."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a program is told."""

    verdict: Verdict
    ttl: int = 0
    addresses: tuple[IPAddress, ...] = ()
    reason: str = ""
    partial: bool = False
    """Of an IP version there is none yet, where one could be."""


@dataclass(frozen=True, slots=True)
class _Question:
    request: int
    since: float
    command: bool
    clear: bool
    """Whether the rule of the name as asked permits clear; that of the name it leads to may."""


class Captures:
    """Who waits for which name."""

    def __init__(self) -> None:
        self._waiting: dict[Peer, list[_Question]] = {}
        self._partial: dict[Peer, float] = {}
        """Until when there may be more to tell of a peer than there is."""

    def wait(self, peer: Peer, request: int, now: float, *, command: bool) -> None:
        """A program waits from now on; with `command`, another resolver by the control socket."""
        clear = permits_clear(peer.rules)
        self._waiting.setdefault(peer, []).append(_Question(request, now, command, clear))

    def follow(self, alias: Peer, peer: Peer) -> None:
        """Who waits for an alias waits for the name that it leads to."""
        if questions := self._waiting.pop(alias, None):
            both = [*self._waiting.get(peer, ()), *questions]
            self._waiting[peer] = sorted(both, key=lambda question: question.since)
        self._partial.pop(alias, None)

    def waits_for(self, peer: Peer) -> bool:
        return peer in self._waiting

    def forbids_clear(self, peer: Peer) -> bool:
        """Whether somebody waits for a peer under a name whose rule does not permit clear, as the peer's own does."""
        return permits_clear(peer.rules) and not all(question.clear for question in self._waiting.get(peer, ()))

    def deadline_of(self, peer: Peer) -> float:
        """Monotonic time at which somebody has waited long enough for a peer."""
        questions = self._waiting.get(peer)
        return min(questions[0].since + _limit(peer), self._partial.get(peer, NEVER)) if questions else NEVER

    def reqids(self) -> set[int]:
        """Of those whom somebody waits for."""
        return {peer.reqid for peer in self._waiting}

    def answer(
        self, peer: Peer, now: float, holder: Callable[[], Peer | None], *, pending: bool, trying: bool,
        own: Collection[IPAddress],
    ) -> list[Effect]:  # fmt: skip
        """Tell those who wait for a peer, if there is something to tell.

        `holder`: who else has one of its addresses.  `pending`: policies are being installed.  `trying`: an attempt
        is under way.  `own`: this host's addresses.
        """
        questions = self._waiting.get(peer)
        if not questions:
            return []
        since = questions[0].since
        self._partial.pop(peer, None)
        told = judge(peer, since, now, holder, pending=pending, trying=trying, own=own)
        if told is None:
            return []
        if told.partial and now < since + OTHER_FAMILY:
            self._partial[peer] = since + OTHER_FAMILY
            return []
        return self.end(peer, told)

    def end(self, peer: Peer, told: Told) -> list[Effect]:
        """Tell those who wait for a peer; clear only to those whose own rule permits that."""
        questions = self._waiting.pop(peer, ())
        closed = Told(Verdict.REFUSE, reason=f"{peer.name} could not be reached")
        return [
            tell(question.request, told if question.clear or told.verdict is not Verdict.PASS else closed,
                 command=question.command)
            for question in questions
        ]  # fmt: skip


def tell(request: int, told: Told, *, command: bool) -> Effect:
    """The effect that tells it."""
    if command:
        return Reply(request, told.verdict is not Verdict.REFUSE, told.reason or told.verdict.value)
    return Release(request, told.verdict, told.addresses, told.ttl, told.reason)


def judge(
    peer: Peer, since: float, now: float, holder: Callable[[], Peer | None] = lambda: None, *, pending: bool,
    trying: bool, own: Collection[IPAddress],
) -> Told | None:  # fmt: skip
    """What to tell of a peer that somebody has asked for at `since`; None: not yet."""
    # Of an alias that is waited for itself, it is not settled where it leads.
    lookup, clear = peer.lookup, permits_clear(peer.rules) and not peer.reached and not peer.is_alias
    if lookup is not None and lookup.binding is None and not (peer.may_be_anybody and peer.addresses):
        if lookup.asking or lookup.unbound is None:
            late = now >= since + ASK_LIMIT
            return Told(Verdict.REFUSE, reason=f"{peer.name}: the DNS does not answer") if late else None
        unbound = lookup.unbound
        if unbound.outcome is Outcome.ERROR or not clear:
            return Told(Verdict.REFUSE, reason=str(unbound))
        return Told(Verdict.PASS, min(LONGEST, unbound.ttl))
    if peer.lacks_synthetic:
        return Told(Verdict.REFUSE, reason=f"{peer.name}: no synthetic address is left for it")
    known = (lookup.binding or lookup.unbound) if lookup is not None else None
    ttl = min(LONGEST, known.ttl if known is not None else LONGEST)
    standing = peer.standing(own)
    if standing and not pending and (not peer.needs_proof or peer.proven.keys() & set(map(peer.real, standing))):
        found = {address.version for address in standing}
        partial = any(a.version not in found and any(b.version == a.version for b in own) for a in peer.addresses)
        return Told(Verdict.ONLY, min(ttl, RETRY) if partial else ttl, standing, partial=partial)
    if peer.may_be_anybody and not standing and (shared := shared_with(holder(), peer, own)):
        return Told(Verdict.ONLY, min(ttl, RETRY), shared)
    if peer.contested and not standing:
        return Told(Verdict.REFUSE, reason=f"{peer.name}: its address is another's, who proved another key there")
    if (peer.not_before > now and not trying) or now >= since + _limit(peer):
        if clear and (other := holder()) is not None:
            # It would not be in clear, but sealed for somebody who proved another name (law 2, ATTACKS row 36).
            return Told(Verdict.REFUSE, reason=f"{peer.name}: {other.name} has its address")
        if clear:
            return Told(Verdict.PASS, min(ttl, RETRY))
        return Told(Verdict.REFUSE, reason=f"{peer.name}: {peer.last_failure or 'it does not answer'}")
    return None


def shared_with(other: Peer | None, peer: Peer, own: Collection[IPAddress]) -> tuple[IPAddress, ...]:
    """Where another, of whom as little is known as of a name without a key, is met already: it is one stranger.

    Law 2 keeps names apart that have keys.  These have none, and whoever is there serves both.
    """
    if other is None or not (peer.may_be_anybody and other.may_be_anybody):
        return ()
    return tuple(address for address in other.standing(own) if address in peer.addresses)


def _limit(peer: Peer) -> float:
    """Seconds that programs wait for a peer, before it is clear that it does not answer."""
    if not peer.known:
        return ASK_LIMIT
    if peer.rule.start is Start.WAIT and peer.needs_proof:
        # It is not sought, so there is nothing to wait for.
        return 0.0
    return FALL_AFTER if permits_clear(peer.rules) and not peer.reached else ASK_LIMIT
