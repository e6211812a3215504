"""Key, name and address belong together: the proof behind the level `named` (DESIGN.md section 4 and law 2; RFC 4025).

DNSSEC proves that the owner of a *name* chose a key and an address.  It does not prove that he owns the address: that
takes AUTH, by whoever is there, with one of these keys.  And it says nothing of another name at the same address.

Answers are for the name as asked.  Where the resolver followed aliases (CNAME, DNAME), SECURE covers every step: the
owner of the name signed that the other name speaks for him.
"""

from collections.abc import Collection
from dataclasses import InitVar, dataclass
from ipaddress import IPv4Network, IPv6Address

from hushwire.crypto.keys import PublicKey
from hushwire.events import Answered, Outcome
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, read_records
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


@dataclass(frozen=True, slots=True)
class Binding:
    """Keys and addresses that a name's owner signed.  Made by bind(), and by nothing else."""

    name: str
    """As asked, canonical."""
    addresses: tuple[IPAddress, ...]
    """At least one, in the order IPv6, IPv4, each sorted."""
    records: tuple[KeyRecord, ...]
    """At least one, preferred first.  A gateway in them is None or one of `addresses`."""
    ttl: int
    """Seconds for which it is true, MIN_TTL..MAX_TTL."""
    ignored: tuple[str, ...]
    """Why records were left out, one line each."""
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise TypeError("a Binding is made by bind()")

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """Every key, preferred first, each once."""
        return tuple(dict.fromkeys(record.key for record in self.records))

    def keys_at(self, address: IPAddress) -> tuple[PublicKey, ...]:
        """The keys for one address: a record with a gateway speaks of that address only (law 2)."""
        if address not in self.addresses:
            return ()
        return tuple(dict.fromkeys(record.key for record in self.records if record.gateway in (None, address)))


def bind(name: str, a: Answered, aaaa: Answered, ipseckey: Answered, own: Collection[IPAddress] = ()) -> Binding:
    """The three answers for `name` -> Binding, or Unbound.  `own`: this host's addresses, which are never a peer's."""
    answers = ((a, A), (aaaa, AAAA), (ipseckey, IPSECKEY))
    for answer, rdtype in answers:
        if (answer.name, answer.rdtype) != (name, rdtype):
            raise Unbound(name, "an answer is for another question", Outcome.ERROR)
    # Law 3: what is not known is an error, before anything is concluded from the rest.
    for outcome, meaning in ((Outcome.ERROR, "no answer"), (Outcome.INSECURE, "not signed")):
        for answer, rdtype in answers:
            if answer.outcome is outcome:
                reason = f"{TYPE_NAMES[rdtype]}: {meaning}" + (f" ({answer.reason})" if answer.reason else "")
                raise Unbound(name, reason, outcome, _capped(answer.ttl))
    ttl = _capped(min(answer.ttl for answer, _ in answers))
    if ipseckey.outcome is Outcome.DENIED:
        raise Unbound(name, "no IPSECKEY record, and that is signed", Outcome.DENIED, _capped(ipseckey.ttl))

    addresses, ignored = _usable_addresses((*aaaa.rdata, *a.rdata), own)
    if not addresses:
        raise Unbound(name, "; ".join(("no usable address", *ignored)), Outcome.SECURE, ttl)
    readable, skipped = read_records(ipseckey.rdata)
    records = tuple(record for record in readable if record.gateway is None or record.gateway in addresses)
    # RFC 4025 s4.1.2 and law 2: a gateway elsewhere would draw somebody's traffic to where no one said he is.
    elsewhere = tuple(f"gateway {r.gateway} is no address of the name" for r in readable if r not in records)
    ignored += skipped + elsewhere
    if not records:
        raise Unbound(name, "; ".join(("no usable key", *ignored)), Outcome.SECURE, ttl)
    return Binding(name, addresses, records, ttl, ignored, _PROOF)


def why_not_a_peer(address: IPAddress, own: Collection[IPAddress] = ()) -> str | None:
    """Why a name may not lead here; None: it may.  Rebinding: a name is not let in where only this host may go."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return "IPv4-mapped"
    for reason, applies in (
        ("this host", address in own),
        ("loopback", address.is_loopback),
        ("unspecified", address.is_unspecified or address in THIS_NETWORK),
        ("link-local", address.is_link_local),
        ("multicast", address.is_multicast),
        ("reserved", address in FUTURE_USE),
    ):
        if applies:
            return reason
    return None


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
        if reason := why_not_a_peer(address, own):
            ignored.append(f"{address} is {reason}")
        else:
            usable.append(address)
    if len(usable) > MAX_ADDRESSES:
        ignored.append(f"{len(usable) - MAX_ADDRESSES} addresses more than the {MAX_ADDRESSES} used")
    return tuple(usable[:MAX_ADDRESSES]), tuple(ignored[:MAX_ADDRESSES])


def _capped(ttl: int) -> int:
    return max(MIN_TTL, min(MAX_TTL, ttl))


TYPE_NAMES = {A: "A", AAAA: "AAAA", IPSECKEY: "IPSECKEY"}
THIS_NETWORK, FUTURE_USE = IPv4Network("0.0.0.0/8"), IPv4Network("240.0.0.0/4")
_PROOF = object()
