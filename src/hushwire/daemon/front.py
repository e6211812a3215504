"""The capturing resolver's front: what a program that asks is told, and when (docs/names.md).

It opens no socket: questions come in as octets and leave as octets, the upstream's answers come by `fetch`, and the
node's word about a name by Asked and Release.  A question about addresses of a name that a rule speaks of waits for
both; every other passes.  Nothing waits in turn, so a slow name delays no other.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import count, takewhile
from math import inf

from hushwire.daemon.unbound import Fetched
from hushwire.events import Asked, Release, Verdict
from hushwire.names import message
from hushwire.names.message import AAAA, IN, A, Answer, BadMessage, Body, Query, Question, Record
from hushwire.names.name import LABEL, BadName, host_name
from hushwire.wire.address import IPAddress

MAX_QUESTIONS = 512
"""Questions of programs under way, and of those to the upstream.  One more is told SERVFAIL."""
MAX_KNOWN = 4096
"""Answers, and names that the node released, that are remembered."""
MAX_OCTETS = 32 << 20
"""Of memory for the answers that are remembered."""
LARGEST_RULED = 128 << 10
"""Octets of memory for an answer that may have to wait for the node: more than 200 addresses, where it uses 16."""
PATIENCE = 8.0
"""Seconds until a program is told SERVFAIL, whoever has not answered."""
REMEMBERED = 5.0
"""Seconds at most for which a Release, or an upstream's answer, is used again."""
REMEMBERED_LEAST = 1.0
"""Seconds for which one is that may not be kept: the node's policies outlive their time by a grace of 30 s."""
REASSERT = 2.0
"""Seconds from one Asked to the next while a name is in use, so that the node keeps its policies."""

Speaks = Callable[[str], bool]
"""Whether a rule speaks of a name, in canonical form."""
Fetch = Callable[[Question, float, Callable[[Fetched], None]], None]
"""`Validator.fetch`."""
Reply = Callable[[bytes], None]


class Front:
    """Give it questions and Releases; call expire() at deadline()."""

    def __init__(self, speaks: Speaks, fetch: Fetch, tell: Callable[[Asked], None]) -> None:
        self._speaks = speaks
        self._ruled = lru_cache(MAX_KNOWN)(self._find_rule)
        """A name in wire form to text, if a rule speaks of it; else to an empty one."""
        self._fetch = fetch
        self._tell = tell
        self._numbers = count(1)
        self._known: dict[Question, _Known] = {}
        """The newest last."""
        self._octets = 0
        """Of memory for those."""
        self._pending: dict[Question, _Pending] = {}
        """In the order of their ends, since all have the same patience."""
        self._captures: dict[str, _Capture] = {}
        self._asked: dict[int, _Capture] = {}
        """Captures that wait for a Release, by its number."""
        self._waiting = 0
        """How many programs wait."""
        self._fetching = 0
        """How many answers the upstream owes; nobody may wait for them any more, since the node refused."""
        self._now = 0.0

    def ask(self, octets: bytes, udp: bool, reply: Reply, now: float) -> None:
        """A message from a program; `reply` is called with the answer, now or later, at most once."""
        self._now = now
        try:
            query = message.read_query(octets)
        except message.NoQuery as no:
            if no.reply:
                reply(no.reply)
            return
        waiter = _Waiter(query, message.largest_reply(query) if udp else message.TCP_LARGEST, reply)
        question = query.question
        # With class ANY, too, the upstream would tell addresses.
        if question.rdclass != IN or question.rdtype in (message.AXFR, message.IXFR, message.OPT):
            reply(message.write_error(query, message.REFUSED))
            return
        known = self._known.get(question)
        if known is not None and known.until <= now:
            known = None
        capture = None
        if question.rdtype in (A, AAAA):
            try:
                capture = self._capture(question.name)
                if capture is None and known is not None and known.end:
                    capture = self._capture(known.end)
            except BadName as bad:
                reply(message.write_error(query, message.SERVFAIL, message.BLOCKED, str(bad)))
                return
        if known is not None and (capture is None or capture.until > now):
            if capture is not None:
                self._use(capture)
            self._answer([waiter], known, capture)
            return
        self._wait(waiter, known, capture)

    def release(self, release: Release, now: float) -> None:
        """The node's word.  One that comes too late is for nobody."""
        self._now = now
        capture = self._asked.pop(release.request, None)
        if capture is None:
            return
        lasting = min(REMEMBERED, release.ttl) if release.ttl else REMEMBERED
        if release.verdict is Verdict.REFUSE or (release.verdict is Verdict.ONLY and not release.ttl):
            lasting = REMEMBERED_LEAST
        capture.asking = 0
        capture.release, capture.asked = release, capture.asking_since
        capture.until = now + max(REMEMBERED_LEAST, lasting)
        for pending in list(capture.pending):
            self._advance(pending)

    def deadline(self) -> float | None:
        """When expire() has something to do; None: never."""
        oldest = next(iter(self._pending.values()), None)
        return oldest.end if oldest is not None else None

    def expire(self, now: float) -> None:
        """Tell those who have waited too long, and forget what is too old.

        Call it before `fetch` hands over what has come, too: that comes without a time of its own.
        """
        self._now = now
        for question in list(
            takewhile(lambda question: self._known[question].arrived + REMEMBERED <= now, self._known)
        ):
            self._drop(question)
        while (pending := next(iter(self._pending.values()), None)) is not None and pending.end <= now:
            self._refuse(pending, message.OTHER, f"no answer in {PATIENCE:g} s")
            if capture := pending.capture:
                self._forget(capture)
                if capture.pending:
                    # Those who asked later for its other family wait on.
                    self._use(capture)

    # --- waiting ---

    def _wait(self, waiter: "_Waiter", known: "_Known | None", capture: "_Capture | None") -> None:
        question = waiter.query.question
        if max(self._waiting, self._fetching) >= MAX_QUESTIONS:
            waiter.reply(message.write_error(waiter.query, message.SERVFAIL, message.OTHER, "too many questions"))
            return
        self._waiting += 1
        pending = self._pending.get(question)
        if pending is not None:
            pending.waiters.append(waiter)
            return
        pending = self._pending[question] = _Pending(question, self._now + PATIENCE, capture, known, [waiter])
        if capture is not None:
            capture.pending.append(pending)
            self._use(capture)
        if known is None:
            self._fetching += 1
            self._fetch(question, self._now, lambda fetched: self._fetched(pending, fetched))

    def _fetched(self, pending: "_Pending", fetched: Fetched) -> None:
        self._fetching -= 1
        known = pending.known = self._judge(pending.question, fetched)
        if known.end and pending.capture is None and not pending.over:
            # A rule speaks of the name that an alias led to, and of the alias none does.
            try:
                pending.capture = self._capture(known.end)
            except BadName as bad:
                self._refuse(pending, message.BLOCKED, str(bad))
                return
            if pending.capture is not None:
                pending.capture.pending.append(pending)
        if known.until > self._now:
            self._remember(pending.question, known)
        if not pending.over:
            self._advance(pending)

    def _remember(self, question: Question, known: "_Known") -> None:
        """The oldest make room."""
        self._drop(question)
        self._known[question] = known
        self._octets += known.octets
        while len(self._known) > MAX_KNOWN or self._octets > MAX_OCTETS:
            self._drop(next(iter(self._known)))

    def _drop(self, question: Question) -> None:
        if (known := self._known.pop(question, None)) is not None:
            self._octets -= known.octets

    def _advance(self, pending: "_Pending") -> None:
        """Answer all who wait for this, if what they wait for has come."""
        capture = pending.capture
        if capture is not None:
            if capture.until <= self._now or capture.release is None:
                self._use(capture)
                return
            if capture.release.verdict is Verdict.REFUSE:
                self._refuse(pending, message.BLOCKED, capture.release.reason)
                return
        if pending.known is not None:
            self._end(pending)
            self._answer(pending.waiters, pending.known, capture)

    def _refuse(self, pending: "_Pending", code: int, reason: str) -> None:
        self._end(pending)
        for waiter in pending.waiters:
            waiter.reply(message.write_error(waiter.query, message.SERVFAIL, code, reason))

    def _end(self, pending: "_Pending") -> None:
        pending.over = True
        self._waiting -= len(pending.waiters)
        del self._pending[pending.question]
        if pending.capture is not None:
            pending.capture.pending.remove(pending)

    # --- names that a rule speaks of ---

    def _capture(self, wire: bytes) -> "_Capture | None":
        """What we know of the name, if a rule speaks of it.  Raises BadName if it does, and the name is none."""
        name = self._ruled(wire)
        if not name:
            return None
        if (capture := self._captures.get(name)) is not None:
            return capture
        host_name(name)
        if len(self._captures) >= MAX_KNOWN:
            self._make_room()
        capture = self._captures[name] = _Capture(name)
        return capture

    def _find_rule(self, wire: bytes) -> str:
        name = message.presentation(wire).removesuffix(".").lower()
        return name if name and self._speaks(_likeness(name)) else ""

    def _use(self, capture: "_Capture") -> None:
        """Now and then the node hears that a name is in use; and at once if what it said holds no more."""
        if capture.until <= self._now or capture.asked + REASSERT <= self._now:
            self._assert(capture)

    def _assert(self, capture: "_Capture") -> None:
        """Have the node hear that the name is in use, unless it is hearing it."""
        if capture.asking:
            if capture.asking_since + PATIENCE > self._now:
                return
            self._forget(capture)
        capture.asking, capture.asking_since = next(self._numbers), self._now
        self._asked[capture.asking] = capture
        self._tell(Asked(capture.asking, capture.name))

    def _forget(self, capture: "_Capture") -> None:
        """That the node was asked: its answer comes too late."""
        self._asked.pop(capture.asking, None)
        capture.asking = 0

    def _make_room(self) -> None:
        """Forget the oldest name of those for which nobody waits: there is one, since fewer questions are under way."""
        oldest = next(capture for capture in self._captures.values() if not capture.pending)
        self._forget(oldest)
        del self._captures[oldest.name]

    # --- answers ---

    def _judge(self, question: Question, fetched: Fetched) -> "_Known":
        """What the upstream says, without what would get round a rule."""
        reason = fetched.reason or "SERVFAIL"
        try:
            answer = message.read_answer(fetched.packet, fetched.secure) if fetched.packet else None
        except BadMessage as bad:
            answer, reason = None, str(bad)
        if answer is None or answer.rcode not in (message.NOERROR, message.NXDOMAIN):
            code = message.BOGUS if fetched.bogus else message.UNREACHABLE
            rcode = message.SERVFAIL if answer is None else answer.rcode
            return _Known(Answer(rcode), self._now, self._now, code, reason)
        end = self._ruled_end(question, answer)
        if (end or (question.rdtype in (A, AAAA) and self._ruled(question.name))) and _octets(answer) > LARGEST_RULED:
            return _Known(Answer(message.SERVFAIL), self._now, self._now, message.OTHER, "too many addresses")
        answer = self._without_ways_round(question, answer)
        lasting = 0.0 if fetched.bogus else min(REMEMBERED, answer.ttl)
        return _Known(answer, self._now, self._now + lasting, message.BOGUS if fetched.bogus else None, reason, end)

    def _ruled_end(self, question: Question, answer: Answer) -> bytes:
        """Of the aliases that led to addresses, the first that a rule speaks of; empty if none does."""
        if question.rdtype not in (A, AAAA):
            return b""
        aliases, _ = message.chain(question, answer)
        return next((alias.rdata for alias in aliases if self._ruled(alias.rdata)), b"")

    def _without_ways_round(self, question: Question, answer: Answer) -> Answer:
        """Addresses come only by questions about addresses, for which programs wait.

        So those that come along with another answer (of a mail server, in the hints of an HTTPS record) are taken out
        if a rule speaks of their names.  The hints rather than the record: what else it says is of no harm, and without
        it a program would not learn of Encrypted Client Hello or HTTP/3.  What was changed is not signed any more.
        """
        sections = [answer.answer, answer.authority, answer.additional]
        begin = 1 if question.rdtype in (A, AAAA) else 0
        for index in range(begin, 3):
            sections[index] = tuple(self._harmless(question, sections[index]))
        changed = sections[0] != answer.answer or sections[1] != answer.authority
        return replace(
            answer, answer=sections[0], authority=sections[1], additional=sections[2],
            secure=answer.secure and not changed,
        )  # fmt: skip

    def _harmless(self, question: Question, section: tuple[Record, ...]) -> Iterator[Record]:
        guarded = {record.owner.lower() for record in section if self._is_ruled_binding(question, record)}
        for record in section:
            if record.covers in (A, AAAA) and self._ruled(record.owner):
                continue
            if record.covers in BINDINGS and record.owner.lower() in guarded:
                with suppress(BadMessage):
                    if record.rdtype != message.RRSIG:
                        yield message.without_hints(record)
                continue
            yield record

    def _is_ruled_binding(self, question: Question, record: Record) -> bool:
        """Its hints are addresses of its target (RFC 9460 s7.3), which may be of another name."""
        if record.rdtype not in BINDINGS:
            return False
        try:
            target = message.target(record)
        except BadMessage:
            return True
        return any(map(self._ruled, (question.name, record.owner, target)))

    def _answer(self, waiters: list["_Waiter"], known: "_Known", capture: "_Capture | None") -> None:
        release = capture.release if capture is not None else None
        if release is not None and release.verdict is Verdict.REFUSE:
            for waiter in waiters:
                waiter.reply(message.write_error(waiter.query, message.SERVFAIL, message.BLOCKED, release.reason))
            return
        only = release.addresses if release is not None and release.verdict is Verdict.ONLY else None
        cap = None
        if capture is not None and release is not None and (only is not None or release.ttl):
            # The node keeps the policies for that long from when it was asked; so may the program the addresses.
            cap = max(0, int(capture.asked + release.ttl - self._now))
        age = int(self._now - known.arrived)
        for waiter in waiters:
            query = waiter.query
            if only is None and known.failed(bool(query.flags & message.CD)):
                rcode = message.SERVFAIL if known.code == message.BOGUS else known.answer.rcode
                waiter.reply(message.write_error(query, rcode, known.code, known.reason))
                continue
            body = known.body(query.question, query.dnssec, only)
            waiter.reply(message.write_reply(query, body, waiter.largest, age, cap))


@dataclass(slots=True)
class _Waiter:
    query: Query
    largest: int
    """Octets of a reply that it takes."""
    reply: Reply


@dataclass(slots=True)
class _Known:
    """What the upstream said."""

    answer: Answer
    arrived: float
    until: float
    """When it is not used again; `arrived`: for those who wait only."""
    code: int | None
    """RFC 8914's, if it is an error or bogus."""
    reason: str
    end: bytes = b""
    """In wire form, the first alias on the way to an address that a rule speaks of."""
    bodies: dict[tuple[bool, tuple[IPAddress, ...] | None], Body] = field(default_factory=dict)
    """As written for those who asked for DNSSEC and who did not; all of it, or only what a Release lets through."""

    @property
    def octets(self) -> int:
        return _octets(self.answer)

    def failed(self, checking_disabled: bool) -> bool:
        """Whether it may not be passed on.  RFC 4035 s3.2.2: with CD, who asks validates, and gets what was found."""
        return self.code is not None and not (
            self.code == message.BOGUS and checking_disabled and (self.answer.answer or self.answer.authority)
        )

    def body(self, question: Question, dnssec: bool, only: tuple[IPAddress, ...] | None) -> Body:
        body = self.bodies.get((dnssec, only))
        if body is None:
            answer = self.answer if only is None else _restricted(question, self, only)
            body = message.write_body(question, answer, dnssec)
            if len(self.bodies) >= 2:
                self.bodies.clear()
            self.bodies[dnssec, only] = body
        return body


@dataclass(slots=True)
class _Capture:
    """What the node said of a name."""

    name: str
    asked: float = -inf
    """When the node was asked what `release` answers."""
    release: Release | None = None
    until: float = -inf
    """When the release is not used again."""
    asking: int = 0
    """The number of the Asked that is under way; 0: none is."""
    asking_since: float = 0.0
    pending: list["_Pending"] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Pending:
    """A question that the upstream or the node has not answered yet."""

    question: Question
    end: float
    """When those who wait are told SERVFAIL."""
    capture: _Capture | None
    known: _Known | None
    waiters: list[_Waiter]
    over: bool = False


def _octets(answer: Answer) -> int:
    """Of memory at most, as records and as two bodies; a record of a few octets is many objects."""
    records = (*answer.answer, *answer.authority, *answer.additional)
    return 1280 + sum(512 + 3 * (len(record.owner) + len(record.rdata)) for record in records)


def _restricted(question: Question, known: _Known, only: tuple[IPAddress, ...]) -> Answer:
    """Those addresses of the family asked for, and no others."""
    size = 4 if question.rdtype == A else 16
    allowed = [address.packed for address in only if len(address.packed) == size]
    answer = known.answer
    # Of both families: an address that nobody asked for is not let through beside those asked for.
    found = {record.rdata for record in answer.answer if record.rdtype in (A, AAAA)}
    if known.code is None and found <= set(allowed) and bool(found) == bool(allowed):
        return answer
    # What is not to be believed leads nowhere.
    aliases, end = message.chain(question, answer) if known.code is None else ((), question.name)
    if allowed:
        # An address that the node made up has no time to live of its own; what is left of the Release caps it.
        ttl = min((record.ttl for record in answer.answer), default=MAX_TTL)
        made = tuple(Record(end, question.rdtype, IN, ttl, octets) for octets in allowed)
        return Answer(message.NOERROR, (*aliases, *made))
    denial = tuple(record for record in answer.authority if record.rdtype == message.SOA)
    return Answer(message.NOERROR, aliases, denial)


def _likeness(name: str) -> str:
    """A host name of which the same rules speak: what no host is called gets round no rule for all below a name."""
    try:
        return host_name(name)
    except BadName:
        labels = name.split(".")
        labels = [label if LABEL.fullmatch(label) and not label.isdigit() else "x" for label in labels]
        return ".".join(labels)


BINDINGS = (message.SVCB, message.HTTPS)
MAX_TTL = 86400
