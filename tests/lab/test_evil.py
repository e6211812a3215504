"""lab.evil: the world is honest until it is told not to be, in a thread and in a process; dnspython verifies."""

import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import dns.dnssec
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rrset
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from dns.rdatatype import RdataType

from hushwire.crypto.keys import PublicKey
from hushwire.lab import defects
from hushwire.lab.evil import EvilProcess, EvilWorld
from hushwire.names.ipseckey import KeyRecord, read_record

KEY = PublicKey.of(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())
V4, V6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")


@pytest.fixture(scope="module")
def world() -> Iterator[EvilWorld]:
    with EvilWorld() as world:
        world.publish("alice.example", [V4, V6], [KEY])
        yield world


@pytest.fixture(autouse=True)
def honest_again(world: EvilWorld) -> Iterator[None]:
    yield
    world.behave()


def ask(world: EvilWorld | EvilProcess, name: str, rdtype: str, timeout: float = 5) -> dns.message.Message:
    question = dns.message.make_query(name, rdtype, want_dnssec=True)
    return dns.query.udp_with_fallback(question, world.address, port=world.port, timeout=timeout)[0]


def verified(world: EvilWorld | EvilProcess, name: str, rdtype: str, zone: str) -> dns.rrset.RRset:
    answer, keys = ask(world, name, rdtype), ask(world, zone, "DNSKEY")
    records, signatures = answer.answer
    dns.dnssec.validate(records, signatures, {dns.name.from_text(zone): keys.answer[0]})
    return records


def test_what_is_published_is_signed(world: EvilWorld) -> None:
    (record,) = verified(world, "alice.example", "IPSECKEY", "alice.example")
    assert read_record(record.to_wire() or b"") == KeyRecord(10, None, KEY)
    assert verified(world, "alice.example", "A", "alice.example")[0].to_text() == str(V4)
    assert verified(world, "alice.example", "AAAA", "alice.example").ttl == 2
    verified(world, "alice.example", "DS", "example")


@pytest.mark.parametrize(("address", "zone"), [(V4, "2.0.192.in-addr.arpa"), (V6, "8.b.d.0.1.0.0.2.ip6.arpa")])
def test_reverse_zones(world: EvilWorld, address: IPv4Address | IPv6Address, zone: str) -> None:
    world.publish(address.reverse_pointer, keys=[KeyRecord(10, None, KEY)], ttl=77)
    assert verified(world, address.reverse_pointer, "IPSECKEY", zone).ttl == 77


def test_publish_replaces_and_withdraw_takes_away(world: EvilWorld) -> None:
    world.publish("bob.example", [V4], [KEY])
    world.publish("bob.example", [V6])
    assert ask(world, "bob.example", "IPSECKEY").rcode() == dns.rcode.NOERROR
    assert [len(ask(world, "bob.example", rdtype).answer) for rdtype in ("A", "AAAA", "IPSECKEY")] == [0, 2, 0]
    world.withdraw("bob.example")
    assert ask(world, "bob.example", "AAAA").answer == []
    assert ask(world, "no.bob.example", "AAAA").rcode() == dns.rcode.NXDOMAIN


def test_an_unsigned_zone_is_delegated_without_ds(world: EvilWorld) -> None:
    world.publish("www.unsigned.example", [V4])
    (records,) = ask(world, "www.unsigned.example", "A").answer
    assert records[0].to_text() == str(V4)
    assert ask(world, "unsigned.example", "DS").answer == []


def test_a_large_answer_comes_over_tcp(world: EvilWorld) -> None:
    world.publish("large.alice.example", [ip_address(f"192.0.2.{last}") for last in range(200)])
    question = dns.message.make_query("large.alice.example", "A")
    assert dns.query.udp(question, world.address, port=world.port, timeout=5).flags & dns.flags.TC
    assert len(ask(world, "large.alice.example", "A").answer[0]) == 200


def test_a_defect_is_for_a_name_and_all_below_and_for_its_types(world: EvilWorld) -> None:
    world.misbehave("alice.example", defects.servfail)
    world.misbehave("alice.example", defects.refused, types=["AAAA"])
    world.misbehave("good.alice.example")
    rcodes = {
        (name, rdtype): ask(world, name, rdtype).rcode()
        for name in ("alice.example", "b.alice.example", "good.alice.example", "bob.example")
        for rdtype in ("A", "AAAA", "DNSKEY")
    }
    assert rcodes["alice.example", "A"] == rcodes["b.alice.example", "A"] == dns.rcode.SERVFAIL
    assert rcodes["alice.example", "AAAA"] == rcodes["b.alice.example", "AAAA"] == dns.rcode.REFUSED
    assert rcodes["alice.example", "DNSKEY"] == rcodes["bob.example", "A"] == dns.rcode.NOERROR
    assert rcodes["good.alice.example", "A"] == rcodes["good.alice.example", "AAAA"] == dns.rcode.NXDOMAIN
    world.behave("alice.example")
    assert ask(world, "alice.example", "A").rcode() == dns.rcode.NOERROR


def test_delay_and_silence(world: EvilWorld) -> None:
    world.misbehave("alice.example", delay=0.2)
    begun = time.monotonic()
    ask(world, "alice.example", "A")
    assert time.monotonic() - begun >= 0.2
    ask(world, "bob.example", "A")
    world.misbehave("alice.example", defects.drop)
    with pytest.raises(dns.exception.Timeout):
        ask(world, "alice.example", "A", timeout=0.2)


def test_stopped_and_started_again(world: EvilWorld) -> None:
    port = world.port
    world.stop()
    with pytest.raises((OSError, dns.exception.Timeout)):
        ask(world, "alice.example", "A", timeout=0.2)
    world.start()
    assert world.port == port
    assert ask(world, "alice.example", "A").answer


def test_a_fault_of_a_defect_is_the_tests(world: EvilWorld) -> None:
    other = EvilWorld()
    other.misbehave("", lambda exchange: exchange.forged.append(bytes(1 // 0)))
    other.start()
    with pytest.raises(dns.exception.Timeout):
        ask(other, "alice.example", "A", timeout=0.2)
    with pytest.raises(ZeroDivisionError):
        other.__exit__(None, None, None)


def test_in_a_process_of_its_own(world: EvilWorld) -> None:
    with EvilProcess("127.0.0.1", 0) as process:
        process.add_zone("carol.example")
        process.publish("carol.example", [V4], [KEY], ttl=60)
        assert verified(process, "carol.example", "IPSECKEY", "carol.example").ttl == 60
        assert process.anchor_path.read_text().startswith(". DS ")
        process.misbehave("carol.example", "servfail", types=["IPSECKEY"])
        assert ask(process, "carol.example", "IPSECKEY").rcode() == dns.rcode.SERVFAIL
        process.misbehave("carol.example", delay=0.2)
        begun = time.monotonic()
        assert ask(process, "carol.example", "A").answer
        assert time.monotonic() - begun >= 0.2
        process.behave()
        assert ask(process, "carol.example", "IPSECKEY").answer[0].rdtype == RdataType.IPSECKEY
        process.withdraw("carol.example")
        assert ask(process, "carol.example", "A").answer == []
