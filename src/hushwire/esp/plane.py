"""Plane: the SPD and the SAD at work (RFC 4301 s5), with the contract of the kernel's plane (DESIGN.md section 6).

A value stepped from outside: `install` takes requests, `outbound` and `inbound` take packets, `timeout` takes time.
Each answers with a list of outputs, to be performed in order.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import heappop, heappush
from typing import TypeVar

from hushwire.crypto.secret import Secret
from hushwire.entropy import Entropy
from hushwire.esp.hold import Full, Hold
from hushwire.esp.packet import FlowKey, Packet, flow_key, read_packet
from hushwire.esp.reassembly import Lost, Reassembly
from hushwire.esp.replay import Replayed
from hushwire.esp.sad import Age, Inbound, Outbound
from hushwire.esp.spd import SPD
from hushwire.esp.transform import HEADER, BadFrame, Unsupported
from hushwire.esp.translate import Foreign, quoted, translate
from hushwire.events import (
    Acquire,
    CloseFlows,
    Count,
    Counted,
    DeletePolicy,
    DeleteSA,
    Expire,
    Installed,
    InstallPolicy,
    InstallSA,
    Mapping,
    Refused,
)  # fmt: skip
from hushwire.policy.sad import SA, Direction, Mode, SAName
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Action, Policy
from hushwire.timers import NEVER, Now
from hushwire.wire.address import Endpoint, address_from_octets
from hushwire.wire.cursor import DecodeError
from hushwire.wire.registry import IPProtocol
from hushwire.wire.udp import KEEPALIVE


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send an ESP packet, in UDP unless the ports are 0."""

    local: Endpoint
    remote: Endpoint
    data: bytes


@dataclass(frozen=True, slots=True)
class Deliver:
    """Give an IP packet that was allowed in to the host's stack."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class Bypass:
    """Send an IP packet as it is: its policy says CLEAR."""

    packet: bytes


Request = InstallSA | DeleteSA | InstallPolicy | DeletePolicy | Count | CloseFlows
Report = Acquire | Expire | Mapping | Installed | Refused | Counted
Output = Transmit | Deliver | Bypass | Report


class Cause(StrEnum):
    """Why a packet was dropped, in the names of Linux's /proc/net/xfrm_stat where it has one."""

    IN_NO_STATE = "XfrmInNoStates"
    """Unknown SPI: audited by RFC 4303 s3.4.2, here counted; a storm of them makes no event."""
    IN_PROTO = "XfrmInStateProtoError"
    """Wrong ICV or padding."""
    IN_MODE = "XfrmInStateModeError"
    """The next header does not suit the SA's mode."""
    IN_SEQUENCE = "XfrmInStateSeqError"
    """Replayed, or too old."""
    IN_EXPIRED = "XfrmInStateExpired"
    IN_MISMATCH = "XfrmInStateMismatch"
    """The inner packet is not of the SA's selector (RFC 4301 s5.2 step 4), or quotes one of others (s6.2)."""
    IN_TEMPLATE = "XfrmInTmplMismatch"
    """The policy wants another SA, or any at all."""
    IN_NO_POLICY = "XfrmInNoPols"
    IN_BLOCK = "XfrmInPolBlock"
    IN_HEADER = "XfrmInHdrError"
    """The inner octets are no IP packet."""
    OUT_HEADER = "XfrmOutError"
    """The octets are no IP packet."""
    OUT_NO_POLICY = "XfrmOutPolError"
    """No policy speaks of it: RFC 4301 s5.1 discards."""
    OUT_BLOCK = "XfrmOutPolBlock"
    OUT_NO_STATE = "XfrmOutNoStates"
    """No SA, and no room to wait for one."""
    OUT_FRAGMENT = "IpReasmFails"
    """A fragment whose packet cannot be made whole."""
    OUT_SEQUENCE = "XfrmOutStateSeqError"
    """The sequence numbers are used up."""
    OUT_EXPIRED = "XfrmOutStateExpired"
    ACQUIRE = "XfrmAcquireError"
    """Waited for an SA in vain."""


CACHED_FLOWS = 1 << 14
"""Flows a cache holds before it is emptied."""
REMEMBERED_KEYS = 1 << 16
"""Keys remembered after their SAs are gone."""
State = TypeVar("State", Outbound, Inbound)


class Plane:
    """Userspace ESP of one host."""

    def __init__(self, entropy: Entropy, bare: bool = False) -> None:
        self.counters: Counter[str] = Counter()
        """Dropped packets by Cause."""
        self.routes: dict[FlowKey, Outbound] = {}
        """The SA of each plain flow seen since something was last installed or deleted."""
        self.admitted: set[FlowKey] = set()
        """The (SPI, flow) pairs that passed the inbound checks since then."""
        self._entropy = entropy
        self._bare = bare
        self._policies = {Direction.OUT: SPD(), Direction.IN: SPD()}
        self._outbound: dict[SAName, Outbound] = {}
        self._carriers: dict[int, list[Outbound]] = {}
        self._inbound: dict[int, Inbound] = {}
        self._arrivals: dict[int, list[Inbound]] = {}
        """By reqid."""
        self._keys: dict[bytes, Outbound | Inbound | None] = {}
        self._key_of_prints = entropy.private(32)
        self._reassembly = Reassembly()
        self._hold = Hold()
        self._ends: list[tuple[float, int, Outbound | Inbound]] = []
        self._ends_pushed = 0
        self._lapses: dict[tuple[Direction, Selector], float] = {}
        """When policies that do not live for ever end.  The next one is found by the heap, in which are older words."""
        self._next_lapses: list[tuple[float, int, Direction, Selector]] = []

    # --- Requests ---------------------------------------------------------------------------------------------------

    def install(self, request: Request, now: Now) -> list[Output]:
        """Do what a request asks; packets that were waiting for it come out."""
        if isinstance(request, Count):
            return [Counted(request.request, sum(map(self._packets, request.sas)))]
        if isinstance(request, CloseFlows):
            # RFC 5660 s2: what they have said and nobody has got is for nobody else.
            self._hold.release(lambda held: any(held.acquire.flow.remote in remote for remote in request.remotes))
            return []
        self.routes.clear()
        self.admitted.clear()
        match request:
            case InstallSA(number, sa):
                try:
                    self._install_sa(sa, now)
                except (Unsupported, Reused) as error:
                    return [Refused(number, str(error))]
                sequence, reqid, selector = sa.acquire, sa.reqid, sa.selector
                waiting = self._hold.release(
                    lambda held: held.acquire.sequence == sequence
                    or (held.policy.reqid == reqid and selector.matches(_on_the_wire(held.acquire.flow, held.policy)))
                ) if sa.direction is Direction.OUT else []  # fmt: skip
            case DeleteSA(name):
                self._forget(self._outbound.get(name))
                state = self._inbound.get(name.spi)
                self._forget(state if state and state.name == name else None)
                return []
            case InstallPolicy(number, policy):
                if policy.real is not None and policy.mode is not Mode.TRANSPORT:
                    return [Refused(number, "synthetic addresses go with transport mode only")]
                before = self._policies[policy.direction].at(policy.selector)
                self._policies[policy.direction].install(policy)
                self._show(before, policy)
                self._await_lapse(policy, now)
                waiting = self._release_changed()
            case DeletePolicy(selector, direction):
                before = self._policies[direction].at(selector)
                self._policies[direction].delete(selector)
                self._show(before)
                self._lapses.pop((direction, selector), None)
                return [output for packet in self._release_changed() for output in self.outbound(packet, now)]
        outputs: list[Output] = [Installed(number)]
        for packet in waiting:
            outputs += self.outbound(packet, now)
        return outputs

    def _install_sa(self, sa: SA, now: Now) -> None:
        if sa.spi <= 255:
            raise Unsupported(f"SPI {sa.spi} is reserved")
        if sa.encapsulation is None and not self._bare:
            raise Unsupported("userspace ESP goes in UDP only")
        state = self._unused(sa)
        if state is None:
            if sa.direction is Direction.IN and sa.spi in self._inbound:
                raise Reused(f"SPI {sa.spi:#010x} is in use")
            kind = Outbound if sa.direction is Direction.OUT else Inbound
            state = self._remember(kind(sa, self._entropy, now))
        else:
            self._leave(state)
            state.address(sa)
        if isinstance(state, Outbound):
            self._outbound[state.name] = state
            self._carriers.setdefault(sa.reqid, []).append(state)
        else:
            self._inbound[sa.spi] = state
            self._arrivals.setdefault(sa.reqid, []).append(state)
        self._bind(state)
        self._await_end(state)

    def _unused(self, sa: SA) -> Outbound | Inbound | None:
        """None if the key is new; the live SA if `sa` is the same one with other addresses.  Raises Reused.

        DESIGN.md law 5: a key that is installed a second time starts its sequence numbers, and so its nonces, and its
        replay window anew.  Each key has one SA, once.
        """
        fingerprint = self._fingerprint(sa.encr_key)
        if fingerprint not in self._keys:
            return None
        state = self._keys[fingerprint]
        if state is None or (state.sa.spi, state.sa.direction, state.sa.suite) != (sa.spi, sa.direction, sa.suite):
            raise Reused("its key was used before")
        return state

    def _remember(self, state: Outbound | Inbound) -> Outbound | Inbound:
        self._keys[self._fingerprint(state.sa.encr_key)] = state
        if len(self._keys) > REMEMBERED_KEYS + len(self._outbound) + len(self._inbound):
            del self._keys[next(key for key, state in self._keys.items() if state is None)]
        return state

    def _fingerprint(self, key: Secret) -> bytes:
        return hashlib.blake2b(key.expose(), digest_size=16, key=self._key_of_prints).digest()

    def _forget(self, state: Outbound | Inbound | None) -> None:
        if state is not None:
            self._leave(state)
            self._keys[self._fingerprint(state.sa.encr_key)] = None
            self.routes.clear()

    def _leave(self, state: Outbound | Inbound) -> None:
        if isinstance(state, Inbound):
            del self._inbound[state.sa.spi]
            _remove(self._arrivals, state)
            return
        del self._outbound[state.name]
        _remove(self._carriers, state)

    def _show(self, *policies: Policy | None) -> None:
        """Policies that came, changed or went may have bound SAs to synthetic addresses, or freed them."""
        for policy in policies:
            if policy is not None and policy.real is not None:
                for state in (*self._carriers.get(policy.reqid, ()), *self._arrivals.get(policy.reqid, ())):
                    self._bind(state)

    def _bind(self, state: Outbound | Inbound) -> None:
        """Find the synthetic address that stands for an SA's peer, if its policies have one (DESIGN.md law 2)."""
        made = self._policies[state.sa.direction].made_for(state.sa.reqid, state.real) if not state.tunnel else None
        state.present(made)

    def _release_changed(self) -> list[bytes]:
        find = self._policies[Direction.OUT].find
        return self._hold.release(lambda held: find(held.acquire.flow) != held.policy)

    def _packets(self, name: SAName) -> int:
        outbound, inbound = self._outbound.get(name), self._inbound.get(name.spi)
        carried = inbound.packets if inbound is not None and inbound.name == name else 0
        return carried + (outbound.packets if outbound is not None else 0)

    # --- Time -------------------------------------------------------------------------------------------------------

    def deadline(self) -> float:
        """When to call timeout: monotonic time, NEVER if nothing is waited for."""
        ends = self._ends[0][0] if self._ends else NEVER
        lapses = self._next_lapses[0][0] if self._next_lapses else NEVER
        return min(ends, lapses, self._hold.deadline())

    def timeout(self, now: Now) -> list[Output]:
        """Let lifetimes of SAs and policies end, and packets that waited too long go."""
        outputs: list[Output] = []
        while self._ends and self._ends[0][0] <= now.monotonic:
            state = heappop(self._ends)[2]
            if self._keys.get(self._fingerprint(state.sa.encr_key)) is state:
                self._grow(state, now, outputs)
                if state.age is not Age.HARD:
                    self._await_end(state)
        while self._next_lapses and self._next_lapses[0][0] <= now.monotonic:
            when, _, direction, selector = heappop(self._next_lapses)
            if self._lapses.get((direction, selector)) == when:
                outputs += self.install(DeletePolicy(selector, direction), now)
        self.counters[Cause.ACQUIRE] += len(self._hold.release(lambda held: held.until <= now.monotonic))
        return outputs

    def _await_lapse(self, policy: Policy, now: Now) -> None:
        if not policy.lifetime:
            self._lapses.pop((policy.direction, policy.selector), None)
            return
        when = self._lapses[policy.direction, policy.selector] = now.monotonic + policy.lifetime
        self._ends_pushed += 1
        heappush(self._next_lapses, (when, self._ends_pushed, policy.direction, policy.selector))

    def _await_end(self, state: Outbound | Inbound) -> None:
        when = state.deadline()
        if when < NEVER:
            self._ends_pushed += 1
            heappush(self._ends, (when, self._ends_pushed, state))

    def _grow(self, state: Outbound | Inbound, now: Now, outputs: list[Output]) -> None:
        age = state.grow(now)
        if age is not None:
            outputs.append(Expire(state.name, age is Age.HARD))
        if age is Age.HARD:
            self._forget(state)

    # --- Outbound (RFC 4301 s5.1) -----------------------------------------------------------------------------------

    def outbound(self, packet: bytes, now: Now) -> list[Output]:
        """What becomes of a packet that the host wants to send."""
        try:
            inner = read_packet(packet)
            if inner.fragment:
                whole = self._reassembly.add(packet, inner)
                return self.outbound(whole, now) if whole else []
        except DecodeError:
            return self._drop(Cause.OUT_HEADER)
        except Lost:
            return self._drop(Cause.OUT_FRAGMENT)
        flow = inner.flow(Direction.OUT)
        policy = self._policies[Direction.OUT].find(flow)
        if policy is None:
            return self._drop(Cause.OUT_NO_POLICY)
        if policy.action is Action.BLOCK:
            return self._drop(Cause.OUT_BLOCK)
        if policy.action is Action.CLEAR:
            return [Bypass(packet)]
        outputs: list[Output] = []
        sa = self._carrier(policy, _on_the_wire(flow, policy), now, outputs)
        if sa is None:
            return outputs + self._wait(policy, flow, packet, now)
        key = flow_key(packet)
        if policy.real is not None:
            try:
                packet = translate(packet, flow.remote.packed, policy.real.packed)
            except DecodeError:
                return outputs + self._drop(Cause.OUT_HEADER)
        if key is not None and sa.made == (flow.remote if policy.real is not None else None):
            if len(self.routes) >= CACHED_FLOWS:
                self.routes.clear()
            self.routes[key] = sa
        outputs.append(Transmit(sa.near, sa.far, _sealed(sa, packet, inner)))
        return outputs

    def _ready(self, sa: Outbound, now: Now, outputs: list[Output]) -> bool:
        """Whether an SA at one of its marks may seal once more."""
        sequences_used_up = sa.exhausted()
        self._grow(sa, now, outputs)
        if sa.age is Age.HARD:
            self.counters[Cause.OUT_SEQUENCE if sequences_used_up else Cause.OUT_EXPIRED] += 1
        return sa.age is not Age.HARD

    def _carrier(self, policy: Policy, flow: Flow, now: Now, outputs: list[Output]) -> Outbound | None:
        """The newest SA for it: after a rekey the old one only receives."""
        for sa in reversed(self._carriers.get(policy.reqid, ())[:]):
            if sa.sa.mode is not policy.mode or not sa.carries(flow):
                continue
            if (sa.packets < sa.packets_mark and sa.octets < sa.octets_mark) or self._ready(sa, now, outputs):
                return sa
        return None

    def _wait(self, policy: Policy, flow: Flow, packet: bytes, now: Now) -> list[Output]:
        try:
            acquire, held = self._hold.wait(policy, flow, packet, now)
        except Full:
            return self._drop(Cause.OUT_NO_STATE)
        if not held:
            self.counters[Cause.OUT_NO_STATE] += 1
        return [acquire] if acquire else []

    # --- Inbound (RFC 4301 s5.2) ------------------------------------------------------------------------------------

    def inbound(self, datagram: bytes, local: Endpoint, remote: Endpoint, now: Now) -> list[Output]:
        """What becomes of an ESP packet from the network."""
        outputs: list[Output] = []
        opened = self.open(memoryview(bytearray(datagram)), remote, now, outputs)
        if opened is None:
            return outputs
        sa, next_header, payload = opened
        if sa.tunnel:
            packet = payload
        else:
            shown = self.shown(sa, next_header, payload)
            if shown is None:
                return outputs
            payload = shown
            sa.header.mend_checksum(next_header, payload)
            packet = memoryview(sa.header.write(next_header, len(payload)) + payload)
        inner = self.admit(sa, packet)
        if inner is not None:
            outputs.append(Deliver(bytes(packet[: inner.length])))
        return outputs

    def inbound_clear(self, packet: bytes) -> list[Output]:
        """What becomes of a packet that came from the network in clear (RFC 4301 s5.2 step 3)."""
        try:
            policy = self._policies[Direction.IN].find(read_packet(packet).flow(Direction.IN))
        except DecodeError:
            return self._drop(Cause.IN_HEADER)
        if policy is None:
            return self._drop(Cause.IN_NO_POLICY)
        if policy.action is Action.PROTECT and not policy.admits_clear:
            return self._drop(Cause.IN_TEMPLATE)
        if policy.action is Action.BLOCK:
            return self._drop(Cause.IN_BLOCK)
        return [Deliver(packet)]

    def open(
        self, frame: memoryview, remote: Endpoint, now: Now, outputs: list[Output]
    ) -> tuple[Inbound, int, memoryview] | None:
        """The SA, next header and payload of an ESP packet, opened in place; None if there is nothing to deliver."""
        if len(frame) < 8:
            if bytes(frame) != KEEPALIVE:  # RFC 3948 s2.3: a NAT keepalive says nothing.
                self.counters[Cause.IN_HEADER] += 1
            return None
        spi, low = HEADER.unpack_from(frame)
        sa = self._inbound.get(spi)
        if sa is None:
            self.counters[Cause.IN_NO_STATE] += 1
            return None
        if sa.packets >= sa.packets_mark or sa.octets >= sa.octets_mark:
            self._grow(sa, now, outputs)
            if sa.age is Age.HARD:
                self.counters[Cause.IN_EXPIRED] += 1
                return None
        try:
            next_header, payload = sa.open(frame, low)
        except Replayed:
            self.counters[Cause.IN_SEQUENCE] += 1
            return None
        except BadFrame:
            self.counters[Cause.IN_PROTO] += 1
            return None
        # DESIGN.md law 6: only what was whole and new says where the peer is; and here it is but said.  A packet
        # that was overtaken says nothing, so that two paths do not swap for ever.
        if remote is not sa.reported and sa.fresh():
            if remote not in (sa.reported, sa.near):
                outputs.append(Mapping(sa.name, remote))
            sa.reported = remote
        if next_header == IPProtocol.NO_NEXT_HEADER:  # RFC 4303 s2.6: a dummy packet is dropped without ado.
            return None
        if sa.tunnel and next_header not in (IPProtocol.IPV4, IPProtocol.IPV6):
            self.counters[Cause.IN_MODE] += 1
            return None
        return sa, next_header, payload

    def shown(self, sa: Inbound, next_header: int, payload: memoryview) -> memoryview | None:
        """The payload under the source address that programs know; None if it is not for them.

        TCP and UDP need nothing but another header, since their checksums are made anew in any case.
        """
        if sa.made is None or next_header in (IPProtocol.TCP, IPProtocol.UDP):
            return payload
        packet = sa.sent_header.write(next_header, len(payload)) + payload
        try:
            told = translate(packet, sa.real.packed, sa.made.packed)
        except DecodeError as error:
            self.counters[Cause.IN_MISMATCH if isinstance(error, Foreign) else Cause.IN_HEADER] += 1
            return None
        return memoryview(bytearray(told))[sa.header.size :]

    def admit(self, sa: Inbound, packet: memoryview) -> Packet | None:
        """The inner packet, if its SA and the policies let it in."""
        try:
            inner = read_packet(packet)
        except DecodeError:
            self.counters[Cause.IN_HEADER] += 1
            return None
        flow = inner.flow(Direction.IN)
        sent = flow if sa.made is None else replace(flow, remote=sa.real)
        if not sa.sa.selector.matches(sent) or (sa.made is None and self._meddles(packet)):
            self.counters[Cause.IN_MISMATCH] += 1
            return None
        policy = self._policies[Direction.IN].find(flow)
        if policy is None:
            self.counters[Cause.IN_NO_POLICY] += 1
        elif policy.action is Action.BLOCK:
            self.counters[Cause.IN_BLOCK] += 1
        elif policy.action is not Action.PROTECT or (policy.reqid, policy.mode) != (sa.sa.reqid, sa.sa.mode):
            self.counters[Cause.IN_TEMPLATE] += 1
        else:
            return inner
        return None

    def _meddles(self, packet: memoryview) -> bool:
        """Whether it is an ICMP error about a packet to a synthetic address: only its own SA brings such."""
        about = quoted(packet)
        if about is None:
            return False
        at, size = (16, 4) if len(about) >= 20 and about[0] >> 4 == 4 else (24, 16)
        return len(about) >= at + size and self._policies[Direction.OUT].is_made(
            address_from_octets(about[at : at + size])
        )

    def remember(self, key: FlowKey) -> None:
        """Let the packets of this flow in without another look, until something is installed or deleted."""
        if len(self.admitted) >= CACHED_FLOWS:  # The ports are a peer's to choose.
            self.admitted.clear()
        self.admitted.add(key)

    def _drop(self, cause: Cause) -> list[Output]:
        self.counters[cause] += 1
        return []


class Reused(Exception):
    """An SPI or a key that had its turn."""


def _remove(states: dict[int, list[State]], state: State) -> None:
    row = states[state.sa.reqid]
    row.remove(state)
    if not row:
        del states[state.sa.reqid]


def _on_the_wire(flow: Flow, policy: Policy) -> Flow:
    """What the SA's selector speaks of."""
    return flow if policy.real is None else replace(flow, remote=policy.real)


def _sealed(sa: Outbound, packet: bytes, inner: Packet) -> bytes:
    if sa.tunnel:
        header, next_header = 0, int(IPProtocol.IPV4 if inner.version == 4 else IPProtocol.IPV6)
    else:
        header, next_header = inner.header, inner.next_header
    length, start = inner.length - header, sa.transform.header
    frame = bytearray(sa.transform.sealed_length(length))
    frame[start : start + length] = packet[header : inner.length]
    sa.seal(memoryview(frame), length, next_header)
    return bytes(frame)
