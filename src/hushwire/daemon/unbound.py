"""libunbound through cffi's ABI mode: asynchronous DNSSEC validation (RFC 4035), with the four outcomes of law 3.

The library is C code that reads hostile octets, so it lives in the resolver's process and nowhere else.  It makes a
thread of its own; what it found is handed over in `Validator.answered`, on the caller's thread.
"""

import itertools
import select
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cffi
import dns.exception
import dns.rdatatype
import dns.zonefile

from hushwire.daemon import dot
from hushwire.events import Answered, Lookup, Outcome
from hushwire.names.message import RRSIG, BadMessage, Question, presentation, read_answer
from hushwire.names.name import BadName, host_name

MAX_IN_FLIGHT = 512
"""Questions of the node's that the library works on at once.  Those of programs are bounded where they come in."""

MAX_WAITING = 1024
"""Questions that wait for it.  One more is answered with ERROR at once."""

MAX_TTL = 3600
"""Seconds, as the cache is told too: an answer that outlives its signatures is an ERROR for so long at most."""

DEFAULT_ANCHOR = "/usr/share/dns/root.key"
DEFAULT_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class Configuration:
    """What to trust and whom to ask."""

    anchor_file: str = DEFAULT_ANCHOR
    """DS or DNSKEY records in zone file form; empty: only `anchors`."""
    anchors: tuple[str, ...] = ()
    """DS or DNSKEY records, one each, in presentation form."""
    forward: tuple[str, ...] = ()
    """`address@port` of resolvers to ask; they need not be trusted.  Empty: recursion from the root servers.  With
    `#name` after each: by TLS (RFC 7858), with a certificate of that name."""
    bundle: str = DEFAULT_BUNDLE
    """File with the certificates of those who may vouch for such a name."""
    timeout: float = 5.0
    """Seconds until a question without an answer is an ERROR."""
    roots: tuple[str, ...] = ()
    """`address@port` of root servers, for recursion below a root of one's own; empty: those of the Internet."""


class UnboundError(Exception):
    """The library, or what it was told to read, is of no use."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole answer, for somebody else."""

    packet: bytes = b""
    """A DNS message with all of DNSSEC's records; empty: nothing was had."""
    secure: bool = False
    bogus: bool = False
    """It is what was found, and not to be believed."""
    reason: str = ""
    """Why bogus, or why there is no packet."""


class Validator:
    """Lookup in, Answered out.  Poll `fileno()` for reading until `deadline()`, then call `answered()`."""

    def __init__(self, configuration: Configuration) -> None:
        self._ffi, self._lib = _load()
        self._timeout = configuration.timeout
        self._tickets = itertools.count(1)
        self._waiting: deque[tuple[Lookup, float]] = deque()
        self._asked: dict[int, _Asked] = {}
        self._lookups = 0
        """How many of `_asked` are the node's."""
        self._done: list[Answered] = []
        self._fetched: list[tuple[Callable[[Fetched], None], Fetched]] = []
        self._upstreams: list[dot.TlsUpstream] = []
        self._poll = select.epoll()
        self._context = self._lib.ub_ctx_create()
        if self._context == self._ffi.NULL:
            raise UnboundError("libunbound: no memory for a context")
        # The library keeps this pointer for every question: it must live as long as the context.
        self._callback = self._ffi.callback("ub_callback_type", self._arrived)
        try:
            self._configure(configuration)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable when there is something to do."""
        return self._poll.fileno()

    def ask(self, lookup: Lookup, now: float) -> None:
        """Take a question; its answer will be in answered().  `now`: monotonic seconds, as everywhere here."""
        try:
            host_name(lookup.name)
        except BadName as bad:
            # The library would cut it at a NUL, and read escapes in it.
            self._fail(lookup, str(bad))
            return
        if len(self._waiting) >= MAX_WAITING:
            self._fail(lookup, "too many questions at once")
            return
        self._waiting.append((lookup, now + self._timeout))
        self._start()

    def fetch(self, question: Question, now: float, take: Callable[[Fetched], None]) -> None:
        """Have `take` called, by a later answered(), with the answer to any question at all."""
        name = presentation(question.name)
        self._send(_Asked(now + self._timeout, take), name, question.rdtype, question.rdclass)

    def answered(self, now: float) -> list[Answered]:
        """What has been answered, or has waited too long, since the last call."""
        for upstream in self._upstreams:
            upstream.serve(now)
        self._check("answers", self._lib.ub_process(self._context))
        for ticket in [ticket for ticket, asked in self._asked.items() if asked.deadline <= now]:
            # The library forgets it; should it not, the ticket is not known any more when it comes.
            asked = self._forget(ticket)
            self._lib.ub_cancel(self._context, asked.number)
            self._fail(asked.whose, f"no answer in {self._timeout:g} s")
        while self._waiting and self._waiting[0][1] <= now:
            self._fail(self._waiting.popleft()[0], f"not asked within {self._timeout:g} s")
        self._start()
        fetched, self._fetched = self._fetched, []
        for take, answer in fetched:
            take(answer)
        done, self._done = self._done, []
        return done

    def deadline(self) -> float | None:
        """Monotonic time at which answered() has something to say even if nothing arrives; None: never."""
        if self._done or self._fetched:
            return 0.0
        return min(self._deadlines(), default=None)

    def close(self) -> None:
        """Free everything.  What was asked is never answered."""
        if self._context != self._ffi.NULL:
            self._lib.ub_ctx_delete(self._context)
            self._context = self._ffi.NULL
            for upstream in self._upstreams:
                upstream.close()
            self._poll.close()

    def _configure(self, configuration: Configuration) -> None:
        for option, value in OPTIONS:
            self._check(option, self._lib.ub_ctx_set_option(self._context, f"{option}:".encode(), value.encode()))
        by_tls = [server for server in configuration.forward if "#" in server]
        if by_tls and len(by_tls) < len(configuration.forward):
            raise UnboundError("forward: questions would leave in clear by some; give each a #name, or none")
        if by_tls:
            try:
                context = dot.trusting(configuration.bundle)
            except OSError as error:
                raise UnboundError(f"certificates: {configuration.bundle}: {error.strerror}") from error
            self._upstreams = [dot.TlsUpstream(server, context) for server in by_tls]
        for server in configuration.roots:
            # Asked itself for its NS records first, as a root is (RFC 8109).
            set_stub = self._lib.ub_ctx_set_stub(self._context, b".", server.encode(), 1)
            self._check(f"root server {server}", set_stub)
        for server in [each.forward for each in self._upstreams] or configuration.forward:
            self._check(f"forward {server}", self._lib.ub_ctx_set_fwd(self._context, server.encode()))
        anchors = configuration.anchors
        if configuration.anchor_file:
            # The library would open the file at the first question, and then we are in the sandbox.
            anchors += read_anchors(configuration.anchor_file)
        if not anchors:
            # Without an anchor the library would call everything insecure, and we would say that of signed zones.
            raise UnboundError("no trust anchor")
        for anchor in anchors:
            self._check(f"trust anchor {anchor}", self._lib.ub_ctx_add_ta(self._context, anchor.encode()))
        # 1: a thread.  A forked process would outlive us and could not be sandboxed with us.
        self._check("thread", self._lib.ub_ctx_async(self._context, 1))
        for descriptor in (self._lib.ub_fd(self._context), *self._upstreams):
            self._poll.register(descriptor, select.EPOLLIN)
        # Answers carry their reasons; what the library prints besides has no reader.
        self._lib.ub_ctx_debugout(self._context, self._ffi.NULL)
        # Any change of local data makes the library read its options now, and say now that one is wrong.
        self._check("options or trust anchors", self._lib.ub_ctx_data_remove(self._context, b"nothing.invalid."))

    def _start(self) -> None:
        while self._waiting and self._lookups < MAX_IN_FLIGHT:
            lookup, deadline = self._waiting.popleft()
            self._lookups += 1
            self._send(_Asked(deadline, lookup), f"{lookup.name}.", lookup.rdtype, CLASS_IN)

    def _send(self, asked: "_Asked", name: str, rdtype: int, rdclass: int) -> None:
        ticket, number = next(self._tickets), self._ffi.new("int *")
        self._asked[ticket] = asked
        error = self._lib.ub_resolve_async(
            self._context, name.encode(), rdtype, rdclass,
            self._ffi.cast("void *", ticket), self._callback, number,
        )  # fmt: skip
        asked.number = number[0]
        if error:
            self._fail(self._forget(ticket).whose, self._text(self._lib.ub_strerror(error)))

    def _forget(self, ticket: int) -> "_Asked":
        asked = self._asked.pop(ticket)
        self._lookups -= isinstance(asked.whose, Lookup)
        return asked

    def _arrived(self, data: Any, error: int, result: Any) -> None:
        """Called by ub_process.  `result` is ours to free, and its octets are gone afterwards."""
        try:
            ticket = int(self._ffi.cast("intptr_t", data))
            if ticket not in self._asked:
                return
            whose = self._forget(ticket).whose
            if error or result == self._ffi.NULL:
                self._fail(whose, self._text(self._lib.ub_strerror(error)))
            elif isinstance(whose, Lookup):
                self._done.append(self._judge(whose, result))
            else:
                self._fetched.append((whose, self._whole(result)))
        finally:
            self._lib.ub_resolve_free(result)

    def _whole(self, result: Any) -> Fetched:
        reason = self._text(result.why_bogus) if result.bogus else self._rcode(result)
        return Fetched(self._packet(result), bool(result.secure), bool(result.bogus), reason)

    def _packet(self, result: Any) -> bytes:
        return bytes(self._ffi.buffer(result.answer_packet, result.answer_len)) if result.answer_len else b""

    def _judge(self, lookup: Lookup, result: Any) -> Answered:
        """The four outcomes."""
        if result.bogus:
            return _error(lookup, self._text(result.why_bogus) or "bogus")
        if result.rcode not in (NOERROR, NXDOMAIN):
            return _error(lookup, self._rcode(result))
        try:
            canonical = self._canonical(lookup, result)
        except BadName as bad:
            return _error(lookup, f"an alias leads to where no host is: {bad}")
        outcome = (Outcome.SECURE if result.havedata else Outcome.DENIED) if result.secure else Outcome.INSECURE
        ttl = max(0, min(MAX_TTL, result.ttl))
        if result.secure:
            left = signed_until(self._packet(result)) - int(time.time())
            if left <= 0:
                return _error(lookup, "its signatures have ended, or cannot be read")
            ttl = min(ttl, left)
        rdata = self._rdata(result)
        return Answered(lookup.request, lookup.name, lookup.rdtype, outcome, rdata, ttl, canonical=canonical)

    def _canonical(self, lookup: Lookup, result: Any) -> str:
        """Where aliases led; empty: there were none."""
        name = self._text(result.canonname)
        return "" if not name or host_name(name) == lookup.name else host_name(name)

    def _rcode(self, result: Any) -> str:
        """An error's name, and what we know of its reason."""
        failures = [f"; TLS with {each.name}: {each.failure}" for each in self._upstreams if each.failure]
        return RCODES.get(result.rcode, f"RCODE {result.rcode}") + "".join(failures)

    def _rdata(self, result: Any) -> tuple[bytes, ...]:
        if not result.havedata:
            return ()
        octets = itertools.takewhile(lambda pointer: pointer != self._ffi.NULL, _each(result.data))
        return tuple(bytes(self._ffi.buffer(pointer, result.len[i])) for i, pointer in enumerate(octets))

    def _fail(self, whose: Lookup | Callable[[Fetched], None], reason: str) -> None:
        if isinstance(whose, Lookup):
            self._done.append(_error(whose, reason))
        else:
            self._fetched.append((whose, Fetched(reason=reason)))

    def _deadlines(self) -> Iterator[float]:
        yield from (asked.deadline for asked in self._asked.values())
        yield from (deadline for _, deadline in self._waiting)

    def _check(self, what: str, error: int) -> None:
        if error:
            raise UnboundError(f"{what}: {self._text(self._lib.ub_strerror(error))}")

    def _text(self, pointer: Any) -> str:
        """A C string as one short printable line: parts of it came from strangers."""
        if pointer == self._ffi.NULL:
            return ""
        octets = self._ffi.string(pointer, 300)
        text = octets if isinstance(octets, str) else octets.decode("ascii", "replace")
        return "".join(character if character.isprintable() else "?" for character in text)


def read_anchors(path: str) -> tuple[str, ...]:
    """The DS and DNSKEY records of a file in zone file form, one string each; or UnboundError."""
    try:
        with open(path, encoding="ascii") as file:
            rrsets = dns.zonefile.read_rrsets(file, rdclass=None, default_ttl=0)
    except OSError as error:
        raise UnboundError(f"trust anchor {path}: {error.strerror}") from error
    except (dns.exception.DNSException, ValueError) as error:
        raise UnboundError(f"trust anchor {path}: {error}") from error
    trusted = (dns.rdatatype.DS, dns.rdatatype.DNSKEY)
    return tuple(
        f"{rrset.name} {rrset.rdtype.name} {rdata}" for rrset in rrsets if rrset.rdtype in trusted for rdata in rrset
    )


def signed_until(packet: bytes) -> int:
    """Wall time at which the first signature of an answer ends; 0: it has none that can be read.

    The library's own cache goes by the TTL alone (tried with 1.17.1), and a TTL is the word of whoever sent it.
    """
    try:
        answer = read_answer(packet, True)
    except BadMessage:
        return 0
    # RFC 4035 s5.3.3: nothing is believed for longer than its signature.  Anybody may add one that is none, so the
    # earliest counts.
    signatures = (record.rdata for record in (*answer.answer, *answer.authority) if record.rdtype == RRSIG)
    return min((int.from_bytes(rdata[8:12], "big") for rdata in signatures), default=0)


@dataclass(slots=True)
class _Asked:
    deadline: float
    whose: Lookup | Callable[[Fetched], None]
    number: int = 0
    """The library's, to cancel it."""


def _error(lookup: Lookup, reason: str) -> Answered:
    return Answered(lookup.request, lookup.name, lookup.rdtype, Outcome.ERROR, reason=reason)


def _each(pointers: Any) -> Iterator[Any]:
    return (pointers[i] for i in itertools.count())


def _load() -> tuple[cffi.FFI, Any]:
    ffi = cffi.FFI()
    ffi.cdef(DECLARATIONS)
    try:
        return ffi, ffi.dlopen("libunbound.so.8")
    except OSError as error:
        raise UnboundError("libunbound.so.8 is not there; Debian: apt install libunbound8") from error


CLASS_IN = 1
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
RCODES = {1: "FORMERR", SERVFAIL: "SERVFAIL", 4: "NOTIMP", REFUSED: "REFUSED"}

OPTIONS = (
    ("module-config", "validator iterator"),
    # What a forwarder on loopback says is validated like anything else.
    ("do-not-query-localhost", "no"),
    # The host's own view of private and documentation reverse zones must not be made up by the library.
    ("unblock-lan-zones", "yes"),
    ("val-permissive-mode", "no"),
    # By default a signature is good for an hour before and after its time.  A key taken back would be, too.
    ("val-sig-skew-min", "0"),
    ("val-sig-skew-max", "0"),
    ("qname-minimisation", "yes"),
    ("harden-glue", "yes"),
    ("harden-dnssec-stripped", "yes"),
    ("harden-below-nxdomain", "yes"),
    ("harden-referral-path", "no"),
    ("aggressive-nsec", "yes"),
    ("edns-buffer-size", "1232"),
    # An answer is passed on as it came, with all its sections.
    ("minimal-responses", "no"),
    ("rrset-roundrobin", "no"),
    # By default 16 and 2 sockets: so few servers that do not answer would keep all other questions waiting.
    ("outgoing-range", "512"),
    ("outgoing-num-tcp", "64"),
    ("num-queries-per-thread", "2048"),
    # A server that was dead is asked again soon after.  By default it is left alone for a quarter of an hour.
    ("infra-host-ttl", "10"),
    # Names whose servers are silent are given up after seconds, not minutes: each is memory and a socket that a
    # question with an answer could have.
    ("infra-cache-max-rtt", "10000"),
    ("outbound-msg-retry", "2"),
    ("cache-max-ttl", str(MAX_TTL)),
    ("cache-max-negative-ttl", "3600"),
    # We ask again soon enough ourselves (names.lookup), and a zone that was mended should be believed.
    ("val-bogus-ttl", "5"),
    ("msg-cache-size", "4m"),
    ("rrset-cache-size", "8m"),
    ("key-cache-size", "4m"),
    ("neg-cache-size", "1m"),
    ("verbosity", "0"),
    ("use-syslog", "no"),
)

DECLARATIONS = """
struct ub_result {
    char *qname;
    int qtype;
    int qclass;
    char **data;
    int *len;
    char *canonname;
    int rcode;
    void *answer_packet;
    int answer_len;
    int havedata;
    int nxdomain;
    int secure;
    int bogus;
    char *why_bogus;
    int was_ratelimited;
    int ttl;
};
typedef void (*ub_callback_type)(void *data, int error, struct ub_result *result);
struct ub_ctx *ub_ctx_create(void);
void ub_ctx_delete(struct ub_ctx *context);
int ub_ctx_set_option(struct ub_ctx *context, const char *option, const char *value);
int ub_ctx_set_stub(struct ub_ctx *context, const char *zone, const char *address, int prime);
int ub_ctx_set_fwd(struct ub_ctx *context, const char *address);
int ub_ctx_add_ta(struct ub_ctx *context, const char *anchor);
int ub_ctx_debugout(struct ub_ctx *context, void *file);
int ub_ctx_data_remove(struct ub_ctx *context, const char *data);
int ub_ctx_async(struct ub_ctx *context, int thread);
int ub_fd(struct ub_ctx *context);
int ub_process(struct ub_ctx *context);
int ub_resolve_async(struct ub_ctx *context, const char *name, int type, int class, void *data,
                     ub_callback_type callback, int *number);
int ub_cancel(struct ub_ctx *context, int number);
void ub_resolve_free(struct ub_result *result);
const char *ub_strerror(int error);
"""
