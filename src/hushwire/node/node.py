"""A Node: one host's whole mind, stepped with (now, event), answering with effects (DESIGN.md section 1).

It routes: names to keys, keys and addresses to PAD entries and policies, packets and messages to IKE.
"""

import itertools
import json
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass

from hushwire.config import Config, PlaneChoice, Rule
from hushwire.crypto.keys import PublicKey
from hushwire.entropy import Entropy
from hushwire.events import (
    Acquire,
    AddressesChanged,
    Answered,
    Connect,
    Datagram,
    DeletePolicy,
    Disconnect,
    Effect,
    Event,
    Expire,
    Installed,
    InstallPolicy,
    Mapping,
    Notice,
    Refused,
    Rekey,
    Reply,
    Signed,
    Status,
    Stop,
    Timeout,
)  # fmt: skip
from hushwire.ike import report
from hushwire.ike.endpoint import Endpoint
from hushwire.ike.errors import Unauthorized
from hushwire.ike.sa import IkeSA
from hushwire.ike.settings import Settings
from hushwire.ike.state import State
from hushwire.names.binding import Unbound
from hushwire.names.lookup import Change, NameLookup
from hushwire.names.name import BadName, host_name
from hushwire.node.peer import Peer, group_rules, nearest
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity
from hushwire.policy.sad import Direction, Mode
from hushwire.policy.selector import Flow, Selector
from hushwire.timers import NEVER, Now
from hushwire.wire.address import IPAddress

ASK_AGAIN = 5.0
"""Seconds that must have passed since a name was looked up, for a peer's odd address or key to have it asked again."""
MOST_WAITING = 16
"""Addresses of a peer whose packets wait for its name to be looked up, or for the next attempt."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """The public side of what the keeper holds, by the rule's peer."""

    key: PublicKey | None
    """The host's."""
    pinned: MappingABC[str, PublicKey]
    """Peers' keys of local configuration."""
    shared: MappingABC[str, bytes]
    """The keeper's names of shared keys."""


class Node:
    """One host.  Nothing here reads a clock, draws randomness but from `entropy`, or does I/O."""

    def __init__(self, config: Config, secrets: Secrets, plane: PlaneChoice, entropy: Entropy) -> None:
        self._config = config
        self._secrets = secrets
        self._plane = plane
        self._entropy = entropy
        self._numbers = itertools.count(1)
        settings = Settings(
            Identity.fqdn(config.host.name),
            secrets.key,
            config.ike.proposals,
            config.esp.proposals,
            plane is PlaneChoice.USERSPACE,
            config.host.port,
            config.host.nat_port,
            config.ike.lifetime,
            config.esp.lifetime,
            config.esp.packets,
            config.ike.liveness,
            config.ike.retransmit,
            replay_window=config.esp.replay_window,
        )
        self.ike = Endpoint(settings, entropy, self._numbers)
        self._own: tuple[IPAddress, ...] = config.host.addresses
        self._peers: list[Peer] = []
        self._effects: list[Effect] = []
        self._parked: list[tuple[Peer, report.AuthorizationWanted]] = []
        """Peers who wait for us to have looked up their name."""
        self._installing: dict[int, tuple[Peer, tuple[Selector, Direction]]] = {}
        """Policies asked for and not yet confirmed, by request number."""
        self._begun = False
        for rules in group_rules(config.rules):
            self._add(rules)

    # --- the way in ---

    def step(self, now: Now, event: Event) -> list[Effect]:
        """Take one event; the effects are to be performed in order."""
        if not self._begun:
            self._begun = True
            self._begin(now)
        match event:
            case Timeout():
                self._timeout(now)
            case Datagram():
                self.ike.receive(event, now)
            case Acquire():
                self._acquire(event, now)
            case Expire(sa, hard):
                self.ike.expire(sa, now, hard=hard)
            case Mapping(sa, remote):
                self._notice("esp.mapping", ("spi", f"{sa.spi:08x}"), ("remote", str(remote)))
            case Signed():
                self.ike.signed(event, now)
            case Installed():
                self._policy_answered(event)
                self.ike.installed(event, now)
            case Refused():
                self._notice("refused", ("reason", event.reason), grave=True)
                self._policy_answered(event)
                self.ike.installed(event, now)
            case Answered():
                self._answered(event, now)
            case AddressesChanged(addresses):
                self._addresses_changed(addresses, now)
            case Connect(request, name):
                self._connect(request, name, now)
            case Disconnect(request, name):
                self._disconnect(request, name, now)
            case Rekey(request, name, ike):
                self._rekey(request, name, ike, now)
            case Stop():
                self.ike.stop(now)
            case Status(request):
                self._effects.append(Reply(request, True, body=json.dumps(self._status(now))))
        self._listen(now)
        effects, self._effects = self._effects, []
        return effects

    def deadline(self) -> float:
        """Monotonic time at which to step with Timeout; NEVER if nothing waits for time."""
        if not self._begun:
            return 0.0
        lookups = (peer.lookup.deadline() for peer in self._peers if peer.lookup is not None)
        retries = (peer.not_before for peer in self._peers if _has_waiting(peer) or self._should_start(peer))
        return min((self.ike.deadline(), *lookups, *retries), default=NEVER)

    def _begin(self, now: Now) -> None:
        self._sync_all()
        for peer in self._peers:
            if peer.lookup is not None:
                self._effects += peer.lookup.start(now)

    def _timeout(self, now: Now) -> None:
        self.ike.timeout(now)
        for peer in self._peers:
            if peer.lookup is not None and peer.lookup.deadline() <= now.monotonic:
                questions, change = peer.lookup.timeout(now)
                self._effects += questions
                self._looked_up(peer, change, now)
            if peer.not_before <= now.monotonic:
                self._acquire_waiting(peer, now)
            if self._should_start(peer) and peer.not_before <= now.monotonic:
                self._start(peer, now)

    # --- names ---

    def _answered(self, event: Answered, now: Now) -> None:
        for peer in self._peers:
            if peer.lookup is not None and peer.lookup.asking:
                change = peer.lookup.answered(event, now)
                if not peer.lookup.asking:
                    self._looked_up(peer, change, now)

    def _looked_up(self, peer: Peer, change: Change | None, now: Now) -> None:
        """A name's answers are complete, or its binding has ended."""
        if change is not None:
            self._tell_change(change)
            if left_out := peer.admit():
                addresses = ", ".join(map(str, left_out))
                self._notice("name.crowded", ("name", change.name), ("left out", addresses), grave=True)
            self._sync(peer)
            for sa in self.ike.of_peer(peer.identity):
                self._check_standing(peer, sa, now)
        if peer.lookup is not None and peer.lookup.binding is None and not peer.lookup.asking:
            self._answer_connects(peer, False, str(peer.lookup.unbound))
        self._acquire_waiting(peer, now)
        for parked in [parked for parked in self._parked if parked[0] is peer]:
            self._parked.remove(parked)
            self._authorize(peer, parked[1], now)
        if change is not None and peer.addresses and (peer.connects or peer.starts_by_itself):
            self._start(peer, now)

    def _tell_change(self, change: Change) -> None:
        if isinstance(change.after, Unbound):
            outcome = ("outcome", change.after.outcome.value)
            self._notice("name.unbound", ("name", change.name), outcome, ("reason", change.after.reason), grave=True)
        else:
            addresses = ", ".join(map(str, change.after.addresses))
            keys = ", ".join(key.fingerprint.hex()[:16] for key in change.after.keys)
            self._notice("name.bound", ("name", change.name), ("addresses", addresses), ("keys", keys))

    def _check_standing(self, peer: Peer, sa: IkeSA, now: Now) -> None:
        """An IKE SA stands as long as the DNS still says what it was authenticated by."""
        assert sa.authenticated is not None
        key = sa.authenticated.verified.public
        if key is not None and key not in peer.keys_at(sa.remote.address):
            self._notice("name.changed", ("name", peer.name), ("was", str(sa.remote.address)))
            self.ike.delete(sa, now)

    # --- policies ---

    def _addresses_changed(self, addresses: tuple[IPAddress, ...], now: Now) -> None:
        wanted = self._config.host.addresses
        self._own = tuple(address for address in addresses if not wanted or address in wanted)
        for peer in self._peers:
            if peer.lookup is not None:
                peer.lookup.own = addresses
        self._sync_all()
        for sa in self.ike.sas:
            if sa.local.address not in addresses:
                self.ike.delete(sa, now)

    def _sync_all(self) -> None:
        for peer in self._peers:
            self._sync(peer)

    def _sync(self, peer: Peer) -> None:
        """Install what ought to stand and does not; loosen only where the rule permits clear (DESIGN.md section 3)."""
        desired = peer.desired(self._own)
        peer.refused = False
        for key, policy in desired.items():
            if peer.policies.get(key) != policy and self._may_have(peer, key):
                number = next(self._numbers)
                self._effects.append(InstallPolicy(number, policy))
                self._installing[number] = peer, key
                peer.policies[key] = policy
        if peer.may_loosen:
            for key in [key for key in peer.policies if key not in desired]:
                self._effects.append(DeletePolicy(*key))
                del peer.policies[key]

    def _may_have(self, peer: Peer, key: tuple[Selector, Direction]) -> bool:
        """Two names at one address never share a policy (law 2): the second is refused.

        Unless nobody answers for the first: a name must not block another by naming its address (ATTACKS row 37).
        """
        holder = next((other for other in self._peers if other is not peer and key in other.policies), None)
        if holder is None or holder.yields_to(peer):
            if holder is not None:
                del holder.policies[key]
            peer.contested.discard(key)
            return True
        if key not in peer.contested:
            peer.contested.add(key)
            self._notice(
                "name.contested", ("name", peer.name), ("holder", holder.name), ("at", str(key[0])), grave=True
            )
        return False

    def _policy_answered(self, event: Installed | Refused) -> None:
        """What the guard or the plane refused does not stand: it is asked for again when next there is reason to."""
        asked = self._installing.pop(event.request, None)
        if asked is not None and isinstance(event, Refused):
            peer, key = asked
            peer.policies.pop(key, None)
            peer.refused = True

    # --- packets and peers ---

    def _acquire(self, event: Acquire, now: Now) -> None:
        peer = next((peer for peer in self._peers if peer.reqid == event.reqid), None)
        if peer is None:
            return
        if (peer.lookup is None or peer.lookup.binding is not None) and peer.not_before <= now.monotonic:
            self._protect(peer, event.flow, event.sequence, now)
        elif event.flow.remote in peer.waiting or len(peer.waiting) < MOST_WAITING:
            # A plane tells of a flow once, and then not for half a minute.
            peer.waiting[event.flow.remote] = event

    def _acquire_waiting(self, peer: Peer, now: Now) -> None:
        """Look again at the packets that came too early, once something is known of where the peer is."""
        if _has_waiting(peer):
            waiting, peer.waiting = peer.waiting, {}
            for acquire in waiting.values():
                self._acquire(acquire, now)

    def _protect(self, peer: Peer, flow: Flow, sequence: int, now: Now) -> None:
        """Have a Child SA made for a flow, unless one is being made or stands."""
        if self.ike.stopping:
            return
        wanted = peer.wanted(flow, sequence)
        if wanted is None:
            return
        remote = flow.remote if flow.remote in peer.addresses else next(iter(peer.addresses), flow.remote)
        # A tunnel ends where its policy says; what it carries may be of another address of ours.
        inner = wanted.mode is Mode.TUNNEL or flow.local not in self._own
        local = nearest(self._own, remote) if inner else flow.local
        entry = peer.entry(remote, self._own)
        if entry is None or local is None:
            peer.failed(f"nothing is known that would prove {peer.name} at {remote}", now.monotonic)
            return
        for sa in self.ike.sas:
            if sa.peer is not None and sa.peer.identity == peer.identity and sa.remote.address == remote:
                if sa.state in (State.INITIAL, State.HALF_OPEN) and sa.initiator:
                    return
                if sa.state is State.ESTABLISHED and not sa.deleting:
                    if not any(child.selector.covers(wanted.selectors[0]) for child in sa.children.values()):
                        self.ike.create_child(sa, wanted, now)
                    return
        self.ike.initiate(entry, local, remote, wanted, now)

    def _should_start(self, peer: Peer) -> bool:
        """Whether a peer is to be sought without a packet for it."""
        wants = peer.starts_by_itself or peer.connects
        return bool(wants and peer.addresses and not self._busy_with(peer))

    def _busy_with(self, peer: Peer) -> bool:
        return any(sa.peer is not None and sa.peer.identity == peer.identity for sa in self.ike.sas)

    def _start(self, peer: Peer, now: Now) -> None:
        """Seek a peer by itself, at the first of its addresses that we have a source for."""
        if self._busy_with(peer):
            self._answer_connects(peer, True, f"{peer.name} is connected already")
            return
        for remote in peer.addresses:
            local = nearest(self._own, remote)
            if local is not None:
                rule = peer.rule
                far = rule.remote_networks[0][0] if rule.remote_networks else remote
                near = rule.local_networks[0][0] if rule.local_networks else local
                flow = Flow(near, far, rule.protocol, rule.local_port, rule.remote_port)
                self._protect(peer, flow, 0, now)
                break
        if self._busy_with(peer):
            return
        # Nothing was begun, and so nothing will end: without this the deadline would stay in the past.
        if peer.not_before <= now.monotonic:
            peer.failed(f"no way from {', '.join(map(str, self._own)) or 'no address'} to {peer.name}", now.monotonic)
        self._answer_connects(peer, False, f"{peer.name}: {peer.last_failure}")

    # --- what IKE tells ---

    def _listen(self, now: Now) -> None:
        while told := self.ike.drain():
            for item in told:
                match item:
                    case report.AuthorizationWanted(_, identity, _):
                        self._authorization_wanted(item, identity, now)
                    case report.Established(sa):
                        self._tell("ike.established", sa, ("suite", str(sa.suite)), ("level", str(_level(sa))))
                        self._established(sa, now)
                    case report.Replaced(_, new):
                        self._tell("ike.rekeyed", new)
                    case report.ChildUp(sa, child):
                        self._child_up(sa)
                        self._tell("child.up", sa, ("spi", child.spi_in.hex()), ("suite", str(child.inbound.suite)))
                    case report.ChildDown(sa, child):
                        self._tell("child.down", sa, ("spi", child.spi_in.hex()))
                    case report.ChildFailed(sa, reason):
                        self._attempt_failed(sa, reason, now)
                    case report.Closed(sa, reason):
                        self._tell("ike.closed", sa, ("reason", reason))
                        self._attempt_failed(sa, reason, now)
                    case _:
                        self._effects.append(item)

    def _authorization_wanted(self, wanted: report.AuthorizationWanted, identity: Identity, now: Now) -> None:
        peer = next((peer for peer in self._peers if peer.identity == identity), None)
        if peer is None:
            self.ike.authorized(wanted.request, Unauthorized(f"no rule speaks of {identity}"), now)
        elif peer.lookup is not None and self._worth_asking(peer, wanted, now):
            self._parked.append((peer, wanted))
            if not peer.lookup.asking:
                self._effects += peer.lookup.start(now)
        else:
            self._authorize(peer, wanted, now)

    def _worth_asking(self, peer: Peer, wanted: report.AuthorizationWanted, now: Now) -> bool:
        """Whether the DNS may by now say what it did not: that the peer is where it speaks from."""
        assert peer.lookup is not None
        if wanted.remote.address in peer.addresses:
            return False
        return peer.lookup.asking or peer.lookup.asked_at + ASK_AGAIN <= now.monotonic

    def _authorize(self, peer: Peer, wanted: report.AuthorizationWanted, now: Now) -> None:
        address = wanted.remote.address
        entry = peer.entry(address, self._own)
        if entry is None:
            why = Unauthorized(f"nothing is known that would prove {peer.name} at {address}")
            self.ike.authorized(wanted.request, why, now)
        else:
            self.ike.authorized(wanted.request, entry, now)

    def _established(self, sa: IkeSA, now: Now) -> None:
        """What the DNS said when it began may have been taken back meanwhile."""
        peer = self._peer_of(sa)
        if peer is not None and peer.lookup is not None:
            self._check_standing(peer, sa, now)

    def _peer_of(self, sa: IkeSA) -> Peer | None:
        if sa.peer is None:
            return None
        identity = sa.peer.identity
        return next((peer for peer in self._peers if peer.identity == identity), None)

    def _child_up(self, sa: IkeSA) -> None:
        peer = self._peer_of(sa)
        if peer is not None:
            unsettled = peer.refused or not peer.reached
            peer.succeeded()
            if unsettled:
                self._sync(peer)
            self._answer_connects(peer, True, f"{peer.name} at {sa.remote.address} is {_level(sa)}, {sa.suite}")

    def _attempt_failed(self, sa: IkeSA, reason: str, now: Now) -> None:
        peer = self._peer_of(sa)
        if peer is not None and not any(other.children for other in self.ike.of_peer(peer.identity)):
            if not sa.authenticated or sa.state is not State.CLOSED:
                peer.failed(reason, now.monotonic)
                self._notice("peer.failed", ("peer", peer.name), ("reason", reason), grave=True)
                for other in self._peers:
                    if other.contested:
                        self._sync(other)
            if sa.authenticated is None or not self._busy_with(peer):
                self._answer_connects(peer, False, f"{peer.name}: {reason}")

    # --- commands ---

    def _connect(self, request: int, name: str, now: Now) -> None:
        try:
            peer = self._find(name) or self._add((Rule(host_name(name)),))
        except BadName as error:
            self._effects.append(Reply(request, False, str(error)))
            return
        peer.connects.append(request)
        peer.not_before = 0.0
        if peer.lookup is not None and peer.lookup.binding is None:
            if not peer.lookup.asking:
                self._effects += peer.lookup.start(now)
        else:
            self._start(peer, now)

    def _disconnect(self, request: int, name: str, now: Now) -> None:
        peer = self._find(name)
        sas = self.ike.of_peer(peer.identity) if peer is not None else []
        for sa in sas:
            self.ike.delete(sa, now)
        text = f"{name}: {len(sas)} IKE SAs deleted; its policy stays" if sas else f"{name} is not connected"
        self._effects.append(Reply(request, bool(sas), text))

    def _rekey(self, request: int, name: str, ike: bool, now: Now) -> None:
        peer = self._find(name)
        sas = self.ike.of_peer(peer.identity) if peer is not None else []
        for sa in sas:
            self.ike.rekey(sa, now, ike=ike)
        self._effects.append(Reply(request, bool(sas), f"{name}: rekeying" if sas else f"{name} is not connected"))

    def _find(self, name: str) -> Peer | None:
        canonical = name.rstrip(".").lower()
        return next((peer for peer in self._peers if peer.name == canonical), None)

    def _answer_connects(self, peer: Peer, ok: bool, text: str) -> None:
        self._effects += [Reply(request, ok, text) for request in peer.connects]
        peer.connects.clear()

    def _add(self, rules: tuple[Rule, ...]) -> Peer:
        lookup = None
        rule = rules[0]
        if rule.require is Assurance.NAMED and rule.name is not None:
            lookup = NameLookup(rule.name, lambda: next(self._numbers), self._entropy, self._own)
        name = str(rule.peer)
        peer = Peer(len(self._peers) + 1, rules, lookup, self._secrets.pinned.get(name), self._secrets.shared.get(name))
        self._peers.append(peer)
        return peer

    # --- telling ---

    def _status(self, now: Now) -> dict[str, object]:
        return {
            "name": self._config.host.name,
            "plane": self._plane.value,
            "addresses": [str(address) for address in self._own],
            "peers": [self._peer_status(peer, now) for peer in self._peers],
        }

    def _peer_status(self, peer: Peer, now: Now) -> dict[str, object]:
        sas = [sa for sa in self.ike.of_peer(peer.identity) if sa.state is State.ESTABLISHED]
        level = max((_level(sa) for sa in sas if sa.children), default=None)
        return {
            "peer": peer.name,
            "require": str(peer.rule.require),
            "below": peer.rule.below.value,
            "level": str(level) if level is not None else None,
            "addresses": [str(address) for address in peer.addresses],
            "unbound": str(peer.lookup.unbound) if peer.lookup is not None and peer.lookup.unbound else None,
            "last_failure": peer.last_failure or None,
            "ike": [_sa_status(sa, now) for sa in sas],
        }

    def _tell(self, kind: str, sa: IkeSA, *fields: tuple[str, str | int | float]) -> None:
        self._notice(kind, ("peer", sa.peer_name), ("remote", str(sa.remote)), *fields)

    def _notice(self, kind: str, *fields: tuple[str, str | int | float], grave: bool = False) -> None:
        self._effects.append(Notice(kind, fields, grave))


def _has_waiting(peer: Peer) -> bool:
    return bool(peer.waiting and peer.addresses)


def _level(sa: IkeSA) -> Assurance:
    return sa.authenticated.assurance if sa.authenticated is not None else Assurance.CLEAR


def _sa_status(sa: IkeSA, now: Now) -> dict[str, object]:
    key = sa.authenticated.verified.public if sa.authenticated is not None else None
    return {
        "spi_i": sa.spi_i.hex(),
        "spi_r": sa.spi_r.hex(),
        "initiator": sa.initiator,
        "local": str(sa.local),
        "remote": str(sa.remote),
        "level": str(_level(sa)),
        "suite": str(sa.suite),
        "scheme": sa.authenticated.verified.scheme if sa.authenticated is not None else None,
        "key": key.fingerprint.hex() if key is not None else None,
        "age": round(now.monotonic - sa.established, 3),
        "children": [
            {
                "spi_in": child.spi_in.hex(),
                "spi_out": child.spi_out.hex(),
                "suite": str(child.inbound.suite),
                "mode": child.mode.value,
                "selector": str(child.selector),
                "udp": child.inbound.encapsulation is not None,
                "age": round(now.monotonic - child.created, 3),
            }
            for child in sa.children.values()
        ],
    }
