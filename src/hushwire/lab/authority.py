"""Signed zones answered one question at a time, every signature made for the answer it is in (RFC 4034, 4035, 5155).

What Knot does for the honest lab (lab.dns), without files: a zone is a mapping, so a test may spoil any part of it.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import dns.dnssec
import dns.dnssectypes
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rdtypes.ANY.CNAME
import dns.rdtypes.ANY.DNAME
import dns.rrset
from cryptography.hazmat.primitives.asymmetric import ec
from dns.name import Name
from dns.rdataclass import IN
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.DNSKEY import DNSKEY
from dns.rrset import RRset

TTL = 2
"""Seconds, of every record that is not given another: a test does not wait long for a cache."""

INCEPTION, EXPIRATION = -3600, 86400
"""Seconds from now: the life of a signature."""

clock = time.time
"""The world's, which a test may set wrong."""

MAX_CHAIN = 16
"""Aliases that are followed for one answer."""


@dataclass(frozen=True, slots=True)
class Key:
    """The one key of a zone: it signs everything, itself included."""

    private: ec.EllipticCurvePrivateKey
    dnskey: DNSKEY

    @classmethod
    def generate(cls) -> "Key":
        private = ec.generate_private_key(ec.SECP256R1())
        algorithm = dns.dnssectypes.Algorithm.ECDSAP256SHA256
        return cls(private, dns.dnssec.make_dnskey(private.public_key(), algorithm, flags=257))

    def sign(self, rrset: RRset, signer: Name, inception: float = INCEPTION, expiration: float = EXPIRATION) -> RRset:
        """The signature over `rrset`, by the zone called `signer`; both times are seconds from now."""
        since, until = clock() + inception, clock() + expiration
        rrsig = dns.dnssec.sign(rrset, self.private, signer, self.dnskey, inception=since, expiration=until)
        return dns.rrset.from_rdata(rrset.name, rrset.ttl, rrsig)


@dataclass(slots=True)
class Zone:
    """Records, the key that signs them, and the proofs of what is not there."""

    origin: Name
    key: Key | None
    """None: the zone is not signed."""
    iterations: int | None = None
    """Of NSEC3; None: the zone has NSEC."""
    records: dict[tuple[Name, RdataType], RRset] = field(default_factory=dict)

    def put(self, rrset: RRset) -> None:
        """Replace one record set; an empty one is taken away."""
        if rrset:
            self.records[rrset.name, rrset.rdtype] = rrset
        else:
            self.records.pop((rrset.name, rrset.rdtype), None)

    def types_at(self, name: Name) -> list[RdataType]:
        return [rdtype for owner, rdtype in self.records if owner == name]

    def has(self, name: Name) -> bool:
        """Whether the name exists: names below it are enough (RFC 4592 s2.2.2)."""
        return any(owner.is_subdomain(name) for owner, _ in self.records)

    def closest_encloser(self, name: Name) -> Name:
        while not self.has(name):
            name = name.parent()
        return name

    def owner_of(self, name: Name) -> Name | None:
        """The name itself, or the wildcard that stands for it, or None (RFC 4592 s3.3.1)."""
        if self.has(name):
            return name
        wildcard = wildcard_of(self.closest_encloser(name))
        return wildcard if self.has(wildcard) else None

    def proofs(self, *names: Name) -> list[RRset]:
        """The NSEC or NSEC3 records that match or cover each name, each record once."""
        make = self._nsec if self.iterations is None else self._nsec3
        return list({rrset.name: rrset for rrset in map(make, names)}.values())

    def denial(self, name: Name) -> list[RRset]:
        """That `name`, or a record of it, is not there (RFC 4035 s3.1.3, RFC 5155 s7.2)."""
        if self.has(name):
            return self.proofs(name)
        encloser = self.closest_encloser(name)
        if self.iterations is None:
            return self.proofs(name, wildcard_of(encloser))
        return self.proofs(encloser, next_closer(name, encloser), wildcard_of(encloser))

    def no_closer(self, name: Name) -> list[RRset]:
        """That a wildcard had the right to stand for `name` (RFC 4035 s3.1.3.3, RFC 5155 s7.2.6)."""
        if self.iterations is None:
            return self.proofs(name)
        return self.proofs(next_closer(name, self.closest_encloser(name)))

    def _nsec(self, name: Name) -> RRset:
        owners = sorted({owner for owner, _ in self.records})
        index = max(index for index, owner in enumerate(owners) if owner <= name)
        owner, following = owners[index], owners[(index + 1) % len(owners)]
        types = _names([*self.types_at(owner), RdataType.RRSIG, RdataType.NSEC])
        return rrset_of(owner, RdataType.NSEC, [f"{following} {types}"])

    def _nsec3(self, name: Name) -> RRset:
        names = {ancestor for owner, _ in self.records for ancestor in _up_to(owner, self.origin)}
        hashes = {self._hash(name): name for name in names}
        wanted, chain = self._hash(name), sorted(hashes)
        # Below the first is after the last: the chain is a circle.
        index = max((index for index, hashed in enumerate(chain) if hashed <= wanted), default=len(chain) - 1)
        types = self.types_at(hashes[chain[index]])
        following = chain[(index + 1) % len(chain)]
        nsec3 = f"1 0 {self.iterations} - {following} {_names([*types, RdataType.RRSIG] if types else [])}"
        return rrset_of(Name((chain[index].encode(), *self.origin.labels)), RdataType.NSEC3, [nsec3])

    def _hash(self, name: Name) -> str:
        return dns.dnssec.nsec3_hash(name, b"", self.iterations or 0, dns.dnssectypes.NSEC3Hash.SHA1)


class Authority:
    """Zones under one root, and honest answers out of them."""

    def __init__(self) -> None:
        self.zones: dict[Name, Zone] = {}
        self.add_zone("")

    @property
    def anchor(self) -> str:
        """The root's DS record in presentation form: what a validator trusts."""
        return f". DS {self._ds(self.zones[dns.name.root])[0]}"

    def add_zone(self, origin: str, signed: bool = True, iterations: int | None = None) -> Zone:
        """A new zone, delegated from the closest one above it."""
        apex = absolute(origin)
        zone = Zone(apex, Key.generate() if signed else None, iterations)
        self.zones[apex] = zone
        self.set(origin, {"SOA": [f"ns.{origin} host.{origin} 1 3600 600 86400 {TTL}"], "NS": [f"ns.{origin}"]})
        if zone.key is not None:
            zone.put(dns.rrset.from_rdata(apex, TTL, zone.key.dnskey))
        if apex != dns.name.root:
            parent = self.zone_of(apex.parent())
            parent.put(rrset_of(apex, RdataType.NS, [f"ns.{origin}"]))
            parent.put(rrset_of(apex, RdataType.DS, self._ds(zone)))
        return zone

    def set(self, name: str, by_type: Mapping[str, Sequence[str]], ttl: int = TTL) -> None:
        """Replace record sets of `name`: type -> the records in presentation form; `\\#` takes octets unjudged."""
        owner = absolute(name)
        for text, records in by_type.items():
            rdtype = dns.rdatatype.from_text(text)
            self.zone_of(owner, rdtype).put(rrset_of(owner, rdtype, records, ttl))

    def zone_of(self, name: Name, rdtype: RdataType = RdataType.ANY) -> Zone:
        """The zone that answers for `name`: for DS the parent's, else the closest."""
        if rdtype == RdataType.DS and name != dns.name.root:
            name = name.parent()
        while name not in self.zones:
            name = name.parent()
        return self.zones[name]

    def reply(self, query: dns.message.Message) -> dns.message.QueryMessage:
        """The honest answer: signed if it was asked for with DO, aliases followed."""
        reply = cast(dns.message.QueryMessage, dns.message.make_response(query, recursion_available=True))
        reply.flags |= dns.flags.AA
        if query.edns >= 0:
            # RFC 3225 s3: DO is copied.
            reply.use_edns(ednsflags=query.ednsflags & dns.flags.DO)
        name: Name | None = query.question[0].name
        for _ in range(MAX_CHAIN):
            if name is None:
                break
            name = self._answer(reply, name, query.question[0].rdtype)
        return reply

    def _answer(self, reply: dns.message.QueryMessage, name: Name, rdtype: RdataType) -> Name | None:
        """Add what there is at `name`; answer the name that it is an alias of."""
        zone = self.zone_of(name, rdtype)
        for ancestor in _up_to(name, zone.origin)[1:]:
            if dname := zone.records.get((ancestor, RdataType.DNAME)):
                target = cast(dns.rdtypes.ANY.DNAME.DNAME, dname[0]).target
                to = name.relativize(ancestor).concatenate(target)
                add(reply, reply.answer, zone, dname)
                # RFC 6672 s5.3.1: the CNAME follows from the DNAME and is not signed.
                reply.answer.append(rrset_of(name, RdataType.CNAME, [str(to)], dname.ttl))
                return to
        owner = zone.owner_of(name)
        if owner is not None:
            for kind in (rdtype, RdataType.CNAME):
                if found := zone.records.get((owner, kind)):
                    add(reply, reply.answer, zone, found, name=name)
                    if owner != name:
                        add(reply, reply.authority, zone, *zone.no_closer(name))
                    follow = kind != rdtype
                    return cast(dns.rdtypes.ANY.CNAME.CNAME, found[0]).target if follow else None
        elif not reply.answer:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        add(reply, reply.authority, zone, zone.records[zone.origin, RdataType.SOA])
        if zone.key is not None and reply.ednsflags & dns.flags.DO:
            add(reply, reply.authority, zone, *zone.denial(name))
        return None

    def _ds(self, zone: Zone) -> list[str]:
        return [] if zone.key is None else [str(dns.dnssec.make_ds(zone.origin, zone.key.dnskey, "SHA256"))]


def add(reply: dns.message.Message, section: list[RRset], zone: Zone, *rrsets: RRset, name: Name | None = None) -> None:
    """Put record sets into a section, with their signatures if DO asks for them; `name`: what a wildcard stands for."""
    for rrset in rrsets:
        section.append(renamed(rrset, name or rrset.name))
        if zone.key is not None and reply.ednsflags & dns.flags.DO:
            section.append(renamed(zone.key.sign(rrset, zone.origin), name or rrset.name))


def renamed(rrset: RRset, name: Name) -> RRset:
    """The same records at another name."""
    other = RRset(name, rrset.rdclass, rrset.rdtype, rrset.covers)
    for record in rrset:
        other.add(record, rrset.ttl)
    return other


def rrset_of(name: Name, rdtype: RdataType, records: Iterable[str], ttl: int = TTL) -> RRset:
    rrset = RRset(name, IN, rdtype)
    rrset.update_ttl(ttl)
    for record in records:
        rrset.add(_rdata(rdtype, record), ttl)
    return rrset


def absolute(name: str) -> Name:
    return dns.name.from_text(name)


def wildcard_of(encloser: Name) -> Name:
    return Name((b"*", *encloser.labels))


def next_closer(name: Name, encloser: Name) -> Name:
    """RFC 5155 s1.3: one label longer than the closest encloser."""
    return name.split(len(encloser) + 1)[1]


def _rdata(rdtype: RdataType, text: str) -> dns.rdata.Rdata:
    if text.startswith("\\# "):
        # dnspython would refuse octets that are no good record, and those are what we are here for.
        return dns.rdata.GenericRdata(IN, rdtype, bytes.fromhex("".join(text.split()[2:])))
    return dns.rdata.from_text(IN, rdtype, text, dns.name.root, relativize=False)


def _up_to(name: Name, origin: Name) -> list[Name]:
    """The name and its ancestors, down to the origin."""
    return [name.split(labels)[1] for labels in range(len(name), len(origin) - 1, -1)]


def _names(types: Iterable[RdataType]) -> str:
    return " ".join(dns.rdatatype.to_text(rdtype) for rdtype in types)
