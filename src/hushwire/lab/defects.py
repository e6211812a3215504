"""What may become of an honest DNS answer on the way, or by the hand of a zone's owner: one small function each.

ATTACKS.md rows 29 to 34, 42, 43 and 45.  A defect changes an Exchange; several may follow one another.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
from dns.name import Name
from dns.rdatatype import RdataType
from dns.rrset import RRset

from hushwire.lab.authority import Authority, Key, Zone, add, renamed, rrset_of, wildcard_of

STRANGER = "192.0.2.66"
"""The address that an attacker would have us use."""


@dataclass(slots=True)
class Exchange:
    """One question and what becomes of its answer, which a defect changes."""

    authority: Authority
    query: dns.message.Message
    tcp: bool
    octets: list[bytes] | None = None
    """The messages to send instead of the reply; empty: none at all."""
    forged: list[bytes] = field(default_factory=list)
    """Datagrams to send before, from another port than the one asked."""
    delay: float = 0.0
    """Seconds until the answer goes out."""
    _reply: dns.message.QueryMessage | None = None

    @property
    def reply(self) -> dns.message.QueryMessage:
        """Honest, until a defect has seen it.  What is dropped is never made: a flood of it would hold up the rest."""
        if self._reply is None:
            self._reply = self.authority.reply(self.query)
        return self._reply

    @property
    def name(self) -> Name:
        return self.query.question[0].name

    @property
    def rdtype(self) -> RdataType:
        return self.query.question[0].rdtype

    @property
    def zone(self) -> Zone:
        """The zone that answers."""
        return self.authority.zone_of(self.name, self.rdtype)

    def wire(self) -> bytes:
        """The reply as it would be sent: cut, with TC, where a datagram is too small for it."""
        if self.tcp:
            return self.reply.to_wire(max_size=65535)
        try:
            return self.reply.to_wire(max_size=max(512, self.query.payload))
        except dns.exception.TooBig:
            short = dns.message.make_response(self.query, recursion_available=True)
            short.flags |= dns.flags.TC | dns.flags.AA
            return short.to_wire()


Defect = Callable[[Exchange], None]


# Row 31: suppression.


def drop(exchange: Exchange) -> None:
    """No answer comes."""
    exchange.octets = []


def servfail(exchange: Exchange) -> None:
    """The resolver in between has failed."""
    _empty(exchange, dns.rcode.SERVFAIL)


def refused(exchange: Exchange) -> None:
    """It does not want to."""
    _empty(exchange, dns.rcode.REFUSED)


def strip_signatures(exchange: Exchange) -> None:
    """The records without their RRSIGs."""
    _filter(exchange, lambda rrset: rrset.rdtype != RdataType.RRSIG)


def ignore_do(exchange: Exchange) -> None:
    """As an old resolver answers: no DNSSEC records and no EDNS."""
    _filter(exchange, lambda rrset: rrset.rdtype not in (RdataType.RRSIG, RdataType.NSEC, RdataType.NSEC3))
    exchange.reply.use_edns(False)


def deny(exchange: Exchange) -> None:
    """There is no such record, says whoever is in between, and proves nothing."""
    zone = exchange.zone
    _empty(exchange, dns.rcode.NOERROR)
    add(exchange.reply, exchange.reply.authority, zone, zone.records[zone.origin, RdataType.SOA])


def deny_name(exchange: Exchange) -> None:
    """There is no such name, as unproven."""
    deny(exchange)
    exchange.reply.set_rcode(dns.rcode.NXDOMAIN)


def deny_by_another(exchange: Exchange) -> None:
    """The denial's NSEC is good, but it speaks of another name: the zone's apex."""
    deny(exchange)
    add(exchange.reply, exchange.reply.authority, exchange.zone, *exchange.zone.proofs(exchange.zone.origin))


# Row 30: signatures that are none.


def spoil(exchange: Exchange) -> None:
    """One bit of each signature is wrong."""
    for rrset in _signatures(exchange):
        _replace(rrset, [rr.replace(signature=rr.signature[:-1] + bytes((rr.signature[-1] ^ 1,))) for rr in rrset])


def expire(exchange: Exchange) -> None:
    """The signatures were good until yesterday."""
    _resign(exchange, lambda zone, key, rrset: key.sign(rrset, zone.origin, -7 * 86400, -86400))


def postdate(exchange: Exchange) -> None:
    """They will be good tomorrow."""
    _resign(exchange, lambda zone, key, rrset: key.sign(rrset, zone.origin, 86400, 7 * 86400))


def expire_soon(exchange: Exchange) -> None:
    """They are good for half a minute more."""
    _resign(exchange, lambda zone, key, rrset: key.sign(rrset, zone.origin, -3600, 30))


def sign_by_parent(exchange: Exchange) -> None:
    """The zone above has signed: a good key of a name that is not the owner's zone."""

    def by_parent(zone: Zone, key: Key, rrset: RRset) -> RRset:
        parent = exchange.authority.zone_of(zone.origin, RdataType.DS)
        assert parent.key is not None
        return parent.key.sign(rrset, parent.origin)

    _resign(exchange, by_parent)


def sign_by_sibling(exchange: Exchange) -> None:
    """evil.example has signed, and says so."""
    sibling = exchange.authority.zones[EVIL]
    assert sibling.key is not None
    evil_key = sibling.key
    _resign(exchange, lambda zone, key, rrset: evil_key.sign(rrset, EVIL))


def sign_by_impostor(exchange: Exchange) -> None:
    """A key that nobody vouches for has signed in the zone's name."""
    impostor = Key.generate()
    _resign(exchange, lambda zone, key, rrset: impostor.sign(rrset, zone.origin))


def fewer_labels(exchange: Exchange) -> None:
    """RRSIG.labels is one less: the signed name is made to look like a wildcard's."""
    for rrset in _signatures(exchange):
        _replace(rrset, [rr.replace(labels=rr.labels - 1) for rr in rrset])


def other_keys(exchange: Exchange) -> None:
    """The zone's DNSKEY set is another's, well signed by itself: the DS above does not match."""
    key, zone = Key.generate(), exchange.zone
    rrset = dns.rrset.from_rdata(zone.origin, TTL_OF_KEYS, key.dnskey)
    exchange.reply.answer = [rrset, key.sign(rrset, zone.origin)]


def replay_wildcard(exchange: Exchange) -> None:
    """Records of the wildcard beside it, well signed, stand for a name that has its own."""
    _expand(exchange, prove=True)


def bare_wildcard(exchange: Exchange) -> None:
    """The same for a name that does not exist, without the proof that it does not."""
    _expand(exchange, prove=False)


def claim_wildcard_above(exchange: Exchange) -> None:
    """evil.example signs what is below it as *.example: fewer labels than its own name (CVE-2026-44690)."""
    above = wildcard_of(exchange.zone.origin.parent())
    stolen = rrset_of(above, exchange.rdtype, [STRANGER])

    def as_wildcard(zone: Zone, key: Key, rrset: RRset) -> RRset:
        return renamed(key.sign(stolen, zone.origin), exchange.name)

    exchange.reply.answer[0] = renamed(stolen, exchange.name)
    _resign(exchange, as_wildcard)


# Row 32, and what a liar off the path would say.


def forge(exchange: Exchange) -> None:
    """An attacker's address and nothing of DNSSEC, as if the resolver had validated it: AD is set."""
    _empty(exchange, dns.rcode.NOERROR)
    exchange.reply.flags |= dns.flags.AD
    if exchange.rdtype == RdataType.A:
        exchange.reply.answer = [rrset_of(exchange.name, RdataType.A, [STRANGER], 86400)]


def set_ad(exchange: Exchange) -> None:
    """The resolver says that it has validated."""
    exchange.reply.flags |= dns.flags.AD


def spoil_and_set_ad(exchange: Exchange) -> None:
    """It says so of what does not verify."""
    spoil(exchange)
    set_ad(exchange)


# Octets.


def cut(exchange: Exchange) -> None:
    """Half the message."""
    octets = exchange.wire()
    exchange.octets = [octets[: len(octets) // 2]]


def pad(exchange: Exchange) -> None:
    """As many octets after the message as a datagram holds."""
    octets = exchange.wire()
    exchange.octets = [octets + bytes(65000 - len(octets))]


def loop(exchange: Exchange) -> None:
    """The owner of the first record is a compression pointer to itself."""
    octets = bytearray(exchange.wire())
    start = 12 + len(exchange.name.to_wire() or b"") + 4
    octets[start : start + 2] = (0xC000 | start).to_bytes(2, "big")
    exchange.octets = [bytes(octets)]


def wrong_id(exchange: Exchange) -> None:
    """An answer to something else."""
    octets = exchange.wire()
    exchange.octets = [bytes((octets[0] ^ 0xFF, octets[1])) + octets[2:]]


def wrong_question(exchange: Exchange) -> None:
    """The answer says that another name was asked for."""
    reply = exchange.reply
    reply.question = [renamed(rrset, EVIL) for rrset in reply.question]
    reply.answer = [renamed(rrset, EVIL) for rrset in reply.answer]


def empty_message(exchange: Exchange) -> None:
    """Not one octet."""
    exchange.octets = [b""]


def from_elsewhere(exchange: Exchange) -> None:
    """Forged answers from another port come first."""
    lie = Exchange(exchange.authority, exchange.query, exchange.tcp)
    forge(lie)
    exchange.forged = [lie.wire()] * 3


def out_of_bailiwick(exchange: Exchange) -> None:
    """Besides the answer, one for the victim that was not asked for: unsigned, and signed by evil.example."""
    victim = rrset_of(VICTIM, RdataType.A, [STRANGER], 86400)
    evil_key = exchange.authority.zones[EVIL].key
    assert evil_key is not None
    exchange.reply.answer += [victim, evil_key.sign(victim, EVIL)]
    exchange.reply.additional.append(victim)


def redirect(exchange: Exchange) -> None:
    """The name is an alias of evil.example, whose own records follow, well signed."""
    _redirect(exchange, EVIL)


def redirect_above(exchange: Exchange) -> None:
    """So is all that is below the name above it: by DNAME, with the alias that follows from it (RFC 6672 s3.1)."""
    above = exchange.name.parent()
    dname = rrset_of(above, RdataType.DNAME, [str(EVIL)])
    _redirect(exchange, exchange.name.relativize(above).concatenate(EVIL), dname)


def mutate(seed: int) -> Defect:
    """One to four places of the message have other octets, or lost or doubled ones; the ID stays."""
    dice = random.Random(seed)

    def mutated(exchange: Exchange) -> None:
        octets = bytearray(exchange.wire())
        for _ in range(1 + seed % 4):
            where = dice.randrange(2, len(octets))
            match dice.randrange(8):
                case 0:
                    del octets[where : where + dice.randint(1, 16)]
                case 1:
                    octets[where:where] = octets[where : where + dice.randint(1, 16)]
                case _:
                    octets[where] = dice.randrange(256)
            octets += bytes(max(0, 4 - len(octets)))
        exchange.octets = [bytes(octets)]

    return mutated


def _redirect(exchange: Exchange, target: Name, *first: RRset) -> None:
    there = dns.message.make_query(target, exchange.rdtype, want_dnssec=True)
    alias = rrset_of(exchange.name, RdataType.CNAME, [str(target)])
    _empty(exchange, dns.rcode.NOERROR)
    exchange.reply.answer = [*first, alias, *exchange.authority.reply(there).answer]


def _empty(exchange: Exchange, rcode: dns.rcode.Rcode) -> None:
    exchange.reply.answer, exchange.reply.authority = [], []
    exchange.reply.set_rcode(rcode)


def _filter(exchange: Exchange, keep: Callable[[RRset], bool]) -> None:
    for section in (exchange.reply.answer, exchange.reply.authority):
        section[:] = filter(keep, section)


def _signatures(exchange: Exchange) -> list[RRset]:
    sections = exchange.reply.answer + exchange.reply.authority
    return [rrset for rrset in sections if rrset.rdtype == RdataType.RRSIG]


def _replace(rrset: RRset, records: list[dns.rdata.Rdata]) -> None:
    rrset.items = dict.fromkeys(records)


def _resign(exchange: Exchange, sign: Callable[[Zone, Key, RRset], RRset]) -> None:
    """Make every signature anew."""
    for section in (exchange.reply.answer, exchange.reply.authority):
        for index, rrset in enumerate(section):
            if rrset.rdtype == RdataType.RRSIG:
                of = next(other for other in section if (other.name, other.rdtype) == (rrset.name, rrset.covers))
                zone = exchange.authority.zone_of(of.name, of.rdtype)
                if zone.key is not None:
                    section[index] = sign(zone, zone.key, of)


def _expand(exchange: Exchange, prove: bool) -> None:
    zone, wildcard = exchange.zone, wildcard_of(exchange.name.parent())
    _empty(exchange, dns.rcode.NOERROR)
    add(exchange.reply, exchange.reply.answer, zone, zone.records[wildcard, exchange.rdtype], name=exchange.name)
    if prove:
        add(exchange.reply, exchange.reply.authority, zone, *zone.proofs(exchange.name))


EVIL, VICTIM = dns.name.from_text("evil.example"), dns.name.from_text("victim.example")
TTL_OF_KEYS = 2

DEFECTS: dict[str, Defect] = {
    defect.__name__: defect
    for defect in (
        drop, servfail, refused, strip_signatures, ignore_do, deny, deny_name, deny_by_another,
        spoil, expire, postdate, expire_soon, sign_by_parent, sign_by_sibling, sign_by_impostor, fewer_labels,
        claim_wildcard_above, other_keys, replay_wildcard, bare_wildcard, forge, set_ad, spoil_and_set_ad,
        cut, pad, loop, wrong_id, wrong_question, empty_message, from_elsewhere, out_of_bailiwick, redirect,
        redirect_above,
    )
}  # fmt: skip
