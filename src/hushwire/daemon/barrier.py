"""The userspace plane's barrier: what is to go through the TUN goes there or nowhere (DESIGN.md law 1).

It stands in the kernel, in its SPD (IPv4), packet filter (IPv6) and routes, when every process of ours is gone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from zlib import crc32

from hushwire.linux.nft import Nft, NftError
from hushwire.linux.route import Route, Routes
from hushwire.linux.route import Rule as RoutingRule
from hushwire.linux.tun import Tun, exempt_ipv4
from hushwire.linux.xfrm import Xfrm
from hushwire.node.base import ICMPV6, NEIGHBOUR_DISCOVERY
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import IPNetwork

MARK = 0x6877
"""Of the sockets whose packets do not go through the TUN."""
TABLE = 0x6877
"""The routing table of what does, whatever its protocol."""
TABLES = 0x6877_0000
"""Those of protocols and ports have numbers from here on."""
RULE_PRIORITY = 220
"""Of the rule that leads to TABLE."""
PORTS_PRIORITY, EXEMPT_PRIORITY, MARK_PRIORITY = RULE_PRIORITY - 1, RULE_PRIORITY - 2, RULE_PRIORITY - 3
"""First of all our own packets pass, then what is exempt; a port's table comes before that of all ports."""
PAST_PRIORITY = RULE_PRIORITY + 1
"""Of a rule behind them all that does nothing."""
LAST_METRIC = 1 << 20
"""Behind every route into the TUN."""
SOFT_SECONDS = 120
"""For how long a soft policy stays after the last word of ours."""


class Barrier:
    """First comes the block, then the way through; in clear, first the permission and then the way.

    A hard policy leaves something standing under the TUN that closes when the TUN goes.  So does a soft one of a single
    host, for a while: who ends is begun anew, and flows with the host do not go on in clear meanwhile (RFC 5660 s2).
    A soft one of many leaves nothing on the way out: packets then go as they would without it.
    """

    def __init__(self, tun: Tun, ports: tuple[int, int], *, ipv6: bool) -> None:
        """`ports`: of IKE and of ESP in UDP, which come in beside the TUN.  OSError: this system cannot."""
        self._tun = tun.index
        self._xfrm = Xfrm()
        self._routes = Routes()
        self._filter = Filter(tun.name, ports) if ipv6 else None
        self._out: dict[tuple[IPNetwork, Ports], dict[Selector, Policy]] = {}
        """Outbound policies by where they go to, and by which ports: routes know our addresses not."""
        self._apart: set[tuple[int, Ports]] = set()
        """IP versions and ports that have a table of their own."""
        exempt_ipv4(tun.name)
        for version in (4, 6) if ipv6 else (4,):
            # What an earlier run of ours let go in clear, or led into a TUN that is gone.
            for priority in (EXEMPT_PRIORITY, PORTS_PRIORITY):
                self._routes.delete_rules(version, priority)
            for route in self._routes.routes(version, TABLE):
                if route.throw:
                    self._routes.delete_route(route)
            self._routes.add_rule(RoutingRule(version, PAST_PRIORITY))
            # What the plane itself sends is marked, and goes where it would without us.
            self._routes.add_rule(RoutingRule(version, MARK_PRIORITY, mark=MARK, mask=0xFFFF_FFFF, goto=PAST_PRIORITY))
            self._routes.add_rule(RoutingRule(version, RULE_PRIORITY, TABLE))

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
            where = _where(policy.selector)
            self._out.setdefault(where, {})[policy.selector] = policy
            self._lead(*where)

    def lower_for(self, selector: Selector, direction: Direction) -> None:
        """Take it away again, the way through first, unless another policy needs it."""
        if direction is Direction.OUT:
            where = _where(selector)
            policies = self._out.get(where, {})
            policies.pop(selector, None)
            self._lead(*where)
            if not policies:
                self._out.pop(where, None)
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
            self._filtered().put(policy)
        if policy.direction is Direction.OUT:
            self._routes.add_rule(
                RoutingRule(
                    selector.remote.version, EXEMPT_PRIORITY, destination=selector.remote,
                    protocol=selector.protocol, source_port=selector.local_port,
                    destination_port=selector.remote_port, goto=PAST_PRIORITY,
                )
            )  # fmt: skip

    def _forget(self, selector: Selector, direction: Direction) -> None:
        if selector.remote.version == 4:
            self._xfrm.delete_policy(selector, direction)
        else:
            self._filtered().take(selector, direction)

    def _lead(self, remote: IPNetwork, ports: "Ports") -> None:
        """Routes for what goes to `remote`: into the TUN, past it, or nowhere."""
        policies = list(self._out.get((remote, ports), {}).values())
        protect = [policy for policy in policies if policy.action is Action.PROTECT]
        table = self._table(remote.version, ports)
        blackhole = Route(remote, table=table, metric=LAST_METRIC, blackhole=True)
        into = Route(remote, self._tun, table=table, metric=1)
        past = Route(remote, table=table, metric=1, throw=True)
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

    def _table(self, version: int, ports: "Ports") -> int:
        """The routing table of a protocol and its ports."""
        if ports == ANY:
            return TABLE
        # The same in every run: and should two have one, more than has to would go into the TUN, and no less.
        table = TABLES + crc32(b"%d %d %d" % ports) % (1 << 16)
        if (version, ports) not in self._apart:
            self._apart.add((version, ports))
            protocol, near, far = ports
            self._routes.add_rule(
                RoutingRule(version, PORTS_PRIORITY, table, protocol=protocol, source_port=near, destination_port=far)
            )
        return table

    def _filtered(self) -> "Filter":
        if self._filter is None:
            raise NftError("this host has no IPv6")
        return self._filter


Ports = tuple[int, int, int]
"""Protocol, and the ports here and there; 0: any."""
ANY: Ports = (0, 0, 0)


def _where(selector: Selector) -> tuple[IPNetwork, Ports]:
    """What routes can tell packets by."""
    return selector.remote, (selector.protocol, selector.local_port, selector.remote_port)


def _told(policy: Policy) -> Policy | None:
    """What the kernel is told, for packets that pass the TUN by: to let them, or to drop them.

    RFC 4301 s5.2: what ought to have come through an SA and did not is dropped.
    """
    lifetime = policy.lifetime or (SOFT_SECONDS if policy.soft else 0)
    if policy.action is Action.CLEAR or policy.admits_clear:
        action = Action.CLEAR
    elif _is_soft_way(policy) and not is_of_one_host(policy.selector):
        return None
    else:
        action = Action.BLOCK
    return Policy(policy.selector, policy.direction, action, policy.priority, mode=policy.mode, lifetime=lifetime)


def _is_soft_way(policy: Policy) -> bool:
    return policy.soft and policy.action is Action.PROTECT and policy.direction is Direction.OUT


def is_of_one_host(selector: Selector) -> bool:
    return selector.remote.prefixlen == selector.remote.max_prefixlen


class Filter:
    """hushwire's table in the packet filter: an SPD of IPv6 that tells devices apart.

    A set holds the selectors of one kind, direction, priority and verdict; the chains ask the sets in the order of
    their priorities.  A program that names a device gets round the routes, so they alone would not do.
    """

    def __init__(self, tun: str, ports: tuple[int, int]) -> None:
        self._nft = Nft()
        self._priorities: dict[tuple[Selector, Direction], int] = {}
        self._users: dict[tuple[str, str], set[Selector]] = {}
        """By set and element."""
        self._nft.run("add table inet hushwire")
        self._sets = set(
            re.findall(r"set ((?:out|in)_\d+_[a-z]+_[a-z]+_[a-z]+) \{", self._nft.run("list table inet hushwire"))
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
        # What an earlier run of ours let pass is over.  What it dropped stands, or ends by itself.
        over = [name for name in self._sets if _verdict(name) != "drop"]
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
            flags = "timeout" if "_hosts_" in name else "interval, timeout"
            commands.append(f"add set inet hushwire {name} {{ type {_shape(name).type}; flags {flags}; }}")
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
        mine = [name for name in self._of(direction, priority) if _sort(name) == _sort_of(selector)]
        commands = [command for name in mine for command in self._without(name, element, selector)]
        if commands:
            self._nft.run(*commands)
        for name in mine:
            self._leave(name, element, selector)

    def _order(self) -> Iterator[str]:
        """The chains of policies, anew."""
        for direction in Direction:
            way = _way(direction)
            lines = [
                (_priority(name), f"{_shape(name).match[direction]} @{name} {_verdict(name)}")
                for name in self._sets if name.startswith(f"{way}_")
            ]  # fmt: skip
            yield f"flush chain inet hushwire {way}_policies"
            # Of one priority, what drops comes first.
            for _, line in sorted(lines, key=lambda line: (line[0], line[1].endswith("accept"), line[1])):
                yield f"add rule inet hushwire {way}_policies {line}"

    def _others(self, policy: Policy, name: str, before: int | None) -> list[str]:
        """Sets in which the policy may be from before, perhaps by an earlier run of ours."""
        places = {each for priority in (policy.priority, before) for each in self._of(policy.direction, priority)}
        return [other for other in places if other != name and _sort(other) == _sort(name)]

    def _of(self, direction: Direction, priority: int | None) -> list[str]:
        return [name for name in self._sets if name.startswith(f"{_way(direction)}_{priority}_")]

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
    soon = "soon" if policy.lifetime else ""
    return f"{_way(policy.direction)}_{policy.priority}_{verdict}{soon}_{_sort_of(policy.selector)}"


def _sort_of(selector: Selector) -> str:
    """The sort of sets that take a selector."""
    hosts = selector.local.prefixlen + selector.remote.prefixlen == 256
    return f"{'hosts' if hosts else 'ranges'}_{_ports_of(selector)}"


def _sort(name: str) -> str:
    return name.split("_", 3)[3]


def _way(direction: Direction) -> str:
    return "out" if direction is Direction.OUT else "in"


def _priority(name: str) -> int:
    return int(name.split("_")[1])


def _verdict(name: str) -> str:
    return name.split("_")[2].removesuffix("soon")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a set's selectors speak of beside two addresses."""

    type: str
    """As the packet filter has it."""
    match: dict[Direction, str]
    """The same of a packet."""


def _shapes() -> dict[str, Shape]:
    """By whether there is a protocol, a port of ours, a port of the peer's."""
    found = {}
    for word, (protocol, near, far) in {
        "all": (0, 0, 0), "protocol": (1, 0, 0), "near": (1, 1, 0), "far": (1, 0, 1), "both": (1, 1, 1)
    }.items():  # fmt: skip
        kinds = ["ipv6_addr"] * 2 + ["inet_proto"] * protocol + ["inet_service"] * (near + far)
        match = {}
        for direction, ends in ((Direction.IN, ("s", "d")), (Direction.OUT, ("d", "s"))):
            there, here = ends
            fields = [f"ip6 {there}addr", f"ip6 {here}addr"] + ["meta l4proto"] * protocol
            fields += [f"th {here}port"] * near + [f"th {there}port"] * far
            match[direction] = " . ".join(fields)
        found[word] = Shape(" . ".join(kinds), match)
    return found


SHAPES = _shapes()


def _shape(name: str) -> Shape:
    return SHAPES[name.split("_")[4]]


def _ports_of(selector: Selector) -> str:
    """The word for what a selector speaks of beside two addresses."""
    if not selector.protocol:
        return "all"
    return {(0, 0): "protocol", (1, 0): "near", (0, 1): "far", (1, 1): "both"}[
        bool(selector.local_port), bool(selector.remote_port)
    ]


def _element(selector: Selector) -> str:
    """The peer and this host, or the networks behind them; and what beside them it speaks of."""
    numbers = (selector.protocol, selector.local_port, selector.remote_port)
    return " . ".join([_ends(selector.remote), _ends(selector.local), *(str(number) for number in numbers if number)])


def _ends(network: IPNetwork) -> str:
    return str(network[0]) if network.prefixlen == network.max_prefixlen else str(network)
