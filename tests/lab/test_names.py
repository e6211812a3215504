"""Names at work: two hosts known to each other by name, whose keys and addresses change in the DNS while they talk."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab.dns import SignedWorld
from hushwire.lab.hushwire import Hushwire, named
from hushwire.lab.namespaces import Topology
from hushwire.lab.peer import eventually
from hushwire.lab.relay import Relay

pytestmark = pytest.mark.lab

MOVED = IPv4Address("192.0.2.22")


@dataclass
class Lab:
    topology: Topology
    relay: Relay
    world: SignedWorld
    alice: Hushwire
    bob: Hushwire

    def ping(self, address: str, canary: bytes) -> bool:
        words = ("ping", "-n", "-c", "1", "-W", "3", "-p", canary.hex(), address)
        return self.topology["alice"].run(*words, check=False).returncode == 0


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Topology() as topology, Relay(topology) as relay:
        alice, bob, dns = topology["alice"], topology["bob"], topology["dns"]
        with SignedWorld(str(dns.v4), 53, prefix=dns.prefix) as world:

            def made(name: str, peer: str) -> str:
                return named(name, [peer], world.forward, world.anchor_path, plane="userspace")

            first = Hushwire(alice, made("alice.example", "bob.example"))
            second = Hushwire(bob, made("bob.example", "alice.example"))
            world.publish("alice.example", [alice.v4, alice.v6], [first.key.public])
            world.publish("bob.example", [bob.v4, bob.v6], [second.key.public])
            with second, first:
                known = eventually(lambda: len(first.peer()["addresses"]) == len(second.peer()["addresses"]) == 2)
                assert known, first.log.read_text()
                yield Lab(topology, relay, world, first, second)


def test_named_and_nothing_in_clear(lab: Lab) -> None:
    bob = lab.topology["bob"]
    canary = lab.relay.canary()
    for address in (bob.v4, bob.v6):
        assert lab.ping(str(address), canary)
    assert lab.alice.peer()["level"] == lab.bob.peer()["level"] == "named"
    report = lab.relay.report()
    assert report.seen(canary) == 0
    assert report.kinds["esp"] >= 4
    assert not report.clear


def test_a_changed_address_takes_effect_and_the_old_one_stays_closed(lab: Lab) -> None:
    bob = lab.topology["bob"]
    canary = lab.relay.canary()
    assert lab.ping(str(bob.v4), canary)
    bob.run("ip", "address", "add", f"{MOVED}/24", "dev", "eth0")
    lab.world.publish("bob.example", [MOVED], [lab.bob.key.public])
    moved = eventually(lambda: lab.alice.peer()["addresses"] == [str(MOVED)], 20)
    assert moved, lab.alice.log.read_text()
    assert eventually(lambda: lab.ping(str(MOVED), canary), 20)
    assert any(str(MOVED) in sa["remote"] for sa in lab.alice.peer()["ike"])
    # Whoever is at the old address now is not known to be bob: soon nothing goes there, in clear least of all.
    assert eventually(lambda: not lab.ping(str(bob.v4), canary), 20)
    assert lab.relay.report().seen(canary) == 0


def test_a_changed_key_takes_effect(lab: Lab) -> None:
    bob = lab.topology["bob"]
    canary = lab.relay.canary()
    assert lab.ping(str(bob.v4), canary)
    old = lab.alice.peer()["ike"][0]["key"]
    fresh = PrivateKey.generate(KeyKind.ECDSA_P256)
    lab.world.publish("bob.example", [bob.v4, bob.v6], [fresh.public])
    # What the DNS does not say any more is not believed any more.
    assert eventually(lambda: not lab.alice.peer()["ike"], 20)
    assert not lab.ping(str(bob.v4), canary)
    lab.bob.restart(fresh)
    assert eventually(lambda: lab.ping(str(bob.v4), canary), 30), lab.alice.log.read_text()
    assert lab.alice.peer()["ike"][0]["key"] == fresh.public.fingerprint.hex() != old
    assert lab.relay.report().seen(canary) == 0


def test_either_of_two_published_keys_will_do(lab: Lab) -> None:
    bob = lab.topology["bob"]
    other = PrivateKey.generate(KeyKind.ED448)
    lab.world.publish("bob.example", [bob.v4, bob.v6], [other.public, lab.bob.key.public])
    canary = lab.relay.canary()
    assert eventually(lambda: "keys" in lab.alice.log.read_text() and lab.ping(str(bob.v4), canary), 10)
    assert lab.alice.peer()["level"] == "named"


def test_a_withdrawn_key_closes(lab: Lab) -> None:
    bob = lab.topology["bob"]
    canary = lab.relay.canary()
    assert lab.ping(str(bob.v4), canary)
    lab.world.withdraw("bob.example", "IPSECKEY")
    assert eventually(lambda: not lab.alice.peer()["ike"], 20)
    assert "no IPSECKEY" in lab.alice.peer()["unbound"]
    assert not lab.ping(str(bob.v4), canary)
    assert lab.relay.report().seen(canary) == 0
