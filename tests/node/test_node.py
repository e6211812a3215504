"""A Node: from a packet to an SA, commands, failures, and time that always moves on."""

import itertools
import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hushwire.config import Group, PlaneChoice, Rule, Start
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import (
    Acquire,
    AddressesChanged,
    Answered,
    Connect,
    Datagram,
    Disconnect,
    Expire,
    Installed,
    InstallPolicy,
    InstallSA,
    Mapping,
    Outcome,
    Refused,
    Rekey,
    Signed,
    Status,
    Stop,
    Timeout,
)  # fmt: skip
from hushwire.node.peer import LAST_WAIT
from hushwire.policy.assurance import Assurance
from hushwire.policy.sad import Mode, SAName
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Action
from hushwire.timers import NEVER
from hushwire.wire.address import Endpoint

ADDRESS = {
    name: ip_address(text) for name, text in [("alice", "192.0.2.1"), ("bob", "192.0.2.2"), ("eve", "192.0.2.66")]
}
MOVED = ip_address("192.0.2.200")
KEY = {name: PrivateKey.from_seed(Secret(name.encode().ljust(32))) for name in (*ADDRESS, "other")}


def named(name: str, **more: Any) -> Rule:
    return Rule(f"{name}.example", **more)


# --- the way from a name to a protected packet ---


def test_a_name_becomes_policies_and_a_packet_an_sa(net: Any) -> None:
    alice = net.hosts["alice"]
    assert alice.about("name.bound")[0]["addresses"] == "192.0.2.2"
    assert {policy.action for policy in alice.policies(ADDRESS["bob"])} == {Action.PROTECT}
    assert {policy.direction.value for policy in alice.policies(ADDRESS["bob"])} == {"in", "out"}
    assert net.packet(alice, ADDRESS["bob"]) is Action.BLOCK
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    assert len(alice.sad) == len(net.hosts["bob"].sad) == 2
    assert {sa.acquire for sa in alice.sad.values()} == {7}
    assert {sa.reqid for sa in alice.sad.values()} == {policy.reqid for policy in alice.spd.values()}


def test_packets_in_a_burst_make_one_sa(net: Any) -> None:
    alice = net.hosts["alice"]
    policy = alice.policies(ADDRESS["bob"])[0]
    for sequence in range(10):
        net.step(alice, Acquire(Flow(ADDRESS["alice"], ADDRESS["bob"], 6, 0, 80), policy.reqid, sequence))
    net.run()
    assert len(alice.sad) == 2
    assert len(alice.node.ike.sas) == 1


def test_an_acquire_of_somebody_elses_policy_is_nothing_to_us(net: Any) -> None:
    net.step(net.hosts["alice"], Acquire(Flow(ADDRESS["alice"], ADDRESS["bob"], 0), 12345, 1))
    assert not net.wire


def test_both_modes(two: Any, net: Any) -> None:
    net = two({"mode": Mode.TUNNEL})
    alice = net.hosts["alice"]
    net.packet(alice, ADDRESS["bob"])
    assert {sa.mode for sa in alice.sad.values()} == {Mode.TUNNEL}
    assert {policy.tunnel for policy in alice.spd.values()} == {(ADDRESS["alice"], ADDRESS["bob"])}


def test_networks_behind_both(two: Any) -> None:
    near, far = ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16")
    net = two(
        {"mode": Mode.TUNNEL, "local_networks": (near,), "remote_networks": (far,)},
        {"mode": Mode.TUNNEL, "local_networks": (far,), "remote_networks": (near,)},
    )
    alice = net.hosts["alice"]
    # A packet of the gateway itself, from its address within, goes the same way.
    inner = ip_address("10.1.0.9")
    alice.addresses = (inner, *alice.addresses)
    net.step(alice, AddressesChanged(alice.addresses))
    net.packet(alice, ip_address("10.2.3.4"), local=ip_address("10.1.0.9"))
    assert net.packet(alice, ip_address("10.2.3.4"), local=ip_address("10.1.0.9")) is Action.PROTECT
    assert {sa.selector for sa in alice.sad.values()} == {Selector(near, far)}
    assert inner not in {end for sa in alice.sad.values() for end in (sa.source, sa.destination)}


def test_rules_with_ports(two: Any) -> None:
    web = {"protocol": 6, "remote_port": 443}
    net = two(web, {"protocol": 6, "local_port": 443})
    alice = net.hosts["alice"]
    assert net.packet(alice, ADDRESS["bob"], 17, 53) is Action.CLEAR
    assert net.packet(alice, ADDRESS["bob"], 6, 443) is Action.BLOCK
    assert net.packet(alice, ADDRESS["bob"], 6, 443) is Action.PROTECT
    assert {(sa.selector.protocol, sa.selector.remote_port) for sa in alice.sad.values()} == {(6, 443)}


def test_narrow_rules_come_before_wide_ones(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", named("bob"), named("bob", protocol=6, remote_port=443))
    net.host("bob", named("alice"))
    net.start()
    by_port = {policy.selector.remote_port: policy.priority for policy in alice.spd.values()}
    assert by_port[443] < by_port[0]
    assert len({policy.reqid for policy in alice.spd.values()}) == 1


def test_a_pinned_key_and_no_dns(make_net: Any) -> None:
    net = make_net()
    rules = {
        "alice": Rule("bob.example", Assurance.TRUSTED, key="bob.pem", address=ADDRESS["bob"]),
        "bob": Rule(ip_network("192.0.2.1"), Assurance.TRUSTED, key="alice.pem", identity=named("alice").expected),
    }
    net.host("alice", rules["alice"], pinned={"bob.example": KEY["bob"].public})
    net.host("bob", rules["bob"], pinned={"192.0.2.1/32": KEY["alice"].public})
    net.start()
    assert not net.hosts["alice"].questions
    net.packet(net.hosts["alice"], ADDRESS["bob"])
    assert net.packet(net.hosts["alice"], ADDRESS["bob"]) is Action.PROTECT


def test_a_shared_key(make_net: Any) -> None:
    net = make_net()
    for one, other in (("alice", "bob"), ("bob", "alice")):
        rule = Rule(f"{other}.example", Assurance.TRUSTED, psk="psk", address=ADDRESS[other])
        net.host(one, rule, shared={f"{other}.example": b"psk"})
    net.start()
    net.packet(net.hosts["alice"], ADDRESS["bob"])
    assert net.packet(net.hosts["alice"], ADDRESS["bob"]) is Action.PROTECT


# --- commands ---


def test_connect_disconnect_rekey_status(net: Any) -> None:
    alice = net.hosts["alice"]
    reply = net.ask(alice, Connect, "Bob.Example.")
    assert reply is not None
    assert reply.ok
    assert "named" in reply.text
    assert net.ask(alice, Connect, "bob.example").text.endswith("connected already")  # type: ignore[union-attr]
    before = set(alice.sad)
    assert net.ask(alice, Rekey, "bob.example", False).ok  # type: ignore[union-attr]
    assert not before & set(alice.sad)
    spi = alice.node.ike.sas[0].spi
    assert net.ask(alice, Rekey, "bob.example", True).ok  # type: ignore[union-attr]
    assert [sa.spi for sa in alice.node.ike.sas] != [spi]
    status = json.loads(net.ask(alice, Status).body)  # type: ignore[union-attr]
    (peer,) = status["peers"]
    assert (peer["peer"], peer["level"], len(peer["ike"])) == ("bob.example", "named", 1)
    assert peer["ike"][0]["children"][0]["selector"] == "192.0.2.1 <-> 192.0.2.2"
    assert net.ask(alice, Disconnect, "bob.example").ok  # type: ignore[union-attr]
    assert not alice.sad
    assert not net.hosts["bob"].sad
    assert alice.spd
    for command in ((Disconnect, "bob.example"), (Rekey, "bob.example", True), (Disconnect, "nobody.example")):
        assert not net.ask(alice, *command).ok  # type: ignore[union-attr]


def test_connect_a_name_that_no_rule_speaks_of(net: Any) -> None:
    alice, eve = net.hosts["alice"], net.host("eve", named("alice"))
    net.start()
    reply = net.ask(alice, Connect, "eve.example")
    assert reply is not None
    assert reply.ok
    assert eve.sad


@pytest.mark.parametrize("name", ["", "bad name", "x" * 300, "192.0.2.9", "b\u00fccher.example", "a..b"])
def test_connect_what_is_no_name(net: Any, name: str) -> None:
    reply = net.ask(net.hosts["alice"], Connect, name)
    assert reply is not None
    assert not reply.ok


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("192.0.2.9", "192.0.2.9: no rule protects it"),
        ("2001:DB8:0::9", "2001:db8::9: no rule protects it"),
        ("198.51.100.7", "198.51.100.7: no rule protects it"),
        ("203.0.113.7", "203.0.113.7: a rule blocks it"),
        ("192.0.2.1", "192.0.2.1 cannot be a peer's: this host"),
        ("0.0.0.0", "0.0.0.0 cannot be a peer's: unspecified"),
        ("fe80::1%eth0", "fe80::1%eth0 cannot be a peer's: link-local"),
        (
            "192.0.2.0/24",
            "'192.0.2.0/24' is no host name: a label may hold letters, digits, hyphens within, and underscores",
        ),
    ],
)
def test_connect_an_address_that_no_rule_protects(make_net: Any, address: str, said: str) -> None:
    net = make_net()
    rules = (
        Rule(ip_network("198.51.100.0/24"), Assurance.CLEAR),
        Rule(ip_network("203.0.113.0/24"), group=Group.BLOCK),
    )
    alice = net.host("alice", named("bob"), *rules)
    net.start()
    reply = net.ask(alice, Connect, address)
    assert (reply.ok, reply.text) == (False, said)
    assert not alice.node.ike.sas


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INSECURE, Outcome.ERROR])
def test_connect_a_name_without_binding_is_answered_each_time(net: Any, outcome: Outcome) -> None:
    net.outcome["nobody.example"] = outcome
    for _ in range(3):
        reply = net.ask(net.hosts["alice"], Connect, "nobody.example")
        assert reply is not None
        assert not reply.ok
        net.wait(3)


def test_connect_is_answered_when_nobody_answers(net: Any) -> None:
    net.lost = lambda host, send: True
    alice = net.hosts["alice"]
    assert net.ask(alice, Connect, "bob.example") is None
    net.wait(40)
    (reply,) = alice.replies.values()
    assert not reply.ok
    assert "no answer" in reply.text


def test_connect_without_an_address_of_ours_is_answered(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", named("bob"))
    net.zone["bob.example"] = ((ip_address("2001:db8::2"),), (KEY["bob"].public,))
    net.start()
    reply = net.ask(alice, Connect, "bob.example")
    assert reply is not None
    assert not reply.ok


def test_stop_tells_the_peers_and_leaves_the_policies(net: Any) -> None:
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.packet(alice, ADDRESS["bob"])
    net.step(alice, Stop())
    net.run()
    assert not bob.sad
    assert alice.spd


# --- failure, and time ---


def test_attempts_back_off(net: Any) -> None:
    alice = net.hosts["alice"]
    net.lost = lambda host, send: True
    begun = []
    for _ in range(600):
        net.packet(alice, ADDRESS["bob"])
        begun.append(len(alice.node.ike.sas))
        net.wait(1)
    attempts = sum(later > earlier for earlier, later in itertools.pairwise(begun))
    assert 4 < attempts < 12
    net.lost = lambda host, send: False
    net.wait(LAST_WAIT)
    net.packet(alice, ADDRESS["bob"])
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    assert next(iter(alice.node.peers)).failures == 0


def test_a_packet_between_two_attempts_is_remembered(net: Any) -> None:
    """The kernel tells of the next one half a minute later; and the name is looked up already."""
    alice = net.hosts["alice"]
    net.lost = lambda host, send: True
    for _ in range(6):
        net.packet(alice, ADDRESS["bob"])
        net.wait(60)
    net.packet(alice, ADDRESS["bob"])
    while alice.node.ike.sas:
        net.wait(0.5)
    peer = next(iter(alice.node.peers))
    assert peer.not_before > net.now.monotonic + 30
    for _ in range(3):
        net.packet(alice, ADDRESS["bob"])
    assert not alice.node.ike.sas
    net.lost = lambda host, send: False
    net.wait(LAST_WAIT)
    assert len(alice.sad) == 2
    assert not peer.waiting


def test_our_own_address_changes(net: Any) -> None:
    alice = net.hosts["alice"]
    net.packet(alice, ADDRESS["bob"])
    net.zone["alice.example"] = ((MOVED,), (KEY["alice"].public,))
    alice.addresses = (MOVED,)
    net.step(alice, AddressesChanged((MOVED,)))
    net.wait(net.ttl + 40)
    assert not [sa for sa in alice.sad.values() if ADDRESS["alice"] in (sa.source, sa.destination)]
    net.packet(alice, ADDRESS["bob"])
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_only_the_addresses_of_the_configuration_are_used(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", named("bob"), addresses=(ADDRESS["alice"],))
    alice.addresses = (MOVED, ADDRESS["alice"])
    net.host("bob", named("alice"))
    net.start()
    assert {policy.selector.local for policy in alice.spd.values()} == {ip_network("192.0.2.1")}


def test_a_refused_policy_is_asked_for_again(make_net: Any, net: Any) -> None:
    net = make_net()
    alice = net.host("alice", named("bob", below=Action.CLEAR))
    net.host("bob", named("alice"))
    refusals = iter([True, True])
    alice.refuse = lambda effect: isinstance(effect, InstallPolicy) and next(refusals, False)
    net.start()
    net.wait(5)
    assert "refused" in alice.kinds()
    net.ask(alice, Rekey, "bob.example", False)
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_a_refused_sa_is_told_and_tried_again(net: Any) -> None:
    alice = net.hosts["alice"]
    alice.refuse = lambda effect: isinstance(effect, InstallSA)
    net.packet(alice, ADDRESS["bob"])
    assert not alice.sad
    assert "peer.failed" in alice.kinds()
    alice.refuse = lambda effect: False
    net.wait(5)
    net.packet(alice, ADDRESS["bob"])
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    assert len(net.hosts["bob"].sad) == 2


def test_the_plane_tells_of_ends_and_moves(net: Any) -> None:
    alice = net.hosts["alice"]
    net.packet(alice, ADDRESS["bob"])
    name = next(iter(alice.sad))
    net.step(alice, Mapping(name, Endpoint(MOVED, 9)))
    assert "esp.mapping" in alice.kinds()
    net.step(alice, Expire(name, False))
    net.run()
    assert name not in alice.sad
    assert len(alice.sad) == 2


def test_with_the_userspace_plane_esp_is_in_udp(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", named("bob"), plane=PlaneChoice.USERSPACE)
    bob = net.host("bob", named("alice"))
    net.start()
    net.packet(alice, ADDRESS["bob"])
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    for host in (alice, bob):
        assert {(sa.encapsulation.source_port, sa.encapsulation.destination_port) for sa in host.sad.values()} == {
            (4500, 4500)
        }


SITUATIONS = {
    "nobody answers": lambda net: setattr(net, "lost", lambda host, send: True),
    "no resolver": lambda net: net.silent.update({"bob.example", "alice.example"}),
    "errors": lambda net: net.outcome.update({"bob.example": Outcome.ERROR}),
    "no key": lambda net: net.zone.update({"bob.example": ((ADDRESS["bob"],), ())}),
    "no address of that family": lambda net: net.zone.update(
        {"bob.example": ((ip_address("2001:db8::2"),), (KEY["bob"].public,))}
    ),
    "wrong key": lambda net: setattr(net.hosts["bob"], "key", KEY["other"]),
    "no addresses": lambda net: setattr(net.hosts["alice"], "addresses", ()),
    "plane refuses": lambda net: setattr(net.hosts["alice"], "refuse", lambda effect: True),
}


@pytest.mark.parametrize(
    "rule", [{}, {"below": Action.CLEAR}, {"start": Start.CONNECT}], ids=["trap", "clear", "connect"]
)
@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS)
def test_time_never_stands_still(make_net: Any, situation: Any, rule: dict[str, Any]) -> None:
    """A deadline in the past moves on within a few steps: no busy loop, whatever fails."""
    net = make_net()
    alice = net.host("alice", named("bob", **rule))
    net.host("bob", named("alice"))
    situation(net)
    net.start()
    net.ask(alice, Connect, "bob.example")
    steps = 0
    while net.now.monotonic < 600 and steps < 2000:
        steps += 1
        when = alice.node.deadline()
        if when == NEVER:
            break
        net.now = replace(net.now, monotonic=max(when, net.now.monotonic))
        for again in range(5):
            if alice.node.deadline() > net.now.monotonic:
                break
            assert again < 4
            net.step(alice, Timeout())
        net.run()
    assert steps < 1500


@given(st.lists(st.tuples(st.sampled_from(["alice", "bob"]), st.binary(max_size=200)), max_size=20))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_octets_are_survived(make_net: Any, messages: list[tuple[str, bytes]]) -> None:
    net = make_net()
    net.host("alice", named("bob"))
    net.host("bob", named("alice"))
    net.start()
    for name, data in messages:
        net.step(net.hosts[name], Datagram(Endpoint(ADDRESS[name], 500), Endpoint(ADDRESS["eve"], 500), data))
    net.packet(net.hosts["alice"], ADDRESS["bob"])
    assert net.packet(net.hosts["alice"], ADDRESS["bob"]) is Action.PROTECT


@pytest.mark.parametrize("event", [
    Installed(999), Refused(999, "?"), Signed(999, b""), Expire(SAName(1, ADDRESS["bob"]), True),
    Answered(999, "bob.example", 1, Outcome.SECURE, (b"",)), Acquire(Flow(MOVED, MOVED, 0), 0, 0), Timeout(),
])  # fmt: skip
def test_answers_to_nothing_change_nothing(net: Any, event: Any) -> None:
    alice = net.hosts["alice"]
    before = dict(alice.spd)
    net.step(alice, event)
    assert alice.spd == before
    assert not alice.sad


def test_who_stops_tells_its_peers_and_begins_nothing_more(net: Any) -> None:
    """Traffic that goes on traps on, and a peer's first packet may come just then."""
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.packet(alice, ADDRESS["bob"])
    assert alice.sad
    net.step(alice, Stop())
    net.run()
    assert not alice.sad
    assert not bob.sad
    net.packet(alice, ADDRESS["bob"])
    net.packet(bob, ADDRESS["alice"])
    net.wait(2)
    assert not alice.sad
    assert not bob.sad
    assert net.packet(alice, ADDRESS["bob"]) is Action.BLOCK
