"""Which policies stand for which peer, and who may have which address (DESIGN.md laws 1 and 2)."""

from collections.abc import Callable

from hushwire.events import DeletePolicy, Effect, Installed, InstallPolicy, Notice, Refused
from hushwire.node.latches import Latches
from hushwire.node.peer import SHUNT_LIFE, Peer
from hushwire.node.peers import Peers
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action
from hushwire.timers import NEVER, Now
from hushwire.wire.address import IPAddress, IPNetwork, host_network

REFRESH = SHUNT_LIFE / 2
"""Seconds after which a plane is told again of what would otherwise end by itself."""

Key = tuple[Selector, Direction]


class Policies:
    """What was asked of the plane, and what is to be asked."""

    def __init__(
        self, peers: Peers, latches: Latches, number: Callable[[], int], emit: Callable[[Effect], None]
    ) -> None:
        self._peers = peers
        self._latches = latches
        self._number = number
        self._emit = emit
        self._asked: dict[int, tuple[Peer, Key]] = {}
        """Policies that are not confirmed yet, by request number."""
        self._pending: dict[int, int] = {}
        """How many of them each peer has, by reqid."""
        self._holders: dict[Key, Peer] = {}
        """Whose each policy is that stands or was asked for."""
        self._contesting: dict[Peer, None] = {}
        """Those who want one that is another's."""

    def sync(self, peer: Peer, now: Now) -> None:
        """Install what ought to stand and does not; loosen only where the rule permits clear (DESIGN.md section 3)."""
        self._peers.touch(peer)
        desired = peer.desired(self._peers.own, self._peers.rulebook.permits_clear)
        peer.refused = False
        peer.contested &= desired.keys()
        fresh = now.monotonic >= peer.refresh_at
        for key, policy in desired.items():
            if (peer.policies.get(key) != policy or (policy.lifetime and fresh)) and self._may_have(peer, key):
                if policy.action is Action.CLEAR:
                    self._latches.loosened(policy.selector.remote)
                number = self._number()
                self._emit(InstallPolicy(number, policy))
                self._asked[number] = peer, key
                self._pending[peer.reqid] = self._pending.get(peer.reqid, 0) + 1
                peer.policies[key] = policy
                if not policy.soft and not policy.lifetime:
                    peer.asserted_at = now.monotonic
        lives = any(policy.lifetime for policy in peer.policies.values())
        if fresh or peer.refresh_at == NEVER:
            peer.refresh_at = now.monotonic + REFRESH if lives else NEVER
        if peer.may_loosen:
            loose = [key for key, policy in peer.policies.items() if key not in desired and policy.soft]
            self._delete(peer, [key for key in loose if not peer.is_leaving(peer.policies[key])])

    def sync_all(self, now: Now) -> None:
        """The same for every peer."""
        for peer in self._peers:
            self.sync(peer, now)

    def settle_contested(self, now: Now) -> None:
        """Who had to stand back may have what another has left meanwhile."""
        contesting, self._contesting = self._contesting, {}
        for peer in contesting:
            if self._peers.by_reqid(peer.reqid) is peer:
                self.sync(peer, now)

    def withdraw(self, peer: Peer) -> None:
        """Nobody needs the peer any more."""
        self._delete(peer, list(peer.policies))

    def leave(self, peer: Peer, place: IPAddress) -> None:
        """The peer is there no more, for so long that it will not be taken for it."""
        self._delete(peer, [key for key in peer.policies if key[0].remote == host_network(place)])

    def remotes(self, peer: Peer, where: IPAddress) -> tuple[IPNetwork, ...]:
        """What programs reach by its policies, when it speaks from an address; in a tunnel, all that is behind it."""
        tunnelled = peer.gateway is not None or bool(peer.rule.remote_networks)
        found = {
            policy.selector.remote: None
            for key, policy in peer.policies.items()
            if tunnelled or where == policy.real or policy.selector.remote == host_network(where)
        }
        return tuple(found)

    def pending(self, peer: Peer) -> bool:
        """Whether a policy of the peer's has been asked for and not been confirmed."""
        return self._pending.get(peer.reqid, 0) > 0

    def answered(self, event: Installed | Refused) -> None:
        """What was refused is asked for again when next there is reason to."""
        asked = self._asked.pop(event.request, None)
        if asked is None:
            return
        peer, key = asked
        self._peers.touch(peer)
        self._pending[peer.reqid] -= 1
        if not self._pending[peer.reqid]:
            del self._pending[peer.reqid]
        if isinstance(event, Refused):
            refused = peer.policies.pop(key, None)
            if refused is not None:
                del self._holders[key]
            peer.refused = True
            peer.hardened = peer.hardened or (refused is not None and refused.soft)

    def _delete(self, peer: Peer, keys: list[Key]) -> None:
        for key in keys:
            self._latches.loosened(key[0].remote)
            self._emit(DeletePolicy(*key))
            del peer.policies[key]
            del self._holders[key]

    def _may_have(self, peer: Peer, key: Key) -> bool:
        """Two names at one address never share a policy (law 2): the second is refused.

        Unless nobody answers for the first: a name must not block another by naming its address (ATTACKS row 37).
        """
        holder = self._holders.get(key)
        if holder is None or holder is peer or _has_left(holder, key[0]) or holder.yields_to(peer):
            if holder is not None and holder is not peer:
                del holder.policies[key]
                if not _has_left(holder, key[0]):
                    holder.contested.add(key)
                self._contesting[holder] = None
            self._holders[key] = peer
            peer.contested.discard(key)
            return True
        self._contesting[peer] = None
        if key not in peer.contested:
            peer.contested.add(key)
            fields = ("name", peer.name), ("holder", holder.name), ("at", str(key[0]))
            self._emit(Notice("name.contested", fields, grave=True))
        return False


def _has_left(holder: Peer, selector: Selector) -> bool:
    """Whether a policy stands only because nothing is to go in clear where its peer once was.

    Who is there now may have it: by his own, nothing goes in clear either.
    """
    known = holder.lookup is not None and holder.lookup.binding is not None
    return known and not holder.rule.remote_networks and not any(place in selector.remote for place in holder.places)
