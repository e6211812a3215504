"""DNS messages as a resolver's front needs them: a question in, an answer passed on (RFC 1035 s4, RFC 6891, RFC 8914).

An upstream's answer is read once into records and written once into a Body, which then serves many askers: each gets
its own header, its own question in its own spelling, and the same octets after them with the time to live put in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from struct import Struct, error

HEADER = Struct("!6H")
QR, OPCODE, TC, RD, RA, AD, CD = 0x8000, 0x7800, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
"""Flags of the header's second word (RFC 1035 s4.1.1, RFC 4035 s3)."""
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
A, NS, CNAME, SOA, AAAA, DNAME, OPT, RRSIG, NSEC, NSEC3, SVCB, HTTPS = 1, 2, 5, 6, 28, 39, 41, 46, 47, 50, 64, 65
ANY, IXFR, AXFR = 255, 251, 252
IN = 1

UDP_PLAIN = 512
"""Octets of an answer to one who says nothing of EDNS (RFC 1035 s4.2.1)."""
UDP_LARGEST = 4096
"""Octets of a datagram, whatever the other end would take."""
TCP_LARGEST = 65535

OTHER, BOGUS, BLOCKED, UNREACHABLE = 0, 6, 15, 22
"""RFC 8914 s4: Other Error, DNSSEC Bogus, Blocked, No Reachable Authority."""


class NoQuery(Exception):
    """What came is no question that gets an answer; `reply` is what its sender is told, empty: nothing."""

    def __init__(self, reply: bytes) -> None:
        super().__init__("no question")
        self.reply = reply


class BadMessage(ValueError):
    """Octets that are no DNS message."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; equal questions have equal answers."""

    name: bytes
    """Wire form, ASCII letters in lower case."""
    rdtype: int
    rdclass: int


@dataclass(frozen=True, slots=True)
class Query:
    """One program's question."""

    id: int
    flags: int
    asked: bytes
    """The question section as it came: its letters' case must come back (draft-vixie-dnsext-dns0x20)."""
    question: Question
    udp_size: int
    """Octets of a datagram that it takes; 0: it knows no EDNS."""
    dnssec: bool
    """It asked for DNSSEC's records, too (DO)."""


@dataclass(frozen=True, slots=True)
class Record:
    owner: bytes
    """Wire form, uncompressed, as the names in `rdata`."""
    rdtype: int
    rdclass: int
    ttl: int
    rdata: bytes

    @property
    def covers(self) -> int:
        """The type that it is about: of a signature, what it signs (RFC 4034 s3.1.1)."""
        return int.from_bytes(self.rdata[:2], "big") if self.rdtype == RRSIG else self.rdtype


@dataclass(frozen=True, slots=True)
class Answer:
    """A response without its header, question and OPT."""

    rcode: int
    answer: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    secure: bool = False
    """Validated, all of it."""

    @property
    def ttl(self) -> int:
        """Seconds for which all of it holds."""
        records = (*self.answer, *self.authority, *self.additional)
        return min((record.ttl for record in records), default=0)


@dataclass(frozen=True, slots=True)
class Body:
    """The records of an Answer, as they follow the question of a given length."""

    rcode: int
    secure: bool
    counts: tuple[int, int, int]
    octets: bytes
    ttls: tuple[tuple[int, int], ...]
    """Where in `octets` each time to live is, and what it was."""


# --- questions --------------------------------------------------------------------------------------------------------


def read_query(octets: bytes) -> Query:
    """One question; or NoQuery with the error that its sender is told."""
    if len(octets) < HEADER.size:
        raise NoQuery(b"")
    number, flags, questions, answers, authorities, additional = HEADER.unpack_from(octets)
    if flags & QR:
        # An answer to an answer would go to and fro between two resolvers for ever.
        raise NoQuery(b"")
    if flags & OPCODE:
        raise NoQuery(_bare(number, flags, NOTIMP))
    try:
        if (questions, answers, authorities) != (1, 0, 0) or additional > 1 or flags & TC:
            raise BadMessage("not one question")
        name, position = _plain_name(octets, HEADER.size)
        rdtype, rdclass = PAIR.unpack_from(octets, position)
        position += PAIR.size
        asked = octets[HEADER.size : position]
        edns = _read_opt(octets, position) if additional else None
        if edns is None and position != len(octets):
            raise BadMessage("more than its question")
    except (BadMessage, error):
        raise NoQuery(_bare(number, flags, FORMERR)) from None
    query = Query(number, flags, asked, Question(name.lower(), rdtype, rdclass), 0, False)
    if edns is None:
        return query
    size, version, dnssec = edns
    query = replace(query, udp_size=max(UDP_PLAIN, size), dnssec=dnssec)
    if version:
        # RFC 6891 s6.1.3: a version that we do not know.
        raise NoQuery(write_error(query, BADVERS))
    return query


def _plain_name(octets: bytes, position: int) -> tuple[bytes, int]:
    """A name without compression: nothing comes before a question that it could point to."""
    start = position
    while length := octets[position] if position < len(octets) else 255:
        if length > 63:
            raise BadMessage("a label too long, or a name cut off")
        position += 1 + length
    if position + 1 - start > 255:
        raise BadMessage("a name too long")
    return octets[start : position + 1], position + 1


def _read_opt(octets: bytes, position: int) -> tuple[int, int, bool]:
    """Payload size, version and DO of the one additional record."""
    owner, rdtype, size, _, version, flags, length = OPT_RECORD.unpack_from(octets, position)
    position += OPT_RECORD.size
    if owner or rdtype != OPT or position + length != len(octets):
        # A signature (TSIG, SIG(0)) would be of somebody whose key we do not have.
        raise BadMessage("no OPT")
    while position < len(octets):
        # RFC 6891 s6.1.2: options that are not understood are ignored; but they are whole.
        _, length = PAIR.unpack_from(octets, position)
        position += PAIR.size + length
    if position != len(octets):
        raise BadMessage("an option cut off")
    return size, version, bool(flags & 0x8000)


# --- answers in -------------------------------------------------------------------------------------------------------


def read_answer(packet: bytes, secure: bool) -> Answer:
    """The records of a response; or BadMessage.  It comes from the validator, who made it anew from what it read."""
    try:
        _, flags, questions, *counts = HEADER.unpack_from(packet)
        position = HEADER.size
        for _ in range(questions):
            _, position = _name(packet, position)
            position += PAIR.size
        sections: list[tuple[Record, ...]] = []
        for count in counts:
            records = []
            for _ in range(count):
                record, position = _read_record(packet, position)
                if record.rdtype != OPT:
                    records.append(record)
            sections.append(tuple(records))
    except (error, IndexError):
        raise BadMessage("cut off") from None
    answers, authorities, additional = sections
    return Answer(flags & 15, answers, authorities, additional, secure)


def _read_record(packet: bytes, position: int) -> tuple[Record, int]:
    owner, position = _name(packet, position)
    rdtype, rdclass, ttl, length = RECORD.unpack_from(packet, position)
    position += RECORD.size
    end = position + length
    if end > len(packet):
        raise BadMessage("cut off")
    if rdtype not in WITH_NAMES:
        return Record(owner, rdtype, rdclass, ttl, packet[position:end]), end
    before, names = WITH_NAMES[rdtype]
    parts = [packet[position : position + before]]
    position += before
    for _ in range(names):
        name, position = _name(packet, position)
        parts.append(name)
    parts.append(packet[position:end])
    if position > end:
        raise BadMessage("a name longer than its record")
    return Record(owner, rdtype, rdclass, ttl, b"".join(parts)), end


def _name(packet: bytes, position: int) -> tuple[bytes, int]:
    """A name that may be compressed, in full; and what follows it."""
    labels: list[bytes] = []
    end = 0
    size, bound = 1, len(packet)
    while length := packet[position]:
        if length >= 0xC0:
            target = (length & 0x3F) << 8 | packet[position + 1]
            end = end or position + 2
            # RFC 1035 s4.1.4: a pointer is to a prior occurrence, so that there is no loop.
            if target >= min(bound, position):
                raise BadMessage("a pointer that does not point back")
            position = bound = target
            continue
        size += 1 + length
        if length > 63 or size > 255:
            raise BadMessage("a name too long")
        labels.append(packet[position : position + 1 + length])
        position += 1 + length
    return b"".join(labels) + b"\0", end or position + 1


# --- answers out ------------------------------------------------------------------------------------------------------


def write_body(question: Question, answer: Answer, dnssec: bool) -> Body:
    """The records for all who ask this; without `dnssec`, for those who did not set DO."""
    octets = bytearray()
    start = HEADER.size + len(question.name) + PAIR.size
    known = {suffix: HEADER.size + offset for offset, suffix in _suffixes(question.name)}
    ttls: list[tuple[int, int]] = []
    counts: list[int] = []

    def write_name(name: bytes) -> None:
        for offset, suffix in _suffixes(name):
            if pointer := known.get(suffix.lower()):
                octets.extend(name[:offset] + (0xC000 | pointer).to_bytes(2, "big"))
                return
            if (here := start + len(octets) + offset) < 0x4000:
                known[suffix.lower()] = here
        octets.extend(name)

    for section in (answer.answer, answer.authority, answer.additional):
        # RFC 4035 s3.2.1: DNSSEC's own records go to those who ask for them.
        records = [
            each for each in section if dnssec or each.rdtype not in DNSSEC or question.rdtype in (each.rdtype, ANY)
        ]
        counts.append(len(records))
        for record in records:
            write_name(record.owner)
            fixed = len(octets)
            ttls.append((fixed + 4, record.ttl))
            octets.extend(RECORD.pack(record.rdtype, record.rdclass, record.ttl, 0))
            before, names = WITH_NAMES.get(record.rdtype, (0, 0))
            octets.extend(record.rdata[:before])
            position = before
            for _ in range(names):
                name, position = _plain_name(record.rdata, position)
                write_name(name)
            octets.extend(record.rdata[position:])
            octets[fixed + 8 : fixed + 10] = (len(octets) - fixed - RECORD.size).to_bytes(2, "big")
    return Body(answer.rcode, answer.secure, (counts[0], counts[1], counts[2]), bytes(octets), tuple(ttls))


def write_reply(query: Query, body: Body, largest: int, age: int = 0, cap: int | None = None) -> bytes:
    """The answer to one program, of `largest` octets at most.

    `age`: seconds since the Body was true.  `cap`: seconds that its records may be kept at most.
    """
    opt = _opt(query, 0, b"")
    flags = QR | RA | query.flags & (RD | CD) | body.rcode
    # RFC 6840 s5.7, s5.8: AD is for those who asked for it, or for DNSSEC's records.
    if body.secure and (query.dnssec or query.flags & AD):
        flags |= AD
    if HEADER.size + len(query.asked) + len(body.octets) + len(opt) > largest:
        return HEADER.pack(query.id, flags & ~AD | TC, 1, 0, 0, bool(opt)) + query.asked + opt
    octets = body.octets
    if age or cap is not None:
        aged = bytearray(octets)
        for offset, ttl in body.ttls:
            left = max(0, ttl - age)
            TTL.pack_into(aged, offset, left if cap is None or left < cap else cap)
        octets = bytes(aged)
    answers, authorities, additional = body.counts
    header = HEADER.pack(query.id, flags, 1, answers, authorities, additional + bool(opt))
    return header + query.asked + octets + opt


def write_error(query: Query, rcode: int, code: int | None = None, text: str = "") -> bytes:
    """No records, and the reason for those who understand it (RFC 8914)."""
    option = b""
    if code is not None:
        detail = text.encode("utf-8")[:MAX_TEXT].decode("utf-8", "ignore").encode("utf-8")
        option = EDE.pack(15, 2 + len(detail), code) + detail
    opt = _opt(query, rcode >> 4, option)
    flags = QR | RA | query.flags & (RD | CD) | rcode & 15
    return HEADER.pack(query.id, flags, 1, 0, 0, bool(opt)) + query.asked + opt


def largest_reply(query: Query) -> int:
    """Octets that fit a datagram to whom asked."""
    return min(UDP_LARGEST, query.udp_size) if query.udp_size else UDP_PLAIN


def _opt(query: Query, extended: int, option: bytes) -> bytes:
    """RFC 6891 s7: an OPT for those who sent one."""
    if not query.udp_size:
        return b""
    return OPT_RECORD.pack(0, OPT, 1232, extended, 0, 0x8000 * query.dnssec, len(option)) + option


def _bare(number: int, flags: int, rcode: int) -> bytes:
    """An error to one whose question could not be read."""
    return HEADER.pack(number, QR | RA | flags & (OPCODE | RD) | rcode, 0, 0, 0, 0)


def _suffixes(name: bytes) -> Iterator[tuple[int, bytes]]:
    """The name, and what is left of it without its first labels, as far as a pointer is worth it."""
    position = 0
    while name[position]:
        yield position, name[position:]
        position += 1 + name[position]


# --- answers changed --------------------------------------------------------------------------------------------------


def chain(question: Question, answer: Answer) -> tuple[tuple[Record, ...], bytes]:
    """The aliases from the name asked for on, without signatures, and the name at their end."""
    aliases = {record.owner.lower(): record for record in answer.answer if record.rdtype == CNAME}
    taken: list[Record] = []
    name = question.name
    while record := aliases.pop(name.lower(), None):
        taken.append(record)
        name = record.rdata
    return tuple(taken), name


def target(record: Record) -> bytes:
    """The name that a service binding is about (RFC 9460 s2.1); or BadMessage."""
    return _plain_name(record.rdata, 2)[0]


def without_hints(record: Record) -> Record:
    """A service binding that says nothing of addresses (RFC 9460 s7.3), nor that whoever reads it must know of them."""
    rdata = record.rdata
    _, position = _plain_name(rdata, 2)
    kept = [rdata[:position]]
    while position < len(rdata):
        if len(rdata) < position + PAIR.size:
            raise BadMessage("a parameter cut off")
        key, length = PAIR.unpack_from(rdata, position)
        value = rdata[position + PAIR.size : position + PAIR.size + length]
        position += PAIR.size + length
        if key == MANDATORY:
            keys = [value[i : i + 2] for i in range(0, len(value), 2)]
            value = b"".join(each for each in keys if int.from_bytes(each, "big") not in HINTS)
        if key not in HINTS and (value or key != MANDATORY):
            kept.append(PAIR.pack(key, len(value)) + value)
    return replace(record, rdata=b"".join(kept))


def presentation(name: bytes) -> str:
    """RFC 1035 s5.1: absolute; all but letters, digits, hyphens and underscores escaped."""
    labels = [name[offset + 1 : offset + 1 + name[offset]] for offset, _ in _suffixes(name)]
    return "".join(f"{''.join(map(_character, label))}." for label in labels) or "."


def _character(octet: int) -> str:
    return chr(octet) if octet in PLAIN else f"\\{octet:03d}"


PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")

DNSSEC = frozenset((RRSIG, NSEC, NSEC3))
HINTS = frozenset((4, 6))
"""SvcParamKeys ipv4hint and ipv6hint."""
MANDATORY = 0

WITH_NAMES = {
    NS: (0, 1), 3: (0, 1), 4: (0, 1), CNAME: (0, 1), SOA: (0, 2), 7: (0, 1), 8: (0, 1), 9: (0, 1), 12: (0, 1),
    14: (0, 2), 15: (2, 1),
}  # fmt: skip
"""RFC 3597 s4: only RFC 1035's own types may have compressed names in them; octets before, and how many names."""

PAIR, RECORD, TTL, EDE = Struct("!2H"), Struct("!2H I H"), Struct("!I"), Struct("!3H")
OPT_RECORD = Struct("!B 2H 2B 2H")
"""Root's name, type, payload size, RCODE's higher bits, version, flags, length (RFC 6891 s6.1.2)."""
MAX_TEXT = 200
"""Octets of a reason."""
