"""`hushwire why NAME|ADDRESS`: which rule, what the DNS says and by which chain, whose key, and what a packet would do.

Everything is asked afresh, so that a name can be explained which nobody has used yet, and an answer that has changed.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address

from hushwire.config import Addressing, Rule
from hushwire.events import Answered, Lookup, Outcome, Verdict
from hushwire.ike.sa import IkeSA
from hushwire.names.binding import AAAA, TYPE_NAMES, A, Binding, Unbound, bind, questions
from hushwire.names.ipseckey import IPSECKEY, read_records
from hushwire.names.name import BadName, host_name
from hushwire.names.reverse import bind_address, reverse_name
from hushwire.names.synthetic import is_synthetic
from hushwire.node.capture import judge
from hushwire.node.peer import Peer
from hushwire.node.peers import Peers
from hushwire.node.rulebook import Rulebook, Rules, permits_clear, refuses
from hushwire.node.seeking import Seeking
from hushwire.node.telling import Told, level, peer_status
from hushwire.policy.assurance import Assurance
from hushwire.policy.spd import Action, Policy
from hushwire.timers import Now
from hushwire.wire.address import IPAddress, address_from_octets

DS = 43
"""RR type (RFC 4034 s5): by it a parent vouches for a child's key."""
SHOWN_RECORDS = 16
PASSED = "whatever the DNS says"


class Unclear(Exception):
    """The subject is neither a name nor an address; one line says so."""


@dataclass(slots=True)
class Explanation:
    """One subject, and the answers about it as they come."""

    subject: str
    """A canonical name, or an address as text."""
    address: IPAddress | None
    """The one whose name in the reverse tree is asked for; None: a name is."""
    name: str
    """What the DNS is asked for: the subject, the name that it stands for, or the address's in the reverse tree."""
    made: IPAddress | None = None
    """The subject, where that is a synthetic address: all is said of the name for which it stands."""
    open: dict[int, tuple[str, int]] = field(default_factory=dict)
    """Questions under way, by request number."""
    answers: dict[tuple[str, int], Answered] = field(default_factory=dict)

    @classmethod
    def of(cls, subject: str, peers: Peers) -> "Explanation":
        """Raises Unclear."""
        with suppress(ValueError):
            address = ip_address(subject.strip())
            if (peer := _standing_for(address, peers)) is not None:
                return cls(str(address), None, peer.name, address)
            return cls(str(address), address, reverse_name(address))
        try:
            name = host_name(subject.strip())
        except BadName as error:
            raise Unclear(f"{error}; give a name or an address") from None
        return cls(name, None, name)

    def ask(self, number: Callable[[], int]) -> list[Lookup]:
        """All questions at once: the records, and every DS from the top down to them."""
        asked = [*((zone, DS) for zone in _zones(self.name)), *self._records]
        self.open = {number(): question for question in asked}
        return [Lookup(request, name, rdtype) for request, (name, rdtype) in self.open.items()]

    def answered(self, event: Answered) -> bool:
        """Take an answer; whether it was the last."""
        self.answers[self.open.pop(event.request)] = event
        return not self.open

    def told(self, host: str, peers: Peers, seeking: Seeking, now: Now) -> Told:
        """All of it, as a JSON value; `host` is our own name."""
        found, own = self._bind(peers.own), self.name == host
        of_address = found if self.address is not None else None
        peer = peers.by_name(self.name) if self.address is None else _governing(self.address, peers)[0]
        if peer is not None and peer.is_trap:
            peer = None
        rules = peers.rulebook.for_address(self.address) if self.address else peers.rulebook.for_name(self.name)
        if self.address is None and found.canonical:
            # An alias without a rule has that of where it leads, and the policies are that name's.
            rules = rules or peers.rulebook.for_name(found.canonical)
            peer = (peers.by_name(found.canonical) if peer is None or peer.is_alias else None) or peer
        if peer is not None and self.made is not None:
            # Of the name that an alias leads to, it may be the alias's.
            rules = peer.rules
        return {
            "subject": self.subject,
            "rule": _rule_told(peers.rulebook, rules),
            "dns": [_answer_told(self.answers[question]) for question in self._records],
            "chain": self._chain(),
            "bound": _found_told(found),
            "pinned": _pinned(peer),
            "programs": None
            if self.address is not None or self.made is not None
            else _program_told(peer, None if own else rules, found, peers, seeking, now),
            "packets": [_packet_told(each, of_address, peers, seeking) for each in self._addresses(peer, peers.own)],
            "peer": peer_status(peer, seeking, now) if peer is not None else None,
        }

    @property
    def _records(self) -> tuple[tuple[str, int], ...]:
        return questions(self.name) if self.address is None else ((self.name, IPSECKEY),)

    def _addresses(self, peer: Peer | None, own: tuple[IPAddress, ...]) -> list[IPAddress]:
        """Where packets may be about to go: what the DNS says, of use to us or not, and what programs were told."""
        if (asked := self.made or self.address) is not None:
            return [asked]
        answers = (self.answers[self.name, rdtype] for rdtype in (AAAA, A))
        said = [address for answer in answers for address in _read_addresses(answer)][:SHOWN_RECORDS]
        return list(dict.fromkeys((*said, *(peer.standing(own) if peer is not None else ()))))

    def _chain(self) -> list[Told]:
        """What is known of every name from the top down to the one asked for."""
        zones = list(_zones(self.name))
        below = [self.answers[zone, DS] for zone in zones[1:]] + [self.answers[self._records[0]]]
        return [_link_told(zone, self.answers[zone, DS], after) for zone, after in zip(zones, below, strict=True)]

    def _bind(self, own: tuple[IPAddress, ...]) -> Binding | Unbound:
        try:
            if self.address is not None:
                return bind_address(self.address, self.answers[self.name, IPSECKEY], own)
            a, aaaa, keys, *rest = (self.answers[question] for question in questions(self.name))
            return bind(self.name, a, aaaa, keys, rest[0] if rest else None, own)
        except Unbound as unbound:
            return unbound


def _zones(name: str) -> Iterator[str]:
    """Every name above, and the name itself, where a zone might begin; the root is what is trusted."""
    labels = name.split(".")
    for count in range(1, len(labels) + 1):
        yield ".".join(labels[-count:])


def _rule_told(rulebook: Rulebook, rules: Rules | None) -> Told | None:
    if rules is None:
        return None
    rule = rules[0]
    return {
        "number": rulebook.number_of(rules),
        "require": str(rule.require),
        "below": "block" if refuses(rules) else rule.below.value,
        "group": rule.group.value if rule.group is not None else None,
        "start": rule.start.value,
        "roams": rule.roams,
        "addressing": rule.addressing.value,
        "parts": [_part(each) for each in rules],
    }


def _part(rule: Rule) -> str:
    """The packets that one of the rules about a peer speaks of."""
    words = [f"protocol {rule.protocol}" if rule.protocol else "everything"]
    words += [f"our port {rule.local_port}"] if rule.local_port else []
    words += [f"its port {rule.remote_port}"] if rule.remote_port else []
    return ", ".join(words)


def _answer_told(answer: Answered) -> Told:
    return {
        "name": answer.name,
        "type": TYPE_NAMES.get(answer.rdtype, str(answer.rdtype)),
        "outcome": answer.outcome.value,
        "ttl": answer.ttl,
        "canonical": answer.canonical or None,
        "reason": answer.reason or None,
        "records": list(_records(answer))[:SHOWN_RECORDS],
    }


def _records(answer: Answered) -> Iterator[str]:
    if answer.rdtype == IPSECKEY:
        records, skipped = read_records(answer.rdata)
        for record in records:
            gateway = f" by way of {record.gateway}" if record.gateway is not None else ""
            yield f"{record.key.kind} {record.key.fingerprint.hex()}{gateway}"
        yield from (f"not used: {reason}" for reason in skipped)
        return
    if answer.rdtype in (A, AAAA):
        yield from map(str, _read_addresses(answer))
    else:
        yield from (rdata.hex() for rdata in answer.rdata)


def _read_addresses(answer: Answered) -> Iterator[IPAddress]:
    for rdata in answer.rdata:
        with suppress(ValueError):
            yield address_from_octets(rdata)


def _link_told(zone: str, answer: Answered, below: Answered) -> Told:
    unsigned = answer.outcome is Outcome.DENIED and below.outcome is Outcome.INSECURE
    meaning = {
        Outcome.SECURE: "its parent vouches for its key",
        Outcome.DENIED: "its parent says that it is not signed" if unsigned else "no zone of its own",
        Outcome.INSECURE: "below what is not signed",
        Outcome.ERROR: "not known",
    }[answer.outcome]
    return {
        "zone": zone,
        "outcome": answer.outcome.value,
        "decides": unsigned or answer.outcome in (Outcome.SECURE, Outcome.ERROR),
        "meaning": answer.reason or meaning,
    }


def _found_told(found: Binding | Unbound) -> Told:
    if isinstance(found, Unbound):
        return {"outcome": found.outcome.value, "reason": found.reason}
    return {
        "outcome": Outcome.SECURE.value,
        "canonical": found.canonical,
        "addresses": [str(address) for address in found.addresses],
        "keys": [{"kind": str(key.kind), "fingerprint": key.fingerprint.hex()} for key in found.keys],
        "fingerprints": [fingerprint.hex() for fingerprint in found.fingerprints],
        "gateway": str(found.gateway) if found.gateway is not None else None,
        "ignored": list(found.ignored),
        "ttl": found.ttl,
    }


def _pinned(peer: Peer | None) -> str | None:
    """What the configuration says would prove it, whatever the DNS does."""
    if peer is None or peer.lookup is not None:
        return None
    return f"{peer.key.kind} {peer.key.fingerprint.hex()}" if peer.key is not None else "a shared key"


def _program_told(
    peer: Peer | None, rules: Rules | None, found: Binding | Unbound, peers: Peers, seeking: Seeking, now: Now
) -> str:
    """What a program would get that asked the listener now."""
    if rules is None or rules[0].require is Assurance.CLEAR:
        return f"{PASSED}: no rule wants its packets protected"
    if refuses(rules):
        return "SERVFAIL: a rule blocks it"
    if isinstance(found, Unbound) and found.canonical and peers.rulebook.forbids_clear(found.canonical):
        return f"SERVFAIL: {found}; it leads to {found.canonical}, for which a rule permits no clear"

    told = None
    if peer is not None:
        trying, moment = seeking.tries(peer), now.monotonic
        told = judge(peer, moment, moment, partial(peers.rival_of, peer), pending=False, trying=trying, own=peers.own)
    if told is not None:
        return {
            Verdict.PASS: PASSED,
            Verdict.ONLY: ", ".join(map(str, told.addresses)),
            Verdict.REFUSE: f"SERVFAIL: {told.reason}",
        }[told.verdict]
    if isinstance(found, Binding):
        failed = f" (the last time: {peer.last_failure})" if peer is not None and peer.last_failure else ""
        return f"its addresses if it proves its key{failed}"
    clear = permits_clear(rules) and not (peer is not None and peer.reached)
    return PASSED if clear and found.outcome is not Outcome.ERROR else f"SERVFAIL: {found}"


def _packet_told(address: IPAddress, found: Binding | Unbound | None, peers: Peers, seeking: Seeking) -> Told:
    """What a packet to an address would do now, as far as our own policies go; `found`: of its reverse zone."""
    made_for = _standing_for(address, peers)
    stands = {"name": made_for.name, "address": str(made_for.real(address))} if made_for is not None else None
    fate, because = _fate(address, found, peers, seeking)
    return {"to": str(address), "synthetic": stands, "fate": fate, "because": because}


def _fate(address: IPAddress, found: Binding | Unbound | None, peers: Peers, seeking: Seeking) -> tuple[str, str]:
    """What becomes of it, and why."""
    holder, policy = _governing(address, peers)
    if _is_pooled(address, peers) and (holder is None or address not in holder.synthetic.values()):
        return "dropped", "no name's policy stands there, and the block of synthetic addresses is over every rule"
    rules = peers.rulebook.for_address(address)
    needs_no_peer = rules is not None and (refuses(rules) or rules[0].require is Assurance.CLEAR)
    if holder is None or policy is None or (holder.is_trap and needs_no_peer):
        if rules is None:
            return "in clear", "no policy of ours speaks of it"
        if refuses(rules) or not permits_clear(rules):
            return "dropped", "a rule about its address blocks it"
        return "in clear", "a rule about its address permits that"
    because, sas = f"the policy of {holder.name}", _sas_for(holder.real(address), holder, seeking)
    if policy.action is Action.CLEAR:
        fate, because = "in clear", f"{because}: {holder.last_failure or 'its rule permits that'}"
    elif policy.action is Action.BLOCK:
        fate = "dropped"
    elif sas:
        fate, because = f"protected, {max(level(sa) for sa in sas)}", f"{because}, and its SA with {sas[0].remote}"
    else:
        none = holder.last_failure or "none was needed yet"
        if holder.is_trap and isinstance(found, Unbound):
            none = str(found)
            if permits_clear(holder.rules) and found.outcome is not Outcome.ERROR:
                return "in clear", f"{because} permits that: {none}"
        fate, because = "held", f"{because}, until there is an SA: {none}"
    return fate, because


def _sas_for(address: IPAddress, peer: Peer, seeking: Seeking) -> list[IkeSA]:
    """Those whose Child SAs carry packets to an address."""
    return [
        sa for sa in seeking.standing(peer)
        if any(address in child.selector.remote for child in sa.children.values())
    ]  # fmt: skip


def _governing(address: IPAddress, peers: Peers) -> tuple[Peer | None, Policy | None]:
    """The policy that counts for what leaves to an address, and whose it is."""
    return peers.governing(address, lambda selector: address in selector.remote) or (None, None)


def _standing_for(address: IPAddress, peers: Peers) -> Peer | None:
    """The peer of the name for which a synthetic address was made."""
    return next((peer for peer in peers if address in peer.synthetic.values()), None)


def _is_pooled(address: IPAddress, peers: Peers) -> bool:
    """Whether the block of all synthetic addresses, which is over every rule about addresses, speaks of it."""
    rules = (rule for group in peers.rulebook.groups for rule in group)
    return is_synthetic(address) and any(rule.addressing is Addressing.SYNTHETIC for rule in rules)
