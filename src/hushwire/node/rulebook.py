"""Which rule speaks of a name or an address: the narrowest (RFC 4301 s4.4.1: the order of the SPD decides)."""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from hushwire.config import Group, Rule
from hushwire.policy.assurance import Assurance
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action
from hushwire.wire.address import IPAddress, host_network

Rules = tuple[Rule, ...]
"""All about the same peer, or the same many, with the same proof."""


def group_rules(rules: Iterable[Rule]) -> list[Rules]:
    """Rules by whom they are about, in the order that numbers them, from 1; what may be clear is by itself."""
    groups: dict[tuple[str, bool], list[Rule]] = {}
    for rule in rules:
        groups.setdefault((str(rule.peer), rule.require is Assurance.CLEAR), []).append(rule)
    return [tuple(group) for group in groups.values()]


class Rulebook:
    """The rules of a configuration, found by whom they are about."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.groups = group_rules(rules)
        self._by_name = {group[0].peer: group for group in self.groups if isinstance(group[0].peer, str)}
        by_prefix = [(group[0].peer, group) for group in self.groups if not isinstance(group[0].peer, str)]
        # Of two about the same prefix, one lets some of its ports go in clear: the other speaks of the addresses.
        self._by_prefix = sorted(
            by_prefix, key=lambda pair: (-pair[0].prefixlen, pair[1][0].require is Assurance.CLEAR)
        )
        self.for_name = lru_cache(4096)(self._for_name)
        """The rules for a canonical name, made out to it alone; None: none speaks of it."""

    def _for_name(self, name: str) -> Rules | None:
        group = self.group_of_name(name)
        return tuple(replace(rule, peer=name) for rule in group) if group is not None else None

    def group_of_name(self, name: str) -> Rules | None:
        """The rules for a canonical name, as the configuration has them."""
        exact = self._by_name.get(name)
        if exact is not None:
            return exact
        below = name.partition(".")[2]
        while below:
            if (group := self._by_name.get(f"*.{below}")) is not None:
                return group
            below = below.partition(".")[2]
        return self._by_name.get("*")

    def forbids_clear(self, name: str) -> bool:
        """Whether a rule speaks of a name, and permits no clear."""
        rules = self.for_name(name)
        return rules is not None and rules[0].require is not Assurance.CLEAR and not permits_clear(rules)

    def for_alias(self, rules: Rules, canonical: str) -> Rules:
        """The rules for the name that an alias leads to: its own, or those of the alias, where none protects it."""
        own = self.for_name(canonical)
        if own is not None and own[0].require is not Assurance.CLEAR:
            return own
        return tuple(replace(rule, peer=canonical) for rule in rules)

    def for_address(self, address: IPAddress) -> Rules | None:
        """The rules for an address, made out to it alone; None: none speaks of it."""
        group = self.group_of(address)
        return tuple(replace(rule, peer=host_network(address)) for rule in group) if group is not None else None

    def number_of(self, rules: Rules) -> int:
        """Where the rules are in the configuration that are made out to one peer here, from 1."""
        peer = rules[0].peer
        group = self.group_of_name(peer) if isinstance(peer, str) else self.group_of(peer.network_address)
        return 1 + self.groups.index(group) if group is not None else 0

    def group_of(self, address: IPAddress) -> Rules | None:
        """The rules for an address, as the configuration has them."""
        return next((group for prefix, group in self._by_prefix if address in prefix), None)

    def speaks_of(self, name: str) -> bool:
        """Whether a program that asks for this name has to wait for what a rule makes of it."""
        rules = self.for_name(name)
        return rules is not None and rules[0].require is not Assurance.CLEAR

    def permits_clear(self, selector: Selector) -> bool:
        """Whether the rules about addresses have nothing against such packets in clear, whatever names say."""
        rules = self.for_address(selector.remote.network_address) or ()
        return permits_clear(tuple(rule for rule in rules if _meet(rule, selector)))


def permits_clear(rules: Rules) -> bool:
    """Whether packets may go unprotected where the level is not reached: no rule has anything against it."""
    return all(
        rule.require is Assurance.CLEAR or (rule.below is Action.CLEAR and not refuses((rule,))) for rule in rules
    )


def refuses(rules: Rules) -> bool:
    """Whether no level is enough."""
    return all(rule.group is Group.BLOCK for rule in rules)


def _meet(rule: Rule, selector: Selector) -> bool:
    """Whether some packets are of both."""
    pairs = (
        (rule.protocol, selector.protocol), (rule.local_port, selector.local_port),
        (rule.remote_port, selector.remote_port),
    )  # fmt: skip
    return all(not one or not other or one == other for one, other in pairs)
