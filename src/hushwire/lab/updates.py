"""Three primary servers that take updates: Knot, BIND and PowerDNS, each as docs/publishing.md sets it up.

Each serves one signed zone on loopback.  Its one TSIG key may change A, AAAA, IPSECKEY and TLSA of one name, and
nothing else.  A validator trusts the zone's own key and forwards to the server.
"""

import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import dns.dnssec
import dns.exception
import dns.message
import dns.name
import dns.query
import dns.rdataclass
import dns.rdatatype

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


class Primary:
    """A context manager: inside it the zone is served.  Each server says how in `start`."""

    def __init__(self, extra: tuple[tuple[str, str, str], ...] = ()) -> None:
        """`extra`: records besides RECORDS: owner, type, RDATA."""
        self.port = free_port()
        self.records = (*RECORDS, *extra)
        self.folder = Path()
        self.secret = b64encode(secrets.token_bytes(32)).decode()
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> tuple[str, ...]:
        """Write all files, make the zone and its keys; answer the command that serves it."""
        raise TypeError("a Primary is one of its kinds")

    def ready(self) -> None:
        """What is to be done once the server answers."""

    @property
    def forward(self) -> str:
        """Where a validator, and an update, go."""
        return f"127.0.0.1@{self.port}"

    @property
    def anchor_path(self) -> Path:
        """The zone's DNSKEY records: what a validator trusts."""
        return self.folder / "anchor"

    @property
    def tsig_path(self) -> Path:
        """The key of HOST, in BIND's form."""
        return self.folder / "alice.key"

    def __enter__(self) -> "Primary":
        self.folder = Path(tempfile.mkdtemp(prefix="hushwire-update-"))
        try:
            self.write("alice.key", TSIG.format(name=TSIG_NAME, secret=self.secret)).chmod(0o600)
            command = self.start()
            with (self.folder / "log").open("wb") as log:
                # Should we be killed, the server ends too.
                self._server = subprocess.Popen(
                    ("setpriv", "--pdeathsig", "TERM", *command), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ask(self, name: str, rdtype: str) -> list[str]:
        """The records that the server has, in presentation form, sorted."""
        response = dns.query.tcp(dns.message.make_query(name, rdtype), "127.0.0.1", timeout=5, port=self.port)
        wanted = dns.rdatatype.from_text(rdtype)
        return sorted(rdata.to_text() for rrset in response.answer if rrset.rdtype == wanted for rdata in rrset)

    def write(self, name: str, text: str) -> Path:
        """A file in this server's folder."""
        path = self.folder / name
        path.write_text(text)
        return path

    def run(self, *command: str) -> str:
        """What a command of the server's prints."""
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False, cwd=self.folder
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command[:3])}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def zone_file(self) -> Path:
        """The zone, not signed."""
        lines = [f"$TTL {TTL}", f"@ SOA ns host 1 3600 600 86400 {TTL}", *(" ".join(record) for record in self.records)]
        return self.write("zone", "\n".join(lines) + "\n")

    def _wait(self) -> None:
        """Until the zone is served, and signed; then trust its key."""
        assert self._server is not None
        started = False
        for _ in range(400):
            if self._server.poll() is not None:
                break
            try:
                if not started:
                    self.ask(ZONE, "SOA")
                    started = True
                    self.ready()
                keys = self.ask(ZONE, "DNSKEY")
                if keys and self._signed():
                    self.write("anchor", "".join(f"{ZONE}. IN DNSKEY {key}\n" for key in keys))
                    return
            except (OSError, EOFError, dns.exception.DNSException):
                pass
            time.sleep(0.025)
        raise RuntimeError(f"no signed zone: {(self.folder / 'log').read_text()[-3000:]}")

    def _signed(self) -> bool:
        question = dns.message.make_query(f"ns.{ZONE}", "A", want_dnssec=True)
        response = dns.query.tcp(question, "127.0.0.1", timeout=5, port=self.port)
        return any(rrset.rdtype == dns.rdatatype.RRSIG for rrset in response.answer)

    def _end(self) -> None:
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(5)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server = None
        shutil.rmtree(self.folder)


class Knot(Primary):
    """Knot DNS 3.2 signs by itself."""

    def start(self) -> tuple[str, ...]:
        self.zone_file()
        for folder in ("run", "db"):
            (self.folder / folder).mkdir()
        conf = self.write(
            "knot.conf",
            KNOT.format(
                folder=self.folder,
                listen=self.forward,
                zone=ZONE,
                host=HOST,
                key=TSIG_NAME,
                secret=self.secret,
                ttl=TTL,
            ),
        )
        return ("knotd", "-c", str(conf))


class Bind(Primary):
    """BIND 9.18 signs by itself, and takes SIG(0) as well: from whoever signs with the KEY record of HOST."""

    def start(self) -> tuple[str, ...]:
        self.zone_file()
        conf = self.write(
            "named.conf", BIND.format(folder=self.folder, port=self.port, zone=ZONE, host=HOST, key=TSIG_NAME)
        )
        # Its threads are many where processors are; two do.
        return ("named", "-g", "-n", "2", "-c", str(conf))


class PowerDns(Primary):
    """PowerDNS 4.7 with SQLite signs while it answers."""

    def start(self) -> tuple[str, ...]:
        conf = ("--config-dir=" + str(self.folder),)
        self.write("pdns.conf", POWERDNS.format(folder=self.folder, port=self.port))
        self.write("policy.lua", POLICY.format(host=HOST, key=TSIG_NAME))
        self.run("sqlite3", str(self.folder / "zones"), f".read {SCHEMA}")
        zone = self.zone_file()
        for command in (
            ("load-zone", ZONE, str(zone)),
            ("secure-zone", ZONE),
            ("import-tsig-key", TSIG_NAME, "hmac-sha256", self.secret),
            ("set-meta", ZONE, "TSIG-ALLOW-DNSUPDATE", TSIG_NAME),
            ("set-meta", ZONE, "ALLOW-DNSUPDATE-FROM", "127.0.0.0/8"),
        ):
            self.run("pdnsutil", *conf, *command)
        return ("pdns_server", *conf)


def free_port() -> int:
    """A port of loopback that nobody has, for UDP and TCP."""
    for _ in range(100):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            udp.bind(("127.0.0.1", 0))
            try:
                tcp.bind(udp.getsockname())
            except OSError:
                continue
            return int(udp.getsockname()[1])
    raise RuntimeError("no port is free")


SERVERS: dict[str, Callable[[], Primary]] = {"knot": Knot, "bind": Bind, "powerdns": PowerDns}
SCHEMA = "/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql"

TSIG = 'key "{name}" {{ algorithm hmac-sha256; secret "{secret}"; }};\n'

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
    file: "{folder}/zone"
    zonefile-sync: -1
    zonefile-load: whole
    journal-content: none
    acl: alice
    dnssec-signing: on
    dnssec-policy: lab
"""

BIND = """
include "{folder}/alice.key";
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
    file "{folder}/zone";
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
