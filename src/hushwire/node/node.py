"""A Node: one host's whole mind, stepped with (now, event), answering with effects (DESIGN.md section 1).

It routes: names to keys, keys and addresses to PAD entries and policies, packets and messages to IKE.
"""

import itertools

from hushwire.config import Config, PlaneChoice
from hushwire.entropy import Entropy
from hushwire.events import (
    Acquire,
    AddressesChanged,
    Answered,
    Asked,
    Began,
    Capture,
    Connect,
    Counted,
    Datagram,
    Disconnect,
    Effect,
    Event,
    Expire,
    FlowsFound,
    HostKey,
    Installed,
    KnownForget,
    KnownList,
    KnownPin,
    KnownShow,
    Mapping,
    Notice,
    Outcome,
    Recalled,
    Refused,
    Rekey,
    Reply,
    Signed,
    Status,
    Stop,
    SwitchKey,
    Timeout,
    TrustChanged,
    TrustRead,
    Whois,
    Why,
)  # fmt: skip
from hushwire.ike import report
from hushwire.ike.child import ChildSA
from hushwire.ike.endpoint import Endpoint
from hushwire.ike.errors import Unauthorized
from hushwire.ike.sa import IkeSA
from hushwire.ike.settings import Settings
from hushwire.ike.state import State
from hushwire.names.binding import Binding, Unbound
from hushwire.names.lookup import Change
from hushwire.names.synthetic import PoolEmpty
from hushwire.node import acquaintance, telling
from hushwire.node.alarms import Alarms
from hushwire.node.asking import ASK_AGAIN, Asking
from hushwire.node.base import base_policies
from hushwire.node.claims import Claims
from hushwire.node.commands import Commands
from hushwire.node.idle import Idle
from hushwire.node.known import KnownPeers, subject_of
from hushwire.node.latches import Latches
from hushwire.node.memory import KeyChanged, Memory
from hushwire.node.peer import Peer
from hushwire.node.peers import Blocked, Crowded, Peers, Secrets
from hushwire.node.policies import Policies
from hushwire.node.programs import Programs
from hushwire.node.proofs import Proofs
from hushwire.node.rulebook import permits_clear
from hushwire.node.seeking import Seeking
from hushwire.node.whois import Answers
from hushwire.policy.pad import Identity
from hushwire.timers import NEVER, Now
from hushwire.wire.address import IPAddress


class Node:
    """One host.  Nothing here reads a clock, draws randomness but from `entropy`, or does I/O."""

    def __init__(self, config: Config, secrets: Secrets, plane: PlaneChoice, entropy: Entropy) -> None:
        self._config = config
        numbers = itertools.count(1)
        number = numbers.__next__
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
        self._effects: list[Effect] = []
        self.ike = Endpoint(settings, entropy, numbers)
        self.peers = Peers(config, secrets, entropy, number, self._needed)
        self._alarms = Alarms(self._deadline_of)
        self._known = KnownPeers(self._emit)
        self._latches = Latches(self._known, number, self._emit)
        self._policies = Policies(self.peers, self._latches, number, self._emit)
        self._seeking = Seeking(self.ike, self.peers)
        self._idle = Idle(self.peers, self._policies, self._seeking, number, self._emit)
        self._asking = Asking(self._emit)
        self._memory = Memory(self._known, secrets.trusted)
        self._claims = Claims(config.dns.ask, self.peers, self._memory)
        self._proofs = Proofs(
            self.ike, self.peers, self._policies, self._seeking, self._memory, self._latches, self._emit
        )
        self._parked: list[tuple[Peer, report.AuthorizationWanted]] = []
        """Peers who wait for us to have looked up their name."""
        self._programs = Programs(
            config.host.name, self.peers, self._policies, self._seeking, self._idle, self._memory, self._asking,
            self._keep_current, self._emit,
        )  # fmt: skip
        self._commands = Commands(config.host.name, plane, self.ike, self.peers, self._seeking, number, self._emit)
        self._answers = Answers(
            base_policies(config), self.peers, self._policies, self._seeking, self._known, self._memory,
            self._acquire, self._emit,
        )  # fmt: skip
        self._begun = False

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
            case Installed() | Refused():
                self._installed(event, now)
            case Counted():
                self._idle.counted(event, now)
            case FlowsFound():
                self._flows_found(event, now)
            case Began(sealed, closes_flows):
                self._latches.found(sealed)
                self._memory.lets_change = closes_flows
            case Answered():
                self._answered(event, now)
            case AddressesChanged(addresses):
                self._addresses_changed(addresses, now)
            case Asked(request, name) | Capture(request, name):
                self._programs.asked(request, name, now, command=isinstance(event, Capture))
            case Connect(request, name):
                self._connect(request, name, now)
            case Disconnect() | Rekey() | SwitchKey() | TrustChanged() | Status() | Why():
                self._commands.perform(event, now)
            case Whois():
                self._answers.asked(event, now)
            case HostKey():
                self._commands.switch_key(event, now)
            case TrustRead():
                if (store := self._commands.trust_read(event)) is not None:
                    self._proofs.trust(store, now)
            case Recalled(known):
                self._known.recall(known)
            case KnownList() | KnownShow() | KnownPin() | KnownForget():
                self._effects.append(acquaintance.answer(event, self._known, now))
            case Stop():
                self.ike.stop(now)
        self._listen(now)
        for peer in [peer for peer in self.peers.touched if self._programs.waits_for(peer)]:
            self._programs.answer(peer, now)
        self._answers.look(self.peers.touched, now)
        self._set_alarms()
        effects, self._effects = self._effects, []
        return effects

    def deadline(self) -> float:
        """Monotonic time at which to step with Timeout; NEVER if nothing waits for time."""
        if not self._begun:
            return 0.0
        self._set_alarms()
        return min(self.ike.deadline(), self._alarms.next(), self._answers.deadline())

    def _set_alarms(self) -> None:
        self._alarms.touch(self.peers.touched)
        self.peers.touched.clear()

    def _deadline_of(self, peer: Peer) -> float:
        waited = self._programs.deadline_of(peer)
        when = min(peer.fall_at, peer.refresh_at, peer.idle_at, waited, *peer.leaving.values())
        if peer.lookup is not None and peer.is_kept_current:
            when = min(when, peer.lookup.deadline())
        if peer.has_waiting or self._seeking.wants_start(peer):
            when = min(when, peer.not_before)
        return when

    def _begin(self, now: Now) -> None:
        self._policies.sync_all(now)
        for peer in self.peers:
            self._asking.look_up(peer, now)

    def _timeout(self, now: Now) -> None:
        self.ike.timeout(now)
        for peer in self._alarms.due(now.monotonic):
            if self.peers.by_reqid(peer.reqid) is peer:
                self._timeout_of(peer, now)

    def _timeout_of(self, peer: Peer, now: Now) -> None:
        if peer.is_kept_current:
            self._keep_current(peer, now)
        if peer.fall_at <= now.monotonic:
            peer.fall()
            if peer.fallen:
                was = self._memory.expired(peer, now.wall)
                reason = peer.last_failure or "no answer yet"
                self._notice("peer.clear", ("peer", peer.name), ("reason", reason), *was, grave=bool(was))
            self._policies.sync(peer, now)
        if peer.refresh_at <= now.monotonic:
            self._policies.sync(peer, now)
        if any(until <= now.monotonic for until in peer.leaving.values()):
            for sa in self._seeking.standing(peer):
                self._proofs.check(peer, sa, now)
            peer.leaving = {address: until for address, until in peer.leaving.items() if until > now.monotonic}
            self._policies.sync(peer, now)
        if peer.not_before <= now.monotonic:
            self._acquire_waiting(peer, now)
        if self._seeking.wants_start(peer) and peer.not_before <= now.monotonic:
            self._start(peer, now)
        if peer.idle_at <= now.monotonic:
            self._idle.look(peer, now)
            self._policies.settle_contested(now)
            for sa in self._seeking.sas_of(peer) if peer.asleep else ():
                self.ike.delete(sa, now)

    # --- names ---

    def _keep_current(self, peer: Peer, now: Now) -> None:
        """Ask for what is not known, or not any more: while a peer sleeps nobody does."""
        if peer.lookup is None:
            return
        if peer.lookup.deadline() <= now.monotonic:
            self._looked_up(peer, self._asking.timeout(peer, now), now)
        elif peer.lookup.binding is None and peer.lookup.unbound is None:
            self._asking.look_up(peer, now)

    def _answered(self, event: Answered, now: Now) -> None:
        if self._commands.answered(event, now):
            return
        peer = self._asking.answered(event)
        if peer is None or peer.lookup is None or self.peers.by_reqid(peer.reqid) is not peer:
            return
        change = peer.lookup.answered(event, now)
        if not peer.lookup.asking:
            self._looked_up(peer, change, now)

    def _looked_up(self, peer: Peer, change: Change | None, now: Now) -> None:
        """A name's answers are complete, or its binding has ended."""
        if change is not None:
            self._tell_change(peer, change)
            self._moved(peer, change, now)
        if peer.denied:
            peer.fall_at = NEVER
        if peer.lookup is not None and not peer.known and not peer.lookup.asking:
            self._answer_connects(peer, False, str(peer.lookup.unbound))
        self._acquire_waiting(peer, now)
        for parked in [parked for parked in self._parked if parked[0] is peer]:
            self._parked.remove(parked)
            self._authorize(peer, parked[1], now)
        if change is not None and peer.known and (peer.connects or (peer.addresses and peer.starts_by_itself)):
            self._start(peer, now)
        self._programs.looked_up(peer, now)

    def _moved(self, peer: Peer, change: Change, now: Now) -> None:
        """What stands for a name follows what the DNS says of it now."""
        if left_out := peer.admit():
            addresses = ", ".join(map(str, left_out))
            self._notice("name.crowded", ("name", change.name), ("left out", addresses), grave=True)
        if isinstance(change.after, Binding) or peer.may_be_anybody:
            peer.leave(change.removed, now.monotonic)
        try:
            self.peers.make_synthetic(peer)
        except PoolEmpty as error:
            self._notice("name.crowded", ("name", change.name), ("reason", str(error)), grave=True)
        for sa in self._seeking.standing(peer):
            self._proofs.check(peer, sa, now)
        self._policies.sync(peer, now)
        self.peers.give_back_synthetic(peer)
        self._policies.settle_contested(now)

    def _tell_change(self, peer: Peer, change: Change) -> None:
        if isinstance(change.after, Unbound):
            outcome, grave = ("outcome", change.after.outcome.value), not (peer.denied and permits_clear(peer.rules))
            self._notice("name.unbound", ("name", change.name), outcome, ("reason", change.after.reason), grave=grave)
        else:
            addresses = ", ".join(map(str, change.after.addresses))
            keys = ", ".join(key.fingerprint.hex()[:16] for key in change.after.keys)
            self._notice("name.bound", ("name", change.name), ("addresses", addresses), ("keys", keys))

    # --- policies ---

    def _addresses_changed(self, addresses: tuple[IPAddress, ...], now: Now) -> None:
        wanted = self._config.host.addresses
        self.peers.own = tuple(address for address in addresses if not wanted or address in wanted)
        for peer in self.peers:
            if peer.lookup is not None:
                peer.lookup.own = addresses
        self._policies.sync_all(now)
        for sa in self.ike.sas:
            if sa.local.address not in addresses:
                self.ike.delete(sa, now)

    def _installed(self, event: Installed | Refused, now: Now) -> None:
        if isinstance(event, Refused):
            self._notice("refused", ("reason", event.reason), grave=True)
            self._commands.refused(event)
            self._idle.refused(event)
            self._latches.refused(event.request)
        self._policies.answered(event)
        self.ike.installed(event, now)

    def _flows_found(self, event: FlowsFound, now: Now) -> None:
        self._latches.closed(event)
        for sa in self._seeking.sas_of(peer) if (peer := self._idle.found(event, now)) is not None else ():
            self.ike.delete(sa, now)

    # --- packets and peers ---

    def _acquire(self, event: Acquire, now: Now) -> None:
        peer = self.peers.by_reqid(event.reqid)
        if peer is None or peer.is_trap or not peer.is_met_at(event.flow.remote):
            # Of a trap, or of a policy that an earlier run left for somebody who has no peer yet.
            self._acquire_for_many(event, now)
            return
        self._idle.used(peer, now.monotonic)
        self._keep_current(peer, now)
        peer.begun(now.monotonic)
        if peer.known and peer.not_before <= now.monotonic:
            self._seeking.seek(peer, event, now)
        else:
            self._seeking.wait(peer, event)

    def _acquire_for_many(self, event: Acquire, now: Now) -> None:
        """A packet for an address that a rule about many speaks of: it gets a peer, and policies, of its own."""
        try:
            peer = self.peers.of_address(event.flow.remote)
        except Crowded as error:
            self._notice("peers.crowded", ("reason", str(error)), grave=True)
            return
        if peer is None:
            return
        self._memory.recall(peer, now.wall)
        peer.begun(now.monotonic)
        self._policies.sync(peer, now)
        if not peer.protects:
            self._idle.used(peer, now.monotonic)
        else:
            self._acquire(Acquire(event.flow, peer.reqid, event.sequence), now)

    def _acquire_waiting(self, peer: Peer, now: Now) -> None:
        """Look again at the packets that came too early, once something is known of where the peer is."""
        if peer.has_waiting:
            waiting, peer.waiting = peer.waiting, {}
            for acquire in waiting.values():
                self._acquire(acquire, now)

    def _start(self, peer: Peer, now: Now) -> None:
        """Seek a peer by itself."""
        if self._seeking.serves(peer):
            self._answer_connects(peer, True, f"{peer.name} is connected already")
            return
        self._seeking.start(peer, now)
        if not self._seeking.tries(peer):
            self._answer_connects(peer, False, f"{peer.name}: {peer.last_failure}")

    # --- what IKE tells ---

    def _listen(self, now: Now) -> None:
        while told := self.ike.drain():
            for item in told:
                match item:
                    case report.AuthorizationWanted():
                        self._authorization_wanted(item, now)
                    case report.Proved(sa):
                        self._proved(sa, now)
                    case report.Established(sa):
                        level, who = ("level", str(telling.level(sa))), ("identity", str(sa.peer and sa.peer.identity))
                        self._tell("ike.established", sa, ("suite", str(sa.suite)), level, who)
                        self._established(sa, now)
                    case report.Replaced(_, new):
                        self._tell("ike.rekeyed", new)
                    case report.ChildUp(sa, child):
                        self._child_up(sa, child, now)
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

    def _authorization_wanted(self, wanted: report.AuthorizationWanted, now: Now) -> None:
        try:
            peer = self._claims.search(wanted, now.monotonic)
        except Unauthorized as error:
            self.ike.authorized(wanted.request, error, now)
            return
        self._idle.used(peer, now.monotonic)
        self._memory.recall(peer, now.wall)
        self._keep_current(peer, now)
        if peer.lookup is not None and self._worth_asking(peer, wanted, now):
            self._parked.append((peer, wanted))
            self._asking.look_up(peer, now)
        else:
            self._authorize(peer, wanted, now)

    def _worth_asking(self, peer: Peer, wanted: report.AuthorizationWanted, now: Now) -> bool:
        """Whether the DNS may by now say what it did not: that the peer is where it speaks from."""
        assert peer.lookup is not None
        if peer.lookup.binding is not None and (peer.rule.roams or wanted.remote.address in peer.addresses):
            return False
        if peer.lookup.asking or (peer.lookup.binding is None and peer.lookup.unbound is None):
            return True
        if peer.lookup.unbound is not None and peer.lookup.unbound.outcome is not Outcome.ERROR:
            # That it has no key is believed for as long as its owner says (RFC 2308 s5).
            return False
        return peer.lookup.asked_at + ASK_AGAIN <= now.monotonic

    def _authorize(self, peer: Peer, wanted: report.AuthorizationWanted, now: Now) -> None:
        try:
            self.ike.authorized(wanted.request, self._claims.entry(peer, wanted), now)
        except Unauthorized as error:
            if isinstance(error, KeyChanged):
                self._effects.append(error.notice)
            self.ike.authorized(wanted.request, error, now)

    def _proved(self, sa: IkeSA, now: Now) -> None:
        """It has proved its key: policies may stand there."""
        peer, where = self._seeking.peer_of(sa), sa.remote.address
        if peer is None:
            return
        if peer.is_everywhere(where):
            self._notice("name.crowded", ("name", peer.name), ("left out", str(where)), grave=True)
        elif peer.proved(where, now.monotonic):
            self._seeking.proved(sa)
            self._claims.proved(sa)
            stands = [other.remote.address for other in self._seeking.standing(peer)]
            for place in peer.forget_places(stands, now.monotonic):
                self._policies.leave(peer, place)
            self._policies.sync(peer, now)
        self._proofs.latch(peer, sa, now)

    def _established(self, sa: IkeSA, now: Now) -> None:
        """What the DNS said when it began may have been taken back meanwhile."""
        self._proved(sa, now)
        if (peer := self._seeking.peer_of(sa)) is not None:
            self._proofs.check(peer, sa, now)

    def _child_up(self, sa: IkeSA, child: ChildSA, now: Now) -> None:
        peer = self._seeking.peer_of(sa)
        if peer is None:
            return
        self._latches.carried(self._policies.remotes(peer, sa.remote.address), child)
        unsettled = peer.refused or not peer.reached or peer.fallen
        peer.succeeded()
        for acquire in self._seeking.found(peer, sa, now):
            self._acquire(acquire, now)
        self._idle.used(peer, now.monotonic)
        assert sa.authenticated is not None
        if (notice := self._memory.met(peer, sa.authenticated, now.wall)) is not None:
            self._effects.append(notice)
        if unsettled:
            self._policies.sync(peer, now)
        level = telling.level(sa)
        self._answer_connects(peer, True, f"{peer.name} at {sa.remote.address} is {level}, {sa.suite}")

    def _attempt_failed(self, sa: IkeSA, reason: str, now: Now) -> None:
        peer = self._seeking.peer_of(sa)
        if peer is None:
            return
        if sa.initiator and not sa.authenticated:
            peer.seek_again(sa.remote.address, now.monotonic)
        if self._seeking.serves(peer):
            return
        if not sa.authenticated or sa.state is not State.CLOSED:
            peer.failed(reason, now.monotonic)
            self._notice("peer.failed", ("peer", peer.name), ("reason", reason), grave=True)
            self._policies.settle_contested(now)
        if not sa.authenticated or sa.state is not State.CLOSED or not self._seeking.sas_of(peer):
            self._answer_connects(peer, False, f"{peer.name}: {reason}")

    # --- commands ---

    def _connect(self, request: int, name: str, now: Now) -> None:
        try:
            peer = self.peers.called(subject_of(name))
        except (ValueError, Crowded, Blocked) as error:
            self._effects.append(Reply(request, False, str(error)))
            return
        self._memory.recall(peer, now.wall)
        self._idle.used(peer, now.monotonic)
        self._policies.sync(peer, now)
        peer.connects.append(request)
        peer.not_before = 0.0
        if peer.lookup is not None and peer.lookup.binding is None and not self._seeking.serves(peer):
            self._asking.look_up(peer, now)
        else:
            self._start(peer, now)

    def _answer_connects(self, peer: Peer, ok: bool, text: str) -> None:
        self._effects += [Reply(request, ok, text) for request in peer.connects]
        peer.connects.clear()

    # --- telling ---

    def _tell(self, kind: str, sa: IkeSA, *fields: tuple[str, str | int | float]) -> None:
        self._notice(kind, ("peer", sa.peer_name), ("remote", str(sa.remote)), *fields)

    def _notice(self, kind: str, *fields: tuple[str, str | int | float], grave: bool = False) -> None:
        self._effects.append(Notice(kind, fields, grave))

    def _needed(self) -> set[int]:
        """With whom there is an IKE SA, whatever its state, and whom somebody waits for."""
        waiting = self._programs.reqids() | {peer.reqid for peer, _ in self._parked}
        return waiting | {sa.peer.reqid for sa in self.ike.sas if sa.peer is not None}

    def _emit(self, effect: Effect) -> None:
        self._effects.append(effect)
