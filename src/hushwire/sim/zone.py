"""sim: names, and a validating resolver's answers about them (RFC 4025, RFC 6698), with faults that come and go."""

from dataclasses import dataclass, field

from hushwire.crypto.keys import PublicKey
from hushwire.events import Answered, Lookup, Outcome
from hushwire.names.binding import AAAA, A
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, write_record
from hushwire.names.reverse import reverse_name
from hushwire.names.tlsa import TLSA, write_fingerprint
from hushwire.wire.address import IPAddress


@dataclass(slots=True)
class Records:
    """What a name's owner has published."""

    addresses: tuple[IPAddress, ...] = ()
    keys: tuple[KeyRecord, ...] = ()
    fingerprints: tuple[bytes, ...] = ()
    """Of keys that are not there in full."""
    alias: str = ""
    """The name that a CNAME leads to."""


@dataclass(slots=True)
class Zone:
    """All names of a world."""

    ttl: int = 30
    """Seconds."""
    records: dict[str, Records] = field(default_factory=dict)
    faults: dict[str | tuple[str, int], Outcome] = field(default_factory=dict)
    """Names that cannot be looked up properly now, and what a question about them comes to; or a name and one type
    alone.  For TLSA, too, the name is the host's."""

    _fingerprints: dict[str, set[bytes]] = field(default_factory=dict)

    def publish(
        self, name: str, addresses: tuple[IPAddress, ...], *keys: PublicKey, vouched: tuple[PublicKey, ...] = ()
    ) -> None:
        """Say from now on that a name has these addresses and keys, and no other; of `vouched`, fingerprints alone."""
        records = tuple(KeyRecord(10 * number, None, key) for number, key in enumerate(keys, 1))
        self._publish(name, Records(addresses, records, tuple(key.fingerprint for key in vouched)))

    def publish_address(self, address: IPAddress, *records: KeyRecord) -> None:
        """Say from now on, in its reverse zone, that an address has these keys and gateways, and no other."""
        self._publish(reverse_name(address), Records(keys=records))

    def publish_alias(self, name: str, target: str) -> None:
        """Say from now on that a name is an alias of one that is published."""
        self._publish(name, Records(alias=target))
        self._fingerprints[name] |= self.published(target)

    def published(self, name: str) -> set[bytes]:
        """The fingerprints of every key that a name ever had."""
        return self._fingerprints.get(name, set())

    def answer(self, question: Lookup) -> Answered:
        """What a validating resolver says now."""
        request, name, rdtype = question.request, question.name, question.rdtype
        host = name.removeprefix("_500._udp.") if rdtype == TLSA else name
        fault = self.faults.get((host, rdtype)) or self.faults.get(host)
        if fault in (Outcome.DENIED, Outcome.ERROR):
            return Answered(request, name, rdtype, fault, reason="by the simulator's will")
        # An alias is one of the name itself, not of the names below it.
        alias = self.records[host].alias if host in self.records and rdtype != TLSA else ""
        rdata = self._rdata(alias or host, rdtype)
        # What is not signed is passed on all the same: that nobody believes it is up to who asked.
        outcome = fault or (Outcome.SECURE if rdata else Outcome.DENIED)
        return Answered(request, name, rdtype, outcome, rdata, self.ttl, canonical=alias)

    def _publish(self, name: str, records: Records) -> None:
        self.records[name] = records
        fingerprints = {*records.fingerprints, *(record.key.fingerprint for record in records.keys)}
        self._fingerprints.setdefault(name, set()).update(fingerprints)

    def _rdata(self, name: str, rdtype: int) -> tuple[bytes, ...]:
        """A name's own records; for TLSA, those at `_500._udp.NAME`."""
        records = self.records.get(name, Records())
        return {
            A: tuple(address.packed for address in records.addresses if address.version == 4),
            AAAA: tuple(address.packed for address in records.addresses if address.version == 6),
            IPSECKEY: tuple(write_record(record) for record in records.keys),
            TLSA: tuple(write_fingerprint(fingerprint) for fingerprint in records.fingerprints),
        }[rdtype]
