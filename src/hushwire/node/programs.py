"""Programs of this host that ask for a name (daemon.front): whom they wait for, and what they are told."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

from hushwire.config import Start
from hushwire.events import Effect, Verdict
from hushwire.names.synthetic import PoolEmpty
from hushwire.node.asking import ASK_AGAIN, Asking
from hushwire.node.capture import Captures, Told, shared_with, tell
from hushwire.node.idle import Idle
from hushwire.node.memory import Memory
from hushwire.node.peer import Peer
from hushwire.node.peers import Crowded, Peers
from hushwire.node.policies import Policies
from hushwire.node.rulebook import Rules, permits_clear, refuses
from hushwire.node.seeking import Seeking
from hushwire.policy.assurance import Assurance
from hushwire.timers import Now


class Programs:
    """Their questions, each of which waits until policies stand or it is clear that none will."""

    def __init__(
        self, own_name: str, peers: Peers, policies: Policies, seeking: Seeking, idle: Idle, memory: Memory,
        asking: Asking, keep_current: Callable[[Peer, Now], None], emit: Callable[[Effect], None],
    ) -> None:  # fmt: skip
        """`own_name`: this host's.  `keep_current` asks the DNS for what is not known of a peer, or not any more."""
        self._own_name = own_name
        self._peers, self._policies, self._seeking = peers, policies, seeking
        self._idle, self._memory, self._asking = idle, memory, asking
        self._keep_current = keep_current
        self._emit = emit
        self._captures = Captures()

    def waits_for(self, peer: Peer) -> bool:
        return self._captures.waits_for(peer)

    def deadline_of(self, peer: Peer) -> float:
        """Monotonic time at which somebody has waited long enough for a peer."""
        return self._captures.deadline_of(peer)

    def reqids(self) -> set[int]:
        """Of those whom somebody waits for."""
        return self._captures.reqids()

    def looked_up(self, peer: Peer, now: Now) -> None:
        """More is known of a peer: if somebody waits for it, it is sought, or the name that it is an alias of."""
        if self.waits_for(peer):
            self._let_prove(self._follow(peer, now), now)

    def asked(self, request: int, name: str, now: Now, *, command: bool) -> None:
        """A program asks; `command`: unbound's hook does, for one (daemon.ipsecmod)."""
        rules = self._peers.rulebook.for_name(name)
        try:
            told = self._told_at_once(name, rules, now)
            peer = self._peers.of_name(name, rules) if told is None and rules is not None else None
        except Crowded as error:
            peer, told = None, Told(Verdict.REFUSE, reason=str(error))
        if peer is None:
            assert told is not None
            self._emit(tell(request, told, command=command))
            return
        self._memory.recall(peer, now.wall)
        self._idle.used(peer, now.monotonic)
        self._captures.wait(peer, request, now.monotonic, command=command)
        self._keep_current(peer, now)
        if peer.failed_before(now.monotonic - ASK_AGAIN):
            # After a long failure its own turn would come minutes after the DNS is back.
            self._asking.look_up(peer, now)
        self._let_prove(self._follow(peer, now), now)

    def _told_at_once(self, name: str, rules: Rules | None, now: Now) -> Told | None:
        """What a program is told for which nobody need be asked; None: it has to wait."""
        if rules is None or rules[0].require is Assurance.CLEAR or name == self._own_name:
            return Told(Verdict.PASS)
        if refuses(rules):
            return Told(Verdict.REFUSE, reason=f"{name}: a rule blocks it")
        if rules[0].start is Start.WAIT and permits_clear(rules) and not self._has_reached(name, rules, now):
            return Told(Verdict.PASS)
        return None

    def _has_reached(self, name: str, rules: Rules, now: Now) -> bool:
        """Whether a name's level was ever reached."""
        peer = self._peers.by_name(name)
        remembered = self._memory.has_reached(name, rules[0].require, now.wall)
        return remembered or (peer is not None and peer.reached)

    def _follow(self, peer: Peer, now: Now) -> Peer:
        """Whom programs have to wait for: with an alias, the name that it leads to."""
        if peer.dead_end and self._peers.rulebook.forbids_clear(peer.dead_end):
            why = f"{peer.name} leads to {peer.dead_end}, of which nothing can be proved, and a rule permits no clear"
            self._end(peer, why)
        known = self._peers.alias_of(peer)
        if known is not None:
            return self._wait_for(known, peer, now)
        if not peer.is_alias:
            return peer
        rules = self._peers.rulebook.for_alias(peer.rules, peer.canonical)
        if refuses(rules):
            self._end(peer, f"{peer.canonical}: a rule blocks it")
            return peer
        try:
            other = self._peers.of_name(peer.canonical, rules)
        except Crowded:
            return peer
        return peer if other.is_alias else self._wait_for(other, peer, now)

    def _wait_for(self, peer: Peer, alias: Peer, now: Now) -> Peer:
        self._memory.recall(peer, now.wall)
        self._idle.used(peer, now.monotonic)
        self._captures.follow(alias, peer)
        self._keep_current(peer, now)
        return peer

    def _let_prove(self, peer: Peer, now: Now) -> None:
        """Before a program gets its answer, IKE has begun."""
        if peer.lacks_synthetic:
            with suppress(PoolEmpty):
                self._peers.make_synthetic(peer)
        rival = self._peers.rival_of(peer) if peer.may_be_anybody else None
        if rival is not None and shared_with(rival, peer, self._peers.own):
            self._idle.used(rival, now.monotonic)
        else:
            self._seeking.let_prove(peer, now)

    def answer(self, peer: Peer, now: Now) -> None:
        """Tell those who wait for a peer, if there is something to tell."""
        if peer.reached and not peer.hardened and self._captures.forbids_clear(peer):
            # An alias's rule is stricter than the name's own: nor may policies go when nobody renews them (law 1).
            peer.hardened = True
            self._policies.sync(peer, now)
        pending, trying = self._policies.pending(peer), self._seeking.tries(peer)
        rival = partial(self._peers.rival_of, peer)
        effects = self._captures.answer(peer, now.monotonic, rival, pending=pending, trying=trying, own=self._peers.own)
        if effects:
            # Its policies stay for as long as the answer may be believed.
            self._idle.used(peer, now.monotonic)
        for effect in effects:
            self._emit(effect)

    def _end(self, peer: Peer, why: str) -> None:
        for effect in self._captures.end(peer, Told(Verdict.REFUSE, reason=why)):
            self._emit(effect)
