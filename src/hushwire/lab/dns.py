"""The lab's DNS: a signed world with its own root, served by one knotd on one address and port.

    .                signed, our own trust anchor
    `- example.      signed
       |- alice.example.     signed
       |- bob.example.       signed
       |- unsigned.example.  no DS: answers are provably insecure
       |- bogus.example.     a DS, and signatures that do not verify
       `- expired.example.   a DS, and signatures of last week

Knot signs by itself and goes on signing what is published while it runs.  A validator needs no recursion: it forwards
everything to this one server, which is authoritative for all of it.
"""

import base64
import re
import shlex
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import dns.dnssec
import dns.dnssectypes
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from hushwire.crypto.keys import PublicKey
from hushwire.lab.server import Server
from hushwire.names.ipseckey import KeyRecord, generic, write_record
from hushwire.wire.address import IPAddress

TTL = 2
"""Seconds, of every record: a test does not wait long for a cache."""


class Publisher(ABC):
    """What a story does to a world: the signed one here, or that of lab.evil, which lies."""

    @abstractmethod
    def set(self, name: str, by_type: Mapping[str, Sequence[str]], ttl: int = TTL) -> None:
        """Replace record sets of `name`: type -> the records in presentation form."""

    def publish(
        self,
        name: str,
        addresses: Iterable[IPAddress] = (),
        keys: Iterable[PublicKey | KeyRecord] = (),
        ttl: int = TTL,
    ) -> None:
        """Let `name` have these addresses and keys, and no others.  A reverse name is a name like another."""
        by_type: dict[str, list[str]] = {"A": [], "AAAA": []}
        for address in addresses:
            by_type["A" if address.version == 4 else "AAAA"].append(str(address))
        records = [key if isinstance(key, KeyRecord) else KeyRecord(10, None, key) for key in keys]
        by_type["IPSECKEY"] = [generic(write_record(record)) for record in records]
        self.set(name, by_type, ttl)

    def withdraw(self, name: str, *types: str) -> None:
        """Take records of `name` away: those of the types given, or what publish() sets."""
        self.set(name, {rdtype: [] for rdtype in types or ("A", "AAAA", "IPSECKEY")})


class SignedWorld(Publisher, Server):
    """A context manager: inside it the zones are served."""

    def __init__(
        self,
        address: str = "127.0.0.1",
        port: int = 0,
        zones: Sequence[str] = ("example", "alice.example", "bob.example"),
        prefix: Sequence[str] = (),
        ttl: int = TTL,
    ) -> None:
        """`zones` are signed, besides the root.  The TSIG key may change every zone.

        `ttl`: of the zones' own records and denials.
        """
        super().__init__(address, port, prefix)
        self._signed = ("", *zones)
        self._keys: dict[str, str] = {}
        self._ttl = ttl

    @property
    def anchor_path(self) -> Path:
        """The root's DS records, one a line: what a validator trusts."""
        return self.folder / "root.ds"

    def set(self, name: str, by_type: Mapping[str, Sequence[str]], ttl: int = TTL) -> None:
        lines: list[tuple[str, ...]] = []
        for rdtype, records in by_type.items():
            lines.append(("zone-unset", f"{name}.", rdtype))
            lines += [("zone-set", f"{name}.", str(ttl), rdtype, record) for record in records]
        self._change({self._zone_of(name): lines})

    def ds(self, zone: str) -> list[str]:
        """The DS records of a signed zone's key, in presentation form."""
        key = dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.DNSKEY, self._keys[zone])
        return [str(dns.dnssec.make_ds(dns.name.from_text(zone), key, digest)) for digest in ("SHA256", "SHA384")]

    def prepare(self) -> tuple[str, ...]:
        for folder in ("run", "db"):
            (self.folder / folder).mkdir()
        served = [*((zone, "on") for zone in self._signed), *((zone, "off") for zone in (UNSIGNED, BOGUS, EXPIRED))]
        zones = "".join(ZONE.format(zone=zone, signing=signing) for zone, signing in served)
        self.write_tsig(TSIG_NAME)
        listen = SERVER.format(folder=self.folder, listen=self.forward, key=TSIG_NAME, secret=self.secret)
        self.write(CONF, listen + zones)
        texts: dict[str, list[str]] = {zone: [APEX.format(ttl=self._ttl)] for zone in (*self._signed, UNSIGNED)}
        delegations: dict[str, list[str]] = {zone: [] for zone in (*self._signed[1:], UNSIGNED)}
        for zone, spoilt in ((BOGUS, bogus_zone()), (EXPIRED, expired_zone())):
            texts[zone], delegations[zone] = spoilt
        for zone, ds in delegations.items():
            texts[self._parent(zone)] += [f"{zone}. NS ns.{zone}.", f"ns.{zone}. A 192.0.2.53", *ds]
        for zone, lines in texts.items():
            self.write(f"{zone}.zone", "\n".join(lines) + "\n")
        return "knotd", "-c", CONF

    def is_ready(self) -> bool:
        """The zones are signed."""
        told = self.run("knotc", "-c", CONF, "zone-read", "--", "@", "DNSKEY", failure_ok=True)
        self._keys = dict(re.findall(r"^\[(.*)\.\] \S+ \d+ DNSKEY (.+)$", told, re.MULTILINE))
        return self._keys.keys() >= set(self._signed)

    def begin(self) -> None:
        """The parent of every signed zone vouches for its key, and we for the root's."""
        self.write(self.anchor_path.name, "".join(f". DS {ds}\n" for ds in self.ds("")))
        changes: dict[str, list[tuple[str, ...]]] = {}
        for zone in self._signed[1:]:
            vouched = [("zone-set", f"{zone}.", str(self._ttl), "DS", ds) for ds in self.ds(zone)]
            changes.setdefault(self._parent(zone), []).extend(vouched)
        self._change(changes)

    def _parent(self, zone: str) -> str:
        return self._zone_of(zone.partition(".")[2])

    def _zone_of(self, name: str) -> str:
        """The closest zone of this world that holds `name`."""
        while name not in (*self._signed, UNSIGNED):
            name = name.partition(".")[2]
        return name

    def _change(self, changes: Mapping[str, Iterable[Sequence[str]]]) -> None:
        """By zone, commands and what follows the zone in each: all of them by one process."""
        commands = [
            shlex.join((verb, f"{zone}.", *words))
            for zone, lines in changes.items()
            for verb, *words in (("zone-begin",), *lines, ("zone-commit",))
        ]
        answers = self.run("knotc", "-c", CONF, stdin="".join(f"{command}\n" for command in commands)).splitlines()
        for command, answer in zip(commands, answers, strict=True):
            # What is to be replaced need not be there.
            if answer != "OK" and not command.startswith("zone-unset "):
                raise RuntimeError(f"{command}: {answer}")


def bogus_zone() -> tuple[list[str], list[str]]:
    """A zone whose every signature but that of its DNSKEY has one bit wrong, and the DS that promises good ones."""
    zone, ds = _presigned_zone(BOGUS, time.time() + 86400)
    with zone.writer() as change:
        for name, rdataset in list(change.iterate_rdatasets()):
            if rdataset.rdtype == dns.rdatatype.RRSIG and rdataset.covers != dns.rdatatype.DNSKEY:
                spoilt = [rr.replace(signature=rr.signature[:-1] + bytes((rr.signature[-1] ^ 1,))) for rr in rdataset]
                change.replace(name, dns.rdataset.from_rdata_list(rdataset.ttl, spoilt))
    return zone.to_text(relativize=False).splitlines(), ds


def expired_zone() -> tuple[list[str], list[str]]:
    """A zone whose signatures were good until two days ago, and its DS."""
    zone, ds = _presigned_zone(EXPIRED, time.time() - 2 * 86400)
    return zone.to_text(relativize=False).splitlines(), ds


def _presigned_zone(origin: str, expiration: float) -> tuple[dns.zone.Zone, list[str]]:
    private = ec.generate_private_key(ec.SECP256R1())
    apex = dns.name.from_text(origin)
    key = dns.dnssec.make_dnskey(private.public_key(), dns.dnssectypes.Algorithm.ECDSAP256SHA256, flags=257)
    zone = dns.zone.from_text(f"{APEX.format(ttl=TTL)}\n{VICTIM}", apex, relativize=False)
    with zone.writer() as change:
        dns.dnssec.sign_zone(
            zone, change, keys=[(private, key)], inception=expiration - 7 * 86400, expiration=expiration, dnskey_ttl=TTL
        )
    return zone, [f"{origin}. DS {dns.dnssec.make_ds(apex, key, 'SHA256')}"]


UNSIGNED, BOGUS, EXPIRED = "unsigned.example", "bogus.example", "expired.example"

BOGUS_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
VICTIM = f"@ A 192.0.2.66\n@ AAAA 2001:db8::66\n@ IPSECKEY 10 0 4 . {base64.b64encode(BOGUS_KEY).decode()}\n"

APEX = """$TTL {ttl}
@ SOA ns host 1 3600 600 86400 {ttl}
@ NS ns
ns A 192.0.2.53"""

TSIG_NAME, CONF = "lab", "knot.conf"

SERVER = """
key:
  - id: {key}
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: update
    key: {key}
    action: update
server:
    rundir: "{folder}/run"
    listen: "{listen}"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 2
database:
    storage: "{folder}/db"
log:
  - target: stdout
    any: notice
policy:
  - id: lab
    algorithm: ecdsap256sha256
    single-type-signing: on
template:
  - id: default
    storage: "{folder}"
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
    semantic-checks: off
    dnssec-policy: lab
    acl: update
zone:
"""

ZONE = """
  - domain: "{zone}."
    file: "{zone}.zone"
    dnssec-signing: {signing}
"""
