"""Rules about prefixes: a packet for an address brings in a peer of its own (docs/names.md; ATTACKS rows 31, 47)."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.config import Rule, parse
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import Acquire, AddressesChanged, InstallPolicy, Outcome
from hushwire.node import peer as peer_module
from hushwire.node import peers as peers_module
from hushwire.node.base import base_policies
from hushwire.node.capture import LONGEST
from hushwire.node.idle import GRACE
from hushwire.node.peer import FALL_AFTER, SHUNT_LIFE, Peer
from hushwire.node.scope import REQID_BASE
from hushwire.policy.assurance import Assurance
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Flow
from hushwire.policy.spd import Action

ALICE, BOB, CAROL = map(ip_address, ("192.0.2.1", "192.0.2.2", "192.0.2.3"))
KEY = {name: PrivateKey.from_seed(Secret(name.encode().ljust(32))) for name in ("alice", "bob", "eve", "other")}
NET = ip_network("192.0.2.0/24")
PRIVATE, MAYBE = Rule(NET), Rule(NET, below=Action.CLEAR)


@pytest.fixture
def trapped(make_net: Any) -> Any:
    """Alice, who has a rule about the network that Bob is in, as he has; their reverse zones have their keys."""

    def make(*rules: Rule, bob: bool = True) -> Any:
        net = make_net()
        net.host("alice", *(rules or (PRIVATE,)))
        for name, address in (("alice", ALICE), ("bob", BOB)):
            net.zone[address.reverse_pointer] = ((), (KEY[name].public,))
        if bob:
            net.host("bob", PRIVATE)
        net.start()
        return net

    return make


def clear_policies(host: Any) -> list[Any]:
    return [e.policy for e in host.said if isinstance(e, InstallPolicy) and e.policy.action is Action.CLEAR]


# --- from a packet to a peer ---


@pytest.mark.parametrize("rule", [PRIVATE, MAYBE])
def test_a_packet_brings_in_a_peer_of_its_own(trapped: Any, rule: Rule) -> None:
    net = trapped(rule)
    alice = net.hosts["alice"]
    assert {policy.selector.remote for policy in alice.spd.values()} == {NET}
    assert net.packet(alice, BOB) is Action.BLOCK
    assert net.packet(alice, BOB) is Action.PROTECT
    peer = alice.node.peers.by_name("192.0.2.2")
    assert {sa.reqid for sa in alice.sad.values()} == {peer.reqid} != {REQID_BASE + 1}
    assert {sa.acquire for sa in alice.sad.values()} == {7}
    assert not clear_policies(alice)


@pytest.mark.parametrize("guard", ["in", "out"])
def test_the_first_address_of_the_prefix_is_one_like_any_other(trapped: Any, guard: str, monkeypatch: Any) -> None:
    """Once a trap went by that address: it brought itself in, without end."""
    net = trapped()
    alice = net.hosts["alice"]
    if guard == "out":
        alice.node.peers._by_name["192.0.2.0"] = next(peer for peer in alice.node.peers if peer.is_trap)
        with pytest.raises(RecursionError):
            net.packet(alice, NET.network_address)
        return
    assert net.packet(alice, NET.network_address) is Action.BLOCK
    assert not alice.node.peers.by_name("192.0.2.0").is_trap


def test_one_rule_about_one_address_by_its_reverse_zone(trapped: Any) -> None:
    """Each says by its address who it is, since the other knows it by that alone."""
    net = trapped(Rule(ip_network("192.0.2.2/32")))
    assert net.fate(net.hosts["alice"], BOB) is Action.PROTECT


def test_the_narrowest_prefix_has_the_key(make_net: Any) -> None:
    wide, narrow = ip_network("192.0.0.0/16"), NET
    rules = tuple(Rule(prefix, Assurance.TRUSTED, psk=str(prefix)) for prefix in (wide, narrow))
    net = make_net()
    shared = {str(wide): b"the wide one's", str(narrow): b"the narrow one's"}
    alice = net.host("alice", *rules, shared=shared)
    net.start()
    net.packet(alice, BOB)
    assert alice.node.peers.by_name("192.0.2.2").psk == b"the narrow one's"


# --- what may be clear, and for how long ---


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INSECURE, Outcome.ERROR, None])
@pytest.mark.parametrize("rule", [PRIVATE, MAYBE])
def test_an_error_is_never_clear_and_private_is_not_either(trapped: Any, rule: Rule, outcome: Outcome | None) -> None:
    """Law 3.  None: the resolver says nothing at all."""
    net = trapped(rule)
    alice = net.hosts["alice"]
    if outcome is None:
        net.silent.add(BOB.reverse_pointer)
    else:
        net.outcome[BOB.reverse_pointer] = outcome
    expected = outcome in (Outcome.DENIED, Outcome.INSECURE) and rule is MAYBE
    assert (net.fate(alice, BOB, 30) is Action.CLEAR) is expected
    assert bool(clear_policies(alice)) is expected


def test_control_of_that_an_error_is_not_clear(trapped: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(Peer, "known", property(lambda _: True))
    net = trapped(MAYBE)
    net.outcome[BOB.reverse_pointer] = Outcome.ERROR
    assert net.fate(net.hosts["alice"], BOB, 30) is Action.CLEAR


def test_who_has_a_key_and_does_not_answer_is_met_in_clear_after_a_while(trapped: Any) -> None:
    net = trapped(MAYBE, bob=False)
    alice, begun = net.hosts["alice"], net.now.monotonic
    assert net.packet(alice, BOB) is Action.BLOCK
    net.wait(FALL_AFTER - 0.1)
    assert net.packet(alice, BOB) is Action.BLOCK
    net.wait(0.2)
    assert net.packet(alice, BOB) is Action.CLEAR
    assert net.now.monotonic - begun < FALL_AFTER + 1
    assert "peer.clear" in alice.kinds()
    assert {policy.lifetime for policy in clear_policies(alice)} == {SHUNT_LIFE}


def test_an_answer_that_comes_late_gives_the_peer_its_time(trapped: Any) -> None:
    """The DNS took longer than a packet is held: then it is held until IKE has been tried."""
    net = trapped(MAYBE)
    alice = net.hosts["alice"]
    net.silent.add(BOB.reverse_pointer)
    net.packet(alice, BOB)
    net.wait(FALL_AFTER + 1)
    assert net.packet(alice, BOB) is Action.BLOCK
    for host, question in net.late:
        net.step(host, net.answer(question))
    net.run()
    assert net.packet(alice, BOB) is Action.PROTECT
    assert not clear_policies(alice)


def test_clear_ends_by_itself_is_refreshed_while_it_holds_and_goes(trapped: Any) -> None:
    net = trapped(MAYBE)
    alice = net.hosts["alice"]
    net.outcome[BOB.reverse_pointer] = Outcome.DENIED
    assert net.fate(alice, BOB) is Action.CLEAR
    for _ in range(10):
        net.wait(SHUNT_LIFE / 4)
        assert net.packet(alice, BOB) is Action.CLEAR
    net.wait(LONGEST + GRACE)
    assert {policy.selector.remote for policy in alice.spd.values()} == {NET}
    assert alice.node.peers.by_name("192.0.2.2") is None


def test_a_key_that_appears_ends_clear(trapped: Any) -> None:
    net = trapped(MAYBE)
    alice = net.hosts["alice"]
    net.outcome[BOB.reverse_pointer] = Outcome.DENIED
    assert net.fate(alice, BOB) is Action.CLEAR
    net.wait(FALL_AFTER + 1)
    del net.outcome[BOB.reverse_pointer]
    net.wait(net.ttl + 2)
    assert net.fate(alice, BOB) is Action.PROTECT


def test_a_node_that_is_gone_leaves_nothing_clear(trapped: Any) -> None:
    """kill -9: the plane lets go of what permits clear; the trap stays and holds."""
    net = trapped(MAYBE)
    alice = net.hosts["alice"]
    net.outcome[BOB.reverse_pointer] = Outcome.DENIED
    assert net.fate(alice, BOB) is Action.CLEAR
    alice.node.deadline = alice.node._deadline_of = lambda *_: float("inf")
    net.wait(SHUNT_LIFE + 1)
    assert {policy.action for policy in alice.spd.values()} == {Action.PROTECT}


def test_clear_gives_way_to_who_proves_himself(trapped: Any) -> None:
    net = trapped(MAYBE)
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.lost = lambda host, send: True
    assert net.fate(alice, BOB) is Action.CLEAR
    net.lost = lambda host, send: False
    net.packet(bob, ALICE)
    net.wait(90)
    net.packet(bob, ALICE)
    assert net.packet(alice, BOB) is Action.PROTECT


# --- many ---


def test_two_thousand_addresses_do_not_break_honest_ones(trapped: Any) -> None:
    """A scan from within; the plane itself raises no more than 256 Acquires a second (esp.hold)."""
    net = trapped(Rule(ip_network("0.0.0.0/0"), below=Action.CLEAR))
    alice = net.hosts["alice"]
    trap = next(peer for peer in alice.node.peers if peer.is_trap)
    first = ip_address("198.51.100.0")
    for number in range(2000):
        net.step(alice, Acquire(Flow(ALICE, first + number, 6, 0, 80), trap.reqid, number + 1))
    assert net.fate(alice, BOB) is Action.PROTECT


def test_no_room_for_more(trapped: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(peers_module, "MOST_BORN", 3)
    net = trapped(MAYBE)
    alice = net.hosts["alice"]
    for number in range(10, 20):
        net.packet(alice, ALICE + number)
    assert sum(peer.born for peer in alice.node.peers) == 3
    assert "peers.crowded" in alice.kinds()
    # Those who came too late are held, not let go.
    assert net.fate(alice, ALICE + 19) is Action.BLOCK


def test_addresses_that_come_and_go(trapped: Any) -> None:
    net = trapped(MAYBE)
    alice = net.hosts["alice"]
    net.fate(alice, BOB)
    other = ip_address("192.0.2.99")
    net.step(alice, AddressesChanged((other,)))
    net.run()
    assert {policy.selector.local.network_address for policy in alice.spd.values()} == {other}
    net.zone[other.reverse_pointer] = ((), (KEY["alice"].public,))
    alice.addresses = (other,)
    assert net.fate(alice, BOB, 70) is Action.PROTECT


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_name_loosens_nothing_that_a_rule_about_its_address_closes(make_net: Any, guard: str) -> None:
    """Rule 2 of docs/names.md: what may be met in clear by its name may not be so by its address."""
    net = make_net()
    about_addresses = (PRIVATE,) if guard == "in" else ()
    alice = net.host("alice", Rule("*.example", below=Action.CLEAR), *about_addresses)
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    net.start()
    assert net.told(alice, "bob.example").verdict.value == "pass"
    assert (net.packet(alice, BOB) is Action.CLEAR) is (guard == "out")


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_wide_rule_with_a_port_does_not_get_round_one_about_a_peer(
    make_net: Any, guard: str, monkeypatch: Any
) -> None:
    """Of several that speak of a peer, the narrowest counts: who it is comes before which port."""
    if guard == "out":
        monkeypatch.setattr(
            peer_module, "narrowness",
            lambda s: s.local.prefixlen + s.remote.prefixlen + 100 * (bool(s.remote_port) + bool(s.protocol)),
        )  # fmt: skip
    net = make_net()
    web = {"protocol": 6, "remote_port": 443}
    alice = net.host("alice", Rule("bob.example"), Rule(ip_network("0.0.0.0/0"), below=Action.CLEAR, **web))
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    net.start()
    for _ in range(5):
        fate = net.packet(alice, BOB, 6, 443)
        net.wait(1)
    assert (fate is Action.CLEAR) is (guard == "out")


@pytest.mark.parametrize("below", ["block", "clear"])
@pytest.mark.parametrize("rule", ["", '[[rule]]\npeer = "192.0.2.53"\n'], ids=["no rule", "a rule about it"])
def test_a_name_server_that_somebody_pings(make_net: Any, below: str, rule: str) -> None:
    """It becomes a peer, of which nothing is proved: the DNS goes on, unless a rule wants it protected."""
    config = parse(
        '[host]\nname = "alice.example"\n[dns]\nforward = ["192.0.2.53"]\n'
        f'[[rule]]\npeer = "0.0.0.0/0"\nrequire = "encrypted"\nbelow = "{below}"\n{rule}', "alice.toml",
    )  # fmt: skip
    net = make_net()
    alice = net.host("alice", *config.rules)
    alice.spd |= {(policy.selector, policy.direction): policy for policy in base_policies(config)}
    net.start()
    server = ip_address("192.0.2.53")
    for _ in range(10):
        for protocol in (6, 17):
            assert net.packet(alice, server, protocol, 53) is (Action.BLOCK if rule else Action.CLEAR)
        ping = net.packet(alice, server, 1)
        net.wait(1)
    assert ping is (Action.CLEAR if below == "clear" and not rule else Action.BLOCK)


def test_a_prefix_that_is_clear_or_blocked_within_one_that_is_not(make_net: Any) -> None:
    """Their policies are the parent's, for all of this host's addresses; the trap's are for each."""
    text = '[host]\nname = "alice.example"\n[dns]\nforward = ["192.0.2.53"]\n' + "".join(
        f'[[rule]]\npeer = "{peer}"\ngroup = "{group}"\n'
        for peer, group in (
            ("0.0.0.0/0", "private-or-clear"),
            ("198.51.100.0/24", "clear"),
            ("203.0.113.0/24", "block"),
        )
    )
    config = parse(text, "alice.toml")
    net = make_net()
    alice = net.host("alice", *config.rules)
    alice.spd |= {(policy.selector, policy.direction): policy for policy in base_policies(config)}
    net.start()
    assert net.packet(alice, ip_address("198.51.100.7")) is Action.CLEAR
    acquired = len(list(alice.node.peers))
    assert net.fate(alice, ip_address("203.0.113.7")) is Action.BLOCK
    assert len(list(alice.node.peers)) == acquired
    # Inbound as well: what the trap would let in does not get past the block.
    flow = Flow(ALICE, ip_address("203.0.113.7"), 6, 0, 80)
    found = [policy for (selector, way), policy in alice.spd.items() if way is Direction.IN and selector.matches(flow)]
    assert min(found, key=lambda policy: policy.priority).action is Action.BLOCK
