"""Run by test_kernel_peers.py where the kernel has ESP and PF_KEY: each peer against itself and the other."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from hushwire.crypto.keys import KeyKind
from hushwire.lab.frame import Kind
from hushwire.lab.namespaces import Host, Topology
from hushwire.lab.openiked import OpenIked
from hushwire.lab.peer import Connection, Mode, Peer, Proposal, eventually, introduced
from hushwire.lab.relay import Relay
from hushwire.lab.strongswan import StrongSwan

Start = Callable[[Host, Connection], Peer]
SWAN: Start = StrongSwan
IKED: Start = OpenIked

GCM = Proposal("aes256gcm16")
CBC = Proposal("aes256", "sha384", "sha384", "ecp256")


@pytest.fixture
def topology() -> Iterator[Topology]:
    with Topology(("alice", "bob")) as topology:
        yield topology


@pytest.fixture
def relay(topology: Topology) -> Iterator[Relay]:
    with Relay(topology) as relay:
        yield relay


@pytest.mark.parametrize(
    ("alice_is", "bob_is", "kind", "ike", "esp", "mode"),
    [
        (SWAN, SWAN, KeyKind.ED25519, GCM, GCM, Mode.TRANSPORT),
        (SWAN, SWAN, KeyKind.ECDSA_P256, GCM, GCM, Mode.TUNNEL),
        (IKED, IKED, KeyKind.ECDSA_P256, GCM, CBC, Mode.TRANSPORT),
        (IKED, IKED, None, CBC, CBC, Mode.TUNNEL),
        (SWAN, IKED, KeyKind.ECDSA_P256, CBC, CBC, Mode.TRANSPORT),
        (IKED, SWAN, KeyKind.RSA, CBC, CBC, Mode.TRANSPORT),
    ],
    ids=("swan-swan-transport", "swan-swan-tunnel", "iked-iked", "iked-iked-psk", "swan-iked", "iked-swan"),
)
def test_traffic_is_encrypted_until_the_sas_are_deleted(
    topology: Topology,
    relay: Relay,
    alice_is: Start,
    bob_is: Start,
    kind: KeyKind | None,
    ike: Proposal,
    esp: Proposal,
    mode: Mode,
) -> None:
    alice, bob = topology["alice"], topology["bob"]
    ours, theirs = introduced(alice, bob, kind, ike=ike, esp=esp, mode=mode)
    with ExitStack() as stack:
        initiator = stack.enter_context(alice_is(alice, ours))
        responder = stack.enter_context(bob_is(bob, theirs))
        assert alice.ping(bob)
        in_clear = relay.report().count(Kind.CLEAR)
        assert in_clear == 2

        initiator.initiate()
        assert eventually(lambda: responder.sas() and responder.sas()[0].children)
        [sa], [other] = initiator.sas(), responder.sas()
        assert (sa.spi_i, sa.spi_r, sa.initiator) == (other.spi_i, other.spi_r, not other.initiator)
        [child], [mirror] = sa.children, other.children
        assert (child.spi_in, child.spi_out) == (mirror.spi_out, mirror.spi_in)

        canary = relay.canary()
        assert alice.ping(bob, count=3, pattern=canary)
        report = relay.report()
        assert (report.seen(canary), report.count(Kind.CLEAR)) == (0, in_clear)
        assert report.count(Kind.ESP, "alice") == report.count(Kind.ESP, "bob") == 3

        initiator.terminate()
        assert eventually(lambda: not initiator.sas() and not responder.sas())


def test_the_first_packet_starts_ike(topology: Topology, relay: Relay) -> None:
    alice, bob = topology["alice"], topology["bob"]
    ours, theirs = introduced(alice, bob)
    with StrongSwan(alice, replace(ours, on_demand=True)), StrongSwan(bob, theirs):
        alice.ping(bob, timeout=1)
        assert eventually(lambda: alice.ping(bob, timeout=1))
        report = relay.report()
        assert report.count(Kind.CLEAR) == 0
        assert report.count(Kind.ESP) >= 2


def test_iked_rekeys_when_a_lifetime_ends(topology: Topology, relay: Relay) -> None:
    alice, bob = topology["alice"], topology["bob"]
    ours, theirs = introduced(alice, bob, KeyKind.ECDSA_P256, ike=GCM, esp=CBC)
    with OpenIked(alice, ours, lifetime=8) as initiator, OpenIked(bob, theirs):
        initiator.initiate()
        first = initiator.sas()[0].children[0]
        assert eventually(lambda: first not in initiator.sas()[0].children, 20)
        assert alice.ping(bob, count=3)
        assert relay.report().count(Kind.CLEAR) == 0


def test_rekeying_loses_nothing(topology: Topology, relay: Relay) -> None:
    alice, bob = topology["alice"], topology["bob"]
    ours, theirs = introduced(alice, bob)
    with StrongSwan(alice, ours) as initiator, StrongSwan(bob, theirs):
        initiator.initiate()
        [before] = initiator.sas()
        initiator.rekey_child()
        initiator.rekey_ike()
        assert alice.ping(bob, count=5)
        assert eventually(lambda: [sa.spi_i for sa in initiator.sas()] not in ([], [before.spi_i]))
        assert relay.report().count(Kind.CLEAR) == 0
