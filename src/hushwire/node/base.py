"""The policies that stand whoever the peers are: the parent lays them, and the node knows what they let through."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

from hushwire.config import Addressing, Config, Rule
from hushwire.names.synthetic import POOLS
from hushwire.node.scope import PROTECT_PRIORITY, narrowness
from hushwire.policy.assurance import Assurance
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import IPNetwork, host_network

NEIGHBOUR_PRIORITY = 10
"""Over everything."""
POOL_PRIORITY = 12
"""Over whatever rules say."""
TCP, UDP = 6, 17
DHCP = (("0.0.0.0/0", 68, 67), ("::/0", 546, 547))
"""Where, and the ports of client and server (RFC 2131, RFC 8415)."""
NOT_UNICAST = ("224.0.0.0/4", "255.255.255.255/32", "169.254.0.0/16", "ff00::/8", "fe80::/10")
"""Multicast, broadcast, and what has no meaning beyond a link."""
NEIGHBOUR_DISCOVERY = range(133, 138)
"""ICMPv6 types without which no IPv6 host is reached at all (RFC 4861 s4); ESP could not carry them (RFC 4301 s5)."""
ICMPV6 = 58


def base_policies(config: Config) -> list[Policy]:
    """What stands whatever the node asks: neighbour discovery, the rules that say clear, what a trap for many must
    leave alone, a block under each peer whose place the configuration knows, and one of all synthetic addresses.
    """
    policies = []
    everywhere = ip_network("::/0")
    for kind in NEIGHBOUR_DISCOVERY:
        # As Linux has it, an ICMP type stands where the source port would.
        out = Selector(everywhere, everywhere, ICMPV6, local_port=kind)
        into = Selector(everywhere, everywhere, ICMPV6, remote_port=kind)
        policies.append(Policy(out, Direction.OUT, Action.CLEAR, NEIGHBOUR_PRIORITY))
        policies.append(Policy(into, Direction.IN, Action.CLEAR, NEIGHBOUR_PRIORITY))
    for selector in _left_alone(config):
        priority = _over_traps(config, selector)
        if priority is not None and selector.remote.num_addresses == 1 and not _is_peer(config, selector.remote):
            # Not only before the traps, but before the peers that they bring in, too: who has to do with a name server
            # for another reason, such as a program that pings it, does not shut off the DNS.
            priority = _beside_peers(selector) - 1
        if priority is not None:
            policies += [Policy(selector, direction, Action.CLEAR, priority) for direction in Direction]
    for rule in config.rules:
        if rule.require is Assurance.CLEAR and not isinstance(rule.peer, str):
            selector = Selector(_everywhere(rule.peer), rule.peer, rule.protocol, rule.local_port, rule.remote_port)
            priority = _beside_peers(selector)
            policies += [Policy(selector, direction, Action.CLEAR, priority) for direction in Direction]
        elif rule.below is Action.BLOCK:
            for selector in _known(rule):
                # Just under what the node puts there.
                priority = _beside_peers(selector) + 1
                policies += [Policy(selector, way, Action.BLOCK, priority, mode=rule.mode) for way in Direction]
    if any(rule.addressing is Addressing.SYNTHETIC for rule in config.rules):
        # They lead nowhere but through what carries their names: no packet for one is ever let out as it is.
        for pool in POOLS.values():
            selector = Selector(_everywhere(pool), pool)
            policies += [Policy(selector, direction, Action.BLOCK, POOL_PRIORITY) for direction in Direction]
    return policies


def _beside_peers(selector: Selector) -> int:
    """The priority of what holds for all our addresses, as if for each: so that a port comes before the rest."""
    near = selector.local if selector.local.prefixlen else host_network(selector.local[0])
    return PROTECT_PRIORITY - narrowness(replace(selector, local=near))


def _left_alone(config: Config) -> Iterator[Selector]:
    """What ESP between two hosts cannot carry, or what must work before it."""
    for text in NOT_UNICAST:
        network = ip_network(text)
        yield Selector(_everywhere(network), network)
    for text, here, there in DHCP:
        network = ip_network(text)
        yield Selector(network, network, UDP, here, there)
    for server in config.dns.forward:
        network = host_network(server.address)
        for protocol in (UDP, TCP):
            yield Selector(_everywhere(network), network, protocol, 0, server.port)


def _over_traps(config: Config, selector: Selector) -> int | None:
    """The priority just over the traps for many that `selector` is to be spared; None: there are none.

    A rule about one peer's address comes before it, if it speaks of the same packets and is no wider: who wants DNS
    protected on its way to one server says so.
    """
    traps = [
        PROTECT_PRIORITY
        - narrowness(Selector(host_network(network[0]), network, rule.protocol, rule.local_port, rule.remote_port))
        for rule in config.rules
        if rule.many and rule.require is not Assurance.CLEAR
        for network in ([] if isinstance(rule.peer, str) else [rule.peer])
        if network.version == selector.remote.version and network.overlaps(selector.remote)
    ]  # fmt: skip
    return min(traps) - 1 if traps else None


def _is_peer(config: Config, place: IPNetwork) -> bool:
    """Whether a rule is about the host at one place."""
    return any(not rule.many and place in places(rule) for rule in config.rules)


def _everywhere(network: IPNetwork) -> IPNetwork:
    return ip_network("0.0.0.0/0" if network.version == 4 else "::/0")


def _known(rule: Rule) -> Iterator[Selector]:
    """The packets that a rule blocks, as far as it says itself where its peer is."""
    for remote in rule.remote_networks or places(rule):
        for local in rule.local_networks or (_everywhere(remote),):
            if local.version == remote.version:
                yield Selector(local, remote, rule.protocol, rule.local_port, rule.remote_port)


def places(rule: Rule) -> tuple[IPNetwork, ...]:
    """Where the configuration says that a peer is, or many are; nothing of one that the DNS tells of."""
    if rule.address is not None:
        return (host_network(rule.address),)
    return () if isinstance(rule.peer, str) else (rule.peer,)
