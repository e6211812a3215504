"""Three primary servers that take updates: Knot, BIND and PowerDNS, each as docs/publishing.md sets it up.

Each serves one signed zone on loopback.  Its one TSIG key may change A, AAAA, IPSECKEY and TLSA of one name, and
nothing else.  A validator trusts the zone's own key and forwards to the server.
"""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

import dns.dnssec
import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rdataclass
import dns.rdatatype

from hushwire.lab.server import Server

ZONE, HOST, OTHER = "example", "alice.example", "bob.example"
"""The zone, the name that the key may change, and one that it may not."""
TTL = 2
"""Seconds, of every record."""
TSIG_NAME = "alice-key"
RECORDS = [
    ("@", "NS", "ns.example."),
    ("ns", "A", "127.0.0.1"),
    ("bob", "A", "192.0.2.66"),
]


class Primary(Server):
    """A context manager: inside it the zone is served.  Each kind says how in `configure`."""

    def __init__(self, extra: tuple[tuple[str, str, str], ...] = ()) -> None:
        """`extra`: records besides RECORDS: owner, type, RDATA."""
        super().__init__()
        self.records = (*RECORDS, *extra)

    @abstractmethod
    def configure(self, zone: Path) -> tuple[str, ...]:
        """Write its files, make the keys of the zone, which is not signed; answer the command that serves."""

    @property
    def anchor_path(self) -> Path:
        """The zone's DNSKEY records: what a validator trusts."""
        return self.folder / "anchor"

    def prepare(self) -> tuple[str, ...]:
        self.write_tsig(TSIG_NAME)
        lines = [f"$TTL {TTL}", f"@ SOA ns host 1 3600 600 86400 {TTL}", *(" ".join(record) for record in self.records)]
        return self.configure(self.write("zone", "\n".join(lines) + "\n"))

    def is_ready(self) -> bool:
        """The zone is served, and signed; then its key is trusted."""
        try:
            keys = self.ask(ZONE, "DNSKEY")
            signed = bool(keys) and self._signed()
        except (OSError, EOFError, dns.exception.DNSException):
            return False
        if signed:
            self.write("anchor", "".join(f"{ZONE}. IN DNSKEY {key}\n" for key in keys))
        return signed

    def ask(self, name: str, rdtype: str) -> list[str]:
        """The records that the server has, in presentation form, sorted."""
        response = dns.query.tcp(dns.message.make_query(name, rdtype), "127.0.0.1", timeout=5, port=self.port)
        wanted = dns.rdatatype.from_text(rdtype)
        return sorted(rdata.to_text() for rrset in response.answer if rrset.rdtype == wanted for rdata in rrset)

    def _signed(self) -> bool:
        question = dns.message.make_query(f"ns.{ZONE}", "A", want_dnssec=True)
        response = dns.query.tcp(question, "127.0.0.1", timeout=5, port=self.port)
        return any(rrset.rdtype == dns.rdatatype.RRSIG for rrset in response.answer)


class Knot(Primary):
    """Knot DNS 3.2 signs by itself."""

    def configure(self, zone: Path) -> tuple[str, ...]:
        for folder in ("run", "db"):
            (self.folder / folder).mkdir()
        text = KNOT.format(
            folder=self.folder, listen=self.forward, file=zone, zone=ZONE, host=HOST, key=TSIG_NAME, secret=self.secret
        )
        return ("knotd", "-c", str(self.write("knot.conf", text)))


class Bind(Primary):
    """BIND 9.18 signs by itself, and takes SIG(0) as well: from whoever signs with the KEY record of HOST."""

    def configure(self, zone: Path) -> tuple[str, ...]:
        text = BIND.format(
            folder=self.folder, port=self.port, tsig=self.tsig_path, file=zone, zone=ZONE, host=HOST, key=TSIG_NAME
        )
        # Its threads are many where processors are; two do.
        return ("named", "-g", "-n", "2", "-c", str(self.write("named.conf", text)))


class PowerDns(Primary):
    """PowerDNS 4.7 with SQLite signs while it answers."""

    def configure(self, zone: Path) -> tuple[str, ...]:
        conf = f"--config-dir={self.folder}"
        self.write("pdns.conf", POWERDNS.format(folder=self.folder, port=self.port))
        self.write("policy.lua", POLICY.format(host=HOST, key=TSIG_NAME))
        self.run("sqlite3", str(self.folder / "zones"), f".read {SCHEMA}")
        for command in (
            ("load-zone", ZONE, str(zone)),
            ("secure-zone", ZONE),
            ("import-tsig-key", TSIG_NAME, "hmac-sha256", self.secret),
            ("set-meta", ZONE, "TSIG-ALLOW-DNSUPDATE", TSIG_NAME),
            ("set-meta", ZONE, "ALLOW-DNSUPDATE-FROM", "127.0.0.0/8"),
        ):
            self.run("pdnsutil", conf, *command)
        return ("pdns_server", conf)


SERVERS: dict[str, Callable[[], Primary]] = {"knot": Knot, "bind": Bind, "powerdns": PowerDns}
SCHEMA = "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql"

KNOT = """
server:
    rundir: "{folder}/run"
    listen: "{listen}"
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{folder}/db"
log:
  - target: stdout
    any: info
key:
  - id: {key}
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: alice
    key: {key}
    action: update
    update-type: [A, AAAA, IPSECKEY, TLSA]
    update-owner: name
    update-owner-match: equal
    update-owner-name: [{host}., _500._udp.{host}.]
policy:
  - id: lab
    algorithm: ecdsap256sha256
    single-type-signing: on
zone:
  - domain: {zone}.
    file: "{file}"
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
    acl: alice
    dnssec-signing: on
    dnssec-policy: lab
"""

BIND = """
include "{tsig}";
options {{
    directory "{folder}";
    pid-file none;
    session-keyfile none;
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion no;
    notify no;
}};
controls {{ }};
zone "{zone}" {{
    type primary;
    file "{file}";
    key-directory "{folder}";
    dnssec-policy default;
    update-policy {{
        grant {key} name {host} A AAAA IPSECKEY;
        grant {key} name _500._udp.{host} TLSA;
        grant {host} name {host} A AAAA IPSECKEY;
        grant {host} name _500._udp.{host} TLSA;
    }};
}};
"""

POWERDNS = """
launch=gsqlite3
gsqlite3-database={folder}/zones
gsqlite3-dnssec=yes
socket-dir={folder}
local-address=127.0.0.1
local-port={port}
dnsupdate=yes
lua-dnsupdate-policy-script={folder}/policy.lua
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
zone-cache-refresh-interval=0
receiver-threads=1
distributor-threads=1
retrieval-threads=1
security-poll-suffix=
"""

POLICY = """
local owners = {{
    ["{host}."] = {{ A = true, AAAA = true, IPSECKEY = true }},
    ["_500._udp.{host}."] = {{ TLSA = true }},
}}
local types = {{ [pdns.A] = "A", [pdns.AAAA] = "AAAA", [pdns.IPSECKEY] = "IPSECKEY", [pdns.TLSA] = "TLSA" }}
function updatepolicy(input)
    local owner = owners[input:getQName():toString()]
    return input:getTsigName():toString() == "{key}." and owner ~= nil and owner[types[input:getQType()]] == true
end
"""
