"""ATTACKS row 36: evil.example has the victim's address and a key of its own, all well signed.

On the path, the attacker answers IKE at that address; off the path, nobody there has his key.  Before or after the
victim's name was looked up.  What is asked: what becomes of the victim's name, of a name without a key at that address,
of packets to the bare address, and of what evil.example gets.
"""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.config import Addressing, Rule
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import Verdict
from hushwire.names.synthetic import POOLS, RESERVED, is_synthetic
from hushwire.node.peer import Peer
from hushwire.node.policies import Policies
from hushwire.policy.spd import Action

VICTIM = ip_address("192.0.2.2")
KEY = {name: PrivateKey.from_seed(Secret(name.encode().ljust(32))) for name in ("alice", "bob", "eve", "other")}
PRIVATE, MAYBE = Rule("*.example"), Rule("*.example", below=Action.CLEAR)
CONFIGURED = Rule("bob.example")


def attack(make_net: Any, *rules: Rule, on_path: bool, first: str) -> Any:
    """Bob is the victim, eve.example the evil name.  All that Alice asks for first is what `first` says."""
    net = make_net()
    alice = net.host("alice", *rules)
    net.host("bob", Rule("alice.example"))
    eve = net.host("eve", Rule("alice.example"))
    net.zone["bob.example"] = ((VICTIM,), (KEY["bob"].public,))
    net.zone["eve.example"] = ((VICTIM,), (KEY["eve"].public,))
    net.zone["bare.example"] = ((VICTIM,), ())
    net.start()
    if first == "victim":
        net.told(alice, "bob.example")
        net.packet(alice, VICTIM)
        assert net.packet(alice, VICTIM) is Action.PROTECT
    if on_path:
        # He gets what is sent there, and answers from there.
        net.taken[VICTIM] = eve
    eve.addresses = (VICTIM,) if on_path else eve.addresses
    net.start()
    return net


def to_whom(net: Any, patience: int = 8) -> str:
    """Where a packet to the bare address goes, and how."""
    alice = net.hosts["alice"]
    fate = net.fate(alice, VICTIM, patience)
    if fate is not Action.PROTECT:
        return fate.value
    out = [policy for (_, way), policy in alice.spd.items() if way.value == "out" and VICTIM in policy.selector.remote]
    reqid = min(out, key=lambda policy: policy.priority).reqid
    return alice.node.peers.by_reqid(reqid).name


def word(net: Any, name: str) -> str:
    return net.told(net.hosts["alice"], name).verdict.value


# name of evil, of the victim, of one without a key; the bare address.
OUTCOMES = {
    # (rules, on path, first): (evil's name, the victim's, a keyless one's at that address, the bare address)
    ("private", False, "victim"): ("refuse", "only", "refuse", "bob.example"),
    ("private", False, "evil"): ("refuse", "only", "refuse", "bob.example"),
    ("private", True, "victim"): ("refuse", "only", "refuse", "bob.example"),
    ("private", True, "evil"): ("only", "refuse", "refuse", "eve.example"),
    ("maybe", False, "victim"): ("refuse", "only", "pass", "bob.example"),
    ("maybe", False, "evil"): ("pass", "only", "pass", "bob.example"),
    ("maybe", True, "victim"): ("refuse", "only", "pass", "bob.example"),
    ("maybe", True, "evil"): ("only", "refuse", "pass", "eve.example"),
    ("configured", False, "victim"): ("refuse", "only", "refuse", "bob.example"),
    ("configured", False, "evil"): ("refuse", "only", "refuse", "bob.example"),
    ("configured", True, "victim"): ("refuse", "only", "refuse", "bob.example"),
    ("configured", True, "evil"): ("refuse", "only", "refuse", "block"),
}
RULES = {"private": (PRIVATE,), "maybe": (MAYBE,), "configured": (CONFIGURED, PRIVATE)}


@pytest.mark.parametrize(("kind", "on_path", "first"), OUTCOMES)
def test_each_combination(make_net: Any, kind: str, on_path: bool, first: str) -> None:
    net = attack(make_net, *RULES[kind], on_path=on_path, first=first)
    names = ("eve.example", "bob.example", "bare.example")
    told = tuple(word(net, name) for name in names)
    assert (*told, to_whom(net)) == OUTCOMES[kind, on_path, first]


@pytest.mark.parametrize("on_path", [False, True])
@pytest.mark.parametrize("first", ["victim", "evil"])
@pytest.mark.parametrize("kind", RULES)
def test_no_packet_for_the_victims_name_goes_to_another(make_net: Any, kind: str, on_path: bool, first: str) -> None:
    """A program that got an address for the victim's name never has its packets sealed for somebody else."""
    net = attack(make_net, *RULES[kind], on_path=on_path, first=first)
    for _ in range(3):
        word(net, "eve.example")
        if word(net, "bob.example") == Verdict.ONLY.value:
            assert to_whom(net) in ("bob.example", "block")
        net.wait(30)


def test_control_of_each(make_net: Any, monkeypatch: Any) -> None:
    """Without law 2's check the victim's packets are sealed for the attacker."""
    monkeypatch.setattr(Policies, "_may_have", lambda *_: True)
    net = attack(make_net, PRIVATE, on_path=True, first="victim")
    word(net, "eve.example")
    assert to_whom(net) == "eve.example"


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_rule_about_the_victim_alone_is_an_administrators_own_word(
    make_net: Any, guard: str, monkeypatch: Any
) -> None:
    """On the path, before the victim was ever reached: the policy at that address is the victim's, and stays so."""
    if guard == "out":
        monkeypatch.setattr(
            Peer, "yields_to",
            lambda self, other: other.protects and not self.reached
            and (other.reached or self.failures > 0),
        )  # fmt: skip
    net = attack(make_net, CONFIGURED, PRIVATE, on_path=True, first="evil")
    word(net, "eve.example")
    assert (to_whom(net) == "eve.example") is (guard == "out")


def test_the_victims_name_comes_back_when_the_attacker_has_left(make_net: Any) -> None:
    net = attack(make_net, CONFIGURED, PRIVATE, on_path=True, first="evil")
    alice = net.hosts["alice"]
    word(net, "eve.example")
    net.taken.clear()
    net.wait(70)
    assert net.fate(alice, VICTIM, 70) is Action.PROTECT
    assert to_whom(net) == "bob.example"


def test_the_prefix_says_who_is_there_and_a_name_does_not(make_net: Any) -> None:
    """Off the path: packets to the bare address of a network go by its reverse zone."""
    net = attack(make_net, MAYBE, Rule(ip_network("192.0.2.0/24")), on_path=False, first="evil")
    assert word(net, "eve.example") in ("pass", "refuse")
    assert to_whom(net) == "block"


@pytest.mark.parametrize("guard", ["in", "out"])
def test_where_no_synthetic_address_is_left(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """ATTACKS row 45: names without end take them all.  One more is refused, and never given what is not its alone."""
    monkeypatch.setitem(POOLS, 4, ip_network((POOLS[4].network_address, 27)))
    if guard == "out":
        proven = property(lambda peer: tuple(place for place in peer.addresses if place in peer.proven))
        monkeypatch.setattr(Peer, "places", proven)
        monkeypatch.setattr(Peer, "lacks_synthetic", False)
    net = make_net()
    alice = net.host("alice", Rule("*.example", addressing=Addressing.SYNTHETIC))
    for name in ("bob", "eve"):
        net.host(name, Rule("alice.example"))
    net.start()
    (bobs,) = net.told(alice, "bob.example").addresses
    assert is_synthetic(bobs)
    for number in range(32 - RESERVED - 2):
        net.zone[f"n{number}.example"] = (ip_address(f"203.0.{number}.1"),), (KEY["other"].public,)
        net.look_up(alice, f"n{number}.example")
    assert not alice.about("name.crowded")
    there = net.hosts["eve"].addresses[0]
    told = net.told(alice, "eve.example")
    assert told.addresses == (() if guard == "in" else (there,))
    assert bool(alice.policies(there)) is (guard == "out")
    (crowded,) = alice.about("name.crowded")
    assert crowded["reason"] == "no synthetic IPv4 address is left for eve.example"
    if guard == "in":
        assert told.verdict is Verdict.REFUSE
        # Nobody else is disturbed, and when the others are used no more there is room.
        assert net.told(alice, "bob.example").addresses == (bobs,)
        assert {(policy.action, policy.real) for policy in alice.policies(bobs)} == {(Action.PROTECT, VICTIM)}
        net.wait(400)
        (hers,) = net.told(alice, "eve.example").addresses
        assert is_synthetic(hers)
        assert hers != bobs


def test_the_attacker_leaves_and_the_victims_name_comes_back(make_net: Any) -> None:
    """He was on the path when evil's name was asked for first; for more than an hour he is not."""
    net = attack(make_net, PRIVATE, on_path=True, first="evil")
    alice, eve = net.hosts["alice"], net.hosts["eve"]
    assert (word(net, "eve.example"), word(net, "bob.example")) == ("only", "refuse")
    net.taken.clear()
    eve.addresses = ()
    for _ in range(75):
        net.wait(60)
        word(net, "bob.example")
    assert alice.node.peers.by_name("eve.example") is None
    assert word(net, "bob.example") == "only"


def test_a_name_that_found_the_pool_empty_gets_an_address_when_there_is_one(make_net: Any, monkeypatch: Any) -> None:
    """Though a program goes on asking for it."""
    monkeypatch.setitem(POOLS, 4, ip_network((POOLS[4].network_address, 27)))
    net = make_net()
    alice = net.host("alice", Rule("*.example", addressing=Addressing.SYNTHETIC))
    net.host("bob", Rule("alice.example"))
    net.start()
    for number in range(32 - RESERVED - 1):
        net.zone[f"n{number}.example"] = (ip_address(f"203.0.{number}.1"),), (KEY["other"].public,)
        net.look_up(alice, f"n{number}.example")
    told = net.told(alice, "bob.example")
    assert told.verdict is Verdict.REFUSE
    assert "no synthetic" in told.reason
    for _ in range(8):
        net.wait(60)
        told = net.told(alice, "bob.example")
    assert alice.node.peers.by_name("n0.example") is None
    assert told.verdict is Verdict.ONLY


def test_an_alias_takes_no_address_of_the_pool(make_net: Any) -> None:
    """What stands is for the name that it leads to."""
    net = make_net()
    alice = net.host("alice", Rule("*.example", addressing=Addressing.SYNTHETIC))
    net.host("bob", Rule("alice.example"))
    net.aliases["www.example"] = "bob.example"
    net.zone["www.example"] = ((VICTIM,), (KEY["bob"].public,))
    net.start()
    told = [net.told(alice, name).addresses for name in ("www.example", "bob.example")]
    assert told[0] == told[1]
    assert is_synthetic(told[0][0])
    assert len(alice.node.peers._synthetic._given) == 1
