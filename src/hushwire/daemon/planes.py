"""The two planes as the parent drives them: one contract, requests in, Installed, Refused and news out.

With the kernel plane the kernel's SPD says what ESP carries.  With the userspace plane the kernel is told that a peer's
packets leave and come through the TUN and no other way: when the TUN is gone they are blocked (DESIGN.md law 1).
"""

import errno
from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import Protocol

from hushwire.config import Config, Rule
from hushwire.daemon.channel import Channel
from hushwire.daemon.guard import REQIDS, Request, places
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
from hushwire.linux.nft import Nft, NftError
from hushwire.linux.route import Route, Routes
from hushwire.linux.route import Rule as RoutingRule
from hushwire.linux.tun import Tun, exempt_ipv4
from hushwire.linux.xfrm import Xfrm, XfrmEvents
from hushwire.linux.xfrm_codec import Unspoken
from hushwire.node.peer import PROTECT_PRIORITY, narrowness
from hushwire.policy.assurance import Assurance
from hushwire.policy.sad import Direction, SAName
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import host_network

News = Installed | Refused | Acquire | Expire | Mapping

MARK = 0x6877
"""Of the sockets whose packets do not go through the TUN."""
TABLE = 0x6877
"""The routing table of what does."""
RULE_PRIORITY = 220
NEIGHBOUR_PRIORITY = 10
"""Over everything."""
LAST_METRIC = 1 << 20
"""Behind every route into the TUN."""
TUN_MTU = 1400
"""Octets: with UDP, ESP and its trailer it fits the 1,500 of the path, in IPv4 and IPv6."""
TUN_QUEUE = 4000
"""Packets that wait for the plane worker: at the usual 500, one TCP stream overruns it."""
NEIGHBOUR_DISCOVERY = range(133, 138)
"""ICMPv6 types without which no IPv6 host is reached at all (RFC 4861 s4); ESP could not carry them (RFC 4301 s5)."""
ICMPV6 = 58
SETS = {"peers": "", "networks": "flags interval; "}
"""Of the packet filter.  Hosts are apart, since ranges in a set must not overlap."""


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

    def end(self, sas: Iterable[SAName]) -> None:
        """Whoever made these SAs is gone: so must they be."""
        ...


class KernelPlane:
    """Linux XFRM."""

    name = "kernel"

    def __init__(self) -> None:
        self._xfrm = Xfrm()
        self._events = XfrmEvents()

    def perform(self, *requests: Request) -> list[News]:
        return [answer for request in requests if (answer := self._perform(request)) is not None]

    def _perform(self, request: Request) -> News | None:
        try:
            match request:
                case InstallSA(_, sa):
                    self._xfrm.install_sa(sa)
                case DeleteSA(name):
                    self._xfrm.delete_sa(name)
                    return None
                case InstallPolicy(_, policy):
                    self._xfrm.install_policy(policy)
                case DeletePolicy(selector, direction):
                    self._xfrm.delete_policy(selector, direction)
                    return None
        except (NetlinkError, Unspoken) as error:
            return Refused(getattr(request, "request", 0), str(error))
        return Installed(request.request)

    def descriptors(self) -> list[int]:
        return [self._events.fileno()]

    def news(self) -> list[News]:
        try:
            return list(self._events.receive())
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            # Some were lost.  An Acquire comes again with the next packet, and IKE has timers of its own.
            return []

    def end(self, sas: Iterable[SAName]) -> None:
        # First of all we stop to listen.  An Acquire to nobody would leave a larval SA, which keeps the next from
        # being raised for half a minute; with no listener the kernel makes none.
        self._events.close()
        with self._xfrm as xfrm:
            for name in sas:
                xfrm.delete_sa(name)


class UserspacePlane:
    """esp.plane in a worker, between a TUN and UDP port 4500.

    What a peer's packets may not do is go round the TUN.  In IPv4 the SPD blocks them both ways, and the TUN is exempt
    from it.  In IPv6 it cannot tell devices apart: a route into the TUN with a blackhole behind it keeps what goes
    out, and the packet filter what comes in.  All of it stands when this process and the TUN are gone.
    """

    name = "userspace"

    def __init__(self, tun: Tun, worker: Channel, barrier: "Barrier") -> None:
        self._tun = tun
        self._worker = worker
        self._barrier = barrier

    def perform(self, *requests: Request) -> list[News]:
        refused: list[News] = []
        for_worker: list[Request] = []
        for request in requests:
            try:
                match request:
                    case InstallPolicy(_, policy):
                        self._barrier.raise_for(policy, self._tun.index)
                    case DeletePolicy(selector, direction):
                        self._barrier.lower_for(selector, direction, self._tun.index)
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

    def end(self, sas: Iterable[SAName]) -> None:
        """They end with the worker."""


class Barrier:
    """What keeps peers' packets in the TUN.  First comes the block, then the way through."""

    def __init__(self, tun: Tun, ports: tuple[int, int], *, ipv6: bool) -> None:
        """`ports`: of IKE and of ESP in UDP, which come in beside the TUN.  OSError: this system cannot."""
        self._xfrm = Xfrm()
        self._routes = Routes()
        self._nft = Nft() if ipv6 else None
        exempt_ipv4(tun.name)
        for version in (4, 6) if ipv6 else (4,):
            # What the plane itself sends is marked, and goes where it would without us.
            rule = RoutingRule(version, RULE_PRIORITY, TABLE, MARK, 0xFFFF_FFFF, inverted=True)
            self._routes.add_rule(rule)
        self._users: dict[tuple[Direction, str], set[Selector]] = {}
        """Who needs a route or an element of the packet filter, which know no ports."""
        if self._nft is not None:
            self._nft.run(*_filter(tun.name, ports))

    def raise_for(self, policy: Policy, tun: int) -> None:
        """Install, or leave as it is, what a policy of a peer needs."""
        selector, direction = policy.selector, policy.direction
        if selector.remote.version == 4:
            block = Policy(selector, direction, Action.BLOCK, policy.priority, mode=policy.mode)
            self._xfrm.install_policy(block)
        elif direction is Direction.OUT:
            self._routes.add_route(self._blackhole(selector))
        else:
            self._run(f"add element inet hushwire {_element(selector)}")
        if direction is Direction.OUT and policy.action is Action.PROTECT:
            self._routes.add_route(_route(selector, tun))
        self._users.setdefault(_shared(selector, direction), set()).add(selector)

    def lower_for(self, selector: Selector, direction: Direction, tun: int) -> None:
        """Take it away again, the way through first, unless another policy needs it."""
        users = self._users.get(_shared(selector, direction), set())
        users.discard(selector)
        if selector.remote.version == 4:
            self._xfrm.delete_policy(selector, direction)
        if users:
            return
        if direction is Direction.OUT:
            self._routes.delete_route(_route(selector, tun))
        if selector.remote.version == 6 and direction is Direction.OUT:
            self._routes.delete_route(self._blackhole(selector))
        elif selector.remote.version == 6:
            # To delete what is not there is an error of the packet filter, but none of ours: so it is there first.
            self._run(f"add element inet hushwire {_element(selector)}")
            self._run(f"delete element inet hushwire {_element(selector)}")

    def _blackhole(self, selector: Selector) -> Route:
        return Route(selector.remote, table=TABLE, metric=LAST_METRIC, blackhole=True)

    def _run(self, command: str) -> None:
        if self._nft is None:
            raise NftError("this host has no IPv6")
        self._nft.run(command)


def _filter(tun: str, ports: tuple[int, int]) -> list[str]:
    """The packet filter's commands: what is between this host and a peer in IPv6 goes through the TUN.

    A program that names a device gets round the routes, so they alone would not do.  RFC 4301 s5.2: and a packet that
    ought to have come through an SA and did not is dropped.
    """
    neighbours = f"icmpv6 type {{ {', '.join(map(str, NEIGHBOUR_DISCOVERY))} }} accept"
    ours = f"udp dport {{ {ports[0]}, {ports[1]} }} accept"
    inward = [f"ip6 saddr . ip6 daddr @{peers} drop" for peers in SETS]
    outward = [f"ip6 daddr . ip6 saddr @{peers} drop" for peers in SETS]
    through = [f'iifname "{tun}" accept', f'oifname "{tun}" accept']
    chains = {
        "input": [*through[:1], neighbours, ours, *inward],
        "forward": [*through, *inward, *outward],
        "output": [*through[1:], neighbours, f"meta mark {MARK} accept", *outward],
    }
    commands = ["add table inet hushwire"]
    commands += [
        f"add set inet hushwire {name} {{ type ipv6_addr . ipv6_addr; {flags}}}" for name, flags in SETS.items()
    ]
    for chain, rules in chains.items():
        commands.append(f"add chain inet hushwire {chain} {{ type filter hook {chain} priority -10; }}")
        commands.append(f"flush chain inet hushwire {chain}")
        commands += [f"add rule inet hushwire {chain} {rule}" for rule in rules]
    return commands


def _element(selector: Selector) -> str:
    """A set, and in it the peer and this host, or the networks behind them."""
    hosts = selector.remote.prefixlen + selector.local.prefixlen == 256
    near, far = selector.local, selector.remote
    return f"{'peers' if hosts else 'networks'} {{ {far if not hosts else far[0]} . {near if not hosts else near[0]} }}"


def _shared(selector: Selector, direction: Direction) -> tuple[Direction, str]:
    """The route or the element that a selector needs: what those that need the same have in common."""
    return direction, str(selector.remote) if direction is Direction.OUT else _element(selector)


def _route(selector: Selector, tun: int) -> Route:
    one = selector.local.prefixlen == selector.local.max_prefixlen
    return Route(selector.remote, tun, source=selector.local.network_address if one else None, table=TABLE, metric=1)


def base_policies(config: Config) -> list[Policy]:
    """What stands whatever the node asks: neighbour discovery, the rules that say clear, and a block under each peer
    whose place the configuration knows.  In IPv6 the userspace plane's barrier has to raise the latter.
    """
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
        elif rule.below is Action.BLOCK:
            for selector in _known(rule):
                priority = PROTECT_PRIORITY - narrowness(selector)
                policies += [Policy(selector, way, Action.BLOCK, priority, mode=rule.mode) for way in Direction]
    return policies


def _known(rule: Rule) -> Iterator[Selector]:
    """The packets that a rule blocks, as far as it says itself where its peer is."""
    for remote in rule.remote_networks or map(host_network, places(rule)):
        everywhere = ip_network("0.0.0.0/0" if remote.version == 4 else "::/0")
        for local in rule.local_networks or (everywhere,):
            if local.version == remote.version:
                yield Selector(local, remote, rule.protocol, rule.local_port, rule.remote_port)


def found_policies(xfrm: Xfrm) -> list[Policy]:
    """The policies of peers that an earlier run of ours left standing, to be kept (DESIGN.md law 1)."""
    return [found.policy for found in xfrm.policies() if found.policy.reqid in REQIDS]


def found_sas(xfrm: Xfrm) -> list[SAName]:
    """SAs of an earlier run of ours: nobody would rekey or delete them, and their peers may long have done so."""
    return [SAName(sa.spi, sa.destination) for sa in xfrm.sas(()) if sa.reqid in REQIDS]
