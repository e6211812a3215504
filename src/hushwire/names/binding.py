"""Key, name and address belong together: the proof behind the level `named` (DESIGN.md section 4 and law 2; RFC 4025).

DNSSEC proves that the owner of a *name* chose a key and an address.  It does not prove that he owns the address: that
takes AUTH, by whoever is there, with one of these keys.  And it says nothing of another name at the same address.

A key is there in full (IPSECKEY) or as a fingerprint (TLSA, RFC 7671 s5.1), and then the peer has to send it.  Either
will do.

Answers are for the name as asked.  Where the resolver followed aliases (CNAME, DNAME), SECURE covers every step: the
owner of the name signed that the other name speaks for him.
"""

from collections.abc import Collection
from dataclasses import InitVar, dataclass, replace
from ipaddress import IPv4Network, IPv6Network

from hushwire.crypto.keys import PublicKey
from hushwire.events import Answered, Outcome
from hushwire.names.ipseckey import IPSECKEY, MAX_TRIED, KeyRecord, read_records
from hushwire.names.name import BadName
from hushwire.names.synthetic import is_synthetic
from hushwire.names.tlsa import TLSA, owner, read_fingerprints
from hushwire.wire.address import IPAddress, address_from_octets

A, AAAA = 1, 28

MIN_TTL, MAX_TTL = 5, 86400
"""Seconds.  Below, a zone could make us ask without end; above, a key taken back would live for years."""

MAX_ADDRESSES = 16
"""Addresses of one name that are used: each becomes a policy."""


class Unbound(Exception):
    """There is no binding for a name."""

    def __init__(self, name: str, reason: str, outcome: Outcome, ttl: int = MIN_TTL) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason
        """One line, for people."""
        self.outcome = outcome
        """DENIED: the one that may lead to clear, a signed statement that the name has no key at all (law 3).
        SECURE: validated, but of no use to us.  INSECURE: a zone is not signed.  ERROR: we do not know."""
        self.ttl = ttl
        """Seconds for which this may be believed; of no meaning for ERROR."""
        self.canonical = ""
        """Where aliases led, signed or not; empty: nowhere else, as far as is known."""
        self.addresses: tuple[IPAddress, ...] = ()
        """Where the name is said to be, signed or not: for rules that are content with whoever is there (RFC 5386)."""

    @property
    def leaves_strangers(self) -> bool:
        """Whether nothing is known that the host would have to prove.

        Where there are signed keys of which none is of use, there is: who does not prove it is refused (law 4).
        """
        return self.outcome in (Outcome.DENIED, Outcome.INSECURE)


@dataclass(frozen=True, slots=True)
class Binding:
    """Keys and addresses that an owner signed.  Made by bind() and bind_address(), and by nothing else."""

    name: str
    """As asked, canonical; of an address, its name in the reverse tree."""
    canonical: str
    """The name that aliases led to; `name` where there were none."""
    addresses: tuple[IPAddress, ...]
    """In the order IPv6, IPv4, each sorted; at least one, unless it roams."""
    records: tuple[KeyRecord, ...]
    """Preferred first.  A gateway in them is None or one of `addresses`; of an address, it may be another one."""
    fingerprints: tuple[bytes, ...]
    """SHA-256 of SubjectPublicKeyInfo, each of a key as good as one in `records`.  There is one of either."""
    ttl: int
    """Seconds for which it is true, MIN_TTL..MAX_TTL."""
    ignored: tuple[str, ...]
    """Why records were left out, one line each."""
    roams: bool
    """Its keys hold wherever it is, `addresses` or not."""
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not PROOF:
            raise TypeError("a Binding is made by bind()")

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """Every key that is there in full, preferred first, each once."""
        return tuple(dict.fromkeys(record.key for record in self.records))

    @property
    def gateway(self) -> IPAddress | None:
        """Of an address: the other end of the tunnel to it, who is another host; None: itself."""
        preferred = self.records[0].gateway if self.records else None
        return None if isinstance(preferred, str) or preferred in self.addresses else preferred

    def keys_at(self, address: IPAddress) -> tuple[PublicKey, ...]:
        """The keys for one address: a record with a gateway speaks of that address only (law 2)."""
        gateways = (None, address) if self._is_at(address) else (address,)
        return tuple(dict.fromkeys(record.key for record in self.records if record.gateway in gateways))

    def fingerprints_at(self, address: IPAddress) -> tuple[bytes, ...]:
        """The fingerprints for one address."""
        return self.fingerprints if self._is_at(address) else ()

    def _is_at(self, address: IPAddress) -> bool:
        return self.roams or address in self.addresses


def questions(name: str) -> tuple[tuple[str, int], ...]:
    """Owner and type of all that is asked about a name, in the order in which bind() takes the answers."""
    of_name = ((name, A), (name, AAAA), (name, IPSECKEY))
    try:
        return (*of_name, (owner(name), TLSA))
    except BadName:
        # RFC 1035 s2.3.4: a name this long has no room for one below it.  So there is none, and nobody need be asked.
        return of_name


def bind(
    name: str, a: Answered, aaaa: Answered, ipseckey: Answered, tlsa: Answered | None,
    own: Collection[IPAddress] = (), *, roams: bool = False,
) -> Binding:  # fmt: skip
    """The answers to `questions(name)` -> Binding, or Unbound.

    `own`: this host's addresses, which are never a peer's.  `roams`: it may be anywhere, and need not have an address.
    """
    try:
        return _bind(name, a, aaaa, ipseckey, tlsa, own, roams)
    except Unbound as unbound:
        unbound.canonical = next((answer.canonical for answer in (a, aaaa, ipseckey) if answer.canonical), "")
        if unbound.leaves_strangers:
            unbound.addresses, _ = _usable_addresses((*aaaa.rdata, *a.rdata), own)
        raise


def _bind(
    name: str, a: Answered, aaaa: Answered, ipseckey: Answered, tlsa: Answered | None, own: Collection[IPAddress],
    roams: bool,
) -> Binding:  # fmt: skip
    of_keys = (ipseckey,) if tlsa is None else (ipseckey, tlsa)
    answers = (a, aaaa, *of_keys)
    if tuple((answer.name, answer.rdtype) for answer in answers) != questions(name):
        raise Unbound(name, "an answer is for another question", Outcome.ERROR)
    addresses, ignored = _usable_addresses((*_signed(aaaa), *_signed(a)), own)
    records, skipped = _usable_records(_signed(ipseckey), (name, ipseckey.canonical), addresses)
    fingerprints, strange = _usable_fingerprints(_signed(tlsa))
    ignored += skipped + strange

    # Law 3: what is not known is an error, before anything is concluded from the rest.  But a signed key is a key,
    # whatever became of the question for further ones.
    keyed = bool(records or fingerprints)
    require_known(name, (*(() if roams else (a, aaaa)), *(() if keyed else of_keys)))
    ignored += tuple(_unknown(answer) for answer in of_keys if answer.outcome in UNKNOWN)
    canonical = _canonical(name, (a, aaaa, ipseckey))
    if all(answer.outcome is Outcome.DENIED for answer in of_keys):
        reason = "no IPSECKEY record and no TLSA, and that is signed"
        raise Unbound(name, reason, Outcome.DENIED, capped(min(answer.ttl for answer in of_keys)))
    ttl = capped(min(answer.ttl for answer in answers if answer.outcome is not Outcome.ERROR))
    if not (addresses or roams):
        raise Unbound(name, "; ".join(("no usable address", *ignored)), Outcome.SECURE, ttl)
    if not keyed:
        raise Unbound(name, "; ".join(("no usable key", *ignored)), Outcome.SECURE, ttl)
    return Binding(name, canonical, addresses, records, fingerprints, ttl, ignored, roams, PROOF)


def require_known(name: str, answers: Collection[Answered]) -> None:
    """Raise Unbound if one is an error, or else if one is not signed."""
    for outcome in UNKNOWN:
        for answer in answers:
            if answer.outcome is outcome:
                raise Unbound(name, _unknown(answer), outcome, capped(answer.ttl))


def why_unusable(address: IPAddress, own: Collection[IPAddress]) -> str | None:
    """Why an address that the DNS gave is not used; None: it is."""
    # Ours to give out (names.synthetic): a name that had one would take over another's traffic.
    return "synthetic" if is_synthetic(address) else why_not_a_peer(address, own)


def why_not_a_peer(address: IPAddress, own: Collection[IPAddress] = ()) -> str | None:
    """Why a name may not lead here; None: it may.  Rebinding: a name is not let in where only this host may go."""
    for reason, applies in (
        ("this host", address in own),
        ("loopback", address.is_loopback),
        ("unspecified", address.is_unspecified or address in THIS_NETWORK),
        ("link-local", address.is_link_local),
        ("multicast", address.is_multicast),
        ("reserved", address in FUTURE_USE),
        # A translator or a tunnel would take each to the IPv4 address within, which may be any of the others.
        ("an IPv4 address in disguise", any(address in network for network in IPV4_WITHIN)),
    ):
        if applies:
            return reason
    return None


def _signed(answer: Answered | None) -> tuple[bytes, ...]:
    """The records of an answer, if they were validated."""
    return answer.rdata if answer is not None and answer.outcome is Outcome.SECURE else ()


def _unknown(answer: Answered) -> str:
    reason = f" ({answer.reason})" if answer.reason else ""
    return f"{TYPE_NAMES[answer.rdtype]}: {UNKNOWN[answer.outcome]}{reason}"


def _canonical(name: str, answers: Collection[Answered]) -> str:
    """Where aliases led; Unbound if not all to one name: key and address would be two hosts'."""
    ends = {answer.canonical or name for answer in answers if answer.outcome is Outcome.SECURE}
    # A denial may hold good of the name as asked, an alias or not.
    ends |= {answer.canonical for answer in answers if answer.outcome is Outcome.DENIED and answer.canonical}
    if len(ends) > 1:
        raise Unbound(name, f"its answers lead to different names: {', '.join(sorted(ends))}", Outcome.ERROR)
    return ends.pop() if ends else name


def _usable_records(
    rdatas: Collection[bytes], names: Collection[str], addresses: Collection[IPAddress]
) -> tuple[tuple[KeyRecord, ...], tuple[str, ...]]:
    """Key records without gateway, or with one that is the name itself, one of `names` or `addresses`."""
    readable, ignored = read_records(rdatas)
    usable: list[KeyRecord] = []
    for record in readable:
        if record.gateway is None or record.gateway in addresses:
            usable.append(record)
        elif record.gateway in names:
            usable.append(replace(record, gateway=None))
        else:
            # RFC 4025 s4.1.2 and law 2: it would draw somebody's traffic to where no one said he is.
            ignored += (f"gateway {record.gateway} is no address of the name",)
    return tuple(usable), ignored


def _usable_fingerprints(rdatas: Collection[bytes]) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    found, skipped = read_fingerprints(rdatas)
    if len(found) > MAX_TRIED:
        skipped += (f"{len(found) - MAX_TRIED} fingerprints more than the {MAX_TRIED} used",)
    return tuple(sorted(found)[:MAX_TRIED]), skipped[-MAX_TRIED:]


def _usable_addresses(
    rdatas: Collection[bytes], own: Collection[IPAddress]
) -> tuple[tuple[IPAddress, ...], tuple[str, ...]]:
    usable: list[IPAddress] = []
    ignored: list[str] = []
    for rdata in sorted(set(rdatas), key=lambda rdata: (-len(rdata), rdata)):
        try:
            address = address_from_octets(rdata)
        except ValueError as error:
            ignored.append(str(error))
            continue
        if reason := why_unusable(address, own):
            ignored.append(f"{address} is {reason}")
        else:
            usable.append(address)
    if len(usable) > MAX_ADDRESSES:
        ignored.append(f"{len(usable) - MAX_ADDRESSES} addresses more than the {MAX_ADDRESSES} used")
    return tuple(usable[:MAX_ADDRESSES]), tuple(ignored[:MAX_ADDRESSES])


def capped(ttl: int) -> int:
    """A TTL within MIN_TTL..MAX_TTL."""
    return max(MIN_TTL, min(MAX_TTL, ttl))


TYPE_NAMES = {A: "A", AAAA: "AAAA", IPSECKEY: "IPSECKEY", TLSA: "TLSA"}
UNKNOWN = {Outcome.ERROR: "no answer", Outcome.INSECURE: "not signed"}
"""Outcomes that say nothing for sure, the worst first."""
IPV4_WITHIN = tuple(map(IPv6Network, ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")))
"""IPv4-compatible and -mapped (RFC 4291 s2.5.5), NAT64 (RFC 6052 s2.1, RFC 8215) and 6to4 (RFC 3056)."""
THIS_NETWORK, FUTURE_USE = IPv4Network("0.0.0.0/8"), IPv4Network("240.0.0.0/4")
PROOF = object()
"""For bind() and reverse.bind_address() alone."""
