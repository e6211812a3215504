"""What does not fit together in rules whose settings are each well-formed (RFC 4301 s4.4.1)."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network
from itertools import combinations

from hushwire.config.model import Addressing, Dns, Group, Host, Rule, Start
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
        case Assurance.NAMED if rule.name is not None and rule.name != "*" and "." not in rule.name:
            yield f'peer: "{rule.name}" has no domain; write the full name, such as "{rule.name}.example"'
        case Assurance.CLEAR if known:
            yield 'require: "clear" asks for no proof; leave out key and psk, or require "trusted"'
        case Assurance.ENCRYPTED | Assurance.CONTINUOUS if known:
            yield f'require: "{rule.require}" takes any key at first; leave out key and psk, or require "trusted"'
    if (rule.require is Assurance.NAMED or (rule.btns and rule.name is not None)) and rule.address is not None:
        yield 'address: it comes from the DNS; leave it out, or give key or psk and require "trusted"'
    trusted = known and rule.require is Assurance.TRUSTED and rule.name is not None
    if trusted and not rule.many and rule.address is None:
        yield 'address: missing; a trusted peer is not looked up in the DNS, so say where it is: address = "192.0.2.2"'
    if rule.name is None and rule.address is not None:
        yield "address: peer is an address already; leave this out"
    if rule.many and rule.key:
        yield 'key: one key is one peer\'s; write a rule for each, or take the keys from the DNS with require = "named"'
    if rule.many and rule.identity is not None:
        yield "identity: it is one peer's; write a rule for each"
    if rule.many and rule.mode is Mode.TUNNEL:
        yield 'mode: a tunnel ends at one peer; write a rule for each, or mode = "transport"'
    if rule.btns and rule.mode is Mode.TUNNEL:
        yield 'mode: a stranger speaks for his own address only; write mode = "transport", or require "named"'
    if trusted and rule.many:
        yield 'require: where a trusted peer is has to be written down; write a rule for each, or require "named"'
    if rule.many and rule.start is Start.CONNECT:
        yield 'start: nobody can be sought among many; write "trap", or a rule for each who is to be'
    if rule.roams and rule.name is None:
        yield "roams: an address does not roam; write the peer's name"
    if rule.roams and rule.require is not Assurance.NAMED:
        yield 'roams: only the DNS can tell the key of a peer that may be anywhere; require "named"'
    if rule.anonymous.peer and rule.require is not Assurance.ENCRYPTED:
        yield 'anonymous: of such a peer no more is known than "encrypted"; require that, or write anonymous = "us"'
    if rule.anonymous.us and rule.require is Assurance.CLEAR:
        yield 'anonymous: to "clear" traffic nobody proves anything; leave it out'
    if rule.anonymous.us and rule.psk:
        yield "psk: a shared key proves both ends; leave it out, or give the peer's key and stay anonymous yourself"
    if rule.anonymous.us and rule.own_identity is not None:
        yield "own-identity: who is anonymous does not say who he is; leave it out"
    if rule.addressing is Addressing.SYNTHETIC and (rule.name is None or rule.require is not Assurance.NAMED):
        yield 'addressing: synthetic addresses are made for names; write peer = "*.example", or leave this out'
    if rule.addressing is Addressing.SYNTHETIC and rule.mode is Mode.TUNNEL:
        yield 'addressing: in a tunnel the networks say what is meant; write addressing = "real"'
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
        if one.peer == other.peer and _terms(one) != _terms(other) and not _exempts(one, other):
            yield (
                f"rule[{second}].require: rule[{first}] is about the same peer; give both the same of everything but "
                "below, protocol, ports, networks and mode"
            )
        # Of rules about many the narrower one counts; to be about the same many is to be about the same peer.
        if (one.many or other.many) and one.peer != other.peer:
            continue
        for scope, rival in ((a, b) for a in _scopes(one) for b in _scopes(other)):
            sides = [(_within(x, y), _within(y, x)) for x, y in zip(scope, rival, strict=True)]
            overlap = all(narrower or wider for narrower, wider in sides)
            if overlap and all(narrower for narrower, _ in sides) == all(wider for _, wider in sides):
                yield (
                    f"rule[{second}]: speaks of the same packets as rule[{first}], and neither is the narrower; "
                    "delete one, or give it a narrower protocol, port or prefix"
                )
                break


def unsaid(rules: Sequence[tuple[int, Rule]]) -> Iterator[str]:
    """Prefixes of which some packets only are spoken of, within one that a rule traps as a whole.

    The narrowest prefix has the say about an address, for one IKE SA is for all that is said with it: so it would have
    nothing to say of the others, and they would wait for ever.
    """
    prefixes = [(n, rule) for n, rule in rules if not isinstance(rule.peer, str)]
    for n, rule in prefixes:
        said = [other.protocol for _, other in prefixes if other.peer == rule.peer]
        wider = [
            m for m, other in prefixes
            if other.many and other.require is not Assurance.CLEAR and other.group is not Group.BLOCK
            and other.peer != rule.peer and _within(rule.peer, other.peer)
        ]  # fmt: skip
        if all(said) and wider:
            yield (
                f"rule[{n}].protocol: of {rule.peer} only the narrower rules count, and they leave packets out that "
                f"rule[{wider[0]}] speaks of; write one more for {rule.peer}, without protocol"
            )


def unreachable(rules: Sequence[tuple[int, Rule]], dns: Dns) -> Iterator[str]:
    """Rules about everything, under which hushwire's own questions would wait for themselves."""
    for n, rule in rules:
        everything = not isinstance(rule.peer, str) and rule.peer.prefixlen == 0
        if everything and rule.require is not Assurance.CLEAR and not dns.forward:
            yield (
                f"rule[{n}].peer: hushwire asks name servers everywhere, and that is in {rule.peer}; name them "
                'with dns.forward, such as forward = ["192.0.2.53"]'
            )


def _terms(rule: Rule) -> tuple[object, ...]:
    """What holds for a peer as a whole: one IKE SA is for all that is said with it."""
    proof = rule.require, rule.key, rule.psk, rule.address, rule.identity, rule.own_identity
    return *proof, rule.start, rule.roams, rule.addressing, rule.anonymous


def _exempts(one: Rule, other: Rule) -> bool:
    """Whether one lets some ports of the other's addresses go in clear.  Names have no addresses of their own."""
    return one.name is None and (one.require is Assurance.CLEAR) != (other.require is Assurance.CLEAR)


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
