"""The two planes as the parent drives them: one contract, requests in, Installed, Refused and news out.

With the kernel plane the kernel's SPD says what ESP carries.  With the userspace plane the kernel is told that a peer's
packets leave and come through the TUN and no other way: when the TUN is gone they are blocked (DESIGN.md law 1).
"""

import errno
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from hushwire.daemon.barrier import SOFT_SECONDS, Barrier, is_of_one_host
from hushwire.daemon.channel import Channel
from hushwire.daemon.guard import REQIDS, Request
from hushwire.daemon.synthetic import Names
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
from hushwire.linux.netlink import NetlinkError
from hushwire.linux.nft import NftError
from hushwire.linux.xfrm import Xfrm, XfrmEvents
from hushwire.linux.xfrm_codec import Unspoken
from hushwire.policy.sad import Direction, SAName
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import IPAddress, IPNetwork

News = Installed | Refused | Acquire | Expire | Mapping | Counted

SOFT_AGAIN = 40.0
"""Seconds after which a soft policy is installed again, well before the kernel lets it go."""
LATE = 2.0
"""Seconds after the end of a policy's lifetime, when the kernel, which counts whole ones, has surely let it go."""
TUN_MTU = 1400
"""Octets: with UDP, ESP and its trailer it fits the 1,500 of the path, in IPv4 and IPv6."""
EMPTIED_AFTER = 0.05
"""Seconds after which the kernel has surely looked at a queue again: it does so at its next tick."""
MOST_AWAITED, AWAITED = 1 << 12, 30.0
"""Addresses, and seconds."""
TUN_QUEUE = 4000
"""Packets that wait for the plane worker: at the usual 500, one TCP stream overruns it."""


class Plane(Protocol):
    """What the parent needs of either."""

    name: str

    def perform(self, *requests: Request) -> list[News]:
        """Do what the guard let through, in order; the answers that are known at once."""
        ...

    def descriptors(self) -> list[int]:
        """To poll for reading."""
        ...

    def news(self) -> list[News]:
        """What has happened since; ChannelClosed when the plane is gone."""
        ...

    def refresh(self) -> float:
        """Install again what is to stay but would not by itself.  Seconds until it is to be called next."""
        ...

    def end(self, sas: Iterable[SAName], *, stopping: bool) -> None:
        """Whoever made these SAs is gone: so must they be, and if we stop, the policies that are not to outlive us."""
        ...


class KernelPlane:
    """Linux XFRM.

    The kernel holds packets by policy.  A trap's queue goes by its first packet: when that one may go all are looked
    at again, those that still may not are lost, and their senders send again.  So we only see that the first is looked
    at as soon as something has come for an address that somebody waits for.
    """

    name = "kernel"

    def __init__(self, passing: "Passing", names: Names | None = None) -> None:
        """`names`: where a rule has synthetic addresses."""
        self._xfrm = Xfrm()
        self._names = names
        if names is not None:
            names.forget()
        self._events = XfrmEvents()
        self._passing = passing
        passing.orphan()
        self._protecting: dict[Selector, Policy] = {}
        """What holds packets until there are SAs."""
        self._traps: dict[Selector, Policy] = {}
        self._awaited: dict[IPAddress, tuple[Flow, float]] = {}
        """By remote address, flows of Acquires that a trap raised, and until when they count."""

    def perform(self, *requests: Request) -> list[News]:
        return [answer for request in requests if (answer := self._perform(request)) is not None]

    def _perform(self, request: Request) -> News | None:
        try:
            match request:
                case InstallSA(_, sa):
                    (self._names or self._xfrm).install_sa(sa)
                    if sa.direction is Direction.OUT:
                        self._look_again(sa.selector.remote)
                case DeleteSA(name):
                    self._xfrm.delete_sa(name)
                    return None
                case InstallPolicy(_, policy) if policy.real is not None and self._names is not None:
                    self._names.install(policy)
                case InstallPolicy(_, policy):
                    self._install(policy)
                case DeletePolicy(selector, direction) if self._names and self._names.delete(selector, direction):
                    return None
                case DeletePolicy(selector, direction):
                    self._xfrm.delete_policy(selector, direction)
                    self._passing.drop(selector, direction)
                    if direction is Direction.OUT:
                        self._protecting.pop(selector, None)
                        self._traps.pop(selector, None)
                    return None
                case CloseFlows(_, remotes):
                    self._drop_held(remotes)
                    return None
                case Count(number, sas):
                    return Counted(number, sum(map(self._packets, sas)))
        except (NetlinkError, NftError, Unspoken) as error:
            return Refused(getattr(request, "request", 0), str(error))
        return Installed(request.request)

    def _install(self, policy: Policy) -> None:
        self._xfrm.install_policy(_leased(policy))
        self._passing.hold(policy)
        if policy.direction is not Direction.OUT:
            return
        self._protecting.pop(policy.selector, None)
        self._traps.pop(policy.selector, None)
        if policy.action is Action.PROTECT:
            self._protecting[policy.selector] = policy
        if policy.action is Action.PROTECT and policy.selector.remote.num_addresses > 1:
            self._traps[policy.selector] = policy
        else:
            self._look_again(policy.selector.remote)

    def _look_again(self, remote: IPNetwork) -> None:
        """A trap that is installed again, in place, gives what it holds another try at once."""
        now = time.monotonic()
        for address in [address for address, (_, until) in self._awaited.items() if until < now or address in remote]:
            flow, until = self._awaited.pop(address)
            for trap in self._traps.values():
                if until >= now and trap.selector.matches(flow):
                    self._xfrm.install_policy(_leased(trap))

    def _drop_held(self, remotes: Collection[IPNetwork]) -> None:
        """What is held for a remote end is for nobody else (RFC 5660 s2): a policy that blocks empties its queue."""
        held = [
            policy for selector, policy in self._protecting.items()
            if any(remote.version == selector.remote.version and remote.overlaps(selector.remote) for remote in remotes)
        ]  # fmt: skip
        for policy in held:
            self._xfrm.install_policy(replace(policy, action=Action.BLOCK))
        if held:
            time.sleep(EMPTIED_AFTER)
        for policy in held:
            self._xfrm.install_policy(_leased(policy))

    def _packets(self, name: SAName) -> int:
        with suppress(NetlinkError):
            return self._xfrm.usage(name).packets
        return 0

    def descriptors(self) -> list[int]:
        return [self._events.fileno()]

    def news(self) -> list[News]:
        try:
            told: list[News] = list(self._events.receive())
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            # Some were lost.  An Acquire comes again with the next packet, and IKE has timers of its own.
            return []
        for each in told:
            if isinstance(each, Acquire) and self._traps and len(self._awaited) < MOST_AWAITED:
                self._awaited[each.flow.remote] = each.flow, time.monotonic() + AWAITED
        return told

    def refresh(self) -> float:
        again, over = self._passing.turn()
        with suppress(NetlinkError):
            for policy in again:
                self._xfrm.install_policy(_leased(policy))
            for policy in over:
                self._xfrm.delete_policy(policy.selector, policy.direction)
        return self._passing.wait()

    def end(self, sas: Iterable[SAName], *, stopping: bool) -> None:
        # First of all we stop to listen.  An Acquire to nobody would leave a larval SA, which keeps the next from
        # being raised for half a minute; with no listener the kernel makes none.
        self._events.close()
        with self._xfrm as xfrm:
            if stopping:
                for policy in self._passing.all():
                    xfrm.delete_policy(policy.selector, policy.direction)
            for name in sas:
                xfrm.delete_sa(name)


class UserspacePlane:
    """esp.plane in a worker, between a TUN and UDP port 4500.

    What a peer's packets may not do is go round the TUN.  In IPv4 the SPD blocks them both ways, and the TUN is exempt
    from it.  In IPv6 it cannot tell devices apart: a route into the TUN with a blackhole behind it keeps what goes
    out, and the packet filter what comes in.  All of it stands when this process and the TUN are gone.
    """

    name = "userspace"

    def __init__(self, worker: Channel, barrier: Barrier, passing: "Passing") -> None:
        self._worker = worker
        self._barrier = barrier
        self._passing = passing
        passing.orphan()

    def perform(self, *requests: Request) -> list[News]:
        refused: list[News] = []
        for_worker: list[Request] = []
        for request in requests:
            try:
                match request:
                    case InstallPolicy(_, policy):
                        self._barrier.raise_for(policy)
                        self._passing.hold(policy)
                    case DeletePolicy(selector, direction):
                        self._barrier.lower_for(selector, direction)
                        self._passing.drop(selector, direction)
            except (NetlinkError, NftError, Unspoken) as error:
                refused.append(Refused(getattr(request, "request", 0), str(error)))
            else:
                for_worker.append(request)
        if for_worker:
            # In one packet: to wake the worker costs more than what it has to do.
            self._worker.send(*for_worker)
        return refused

    def descriptors(self) -> list[int]:
        return [self._worker.fileno()]

    def news(self) -> list[News]:
        return self._worker.receive()

    def refresh(self) -> float:
        again, over = self._passing.turn()
        with suppress(NetlinkError, NftError):
            for policy in again:
                self._barrier.raise_for(policy)
            for policy in over:
                # The worker has a clock of its own for it, and the kernel too.  What is left is the way past the TUN.
                self._barrier.lower_for(policy.selector, policy.direction)
        return self._passing.wait()

    def end(self, sas: Iterable[SAName], *, stopping: bool) -> None:
        """SAs end with the worker."""
        for policy in self._passing.all() if stopping else ():
            with suppress(NetlinkError, NftError):
                self._barrier.lower_for(policy.selector, policy.direction)


class Passing:
    """The policies that are not to outlive hushwire: soft ones, and those with a lifetime.

    It outlives the planes, which begin anew when a child has died.
    """

    def __init__(self) -> None:
        self._soft: dict[tuple[Selector, Direction], tuple[float, Policy]] = {}
        """When to install each again."""
        self._brief: dict[tuple[Selector, Direction], tuple[float, Policy]] = {}
        """When each is over."""
        self._next = 0.0

    def hold(self, policy: Policy) -> None:
        """It was installed just now."""
        self.drop(policy.selector, policy.direction)
        if policy.lifetime:
            self._put(self._brief, policy, policy.lifetime + LATE)
        elif policy.soft:
            self._put(self._soft, policy, SOFT_AGAIN)

    def drop(self, selector: Selector, direction: Direction) -> None:
        self._soft.pop((selector, direction), None)
        self._brief.pop((selector, direction), None)

    def orphan(self) -> None:
        """Whoever asked for the soft ones is gone: what nobody asks for again is over after a while."""
        for _, policy in self._soft.values():
            self._put(self._brief, policy, SOFT_SECONDS)
        self._soft.clear()

    def turn(self) -> tuple[list[Policy], list[Policy]]:
        """Those to be installed again now, and those that are over."""
        now = time.monotonic()
        if now < self._next:
            return [], []
        again = [policy for when, policy in self._soft.values() if when <= now]
        over = [policy for when, policy in self._brief.values() if when <= now]
        for policy in again:
            self._put(self._soft, policy, SOFT_AGAIN)
        for policy in over:
            del self._brief[policy.selector, policy.direction]
        ends = [when for held in (self._soft, self._brief) for when, _ in held.values()]
        self._next = min(ends, default=now + SOFT_AGAIN)
        return again, over

    def wait(self) -> float:
        """Seconds until the next turn."""
        return max(0.0, self._next - time.monotonic())

    def all(self) -> list[Policy]:
        """The widest first: to be taken away in this order, so that nothing is held in vain."""
        held = [policy for _, policy in (*self._soft.values(), *self._brief.values())]
        return sorted(held, key=lambda policy: -policy.priority)

    def _put(self, held: dict[tuple[Selector, Direction], tuple[float, Policy]], policy: Policy, after: float) -> None:
        when = time.monotonic() + after
        held[policy.selector, policy.direction] = when, policy
        self._next = min(self._next, when)


def _leased(policy: Policy) -> Policy:
    """As the kernel gets it: a soft policy ends by itself when nobody renews it."""
    return replace(policy, lifetime=SOFT_SECONDS) if policy.soft and not policy.lifetime else policy


def found_policies(xfrm: Xfrm) -> list[Policy]:
    """The policies of peers that an earlier run of ours left standing, to be kept (DESIGN.md law 1).

    Soft ones, which end by themselves, are taken away, but for those that hold back what flows with one host still
    send: it does not go in clear before the host has been met again (RFC 5660 s2).
    """
    found = [each.policy for each in xfrm.policies() if each.policy.reqid in REQIDS and not each.mark]
    for policy in found:
        if policy.lifetime and not (policy.action is Action.PROTECT and is_of_one_host(policy.selector)):
            xfrm.delete_policy(policy.selector, policy.direction)
    return [policy for policy in found if not policy.lifetime]


def found_sas(xfrm: Xfrm) -> list[SAName]:
    """SAs of an earlier run of ours: nobody would rekey or delete them, and their peers may long have done so."""
    return [SAName(sa.spi, sa.destination) for sa in xfrm.sas(()) if sa.reqid in REQIDS]
