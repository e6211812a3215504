"""The application's question: who is at the other end of a flow, and how sure that is (RFC 5387 s3.2, RFC 5660 s2.3).

Whoever requires more than there is can have it sought, and waits for what comes of that.  A flow that is found good
stays so, or ends: that is connection latching (`node.latches`).
"""

import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from hushwire.crypto.channel_binding import channel_binding
from hushwire.crypto.keys import PublicKey
from hushwire.events import Acquire, Effect, Reply, Whois
from hushwire.ike.child import ChildSA
from hushwire.ike.sa import IkeSA
from hushwire.node.acquaintance import day
from hushwire.node.known import KnownPeers
from hushwire.node.memory import Memory
from hushwire.node.peer import Peer
from hushwire.node.peers import Peers
from hushwire.node.policies import Policies
from hushwire.node.seeking import Seeking
from hushwire.node.telling import Told, level
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import Known
from hushwire.policy.pad import fingerprint_text
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Flow
from hushwire.policy.spd import Action, Policy
from hushwire.timers import NEVER, Now

MOST_WAITING = 1024
"""Who wait at once."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What becomes of a flow's packets now."""

    level: Assurance | None
    """None: they are held, or dropped."""
    why: str
    """In one line: how it is known who is there, or why it is not."""
    peer: Peer | None = None
    """Whose policy speaks of them."""
    sa: IkeSA | None = None
    """Of those that may carry them, the one with the least proof."""
    child: ChildSA | None = None
    fixed: bool = False
    """No proof of anybody's would change it."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Who wants to know, and requires more than there was when he asked."""

    question: Whois
    peer: Peer
    until: float
    """Monotonic time."""
    failures: int
    """Of the peer's, before."""


class Answers:
    """To Whois."""

    def __init__(
        self, base: Iterable[Policy], peers: Peers, policies: Policies, seeking: Seeking, known: KnownPeers,
        memory: Memory, seek: Callable[[Acquire, Now], None], emit: Callable[[Effect], None],
    ) -> None:  # fmt: skip
        """`base`: the policies that stand whoever the peers are; `seek` does what a packet for an address would."""
        self._base = [policy for policy in base if policy.direction is Direction.OUT]
        self._peers, self._policies, self._seeking = peers, policies, seeking
        self._known, self._memory = known, memory
        self._seek, self._emit = seek, emit
        self._waiting: list[Waiting] = []

    def deadline(self) -> float:
        """Monotonic time at which somebody has waited long enough."""
        return min((waiting.until for waiting in self._waiting), default=NEVER)

    def asked(self, question: Whois, now: Now) -> None:
        """Answer; where more is required than there is, have it sought first, and wait for what comes of that."""
        standing = self.standing(question.flow)
        if not self._is_enough(standing, question) and question.patience > 0 and len(self._waiting) < MOST_WAITING:
            before = self._meant(question.flow, standing)
            failures = before.failures if before is not None else 0
            if standing.sa is None and not standing.fixed:
                # As a packet would that met no SA, whether its policy holds it or lets it go in clear.
                self._seek(Acquire(question.flow, before.reqid if before is not None else 0, 0), now)
                standing = self.standing(question.flow)
            peer = self._meant(question.flow, standing)
            if peer is not None:
                self._waiting.append(Waiting(question, peer, now.monotonic + question.patience, failures))
                self.look([peer], now)
                return
        self._reply(question, standing, now)

    def look(self, touched: Collection[Peer], now: Now) -> None:
        """Who waits for a peer to which something has happened may be told, and who has waited long enough is."""
        if not self._waiting:
            return
        kept = []
        for waiting in self._waiting:
            late = waiting.until <= now.monotonic
            if late or waiting.peer in touched:
                standing = self.standing(waiting.question.flow)
                if late or self._is_enough(standing, waiting.question) or self._is_over(waiting, standing):
                    self._reply(waiting.question, standing, now)
                    continue
            kept.append(waiting)
        self._waiting = kept

    def standing(self, flow: Flow) -> Standing:
        """What becomes of it now, by the policy that counts for it (RFC 4301 s4.4.1: the first that matches)."""
        if flow.remote.is_loopback or flow.remote in self._peers.own:
            return Standing(Assurance.CLEAR, "it does not leave this host", fixed=True)
        base = min((each for each in self._base if each.selector.matches(flow)), key=_priority, default=None)
        held = self._peers.governing(flow.remote, lambda selector: selector.matches(flow))
        # What was made up for a name goes its own way, past the block of all such addresses.
        if base is not None and (held is None or (held[1].real is None and base.priority < held[1].priority)):
            if base.action is Action.CLEAR:
                return Standing(Assurance.CLEAR, "the configuration lets it go in clear", fixed=True)
            return Standing(None, "a rule blocks it, and nobody stands there who could be asked")
        if held is None:
            return Standing(Assurance.CLEAR, f"no policy speaks of {flow.remote}")
        peer, policy = held
        if policy.action is Action.CLEAR:
            return Standing(Assurance.CLEAR, peer.last_failure or "its rule permits that", peer)
        real = replace(flow, remote=peer.real(flow.remote))
        carriers = [
            (sa, child)
            for sa in self._seeking.standing(peer) for child in sa.children.values() if child.selector.matches(real)
        ]  # fmt: skip
        if policy.action is Action.BLOCK or not carriers:
            return Standing(None, peer.last_failure or "nothing is proved yet", peer)
        sa, child = min(carriers, key=lambda each: (level(each[0]), -each[1].created))
        return Standing(level(sa), self._how(peer, sa), peer, sa, child)

    def _meant(self, flow: Flow, standing: Standing) -> Peer | None:
        """The peer that would be sought for a flow, as far as there is one."""
        if standing.fixed:
            return None
        if standing.peer is not None and not standing.peer.is_trap:
            return standing.peer
        # Where nothing is held for it, a peer has no policy before it has reached its level.
        found = (peer for peer in self._peers.about(flow.remote) if flow.remote in peer.addresses and peer.wanted(flow))
        return next(found, None)

    def _is_enough(self, standing: Standing, question: Whois) -> bool:
        if question.require is Assurance.CLEAR:
            return True
        if standing.level is None or standing.level < question.require or standing.peer is None:
            return False
        # What is asked of a plane may not have been done: until then a packet may go as before.
        return not self._policies.pending(standing.peer)

    def _is_over(self, waiting: Waiting, standing: Standing) -> bool:
        """Whether what was sought will not be had: nobody could be proved, or who was is not who is required."""
        peer, lookup = waiting.peer, waiting.peer.lookup
        if lookup is not None and (lookup.asking or (lookup.binding is None and lookup.unbound is None)):
            return False
        if not peer.known or peer.failures > waiting.failures:
            return True
        return standing.sa is not None and not self._policies.pending(peer) and not self._seeking.tries(peer)

    # --- telling ---

    def _reply(self, question: Whois, standing: Standing, now: Now) -> None:
        ok, found = self._is_enough(standing, question), str(standing.level or "nothing stands yet")
        text = f"{found}: {standing.why}" if ok else f"{found}, and {question.require} is required: {standing.why}"
        self._emit(Reply(question.request, ok, text, json.dumps(self._told(standing, now))))

    def _told(self, standing: Standing, now: Now) -> Told:
        peer, sa, child = standing.peer, standing.sa, standing.child
        proof = sa.authenticated if sa is not None else None
        key = proof.verified.public if proof is not None else None
        known = self._acquaintance(peer, key)
        ours = sa.proved_with if sa is not None else None
        return {
            "level": str(standing.level) if standing.level is not None else None,
            "how": standing.why,
            "peer": peer.name if peer is not None else None,
            "identity": str(proof.entry.identity) if proof is not None else None,
            "key": fingerprint_text(key.fingerprint) if key is not None else None,
            "since": known.first if known is not None and known.times else None,
            "met": known.times if known is not None else 0,
            "established": round(now.monotonic - sa.established, 3) if sa is not None else None,
            "ike_suite": str(sa.suite) if sa is not None else None,
            "esp_suite": str(child.outbound.suite) if child is not None else None,
            "mode": child.mode.value if child is not None else None,
            "binding": channel_binding(ours, key).hex() if ours is not None and key is not None else None,
        }

    def _how(self, peer: Peer, sa: IkeSA) -> str:
        """How it is known who is there, in one line."""
        proof = sa.authenticated
        assert proof is not None
        key, known = proof.verified.public, self._acquaintance(peer, proof.verified.public)
        if proof.anonymous:
            return "it stays anonymous, and nothing is proved"
        if key is None:
            return "it has the key that an administrator shares with it"
        if proof.assurance is Assurance.NAMED:
            return f"DNSSEC says that the key is of {peer.canonical or peer.name}"
        if proof.assurance is Assurance.TRUSTED and not proof.entry.btns:
            return "an administrator has configured its key"
        if (trusted := self._memory.trusted.get(key.fingerprint)) is not None:
            return f"its key is in the trust store{f' as {trusted.label}' if trusted.label else ''}"
        if known is not None and known.pinned:
            return "an administrator has pinned its key"
        if known is None:
            return "first contact: whoever is there has this key"
        if known.times < 2:
            return f"first contact was on {day(known.first)}: whoever was there then has this key"
        if proof.assurance is Assurance.CONTINUOUS:
            return f"the same key since {day(known.first)}, met {known.times} times"
        return f"a stranger with this key since {day(known.first)}"

    def _acquaintance(self, peer: Peer | None, key: PublicKey | None) -> Known | None:
        """What is remembered of a peer by the key that it has proved."""
        known = self._known.of(peer.name) if peer is not None else None
        return known if known is not None and key is not None and known.fingerprint == key.fingerprint else None


def _priority(policy: Policy) -> int:
    return policy.priority
