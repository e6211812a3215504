"""sim: names, and a validating resolver's answers about them (RFC 4025), with faults that come and go."""

from dataclasses import dataclass, field

from hushwire.crypto.keys import PublicKey
from hushwire.events import Answered, Lookup, Outcome
from hushwire.names.binding import AAAA, A
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, write_record
from hushwire.wire.address import IPAddress


@dataclass(slots=True)
class Records:
    """What a name's owner has published."""

    addresses: tuple[IPAddress, ...]
    keys: tuple[PublicKey, ...]


@dataclass(slots=True)
class Zone:
    """All names of a world."""

    ttl: int = 30
    """Seconds."""
    records: dict[str, Records] = field(default_factory=dict)
    faults: dict[str, Outcome] = field(default_factory=dict)
    """Names that cannot be looked up properly now, and what a question about them comes to."""

    _fingerprints: dict[str, set[bytes]] = field(default_factory=dict)

    def publish(self, name: str, addresses: tuple[IPAddress, ...], *keys: PublicKey) -> None:
        """Say from now on that a name has these addresses and keys, and no other."""
        self.records[name] = Records(addresses, keys)
        self._fingerprints.setdefault(name, set()).update(key.fingerprint for key in keys)

    def published(self, name: str) -> set[bytes]:
        """The fingerprints of every key that a name ever had."""
        return self._fingerprints.get(name, set())

    def answer(self, question: Lookup) -> Answered:
        """What a validating resolver says now."""
        request, name, rdtype = question.request, question.name, question.rdtype
        if name in self.faults:
            return Answered(request, name, rdtype, self.faults[name], reason="by the simulator's will")
        rdata = self._rdata(name, rdtype)
        return Answered(request, name, rdtype, Outcome.SECURE if rdata else Outcome.DENIED, rdata, self.ttl)

    def _rdata(self, name: str, rdtype: int) -> tuple[bytes, ...]:
        records = self.records.get(name)
        if records is None:
            return ()
        if rdtype == IPSECKEY:
            return tuple(write_record(KeyRecord(10 * n, None, key)) for n, key in enumerate(records.keys, 1))
        version = {A: 4, AAAA: 6}[rdtype]
        return tuple(address.packed for address in records.addresses if address.version == version)
