"""lab.dns: the signed world serves what it promises; dnspython asks and verifies."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

import dns.dnssec
import dns.message
import dns.name
import dns.query
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from hushwire.crypto.keys import PublicKey
from hushwire.lab.dns import SignedWorld
from hushwire.lab.namespaces import free_port
from hushwire.names.ipseckey import KeyRecord, read_record

# IANA's numbers: IPSECKEY Resource Record Parameters, Algorithm Type Field.
ALGORITHMS = {"ed25519": 4, "ed448": 4, "p256": 3, "p384": 3, "rsa2048": 2, "rsa4096": 2}
KEYS = {
    "ed25519": PublicKey.of(ed25519.Ed25519PrivateKey.generate().public_key()),
    "ed448": PublicKey.of(ed448.Ed448PrivateKey.generate().public_key()),
    "p256": PublicKey.of(ec.generate_private_key(ec.SECP256R1()).public_key()),
    "p384": PublicKey.of(ec.generate_private_key(ec.SECP384R1()).public_key()),
    "rsa2048": PublicKey.of(rsa.generate_private_key(65537, 2048).public_key()),
    "rsa4096": PublicKey.of(rsa.RSAPublicNumbers(65537, 2**4095 + 1).public_key()),
}


@pytest.fixture(scope="module")
def world() -> Iterator[SignedWorld]:
    with SignedWorld() as world:
        yield world


def ask(world: SignedWorld, name: str, rdtype: str) -> tuple[dns.rrset.RRset | None, dns.rrset.RRset | None]:
    """The record set and its signatures."""
    question = dns.message.make_query(name, rdtype, want_dnssec=True)
    answer = dns.query.udp_with_fallback(question, world.address, port=world.port, timeout=5)[0]
    of_type = (dns.name.from_text(name), dns.rdataclass.IN)
    records = answer.get_rrset(answer.answer, *of_type, dns.rdatatype.from_text(rdtype))
    signatures = answer.get_rrset(answer.answer, *of_type, dns.rdatatype.RRSIG, dns.rdatatype.from_text(rdtype))
    return records, signatures


def verify(world: SignedWorld, name: str, rdtype: str, zone: str) -> dns.rrset.RRset:
    records, signatures = ask(world, name, rdtype)
    keys, _ = ask(world, zone, "DNSKEY")
    assert records is not None
    assert keys is not None
    dns.dnssec.validate(records, signatures, {dns.name.from_text(zone): keys})
    return records


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_is_published_and_read_back(world: SignedWorld, kind: str) -> None:
    world.publish("alice.example", [IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")], [KEYS[kind]])
    (theirs,) = verify(world, "alice.example", "IPSECKEY", "alice.example")
    assert read_record(theirs.to_wire() or b"") == KeyRecord(10, None, KEYS[kind])
    assert (theirs.precedence, theirs.gateway_type, theirs.algorithm) == (10, 0, ALGORITHMS[kind])
    assert [rdata.to_text() for rdata in verify(world, "alice.example", "A", "alice.example")] == ["192.0.2.1"]
    assert [rdata.to_text() for rdata in verify(world, "alice.example", "AAAA", "alice.example")] == ["2001:db8::1"]


def test_publish_replaces_and_withdraw_takes_away(world: SignedWorld) -> None:
    world.publish("host.bob.example", [IPv4Address("192.0.2.1")], [KEYS["p256"]])
    world.publish("host.bob.example", [IPv4Address("192.0.2.2")], [KEYS["p256"], KEYS["p384"]])
    records, _ = ask(world, "host.bob.example", "A")
    assert [rdata.to_text() for rdata in records or ()] == ["192.0.2.2"]
    world.withdraw("host.bob.example", "IPSECKEY")
    assert ask(world, "host.bob.example", "IPSECKEY") == (None, None)
    assert ask(world, "host.bob.example", "A")[0] is not None
    world.withdraw("host.bob.example")
    assert ask(world, "host.bob.example", "A") == (None, None)


@pytest.mark.parametrize(
    ("zone", "parent"),
    [("example", "."), ("alice.example", "example"), ("bogus.example", "example"), ("expired.example", "example")],
)
def test_the_chain_of_trust(world: SignedWorld, zone: str, parent: str) -> None:
    delegation = verify(world, zone, "DS", parent)
    keys, _ = ask(world, zone, "DNSKEY")
    made = [dns.dnssec.make_ds(dns.name.from_text(zone), key, "SHA256") for key in keys or ()]
    assert [ds for ds in delegation if ds.digest_type == 2] == made


def test_the_anchor_is_the_roots_key(world: SignedWorld) -> None:
    keys, _ = ask(world, ".", "DNSKEY")
    assert keys is not None
    ours = world.anchor_path.read_text().splitlines()
    assert len(ours) == 2
    assert dns.dnssec.make_ds(dns.name.root, keys[0], "SHA256").to_text() in ours[0]


def test_unsigned_has_neither_delegation_nor_signatures(world: SignedWorld) -> None:
    world.publish("www.unsigned.example", [IPv4Address("192.0.2.7")], [KEYS["ed25519"]])
    records, signatures = ask(world, "www.unsigned.example", "IPSECKEY")
    assert records is not None
    assert signatures is None
    assert ask(world, "unsigned.example", "DS") == (None, None)


@pytest.mark.parametrize("rdtype", ["A", "AAAA", "IPSECKEY"])
def test_bogus_is_bogus(world: SignedWorld, rdtype: str) -> None:
    with pytest.raises(dns.dnssec.ValidationFailure):
        verify(world, "bogus.example", rdtype, "bogus.example")
    verify(world, "bogus.example", "DNSKEY", "bogus.example")


def test_expired_is_expired_and_nothing_else(world: SignedWorld) -> None:
    with pytest.raises(dns.dnssec.ValidationFailure):
        verify(world, "expired.example", "A", "expired.example")
    records, signatures = ask(world, "expired.example", "A")
    keys, _ = ask(world, "expired.example", "DNSKEY")
    name = dns.name.from_text("expired.example")
    dns.dnssec.validate(records, signatures, {name: keys}, now=time.time() - 3 * 86400)


@pytest.mark.lab
def test_a_world_in_a_namespace() -> None:
    """Served there and not here; published into from here."""
    namespace = f"hwdns{os.getpid()}"
    inside = ("ip", "netns", "exec", namespace)
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        with SignedWorld(port=53, prefix=inside) as world:
            world.publish("alice.example", [IPv4Address("192.0.2.1")])
            kdig = ["kdig", "@127.0.0.1", "+short", "+retry=0", "+timeout=1", "alice.example"]
            there = subprocess.run([*inside, *kdig], capture_output=True, text=True, check=False)
            here = subprocess.run(kdig, capture_output=True, text=True, check=False)
            assert there.stdout == "192.0.2.1\n"
            assert "192.0.2.1\n" not in here.stdout
    finally:
        subprocess.run(["ip", "netns", "del", namespace], check=True)


def test_reverse_zones() -> None:
    with SignedWorld(zones=("example", "bob.example", "2.0.192.in-addr.arpa")) as world:
        world.set("1.2.0.192.in-addr.arpa", {"PTR": ["bob.example."]})
        assert len(verify(world, "1.2.0.192.in-addr.arpa", "PTR", "2.0.192.in-addr.arpa")) == 1
        folder = world.anchor_path.parent
        assert folder.is_dir()
    assert not folder.exists(), "a world leaves nothing behind"


def test_a_world_ends_with_the_process_that_made_it() -> None:
    """Even when that is killed and cannot tidy up."""
    port = free_port()
    maker = f"""
import os, signal
from hushwire.lab.dns import SignedWorld
world = SignedWorld(port={port})
world.__enter__()
print(world.anchor_path.parent, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", maker], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    ended = False
    for _ in range(100):
        try:
            with SignedWorld(port=port):
                ended = True
                break
        except RuntimeError:
            time.sleep(0.05)
    assert ended, "the port is still in use"
    # Not before: it would still be writing there.
    shutil.rmtree(done.stdout.strip())


def test_a_port_in_use_is_an_error_and_leaves_nothing_behind(world: SignedWorld) -> None:
    second = SignedWorld(port=world.port)
    with pytest.raises(RuntimeError, match="did not start"), second:
        pass
    assert not second.anchor_path.exists()
