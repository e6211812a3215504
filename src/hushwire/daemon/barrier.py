"""The userspace plane's barrier: what is to go through the TUN goes there or nowhere (DESIGN.md law 1).

It stands in the kernel, in its SPD (IPv4), packet filter (IPv6) and routes, when every process of ours is gone.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from hushwire.linux.nft import Nft, NftError
from hushwire.linux.route import Route, Routes
from hushwire.linux.route import Rule as RoutingRule
from hushwire.linux.tun import Tun, exempt_ipv4
from hushwire.linux.xfrm import Xfrm
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import IPNetwork

MARK = 0x6877
"""Of the sockets whose packets do not go through the TUN."""
TABLE = 0x6877
"""The routing table of what does."""
RULE_PRIORITY = 220
LAST_METRIC = 1 << 20
"""Behind every route into the TUN."""
NEIGHBOUR_DISCOVERY = range(133, 138)
"""ICMPv6 types without which no IPv6 host is reached at all (RFC 4861 s4); ESP could not carry them (RFC 4301 s5)."""
ICMPV6 = 58
SOFT_SECONDS = 120
"""For how long a soft policy stays after the last word of ours."""


class Barrier:
    """First comes the block, then the way through; in clear, first the permission and then the way.

    A hard policy leaves something standing under the TUN that closes when the TUN goes.  A soft one leaves nothing on
    the way out: its packets then go as they would without it.
    """

    def __init__(self, tun: Tun, ports: tuple[int, int], *, ipv6: bool) -> None:
        """`ports`: of IKE and of ESP in UDP, which come in beside the TUN.  OSError: this system cannot."""
        self._tun = tun.index
        self._xfrm = Xfrm()
        self._routes = Routes()
        self._filter = Filter(tun.name, ports) if ipv6 else None
        self._out: dict[IPNetwork, dict[Selector, Policy]] = {}
        """Outbound policies by where they go to: routes know no ports, and neither our addresses."""
        exempt_ipv4(tun.name)
        for version in (4, 6) if ipv6 else (4,):
            # What an earlier run of ours let go in clear.
            self._routes.delete_rules(version, RULE_PRIORITY - 1)
            for route in self._routes.routes(version, TABLE):
                if route.throw:
                    self._routes.delete_route(route)
            # What the plane itself sends is marked, and goes where it would without us.
            self._routes.add_rule(RoutingRule(version, RULE_PRIORITY, TABLE, MARK, 0xFFFF_FFFF, inverted=True))
            self._routes.add_rule(RoutingRule(version, RULE_PRIORITY + 1))

    def raise_for(self, policy: Policy) -> None:
        """Install, or update in place, what a policy needs."""
        told = _told(policy)
        if told is None:
            self._forget(policy.selector, policy.direction)
        elif policy.selector.remote.version == 4:
            self._xfrm.install_policy(told)
        else:
            self._filtered().put(told)
        if policy.direction is Direction.OUT:
            self._out.setdefault(policy.selector.remote, {})[policy.selector] = policy
            self._lead(policy.selector.remote)

    def lower_for(self, selector: Selector, direction: Direction) -> None:
        """Take it away again, the way through first, unless another policy needs it."""
        if direction is Direction.OUT:
            policies = self._out.get(selector.remote, {})
            policies.pop(selector, None)
            self._lead(selector.remote)
            if not policies:
                self._out.pop(selector.remote, None)
        self._forget(selector, direction)

    def lay(self, policy: Policy) -> None:
        """Install a policy that stands whatever the node asks."""
        selector = policy.selector
        if selector.protocol == ICMPV6 and policy.action is Action.CLEAR:
            # Neighbour discovery: the packet filter has it already, and it takes no routes.
            self._xfrm.install_policy(policy)
        elif selector.protocol and policy.action is Action.CLEAR:
            self._exempt(policy)
        elif policy.action is Action.CLEAR or selector.remote.version == 6:
            self.raise_for(policy)
        else:
            self._xfrm.install_policy(policy)

    def _exempt(self, policy: Policy) -> None:
        """It is by a rule of routing that packets of one protocol pass the TUN by."""
        self._xfrm.install_policy(policy)
        selector = policy.selector
        if selector.remote.version == 6:
            self._filtered().exempt(policy)
        if policy.direction is Direction.OUT:
            self._routes.add_rule(
                RoutingRule(
                    selector.remote.version, RULE_PRIORITY - 1, destination=selector.remote,
                    protocol=selector.protocol, source_port=selector.local_port,
                    destination_port=selector.remote_port, goto=RULE_PRIORITY + 1,
                )
            )  # fmt: skip

    def _forget(self, selector: Selector, direction: Direction) -> None:
        if selector.remote.version == 4:
            self._xfrm.delete_policy(selector, direction)
        else:
            self._filtered().take(selector, direction)

    def _lead(self, remote: IPNetwork) -> None:
        """Routes for what goes to `remote`: into the TUN, past it, or nowhere."""
        policies = list(self._out.get(remote, {}).values())
        protect = [policy for policy in policies if policy.action is Action.PROTECT]
        blackhole = Route(remote, table=TABLE, metric=LAST_METRIC, blackhole=True)
        into = Route(remote, self._tun, table=TABLE, metric=1)
        past = Route(remote, table=TABLE, metric=1, throw=True)
        # In IPv4 the SPD stands under it.
        hard = remote.version == 6 and any(not each.soft and each.action is not Action.CLEAR for each in policies)
        if hard:
            self._routes.add_route(blackhole)
        if protect:
            local = protect[-1].selector.local
            one = local.prefixlen == local.max_prefixlen
            self._routes.add_route(replace(into, source=local.network_address if one else None))
        elif any(policy.action is Action.CLEAR for policy in policies):
            self._routes.add_route(past)
        else:
            self._routes.delete_route(into)
            self._routes.delete_route(past)
        if remote.version == 6 and not hard:
            self._routes.delete_route(blackhole)

    def _filtered(self) -> "Filter":
        if self._filter is None:
            raise NftError("this host has no IPv6")
        return self._filter


def _told(policy: Policy) -> Policy | None:
    """What the kernel is told, for packets that pass the TUN by: to let them, or to drop them.

    RFC 4301 s5.2: what ought to have come through an SA and did not is dropped.
    """
    lifetime = policy.lifetime or (SOFT_SECONDS if policy.soft else 0)
    if policy.action is Action.CLEAR or policy.admits_clear:
        action = Action.CLEAR
    elif policy.soft and policy.action is Action.PROTECT and policy.direction is Direction.OUT:
        return None
    else:
        action = Action.BLOCK
    return Policy(policy.selector, policy.direction, action, policy.priority, mode=policy.mode, lifetime=lifetime)


class Filter:
    """hushwire's table in the packet filter: an SPD of IPv6 that tells devices apart, but no ports.

    A set holds the pairs of addresses of one direction, priority and verdict; the chains ask the sets in the order of
    their priorities.  A program that names a device gets round the routes, so they alone would not do.
    """

    def __init__(self, tun: str, ports: tuple[int, int]) -> None:
        self._nft = Nft()
        self._priorities: dict[tuple[Selector, Direction], int] = {}
        self._users: dict[tuple[str, str], set[Selector]] = {}
        """By set and element."""
        self._exempt: dict[tuple[Direction, int], list[str]] = {}
        """Matches of what has ports, and passes."""
        self._nft.run("add table inet hushwire")
        self._sets = set(
            re.findall(r"set ((?:out|in)_\d+_[a-z]+_[a-z]+) \{", self._nft.run("list table inet hushwire"))
        )
        neighbours = f"icmpv6 type {{ {', '.join(map(str, NEIGHBOUR_DISCOVERY))} }} accept"
        ours = f"udp dport {{ {ports[0]}, {ports[1]} }} accept"
        # Each fragment comes by here, and only the first says what the packet is; without it the others are nothing.
        later = "frag frag-off != 0 accept"
        came, goes = f'iifname "{tun}" accept', f'oifname "{tun}" accept'
        chains = {
            "input": [came, neighbours, ours, later, "jump in_policies"],
            "forward": [came, goes, "jump in_policies", "jump out_policies"],
            "output": [goes, neighbours, f"meta mark {MARK} accept", "jump out_policies"],
        }
        # What an earlier run of ours let pass, or dropped for a while, is over.  What else it dropped stands.
        over = [name for name in self._sets if "_drop_" not in name]
        commands = [f"flush set inet hushwire {name}" for name in over]
        commands += ["add chain inet hushwire in_policies", "add chain inet hushwire out_policies"]
        commands += self._order()
        for chain, rules in chains.items():
            commands.append(f"add chain inet hushwire {chain} {{ type filter hook {chain} priority -10; }}")
            commands.append(f"flush chain inet hushwire {chain}")
            commands += [f"add rule inet hushwire {chain} {rule}" for rule in rules]
        self._nft.run(*commands)

    def put(self, policy: Policy) -> None:
        """Add a BLOCK or CLEAR policy, or update the one with its selector in place."""
        key, before = (policy.selector, policy.direction), self._priorities.get((policy.selector, policy.direction))
        name, element = _set(policy), _element(policy.selector)
        commands = []
        if name not in self._sets:
            self._sets.add(name)
            flags = "timeout" if name.endswith("hosts") else "interval, timeout"
            commands.append(f"add set inet hushwire {name} {{ type ipv6_addr . ipv6_addr; flags {flags}; }}")
            commands += self._order()
        commands.append(f"add element inet hushwire {name} {{ {element} }}")
        if policy.lifetime:
            # To add what is there would not begin its time anew; and all this is one transaction.
            commands.append(f"delete element inet hushwire {name} {{ {element} }}")
            commands.append(f"add element inet hushwire {name} {{ {element} timeout {policy.lifetime}s }}")
        for other in self._others(policy, name, before):
            commands += self._without(other, element, policy.selector)
        self._nft.run(*commands)
        for other in self._others(policy, name, before):
            self._leave(other, element, policy.selector)
        self._priorities[key] = policy.priority
        self._users.setdefault((name, element), set()).add(policy.selector)

    def take(self, selector: Selector, direction: Direction) -> None:
        """Remove the policy with exactly this selector; nothing happens if there is none."""
        priority = self._priorities.pop((selector, direction), None)
        if priority is None:
            return
        element = _element(selector)
        mine = [name for name in self._sets if name.startswith(f"{_way(direction)}_{priority}_")]
        commands = [command for name in mine for command in self._without(name, element, selector)]
        if commands:
            self._nft.run(*commands)
        for name in mine:
            self._leave(name, element, selector)

    def exempt(self, policy: Policy) -> None:
        """Let packets of one protocol pass, whose selector may name ports."""
        near, far = ("saddr", "daddr") if policy.direction is Direction.OUT else ("daddr", "saddr")
        here, there = ("sport", "dport") if policy.direction is Direction.OUT else ("dport", "sport")
        selector = policy.selector
        match = f"ip6 {near} {selector.local} ip6 {far} {selector.remote} meta l4proto {selector.protocol}"
        for word, port in ((here, selector.local_port), (there, selector.remote_port)):
            match += f" th {word} {port}" if port else ""
        matches = self._exempt.setdefault((policy.direction, policy.priority), [])
        if match not in matches:
            matches.append(match)
            self._nft.run(*self._order())

    def _order(self) -> Iterator[str]:
        """The chains of policies, anew."""
        for direction, pair in ((Direction.IN, "ip6 saddr . ip6 daddr"), (Direction.OUT, "ip6 daddr . ip6 saddr")):
            way = _way(direction)
            lines = [(_priority(name), f"{pair} @{name} {_verdict(name)}") for name in self._sets if _is(way, name)]
            for (where, priority), matches in self._exempt.items():
                lines += [(priority, f"{match} accept") for match in matches if where is direction]
            yield f"flush chain inet hushwire {way}_policies"
            # Of one priority, what drops comes first.
            for _, line in sorted(lines, key=lambda line: (line[0], line[1].endswith("accept"), line[1])):
                yield f"add rule inet hushwire {way}_policies {line}"

    def _others(self, policy: Policy, name: str, before: int | None) -> list[str]:
        """Sets in which the policy may be from before, perhaps by an earlier run of ours."""
        places = {f"{_way(policy.direction)}_{priority}_" for priority in (policy.priority, before)}
        return [other for other in self._sets if other != name and other.startswith(tuple(places))]

    def _without(self, name: str, element: str, selector: Selector) -> list[str]:
        if self._users.get((name, element), set()) - {selector}:
            return []
        # To delete what is not there is an error of the packet filter, but none of ours: so it is there first.
        return [f"{verb} element inet hushwire {name} {{ {element} }}" for verb in ("add", "delete")]

    def _leave(self, name: str, element: str, selector: Selector) -> None:
        users = self._users.get((name, element), set())
        users.discard(selector)
        if not users:
            self._users.pop((name, element), None)


def _set(policy: Policy) -> str:
    """The name of a policy's set.

    What ends by itself is apart from what does not, and pairs of hosts, of which there are many, from ranges: a set of
    ranges is copied whenever it changes.
    """
    verdict = "accept" if policy.action is Action.CLEAR else "drop"
    hosts = policy.selector.local.prefixlen + policy.selector.remote.prefixlen == 256
    way, soon, kind = _way(policy.direction), "soon" if policy.lifetime else "", "hosts" if hosts else "ranges"
    return f"{way}_{policy.priority}_{verdict}{soon}_{kind}"


def _way(direction: Direction) -> str:
    return "out" if direction is Direction.OUT else "in"


def _is(way: str, name: str) -> bool:
    return name.startswith(f"{way}_")


def _priority(name: str) -> int:
    return int(name.split("_")[1])


def _verdict(name: str) -> str:
    return name.split("_")[2].removesuffix("soon")


def _element(selector: Selector) -> str:
    """The peer and this host, or the networks behind them."""
    return f"{_ends(selector.remote)} . {_ends(selector.local)}"


def _ends(network: IPNetwork) -> str:
    return str(network[0]) if network.prefixlen == network.max_prefixlen else str(network)
