"""Which SA is made for which packet: several addresses, several ports, tunnels, gateways, and what fails on the way."""

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.config import Rule, Start
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import (
    Acquire,
    Answered,
    Connect,
    Count,
    Disconnect,
    HostKey,
    InstallSA,
    Outcome,
    ReadKey,
    SwitchKey,
    Verdict,
)  # fmt: skip
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, write_record
from hushwire.policy.sad import Mode
from hushwire.policy.selector import Flow
from hushwire.policy.spd import Action

ALICE, BOB, SECOND = map(ip_address, ("192.0.2.1", "192.0.2.2", "192.0.2.3"))
ALICE6, BOB6 = map(ip_address, ("2001:db8::1", "2001:db8::2"))
KEY = {name: PrivateKey.from_seed(Secret(name.encode().ljust(32))) for name in ("alice", "bob", "other")}
BEHIND = ip_network("10.2.0.0/16")
INNER, OTHER = BEHIND[1], BEHIND[2]


def named(name: str, **more: Any) -> Rule:
    return Rule(f"{name}.example", **more)


def selectors(host: Any) -> set[str]:
    return {str(child.selector) for sa in host.node.ike.sas for child in sa.children.values()}


def once(host: Any) -> None:
    """Its plane refuses the first SA."""
    refused: list[Any] = []

    def refuse(effect: Any) -> bool:
        if refused or not isinstance(effect, InstallSA):
            return False
        refused.append(effect)
        return True

    host.refuse = refuse


# --- several addresses ---


def test_each_address_of_ours_has_an_sa_of_its_own(make_net: Any) -> None:
    """As with IPv6's privacy addresses (RFC 8981): the kernel picks one, and another later."""
    net = make_net()
    alice = net.host("alice", named("bob"))
    net.host("bob", named("alice"))
    alice.addresses = (ALICE, SECOND)
    net.zone["alice.example"] = ((ALICE, SECOND), (KEY["alice"].public,))
    net.start()
    for local in (ALICE, SECOND):
        net.packet(alice, BOB, local=local)
        assert net.packet(alice, BOB, local=local) is Action.PROTECT
    assert len(alice.node.ike.sas) == 2


@pytest.mark.parametrize("addresses", [(BOB6, BOB), (BOB, ip_address("192.0.2.22"))], ids=["families", "one family"])
def test_a_tunnel_and_its_sa_end_at_the_same_address(make_net: Any, addresses: tuple[Any, ...]) -> None:
    """Of several that a peer has, the first that we have a way to."""
    net = make_net()
    alice = net.host("alice", named("bob", mode=Mode.TUNNEL, remote_networks=(BEHIND,)))
    bob = net.host("bob", named("alice", mode=Mode.TUNNEL, local_networks=(BEHIND,)))
    bob.addresses = addresses
    net.zone["bob.example"] = (addresses, (KEY["bob"].public,))
    net.start()
    net.packet(alice, INNER)
    assert net.packet(alice, INNER) is Action.PROTECT
    ends = {policy.tunnel for policy in alice.spd.values()}
    assert ends == {(ALICE, BOB)}
    assert {frozenset((sa.source, sa.destination)) for sa in alice.sad.values()} == {frozenset((ALICE, BOB))}


@pytest.mark.parametrize("below", [Action.BLOCK, Action.CLEAR])
def test_the_first_of_two_attempts_to_fail_does_not_decide(make_net: Any, below: Action) -> None:
    """At the name's IPv6 address somebody has another key, and says so at once."""
    net = make_net()
    alice = net.host("alice", Rule("*.example", below=below))
    bob = net.host("bob", named("alice"))
    eve = net.host("eve", named("alice"), key="other")
    alice.addresses, bob.addresses, eve.addresses = (ALICE6, ALICE), (BOB,), (BOB6,)
    net.zone["alice.example"] = ((ALICE6, ALICE), (KEY["alice"].public,))
    net.zone["bob.example"] = ((BOB6, BOB), (KEY["bob"].public,))
    net.start()
    net.lost = lambda _, send: BOB in (send.remote.address, send.local.address)
    question = net.look_up(alice, "bob.example")
    assert alice.about("ike.closed")
    assert question not in alice.releases
    net.lost = lambda *_: False
    net.wait(2)
    assert (alice.releases[question].verdict, alice.releases[question].addresses) == (Verdict.ONLY, (BOB,))


# --- several packets ---


def test_a_packet_that_comes_while_an_ike_sa_is_made_for_another(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", *(named("bob", protocol=6, remote_port=port) for port in (80, 443)))
    net.host("bob", *(named("alice", protocol=6, local_port=port) for port in (80, 443)))
    net.start()
    peer = alice.node.peers.by_name("bob.example")
    for sequence, port in enumerate((80, 443), 1):
        net.step(alice, Acquire(Flow(ALICE, BOB, 6, 1000, port), peer.reqid, sequence))
    net.run()
    assert {sa.acquire for sa in alice.sad.values() if sa.acquire} == {1, 2}
    for port in (80, 443):
        assert net.packet(alice, BOB, 6, port) is Action.PROTECT


def test_a_child_that_was_refused_is_sought_again(make_net: Any) -> None:
    """The IKE SA stands, and nothing is protected: with a rule that permits clear no packet would say so."""
    net = make_net()
    alice = net.host("alice", named("bob", below=Action.CLEAR))
    net.host("bob", named("alice", below=Action.CLEAR, start=Start.WAIT))
    once(alice)
    net.start()
    assert not alice.sad
    net.wait(30)
    assert net.packet(alice, BOB) is Action.PROTECT


def test_connect_is_answered_when_only_the_child_failed(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", named("bob"))
    net.host("bob", named("alice"))
    net.start()
    once(alice)
    reply = net.ask(alice, Connect, "bob.example")
    assert reply is not None
    assert not reply.ok


@pytest.mark.parametrize("deleting", [False, True])
def test_connect_is_not_told_of_what_does_not_stand(make_net: Any, deleting: bool) -> None:
    net = make_net()
    alice = net.host("alice", named("bob"))
    net.host("bob", named("alice"))
    net.start()
    if deleting:
        net.ask(alice, Connect, "bob.example")
    net.lost = lambda *_: True
    if deleting:
        net.ask(alice, Disconnect, "bob.example")
    else:
        net.packet(alice, BOB)
    assert net.ask(alice, Connect, "bob.example") is None
    net.lost = lambda *_: False
    net.wait(40)
    assert alice.replies[net.requests].ok


def test_connect_of_one_that_roams_and_has_no_address(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", named("bob", roams=True))
    net.zone["bob.example"] = ((), (KEY["bob"].public,))
    net.silent.add("bob.example")
    net.start()
    assert net.ask(alice, Connect, "bob.example") is None
    net.silent.clear()
    for host, question in net.late:
        net.step(host, net.answer(question))
    assert not alice.replies[net.requests].ok


# --- gateways ---


@pytest.fixture
def gateway(make_net: Any) -> Callable[[], Any]:
    """Bob speaks for what is behind him, as the reverse zone of each address there says."""

    def make() -> Any:
        net = make_net()
        net.host("alice", Rule(BEHIND))
        net.host("bob", Rule(ip_network("192.0.2.1/32"), mode=Mode.TUNNEL, local_networks=(BEHIND,)))
        net.zone[ALICE.reverse_pointer] = ((), (KEY["alice"].public, KEY["other"].public))
        plain = net.answer

        def answer(question: Any) -> Any:
            if not question.name.endswith(".2.10.in-addr.arpa") or question.rdtype != IPSECKEY:
                return plain(question)
            record = write_record(KeyRecord(10, BOB, KEY["bob"].public))
            return Answered(question.request, question.name, question.rdtype, Outcome.SECURE, (record,), net.ttl)

        net.answer = answer
        net.start()
        return net

    return make


def test_two_addresses_behind_one_gateway(gateway: Callable[[], Any]) -> None:
    """They are known by the same identity, and are no rivals."""
    net = gateway()
    alice = net.hosts["alice"]
    for _ in range(3):
        fates = [net.packet(alice, inner) for inner in (INNER, OTHER)]
        net.wait(3)
    assert fates == [Action.PROTECT, Action.PROTECT]
    assert sum(isinstance(effect, InstallSA) for effect in alice.said) == 4


def test_behind_a_gateway_a_packet_is_sought_for_again(gateway: Callable[[], Any]) -> None:
    """The plane tells of it once: the gateway did not know us at first."""
    net = gateway()
    net.ttl = 5
    alice, keys = net.hosts["alice"], net.zone.pop(ALICE.reverse_pointer)
    net.zone[ALICE.reverse_pointer] = ((), ())
    net.packet(alice, INNER)
    net.zone[ALICE.reverse_pointer] = keys
    net.wait(20)
    assert selectors(alice)
    assert not alice.node.peers.by_name(str(INNER)).sought


@pytest.mark.parametrize("behind", [True, False], ids=["behind a gateway", "itself"])
def test_who_is_known_by_an_address_is_reauthenticated(gateway: Callable[[], Any], make_net: Any, behind: bool) -> None:
    if behind:
        net, remote = gateway(), INNER
    else:
        net, remote = make_net(), BOB
        net.host("alice", Rule(ip_network("192.0.2.0/24")))
        net.host("bob", Rule(ip_network("192.0.2.1/32")))
        net.zone[BOB.reverse_pointer] = ((), (KEY["bob"].public,))
        net.zone[ALICE.reverse_pointer] = ((), (KEY["alice"].public, KEY["other"].public))
        net.start()
    alice = net.hosts["alice"]
    net.packet(alice, remote)
    assert net.packet(alice, remote) is Action.PROTECT
    net.step(alice, SwitchKey(1))
    (read,) = (effect for effect in alice.said if isinstance(effect, ReadKey))
    alice.key = KEY["other"]
    net.step(alice, HostKey(read.request, KEY["other"].public.spki))
    net.wait(60)
    assert [sa.stale for sa in alice.node.ike.sas] == [False]
    assert net.packet(alice, remote) is Action.PROTECT


# --- those who are let go ---


def test_who_sleeps_is_not_counted_again(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", Rule("*.example"))
    net.host("bob", named("alice"))
    net.start()
    net.told(alice, "bob.example")
    net.packet(alice, BOB)
    peer = alice.node.peers.by_name("bob.example")
    # The Delete is under way for a while.
    net.lost = lambda *_: any(sa.deleting for sa in alice.node.ike.sas)
    for _ in range(1000):
        net.wait(1)
        if peer.asleep:
            break
    counts = sum(isinstance(effect, Count) for effect in alice.said)
    net.wait(3)
    assert alice.node.ike.sas
    assert peer.asleep
    assert sum(isinstance(effect, Count) for effect in alice.said) == counts


def test_who_is_met_in_clear_on_one_port_is_let_go(make_net: Any) -> None:
    """To be told again of the clear one is not to be told of the other, which is held for an hour."""
    net = make_net()
    prefix = ip_network("192.0.2.0/24")
    alice = net.host("alice", Rule(prefix, protocol=6, remote_port=80, below=Action.CLEAR), Rule(prefix))
    net.start()
    net.outcome[BOB.reverse_pointer] = Outcome.DENIED
    net.packet(alice, BOB, 6, 80)
    assert alice.node.peers.by_name(str(BOB)) is not None
    net.wait(2 * 3700)
    assert alice.node.peers.by_name(str(BOB)) is None
