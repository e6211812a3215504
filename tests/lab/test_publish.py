"""Publishing at Knot, BIND and PowerDNS, as Debian packages them: what is said is done; what is not done is said."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import dns.query
import dns.tsig
import dns.tsigkeyring
import dns.update
import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey, PublicKey
from hushwire.crypto.secret import Secret
from hushwire.daemon.credential import Tsig, read_sig0, read_tsig
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


@pytest.mark.parametrize("algorithm", ["ED25519", "ECDSAP256SHA256", "RSASHA256"])
def test_sig0_at_bind(algorithm: str, tmp_path: Path) -> None:
    """BIND 9.18 had SIG(0) until 9.18.28, when CVE-2024-1975 took it out; BIND 9.20 has it again."""
    size = ["-b", "2048"] if algorithm.startswith("RSA") else []
    keygen = ["dnssec-keygen", "-q", "-T", "KEY", "-n", "HOST", "-a", algorithm, *size, HOST]
    subprocess.run(keygen, cwd=tmp_path, check=True, capture_output=True)
    key = read_sig0(next(tmp_path.glob("K*.private")))
    said = subprocess.run(["named", "-v"], capture_output=True, text=True, check=True).stdout
    version = tuple(map(int, re.search(r"(\d+)\.(\d+)\.(\d+)", said).groups()))  # type: ignore[union-attr]
    with Bind(extra=(("alice", "KEY", key.record.split(" ", 3)[3]),)) as served:
        tsig = of(served)
        primary = Primary(tsig.server, key, tsig.configuration, timeout=3, patience=10)
        if (9, 18, 28) <= version < (9, 19):
            with pytest.raises(UpdateError, match=r"REFUSED: SIG\(0\) key alice.example .*CVE-2024-1975"):
                primary.publish(a_plan(primary, FIRST))
            assert published(served) == set()
            return
        primary.publish(a_plan(primary, FIRST))
        assert published(served) == {FIRST.fingerprint}
        stranger = read_sig0(next(tmp_path.glob("K*.private")), OTHER)
        with pytest.raises(UpdateError):
            Primary(tsig.server, stranger, tsig.configuration).publish(a_plan(primary, SECOND))
        assert published(served) == {FIRST.fingerprint}
