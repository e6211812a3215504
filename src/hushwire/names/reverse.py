"""An address without a name: its key, or its gateway's, from its own reverse zone (RFC 4025 s1.2, s2.5; RFC 4322 s3).

Whoever signs the reverse zone has the address, as far as the DNS goes.  So here a gateway elsewhere counts: the owner
of the address says who speaks for it (law 2).
"""

from collections.abc import Collection

from hushwire.events import Answered, Outcome
from hushwire.names.binding import PROOF, Binding, Unbound, capped, require_known, why_unusable
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, read_records
from hushwire.wire.address import IPAddress


def reverse_name(address: IPAddress) -> str:
    """Where an address's own records are: in-addr.arpa (RFC 1035 s3.5) or ip6.arpa (RFC 3596 s2.5); canonical."""
    return address.reverse_pointer


def bind_address(address: IPAddress, ipseckey: Answered, own: Collection[IPAddress] = ()) -> Binding:
    """The answer for `reverse_name(address)` -> Binding of that one address, or Unbound.  `own`: this host's."""
    name = reverse_name(address)
    if (ipseckey.name, ipseckey.rdtype) != (name, IPSECKEY):
        raise Unbound(name, "an answer is for another question", Outcome.ERROR)
    require_known(name, (ipseckey,))
    ttl = capped(ipseckey.ttl)
    if ipseckey.outcome is Outcome.DENIED:
        raise Unbound(name, "no IPSECKEY record, and that is signed", Outcome.DENIED, ttl)
    if reason := why_unusable(address, own):
        raise Unbound(name, f"{address} is {reason}", Outcome.SECURE, ttl)
    readable, ignored = read_records(ipseckey.rdata)
    records: list[KeyRecord] = []
    for record in readable:
        if reason := _why_not_through(record.gateway, address, own):
            ignored += (f"gateway {record.gateway} {reason}",)
        else:
            records.append(record)
    if not records:
        raise Unbound(name, "; ".join(("no usable key", *ignored)), Outcome.SECURE, ttl)
    return Binding(name, ipseckey.canonical or name, (address,), tuple(records), (), ttl, ignored, False, PROOF)


def _why_not_through(gateway: IPAddress | str | None, address: IPAddress, own: Collection[IPAddress]) -> str | None:
    if gateway is None or gateway == address:
        return None
    if isinstance(gateway, str):
        # RFC 4025 s4.1.2: its addresses would have to be as secure, and they are another question.
        return "is a name, and only addresses are used"
    reason = why_unusable(gateway, own)
    return f"is {reason}" if reason is not None else None
