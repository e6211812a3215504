"""The two planes as the parent drives them: one contract, requests in, Installed, Refused and news out.

Both keep the kernel's SPD.  With the kernel plane it says what ESP carries; with the userspace plane, that a peer's
packets leave and come through the TUN and no other way: when the TUN is gone they are blocked (DESIGN.md law 1).
"""

from collections.abc import Iterable
from ipaddress import ip_network
from typing import Protocol

from hushwire.config import Config
from hushwire.daemon.channel import Channel
from hushwire.events import (
    Acquire,
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
from hushwire.linux.route import Route, Routes
from hushwire.linux.route import Rule as RoutingRule
from hushwire.linux.tun import Tun
from hushwire.linux.xfrm import Xfrm, XfrmEvents
from hushwire.linux.xfrm_codec import Unspoken
from hushwire.peer import PROTECT_PRIORITY, REQID_BASE, narrowness
from hushwire.policy.assurance import Assurance
from hushwire.policy.sad import Direction, SAName
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import IPNetwork

Request = InstallSA | DeleteSA | InstallPolicy | DeletePolicy
News = Installed | Refused | Acquire | Expire | Mapping

MARK = 0x6877
"""Of the sockets whose packets do not go through the TUN."""
TABLE = 0x6877
"""The routing table of what does."""
RULE_PRIORITY = 220
BLOCK_PRIORITY = 2000
"""Under every policy of a peer."""
NEIGHBOUR_PRIORITY = 10
"""Over everything."""
TUN_MTU = 1400
"""Octets: with UDP, ESP and its trailer it fits the 1,500 of the path, in IPv4 and IPv6."""
NEIGHBOUR_DISCOVERY = range(133, 138)
"""ICMPv6 types without which no IPv6 host is reached at all (RFC 4861 s4); ESP could not carry them (RFC 4301 s5)."""
ICMPV6 = 58


class Plane(Protocol):
    """What the parent needs of either."""

    name: str

    def perform(self, request: Request) -> list[News]:
        """Do what the guard let through; the answers that are known at once."""
        ...

    def descriptors(self) -> list[int]:
        """To poll for reading."""
        ...

    def news(self) -> list[News]:
        """What has happened since; ChannelClosed when the plane is gone."""
        ...

    def flush(self, sas: Iterable[SAName]) -> None:
        """Take these SAs away: whoever made them is gone."""
        ...


class KernelPlane:
    """Linux XFRM."""

    name = "kernel"

    def __init__(self) -> None:
        self._xfrm = Xfrm()
        self._events = XfrmEvents()

    def perform(self, request: Request) -> list[News]:
        try:
            match request:
                case InstallSA(_, sa):
                    self._xfrm.install_sa(sa)
                case DeleteSA(name):
                    self._xfrm.delete_sa(name)
                    return []
                case InstallPolicy(_, policy):
                    self._xfrm.install_policy(policy)
                case DeletePolicy(selector, direction):
                    self._xfrm.delete_policy(selector, direction)
                    return []
        except (NetlinkError, Unspoken) as error:
            return [Refused(getattr(request, "request", 0), str(error))]
        return [Installed(request.request)]

    def descriptors(self) -> list[int]:
        return [self._events.fileno()]

    def news(self) -> list[News]:
        found: list[News] = []
        while arrived := self._events.receive():
            found += arrived
        return found

    def flush(self, sas: Iterable[SAName]) -> None:
        for name in sas:
            self._xfrm.delete_sa(name)


class UserspacePlane:
    """esp.plane in a worker, between a TUN and UDP port 4500."""

    name = "userspace"

    def __init__(self, tun: Tun, worker: Channel) -> None:
        self._tun = tun
        self._worker = worker
        self._xfrm = Xfrm()
        self._routes = Routes()
        self._routed: dict[IPNetwork, int] = {}
        """Policies that need the route to each prefix."""
        for version in (4, 6):
            # What the plane itself sends is marked, and goes where it would without us.
            rule = RoutingRule(version, RULE_PRIORITY, TABLE, MARK, 0xFFFF_FFFF, inverted=True)
            self._routes.add_rule(rule)

    def perform(self, request: Request) -> list[News]:
        try:
            match request:
                case InstallPolicy(_, policy):
                    self._install(policy)
                case DeletePolicy(selector, direction):
                    self._delete(selector, direction)
        except (NetlinkError, Unspoken) as error:
            return [Refused(getattr(request, "request", 0), str(error))]
        self._worker.send(request)
        return []

    def _install(self, policy: Policy) -> None:
        """First the block, then the way round it, then the route: at no moment is there a way in clear."""
        selector, direction = policy.selector, policy.direction
        self._xfrm.install_policy(Policy(selector, direction, Action.BLOCK, BLOCK_PRIORITY))
        if policy.action is Action.PROTECT:
            through = Policy(selector, direction, Action.CLEAR, policy.priority)
            self._xfrm.install_policy(through, self._tun.index)
            if direction is Direction.OUT:
                self._routes.add_route(self._route(selector))

    def _delete(self, selector: Selector, direction: Direction) -> None:
        if direction is Direction.OUT:
            self._routes.delete_route(self._route(selector))
        self._xfrm.delete_policy(selector, direction, self._tun.index)
        self._xfrm.delete_policy(selector, direction)

    def _route(self, selector: Selector) -> Route:
        one = selector.local.prefixlen == selector.local.max_prefixlen
        source = selector.local.network_address if one else None
        return Route(selector.remote, self._tun.index, source=source, table=TABLE)

    def descriptors(self) -> list[int]:
        return [self._worker.fileno()]

    def news(self) -> list[News]:
        return self._worker.receive()

    def flush(self, sas: Iterable[SAName]) -> None:
        """They end with the worker."""


def base_policies(config: Config) -> list[Policy]:
    """What stands whoever the peers are: neighbour discovery, and the rules that say clear."""
    policies = []
    everywhere = ip_network("::/0")
    for kind in NEIGHBOUR_DISCOVERY:
        # As Linux has it, an ICMP type stands where the source port would.
        out = Selector(everywhere, everywhere, ICMPV6, local_port=kind)
        into = Selector(everywhere, everywhere, ICMPV6, remote_port=kind)
        policies.append(Policy(out, Direction.OUT, Action.CLEAR, NEIGHBOUR_PRIORITY))
        policies.append(Policy(into, Direction.IN, Action.CLEAR, NEIGHBOUR_PRIORITY))
    for rule in config.rules:
        if rule.require is Assurance.CLEAR and not isinstance(rule.peer, str):
            local = ip_network("0.0.0.0/0" if rule.peer.version == 4 else "::/0")
            selector = Selector(local, rule.peer, rule.protocol, rule.local_port, rule.remote_port)
            priority = PROTECT_PRIORITY - narrowness(selector)
            policies += [Policy(selector, direction, Action.CLEAR, priority) for direction in Direction]
    return policies


def found_policies(xfrm: Xfrm) -> list[Policy]:
    """The policies of peers that an earlier run of ours left standing, to be kept (DESIGN.md law 1)."""
    return [found.policy for found in xfrm.policies() if found.policy.reqid > REQID_BASE]
