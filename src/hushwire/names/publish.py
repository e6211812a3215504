"""Publishing as a plan: what is there, what shall be there -> one DNS Update of our own records only (RFC 2136).

Whoever else writes at the same name keeps what is theirs, by two rules:

- A record is deleted by its full RDATA (RFC 2136 s2.5.4), and only if it is known as ours: published by us before, or
  holding one of our keys.  Whole sets and whole names are never deleted.
- The plan was made from a reading that may be old by now, or a lie: reading is not authenticated.  So each set that
  changes is a prerequisite in full, as it was read (RFC 2136 s2.4.2), or as not being there (s2.4.3).  The server
  compares and changes in one step (s3.7), so what came in between is refused, not overwritten.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.update
import dns.zonefile

from hushwire.crypto.keys import PublicKey
from hushwire.events import Answered, Outcome
from hushwire.names.binding import AAAA, TYPE_NAMES, A
from hushwire.names.ipseckey import IPSECKEY, MAX_TRIED, BadKeyRecord, KeyRecord, generic, read_record, write_record
from hushwire.names.name import BadName, host_name
from hushwire.names.tlsa import TLSA, BadTlsa, owner, read_fingerprint, write_fingerprint
from hushwire.wire.address import IPAddress

DEFAULT_TTL = 3600
"""Seconds."""


class Unpublishable(Exception):
    """What is there forbids it, or what shall be there cannot be said; one clear line."""


@dataclass(frozen=True, slots=True, order=True)
class Record:
    """One resource record, without its TTL: that is the set's (RFC 2181 s5.2)."""

    owner: str
    """Canonical."""
    rdtype: int
    """One of TYPE_NAMES."""
    rdata: bytes

    def __str__(self) -> str:
        try:
            text = _rdata(self).to_text()
        except dns.exception.DNSException:
            # Read in an answer, it may hold anything.
            text = generic(self.rdata)
        return f"{self.owner}. {TYPE_NAMES[self.rdtype]} {text}"

    @property
    def fingerprint(self) -> bytes | None:
        """Of the key it publishes; None: it publishes none that we can read."""
        try:
            if self.rdtype == IPSECKEY:
                return read_record(self.rdata).key.fingerprint
            return read_fingerprint(self.rdata) if self.rdtype == TLSA else None
        except (BadKeyRecord, BadTlsa):
            return None


@dataclass(frozen=True, slots=True)
class RecordSet:
    """What a server has of one owner and type."""

    owner: str
    rdtype: int
    ttl: int = 0
    """Seconds."""
    rdatas: frozenset[bytes] = frozenset()
    """None: there is no such set."""


@dataclass(frozen=True, slots=True)
class Own:
    """What is known as this host's."""

    keys: frozenset[bytes] = frozenset()
    """Fingerprints: a record with one of these keys is ours, whatever its precedence."""
    records: frozenset[Record] = frozenset()
    """Published by us before."""

    def __contains__(self, record: Record) -> bool:
        return record in self.records or record.fingerprint in self.keys


@dataclass(frozen=True, slots=True)
class Plan:
    """One update, all of which happens or nothing (RFC 2136 s3.4.2.7)."""

    zone: str
    prerequisites: tuple[RecordSet, ...]
    """Every set that changes, as it was found."""
    deletions: tuple[Record, ...]
    additions: tuple[tuple[Record, int], ...]
    """With the TTL of their set, in seconds."""
    wanted: tuple[Record, ...]
    """What shall be there afterwards, of ours."""
    gone: tuple[Record, ...]
    """What shall not be there afterwards."""
    kept: tuple[Record, ...]
    """Keys found at the name that are not known as ours.  They stay, and whoever has one is the name's host too."""

    @property
    def changes(self) -> bool:
        return bool(self.deletions or self.additions)

    def message(self) -> dns.update.UpdateMessage:
        """The update, not signed."""
        update = dns.update.UpdateMessage(f"{self.zone}.")
        for owner_name in dict.fromkeys(found.owner for found in self.prerequisites):
            # RFC 2136 s3.4.2.2: beside a CNAME an addition is ignored without a word.
            update.absent(f"{owner_name}.", dns.rdatatype.CNAME)
        for found in self.prerequisites:
            if not found.rdatas:
                update.absent(f"{found.owner}.", dns.rdatatype.RdataType(found.rdtype))
            for rdata in sorted(found.rdatas):
                update.present(f"{found.owner}.", _rdata(Record(found.owner, found.rdtype, rdata)))
        for record in self.deletions:
            update.delete(f"{record.owner}.", _rdata(record))
        for record, ttl in self.additions:
            update.add(f"{record.owner}.", ttl, _rdata(record))
        return update


def records_of(
    name: str,
    keys: Iterable[PublicKey] = (),
    addresses: Iterable[IPAddress] = (),
    whole: bool = True,
    fingerprints: bool = False,
) -> tuple[Record, ...]:
    """What publishes a host: `keys` preferred first, as IPSECKEY if `whole`, as TLSA if `fingerprints`."""
    records = [
        Record(name, A if isinstance(address, IPv4Address) else AAAA, address.packed)
        for address in dict.fromkeys(addresses)
    ]
    for number, public in enumerate(dict.fromkeys(keys), 1):
        if number > MAX_TRIED:
            raise Unpublishable(f"more than {MAX_TRIED} keys: peers look at no more")
        if whole:
            try:
                records.append(Record(name, IPSECKEY, write_record(KeyRecord(10 * number, None, public))))
            except BadKeyRecord as bad:
                raise Unpublishable(f"{bad}; publish its fingerprint alone, or make another key") from None
        if fingerprints:
            try:
                records.append(Record(owner(name), TLSA, write_fingerprint(public.fingerprint)))
            except BadName as bad:
                raise Unpublishable(str(bad)) from None
    return tuple(records)


def plan(zone: str, found: Iterable[RecordSet], wanted: Collection[Record], own: Own, ttl: int | None = None) -> Plan:
    """What to change so that of what is ours `wanted` is there, and nothing else.  `ttl` None: as the set has it."""
    # Whatever else it says, a record with a key that we publish now is ours: nobody else could use it.
    own = Own(own.keys | {record.fingerprint for record in wanted if record.fingerprint}, own.records)
    prerequisites: list[RecordSet] = []
    deletions: list[Record] = []
    additions: list[tuple[Record, int]] = []
    gone: list[Record] = []
    kept: list[Record] = []
    planned: set[tuple[str, int]] = set()
    for there in found:
        planned.add((there.owner, there.rdtype))
        records = {Record(there.owner, there.rdtype, rdata) for rdata in there.rdatas}
        want = {record for record in wanted if (record.owner, record.rdtype) == (there.owner, there.rdtype)}
        mine = {record for record in records if record in want or record in own}
        others = records - mine
        kept += sorted(record for record in others if record.rdtype in (IPSECKEY, TLSA))
        gone += sorted(mine - want)
        # RFC 2181 s5.2: a set has one TTL, and where others have records in it, it is not ours to choose.
        set_ttl = there.ttl if others or (ttl is None and records) else DEFAULT_TTL if ttl is None else ttl
        again = mine & want if set_ttl != there.ttl else set()
        delete, add = (mine - want) | again, (want - records) | again
        if delete or add:
            prerequisites.append(there)
            deletions += sorted(delete)
            additions += ((record, set_ttl) for record in sorted(add))
    if unread := [record for record in wanted if (record.owner, record.rdtype) not in planned]:
        raise ValueError(f"planned without having read what is there: {unread[0]}")
    return Plan(zone, tuple(prerequisites), tuple(deletions), tuple(additions), tuple(wanted), tuple(gone), tuple(kept))


def missing(plan: Plan, answers: Iterable[Answered]) -> tuple[str, ...]:
    """Why validated answers are not yet what `plan` should have made, a line each; none: it is published."""
    by_set = {(answer.name, answer.rdtype): answer for answer in answers}
    faults: list[str] = []
    for name, rdtype in dict.fromkeys((record.owner, record.rdtype) for record in (*plan.wanted, *plan.gone)):
        answer = by_set[name, rdtype]
        what = f"{TYPE_NAMES[rdtype]} of {name}"
        wanted = {record.rdata for record in plan.wanted if (record.owner, record.rdtype) == (name, rdtype)}
        if answer.outcome not in (Outcome.SECURE, Outcome.DENIED) or (wanted and answer.outcome is Outcome.DENIED):
            because = f" ({answer.reason})" if answer.reason else ""
            faults.append(f"{what}: {answer.outcome.value}{because}")
        elif wanted - set(answer.rdata):
            faults.append(f"{what}: the new records are not seen yet")
        elif any(
            record.rdata in answer.rdata for record in plan.gone if (record.owner, record.rdtype) == (name, rdtype)
        ):
            faults.append(f"{what}: old records are still seen")
    return tuple(faults)


def read_published(text: str) -> frozenset[Record]:
    """Records in zone file form, as write_published() makes it or a person does; or Unpublishable."""
    try:
        rrsets = dns.zonefile.read_rrsets(text, default_ttl=0)
        records = frozenset(
            Record(host_name(str(rrset.name)), int(rrset.rdtype), rdata.to_wire() or b"")
            for rrset in rrsets
            for rdata in rrset
        )
    except (dns.exception.DNSException, ValueError) as error:
        raise Unpublishable(f"no records in zone file form: {error}") from None
    for record in records:
        if record.rdtype not in TYPE_NAMES:
            raise Unpublishable(f"{dns.rdatatype.to_text(dns.rdatatype.RdataType(record.rdtype))} is never published")
    return records


def write_published(records: Iterable[Record]) -> str:
    """What was published, to be known as ours the next time."""
    return "".join(f"{record}\n" for record in sorted(records))


def _rdata(record: Record) -> dns.rdata.Rdata:
    octets = record.rdata
    return dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.RdataType(record.rdtype), octets, 0, len(octets))
