"""What does not fit together in rules whose settings are each well-formed (RFC 4301 s4.4.1)."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from itertools import combinations

from hushwire.config.model import Host, Rule
from hushwire.config.value import PROTOCOLS
from hushwire.policy.assurance import Assurance
from hushwire.policy.sad import Mode
from hushwire.wire.address import host_network


def faults(rule: Rule, host: Host) -> Iterator[str]:
    """What does not fit together in a rule whose settings are each well-formed."""
    known = rule.key or rule.psk
    if rule.name is not None and rule.name == host.name:
        yield "peer: this is host.name, the host itself; give the name of another"
    if rule.key and rule.psk:
        yield "psk: the peer proves itself by its key or by a shared one; give key or psk, not both"
    match rule.require:
        case Assurance.NAMED if known:
            yield 'require: a "named" peer\'s key comes from the DNS; leave out key and psk, or require "trusted"'
        case Assurance.NAMED if rule.name is None:
            yield 'require: "named" needs peer to be a name; write the name, or give key or psk and require "trusted"'
        case Assurance.NAMED if "." not in str(rule.name):
            yield f'peer: "{rule.name}" has no domain; write the full name, such as "{rule.name}.example"'
        case Assurance.TRUSTED if not known:
            yield 'require: "trusted" needs key or psk; give the file with the peer\'s public key as key = "/..."'
        case Assurance.CLEAR if known or rule.name is not None:
            yield 'require: "clear" is for addresses, without key or psk; write the peer\'s address, or require "named"'
        case Assurance.ENCRYPTED | Assurance.CONTINUOUS:
            yield f'require: "{rule.require}" cannot be had yet; "named", "trusted" and "clear" can'
    if rule.require is Assurance.NAMED and rule.address is not None:
        yield 'address: a named peer\'s comes from the DNS; leave it out, or give key or psk and require "trusted"'
    if rule.require is Assurance.TRUSTED and rule.name is not None and rule.address is None:
        yield 'address: missing; a trusted peer is not looked up in the DNS, so say where it is: address = "192.0.2.2"'
    if rule.name is None and rule.address is not None:
        yield "address: peer is an address already; leave this out"
    if rule.name is not None and rule.name.startswith("*"):
        yield "peer: names with * cannot be had yet; write a rule for each name"
    if isinstance(rule.peer, IPv4Network | IPv6Network) and rule.peer.num_addresses > 1 and rule.require:
        yield "peer: prefixes cannot be protected yet; write a rule for each address"
    if (rule.local_port or rule.remote_port) and rule.protocol not in WITH_PORTS:
        yield 'protocol: ports need a protocol that has them; write protocol = "tcp" or "udp"'
    if (rule.local_networks or rule.remote_networks) and rule.mode is not Mode.TUNNEL:
        yield 'mode: networks behind a host need a tunnel; write mode = "tunnel", or leave the networks out'
    families = [{network.version for network in side} for side in (rule.local_networks, rule.remote_networks) if side]
    if len(families) == 2 and families[0] != families[1]:
        yield "local-networks: IPv4 or IPv6 is on one side only; give prefixes of the same families on both"


def conflicts(rules: Sequence[tuple[int, Rule]]) -> Iterator[str]:
    """Pairs of rules that cannot both hold.  Of two that overlap, the narrower wins; so one must be the narrower."""
    for (first, one), (second, other) in combinations(rules, 2):
        if one.peer == other.peer and _proof(one) != _proof(other):
            yield (
                f"rule[{second}].require: rule[{first}] is about the same peer; give both the same require, key, psk, "
                "address and identities"
            )
        for scope, rival in ((a, b) for a in _scopes(one) for b in _scopes(other)):
            sides = [(_within(x, y), _within(y, x)) for x, y in zip(scope, rival, strict=True)]
            overlap = all(narrower or wider for narrower, wider in sides)
            if overlap and all(narrower for narrower, _ in sides) == all(wider for _, wider in sides):
                yield (
                    f"rule[{second}]: speaks of the same packets as rule[{first}], and neither is the narrower; "
                    "delete one, or give it a narrower protocol, port or prefix"
                )
                break


def _proof(rule: Rule) -> tuple[object, ...]:
    return rule.require, rule.key, rule.psk, rule.address, rule.identity, rule.own_identity


def _scopes(rule: Rule) -> Iterator[tuple[object, ...]]:
    """The packets that a rule speaks of: local prefix, remote prefix or name, protocol, ports.  0 or None: any."""
    peer = host_network(rule.address) if rule.address is not None else rule.peer
    for local in rule.local_networks or (None,):
        for remote in rule.remote_networks or (peer,):
            yield local, remote, rule.protocol, rule.local_port, rule.remote_port


def _within(inner: object, outer: object) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return not outer or inner == outer


WITH_PORTS = frozenset(PROTOCOLS[word] for word in ("tcp", "udp", "dccp", "sctp", "udplite"))
"""Protocols whose first four octets are two ports."""
