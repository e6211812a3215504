"""Publishing at Knot, BIND and PowerDNS, as Debian packages them: what is said is done; what is not done is said."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import IO

import dns.query
import dns.tsig
import dns.tsigkeyring
import dns.update
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from hushwire.crypto.keys import KeyKind, PrivateKey, PublicKey
from hushwire.crypto.secret import Secret
from hushwire.daemon.credential import Sig0, Tsig, read_sig0, read_tsig
from hushwire.daemon.unbound import Configuration
from hushwire.daemon.update import Changed, Primary, Server, UpdateError, zone_of
from hushwire.lab import updates
from hushwire.lab.updates import HOST, OTHER, SERVERS, ZONE, Bind
from hushwire.names.publish import Own, Plan, Record, RecordSet, Unpublishable, records_of

pytestmark = pytest.mark.lab

# PowerDNS 4.7 takes no IPSECKEY but RSA's (test_powerdns_and_other_keys), so that is what all are tried with.
FIRST, SECOND, STRANGER = (PrivateKey.generate(KeyKind.RSA).public for _ in range(3))
HERE = (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))
TYPES = ("A", "AAAA", "IPSECKEY")


@pytest.fixture(scope="module", params=SERVERS)
def served(request: pytest.FixtureRequest) -> Iterator[updates.Primary]:
    with SERVERS[request.param]() as served:
        yield served


@pytest.fixture
def primary(served: updates.Primary) -> Iterator[Primary]:
    """The server with nothing at HOST, before and after."""
    primary = of(served)
    clean(primary)
    yield primary
    clean(primary)


def of(served: updates.Primary) -> Primary:
    configuration = Configuration(str(served.anchor_path), forward=(served.forward,), timeout=3)
    return Primary(Server.read(served.forward), read_tsig(served.tsig_path), configuration, timeout=3, patience=10)


def clean(primary: Primary) -> None:
    keys = frozenset(key.fingerprint for key in (FIRST, SECOND, STRANGER))
    primary.publish(primary.plan(HOST, (), Own(keys, frozenset(records_of(HOST, (), (*HERE, ELSEWHERE))))))


ELSEWHERE = IPv4Address("198.51.100.1")


def everything(served: updates.Primary) -> dict[str, list[str]]:
    found = {rdtype: served.ask(HOST, rdtype) for rdtype in TYPES}
    return found | {"TLSA": served.ask(f"_500._udp.{HOST}", "TLSA"), "other": served.ask(OTHER, "A")}


def published(served: updates.Primary) -> set[bytes]:
    """The fingerprints at HOST, by the server's word."""
    return {bytes.fromhex(text.split()[-1]) for text in served.ask(f"_500._udp.{HOST}", "TLSA")}


def a_plan(primary: Primary, *keys: PublicKey, own: Own | None = None) -> Plan:
    return primary.plan(HOST, records_of(HOST, keys, HERE, fingerprints=True), own or Own())


def test_publish_replace_withdraw(served: updates.Primary, primary: Primary) -> None:
    """Each read back as SECURE: publish() would raise."""
    assert zone_of(primary.server, HOST) == ZONE
    primary.publish(a_plan(primary, FIRST))
    found = everything(served)
    assert (found["A"], found["AAAA"]) == (["192.0.2.1"], ["2001:db8::1"])
    assert [text.split()[:3] for text in found["IPSECKEY"]] == [["10", "0", "2"]]
    assert published(served) == {FIRST.fingerprint}

    primary.publish(a_plan(primary, FIRST, SECOND))
    assert published(served) == {FIRST.fingerprint, SECOND.fingerprint}
    assert [text.split()[0] for text in served.ask(HOST, "IPSECKEY")] == ["10", "20"]

    primary.publish(a_plan(primary, SECOND, own=Own(frozenset({FIRST.fingerprint}))))
    assert published(served) == {SECOND.fingerprint}
    assert [text.split()[0] for text in served.ask(HOST, "IPSECKEY")] == ["10"]
    assert not a_plan(primary, SECOND).changes

    primary.publish(primary.plan(HOST, (), Own(frozenset({SECOND.fingerprint}))))
    found = everything(served)
    assert (found["A"], found["IPSECKEY"], found["TLSA"]) == (["192.0.2.1"], [], [])


def test_over_udp(served: updates.Primary, primary: Primary) -> None:
    over_udp = Primary(primary.server, primary.credential, primary.configuration, patience=10, udp=True)
    over_udp.publish(a_plan(primary, FIRST))
    assert published(served) == {FIRST.fingerprint}


def test_somebody_elses_records_stay(served: updates.Primary, primary: Primary) -> None:
    primary.publish(primary.plan(HOST, records_of(HOST, [STRANGER], [ELSEWHERE]), Own()))
    primary.publish(a_plan(primary, FIRST))
    own = Own(frozenset({FIRST.fingerprint}), frozenset(records_of(HOST, (), HERE)))
    primary.publish(primary.plan(HOST, records_of(HOST, [SECOND]), own))
    assert served.ask(HOST, "A") == ["198.51.100.1"]
    assert len(served.ask(HOST, "IPSECKEY")) == 2
    primary.publish(primary.plan(HOST, (), Own(frozenset({SECOND.fingerprint}))))
    assert len(served.ask(HOST, "IPSECKEY")) == 1


@pytest.mark.parametrize("before", [(), (FIRST,)], ids=["new", "replaced"])
def test_what_came_between_reading_and_writing_stays(
    served: updates.Primary, primary: Primary, before: tuple[PublicKey, ...]
) -> None:
    """And control: planned after that, the same is done."""
    if before:
        primary.publish(a_plan(primary, *before))
    own = Own(frozenset({FIRST.fingerprint}))
    late = a_plan(primary, SECOND, own=own)
    primary.publish(primary.plan(HOST, records_of(HOST, [STRANGER]), Own()))
    there = everything(served)
    with pytest.raises(Changed, match=r"IPSECKEY of alice.example is now: .*nothing was changed") as caught:
        primary.publish(late)
    assert "\n" not in str(caught.value)
    assert everything(served) == there
    primary.publish(a_plan(primary, SECOND, own=own))
    assert SECOND.fingerprint in published(served)


def test_a_wrong_secret_changes_nothing(served: updates.Primary, primary: Primary) -> None:
    there = everything(served)
    for name, reason in ((f"{updates.TSIG_NAME}.", "BADSIG|REFUSED.*wrong secret"), ("nobody.", "BADKEY|REFUSED")):
        thief = Primary(primary.server, Tsig(name, "hmac-sha256", Secret(bytes(32))), primary.configuration)
        with pytest.raises(UpdateError, match=reason):
            thief.publish(a_plan(primary, FIRST))
    assert everything(served) == there


OTHERS = (
    Record(OTHER, 1, bytes((192, 0, 2, 1))),
    Record(f"other._udp.{HOST}", 52, bytes((3, 1, 1)) + bytes(32)),
)


@pytest.mark.parametrize("record", OTHERS, ids=["another name", "a name below"])
def test_the_key_is_good_for_its_names_and_types_only(
    served: updates.Primary, primary: Primary, record: Record
) -> None:
    """What a stolen key cannot do: the ACL of docs/publishing.md holds, and that nothing was done is said."""
    rdtype = {1: "A", 52: "TLSA"}[record.rdtype]
    before = served.ask(record.owner, rdtype)
    there = frozenset(IPv4Address(text).packed for text in before)
    beyond = Plan(ZONE, (RecordSet(record.owner, record.rdtype, 2, there),), (), ((record, 5),), (record,), (), ())
    impatient = Primary(primary.server, primary.credential, primary.configuration, timeout=1, patience=1)
    with pytest.raises(UpdateError, match=r"REFUSED|BADKEY|NOERROR and left"):
        impatient.publish(beyond)
    assert served.ask(record.owner, rdtype) == before


@pytest.mark.parametrize(
    ("rdtype", "rdata"), [("TXT", "x"), ("CNAME", OTHER + "."), ("NS", OTHER + "."), ("KEY", "512 3 15 AAAA")]
)
def test_the_key_is_good_for_four_types_only(
    served: updates.Primary, primary: Primary, rdtype: str, rdata: str
) -> None:
    """Sent as a thief would: dnspython's own update.  Its control is the last one."""
    keyring = dns.tsigkeyring.from_text({f"{updates.TSIG_NAME}.": served.secret})
    for kind, text in ((rdtype, rdata), ("A", "192.0.2.1")):
        update = dns.update.UpdateMessage(f"{ZONE}.", keyring=keyring, keyalgorithm="hmac-sha256.")
        update.add(f"{HOST}.", 5, kind, text)
        with suppress(dns.tsig.PeerError):
            dns.query.tcp(update, "127.0.0.1", port=served.port, timeout=3)
        assert bool(served.ask(HOST, kind)) is (kind == "A")


def test_a_name_of_another_zone(primary: Primary) -> None:
    elsewhere = Primary(primary.server, primary.credential, primary.configuration, zone="example")
    with pytest.raises(UpdateError, match="primary server"):
        elsewhere.plan("alice.test", (), Own())


def test_powerdns_and_other_keys() -> None:
    """Its IPSECKEY knows no algorithm but RSA; the fingerprint of any key does."""
    public = PrivateKey.generate(KeyKind.ED25519).public
    with SERVERS["powerdns"]() as served:
        primary = of(served)
        with pytest.raises(UpdateError, match=r"SERVFAIL: .*not RSA: publish the fingerprint alone"):
            primary.publish(a_plan(primary, public))
        assert everything(served)["A"] == [], "all or nothing"
        primary.publish(primary.plan(HOST, records_of(HOST, [public], whole=False, fingerprints=True), Own()))
        assert published(served) == {public.fingerprint}


@pytest.mark.parametrize("kind", [KeyKind.ED25519, KeyKind.ED448, KeyKind.ECDSA_P256, KeyKind.ECDSA_P384])
@pytest.mark.parametrize("server", ["knot", "bind"])
def test_all_keys(server: str, kind: KeyKind) -> None:
    public = PrivateKey.generate(kind).public
    with SERVERS[server]() as served:
        primary = of(served)
        primary.publish(a_plan(primary, public))
        assert published(served) == {public.fingerprint}


def test_a_key_too_long_for_ipseckey_goes_as_a_fingerprint() -> None:
    with pytest.raises(Unpublishable, match="fingerprint"):
        records_of(HOST, [PrivateKey.generate(KeyKind.ECDSA_P521).public])


SIG0_ALGORITHMS = ("ED25519", "ED448", "ECDSAP256SHA256", "ECDSAP384SHA384", "RSASHA256", "RSASHA512")
GATE = Path(__file__).with_name("sig0.pl")


def sig0_key(algorithm: str, folder: Path) -> Path:
    """As docs/publishing.md has an administrator make it."""
    size = ["-b", "2048"] if algorithm.startswith("RSA") else []
    keygen = ["dnssec-keygen", "-q", "-T", "KEY", "-n", "HOST", "-a", algorithm, *size, HOST]
    made = subprocess.run(keygen, cwd=folder, check=True, capture_output=True, text=True)
    return folder / f"{made.stdout.strip()}.private"


def key_record(key: Sig0) -> tuple[str, str, str]:
    return "alice", "KEY", key.record.split(" ", 3)[3]


@dataclass(frozen=True, slots=True)
class Gate:
    """A server that verifies SIG(0) by an implementation that is not ours, Perl's Net::DNS::SEC, before BIND."""

    served: updates.Primary
    files: dict[str, Path]
    """By algorithm, the private keys whose KEY records are at HOST."""
    port: int
    said: IO[str]
    """A line for each update."""

    def primary(self, key: Sig0) -> Primary:
        tsig = of(self.served)
        return Primary(Server(IPv4Address("127.0.0.1"), self.port), key, tsig.configuration, timeout=3, patience=10)

    def judge(self, octets: bytes) -> str:
        """What it says of an update."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(len(octets).to_bytes(2, "big") + octets)
            assert len(sock.recv(14, socket.MSG_WAITALL)) == 14
        return self.said.readline().strip()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    folder = tmp_path_factory.mktemp("sig0")
    files = {algorithm: sig0_key(algorithm, folder) for algorithm in SIG0_ALGORITHMS}
    with Bind(extra=tuple(key_record(read_sig0(file)) for file in files.values())) as served:
        command = ("setpriv", "--pdeathsig", "TERM", "perl", str(GATE), str(served.port), str(served.tsig_path))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as perl:
            assert perl.stdout is not None
            yield Gate(served, files, int(perl.stdout.readline()), perl.stdout)
            perl.terminate()


@pytest.mark.parametrize("algorithm", SIG0_ALGORITHMS)
def test_sig0_is_verified_by_another_implementation(gate: Gate, algorithm: str) -> None:
    """The command of docs/publishing.md, and what it publishes is seen as secure."""
    served = gate.served
    for command, rest in (("publish", ["192.0.2.1"]), ("withdraw", [])):
        done = subprocess.run(
            [sys.executable, "-m", "hushwire", "dns", command, HOST, "--address", "192.0.2.1",
             "--sig0", str(gate.files[algorithm]), "--server", f"127.0.0.1@{gate.port}", "--forward", served.forward,
             "--anchor", str(served.anchor_path), "--wait", "10"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert gate.said.readline() == "verified\n"
        assert served.ask(HOST, "A") == rest


def test_sig0_of_what_was_changed_is_refused(gate: Gate) -> None:
    """Each octet by itself; a stranger's key; another time.  Its control is the last one: as it was signed."""
    key = read_sig0(gate.files["ED25519"])
    primary, now = gate.primary(key), int(time.time())
    update = primary.plan(HOST, records_of(HOST, (), HERE), Own()).message().to_wire()
    signed = key.sign_octets(update, now - 300, now + 300)
    # Not signed, and of no weight, are the SIG record's own owner, type, class, TTL and length.
    for at in (*range(len(update)), *range(len(update) + 11, len(signed))):
        changed = signed[:at] + bytes((signed[at] ^ 1,)) + signed[at + 1 :]
        assert gate.judge(changed) != "verified", at
    assert "Signature expired" in gate.judge(key.sign_octets(update, now - 900, now - 300))
    assert "Signature valid from" in gate.judge(key.sign_octets(update, now + 300, now + 900))

    class Forged(Sig0):
        """Another key that says it is this one."""

        @property
        def tag(self) -> int:
            return key.tag

    forged = gate.primary(Forged(key.name, key.algorithm, ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(UpdateError, match=r"REFUSED: SIG\(0\) key alice.example"):
        forged.publish(primary.plan(HOST, records_of(HOST, (), HERE), Own()))
    assert "signature verification failed" in gate.said.readline()
    assert gate.served.ask(HOST, "A") == gate.served.ask(HOST, "AAAA") == []
    assert gate.judge(signed) == "verified"
    assert (gate.served.ask(HOST, "A"), gate.served.ask(HOST, "AAAA")) == (["192.0.2.1"], ["2001:db8::1"])
    clean(of(gate.served))


@pytest.mark.parametrize("algorithm", ["ED25519", "ECDSAP256SHA256", "RSASHA256"])
def test_sig0_at_bind(algorithm: str, tmp_path: Path) -> None:
    """BIND 9.18 had SIG(0) until 9.18.28, when CVE-2024-1975 took it out; BIND 9.20 has it again."""
    file = sig0_key(algorithm, tmp_path)
    key = read_sig0(file)
    said = subprocess.run(["named", "-v"], capture_output=True, text=True, check=True).stdout
    version = tuple(map(int, re.search(r"(\d+)\.(\d+)\.(\d+)", said).groups()))  # type: ignore[union-attr]
    with Bind(extra=(key_record(key),)) as served:
        tsig = of(served)
        primary = Primary(tsig.server, key, tsig.configuration, timeout=3, patience=10)
        if (9, 18, 28) <= version < (9, 19):
            with pytest.raises(UpdateError, match=r"REFUSED: SIG\(0\) key alice.example .*CVE-2024-1975"):
                primary.publish(a_plan(primary, FIRST))
            assert published(served) == set()
            return
        primary.publish(a_plan(primary, FIRST))
        assert published(served) == {FIRST.fingerprint}
        stranger = read_sig0(file, OTHER)
        with pytest.raises(UpdateError):
            Primary(tsig.server, stranger, tsig.configuration).publish(a_plan(primary, SECOND))
        assert published(served) == {FIRST.fingerprint}
