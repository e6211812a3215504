"""Peers that rules about many brought in go again when nobody uses them: while flows live they stay."""

from collections.abc import Callable

from hushwire.events import Count, Counted, CountFlows, Effect, FlowsFound, Refused
from hushwire.node.capture import LONGEST
from hushwire.node.peer import HELD_FOR, Peer
from hushwire.node.peers import Peers
from hushwire.node.policies import Policies
from hushwire.node.seeking import Seeking
from hushwire.timers import Now

GRACE = 30.0
"""Seconds that a peer outlives the last answer that a program got."""


class Idle:
    """Looks, at times, whether a peer is still used."""

    def __init__(
        self, peers: Peers, policies: Policies, seeking: Seeking, number: Callable[[], int],
        emit: Callable[[Effect], None],
    ) -> None:  # fmt: skip
        self._peers, self._policies, self._seeking = peers, policies, seeking
        self._number = number
        self._emit = emit
        self._counting: dict[int, Peer] = {}
        self._asking: dict[int, Peer] = {}
        """Those whose SAs carry nothing: whether there are flows that only pause."""

    def used(self, peer: Peer, now: float) -> None:
        """Somebody has to do with it: look again when he may have forgotten."""
        peer.used_at = now
        peer.asleep = False
        if peer.born:
            binding = peer.lookup.binding if peer.lookup is not None else None
            life = min(LONGEST, binding.ttl) if binding is not None else LONGEST
            peer.idle_at = now + life + GRACE

    def look(self, peer: Peer, now: Now) -> None:
        """Its idle_at has come.  Ask how much its SAs carry, or whether there are flows, or let it go."""
        names = [name for sa in self._seeking.sas_of(peer) for child in sa.children.values() for name in child.names]
        if names and peer.asleep:
            # They are being deleted.
            peer.idle_at = now.monotonic + GRACE
        elif names:
            number = self._number()
            self._counting[number] = peer
            peer.idle_at = now.monotonic + GRACE
            self._emit(Count(number, tuple(names)))
        elif peer.policies and not peer.asleep:
            self._ask(peer, now)
        else:
            self._let_go(peer, now)

    def counted(self, event: Counted, now: Now) -> None:
        """What has carried nothing since it was last looked at is needed by flows at the most."""
        peer = self._counting.pop(event.request, None)
        if peer is None:
            return
        if event.packets != peer.counted:
            peer.counted = event.packets
            self.used(peer, now.monotonic)
        else:
            self._ask(peer, now)

    def found(self, event: FlowsFound, now: Now) -> Peer | None:
        """The peer that nobody needs: its SAs can go.  A flow keeps what protects it for its life (RFC 5660 s2)."""
        peer = self._asking.pop(event.request, None)
        if peer is None:
            return None
        if event.flows:
            self.used(peer, now.monotonic)
            return None
        peer.counted = -1
        peer.asleep = True
        peer.idle_at = now.monotonic
        self._peers.touch(peer)
        return peer

    def _ask(self, peer: Peer, now: Now) -> None:
        number = self._number()
        self._asking[number] = peer
        peer.idle_at = now.monotonic + GRACE
        self._peers.touch(peer)
        self._emit(CountFlows(number, tuple({selector.remote: None for selector, _ in peer.policies})))

    def refused(self, event: Refused) -> None:
        """Nothing is known: it is looked at again."""
        self._counting.pop(event.request, None)
        self._asking.pop(event.request, None)

    def _let_go(self, peer: Peer, now: Now) -> None:
        peer.asleep = True
        held = [policy for policy in peer.policies.values() if not policy.soft and not policy.lifetime]
        if held and now.monotonic < peer.asserted_at + HELD_FOR:
            peer.idle_at = peer.asserted_at + HELD_FOR
            return
        self._policies.withdraw(peer)
        self._peers.forget(peer)
