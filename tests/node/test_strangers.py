"""Strangers (RFC 5386): hosts of which nothing is known, and which encrypt none the less."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.config import Rule
from hushwire.events import (
    Acquire,
    AddressesChanged,
    Connect,
    Forget,
    KnownForget,
    KnownPin,
    Outcome,
    ReadTrusted,
    Recalled,
    Remember,
    Send,
    TrustChanged,
    Verdict,
)
from hushwire.names.allow import PER_SOURCE
from hushwire.names.ipseckey import IPSECKEY
from hushwire.names.reverse import reverse_name
from hushwire.node import seeking
from hushwire.node.claims import Claims
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import HELD_FOR
from hushwire.policy.selector import Flow
from hushwire.policy.spd import Action
from hushwire.policy.trust import Trusted, TrustStore
from hushwire.timers import Now

from .conftest import ADDRESS, KEY, named

ALICE, BOB, EVE = ADDRESS["alice"], ADDRESS["bob"], ADDRESS["eve"]
ALL = ip_network("192.0.2.0/24")
ANYBODY = Rule(ALL, Assurance.ENCRYPTED, Action.BLOCK)
PERHAPS = Rule(ALL, Assurance.ENCRYPTED, Action.CLEAR)


def met(net: Any, alice: Any, bob: Any, rule: Rule = ANYBODY) -> tuple[Any, Any]:
    hosts = net.host("alice", alice or rule), net.host("bob", bob or rule)
    net.start()
    return hosts


@pytest.mark.parametrize("rule", [ANYBODY, PERHAPS])
def test_two_strangers(make_net: Any, rule: Rule) -> None:
    net = make_net()
    alice, bob = met(net, rule, rule)
    assert net.fate(alice, BOB) is Action.PROTECT
    assert net.fate(bob, ALICE) is Action.PROTECT
    assert [notice["level"] for notice in alice.about("ike.established")] == ["encrypted"]
    assert [notice["level"] for notice in bob.about("ike.established")] == ["encrypted"]
    (sa,) = alice.node.ike.sas
    assert sa.authenticated.entry.keys == (KEY["bob"].public,)


def test_who_takes_one_port_only_is_not_asked_without_end(make_net: Any) -> None:
    """RFC 7296 s2.9: the answer is narrower than the packet that made us ask, and would be again."""
    net = make_net()
    alice, _ = met(net, None, replace(ANYBODY, protocol=6, local_port=2049))
    for _ in range(20):
        net.packet(alice, BOB, 6, 80)
    (sa,) = alice.node.ike.sas
    assert len(sa.children) == 1
    assert net.packet(alice, BOB, 6, 2049) is Action.PROTECT
    net.wait(40)
    net.packet(alice, BOB, 6, 80)
    assert len(sa.children) == 2


@pytest.mark.parametrize("first", [True, False], ids=["the packet first", "without it"])
def test_who_takes_two_ports_is_asked_for_the_right_one(make_net: Any, first: bool, monkeypatch: Any) -> None:
    """RFC 7296 s2.9: he narrows to what has the packet, and not to the first rule he has."""
    if not first:
        monkeypatch.setattr(seeking, "replace", lambda wanted, **_: wanted)
    net = make_net()
    alice = net.host("alice", ANYBODY)
    net.host("bob", *(replace(ANYBODY, protocol=6, local_port=port) for port in (2049, 80)))
    net.start()
    net.packet(alice, BOB, 6, 80)
    assert net.packet(alice, BOB, 6, 80) is (Action.PROTECT if first else Action.BLOCK)
    assert net.packet(alice, BOB, 6, 2049) is (Action.BLOCK if first else Action.PROTECT)
    if first:
        # The other is asked for as well, and both stand.
        assert net.packet(alice, BOB, 6, 2049) is net.packet(alice, BOB, 6, 80) is Action.PROTECT


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_whole_network_comes_at_once(make_net: Any, guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours of one prefix, each a stranger: who proves a key does not count among those who are held off."""
    if guard == "out":
        monkeypatch.setattr(Claims, "proved", lambda *_: None)
    net = make_net()
    _, bob = met(net, None, None)
    let_in = 0
    for last in range(100, 116):
        bob.addresses = (ip_address(f"192.0.2.{last}"),)
        net.step(bob, AddressesChanged(bob.addresses))
        let_in += net.fate(bob, ALICE, patience=2) is Action.PROTECT
    assert let_in == (16 if guard == "in" else PER_SOURCE)


@pytest.mark.parametrize("rule", [ANYBODY, PERHAPS])
def test_nobody_there(make_net: Any, rule: Rule) -> None:
    """Without a peer the rule's word counts."""
    net = make_net()
    alice = net.host("alice", rule)
    net.start()
    assert net.fate(alice, BOB, patience=60) is (rule.below if rule.below is Action.CLEAR else Action.BLOCK)


@pytest.mark.parametrize("rule", [ANYBODY, PERHAPS])
def test_an_administrator_connects_to_an_address(make_net: Any, rule: Rule) -> None:
    """`hushwire connect ADDRESS`, before there is a packet for it; and again."""
    net = make_net()
    alice, bob = met(net, rule, rule)
    reply = net.ask(alice, Connect, str(BOB))
    assert reply.ok, reply.text
    assert reply.text.startswith("192.0.2.2 at 192.0.2.2 is encrypted, ")
    assert net.packet(alice, BOB) is net.packet(bob, ALICE) is Action.PROTECT
    assert net.ask(alice, Connect, str(BOB)).text == "192.0.2.2 is connected already"
    assert len(alice.node.ike.sas) == 1


@pytest.mark.parametrize("rule", [ANYBODY, PERHAPS])
def test_an_administrator_connects_where_nobody_is(make_net: Any, rule: Rule) -> None:
    """He is told so, and the rule's word counts as before."""
    net = make_net()
    alice = net.host("alice", rule)
    net.start()
    assert net.ask(alice, Connect, str(BOB)) is None
    assert net.packet(alice, BOB) is Action.BLOCK
    net.wait(40)
    (reply,) = alice.replies.values()
    assert not reply.ok
    assert "no answer" in reply.text
    assert net.fate(alice, BOB, patience=30) is rule.below


def test_an_administrator_connects_where_a_name_is(make_net: Any) -> None:
    """Whoever has the policy there is meant, by whatever name: a stranger at that address is nobody's wish."""
    net = make_net()
    alice = net.host("alice", ANYBODY, named("bob"))
    net.host("bob", named("alice"))
    net.start()
    reply = net.ask(alice, Connect, str(BOB))
    assert reply.ok, reply.text
    assert reply.text.startswith("bob.example at 192.0.2.2 is named, ")


def test_who_has_a_key_in_the_reverse_zone_has_to_prove_that(make_net: Any) -> None:
    """And then is no stranger."""
    net = make_net()
    alice, _ = met(net, None, None)
    net.zone[reverse_name(BOB)] = ((), (KEY["bob"].public,))
    assert net.fate(alice, BOB) is Action.PROTECT
    assert alice.about("ike.established")[-1]["level"] == "named"


def test_who_has_another_key_in_the_reverse_zone_is_no_stranger(make_net: Any) -> None:
    """Law 4: whoever fails as what he is known for does not go for a stranger."""
    net = make_net()
    alice, bob = met(net, None, None)
    net.zone[reverse_name(BOB)] = ((), (KEY["other"].public,))
    assert net.fate(alice, BOB, patience=30) is Action.BLOCK
    assert net.fate(bob, ALICE, patience=30) is Action.BLOCK


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INSECURE, Outcome.ERROR])
def test_an_error_of_the_dns_keeps_no_strangers_apart(make_net: Any, outcome: Outcome) -> None:
    net = make_net()
    net.outcome[reverse_name(BOB)] = net.outcome[reverse_name(ALICE)] = outcome
    alice, _ = met(net, None, None)
    assert net.fate(alice, BOB, patience=30) is Action.PROTECT


def test_a_stranger_speaks_for_no_address_of_who_was_introduced(make_net: Any) -> None:
    """RFC 5386 s2, the second search: bob.example is at that address, and Eve has taken it."""
    net = make_net()
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    alice = net.host("alice", ANYBODY, named("bob"))
    eve = net.host("eve", ANYBODY)
    eve.addresses = (BOB,)
    net.start()
    assert net.fate(eve, ALICE, patience=30) is Action.BLOCK
    assert not alice.sad


# --- names without a key ---


def by_name(net: Any, below: Action = Action.BLOCK) -> Any:
    """Alice asks for names; Bob takes whoever comes."""
    alice = net.host("alice", Rule("*", Assurance.ENCRYPTED, below))
    net.host("bob", ANYBODY)
    net.zone["bob.example"] = net.zone["www.example"] = ((BOB,), ())
    net.start()
    return alice


@pytest.mark.parametrize("outcome", [None, Outcome.INSECURE])
@pytest.mark.parametrize("below", [Action.BLOCK, Action.CLEAR])
def test_a_name_without_a_key(make_net: Any, below: Action, outcome: Outcome | None) -> None:
    """A signed denial, or a zone that nobody has signed: the program gets the address when it is protected."""
    net = make_net()
    alice = by_name(net, below)
    if outcome is not None:
        net.outcome["bob.example"] = outcome
    told = net.told(alice, "bob.example")
    assert (told.verdict, told.addresses) == (Verdict.ONLY, (BOB,))
    assert net.packet(alice, BOB) is Action.PROTECT
    assert alice.about("ike.established")[-1]["level"] == "encrypted"


def test_names_of_one_stranger(make_net: Any) -> None:
    """One host with many names, and no key for any: they share what protects it."""
    net = make_net()
    alice = by_name(net)
    for name in ("bob.example", "www.example", "bob.example"):
        told = net.told(alice, name)
        assert (told.verdict, told.addresses) == (Verdict.ONLY, (BOB,))
    assert len(alice.node.ike.sas) == 1


def test_a_name_with_a_key_does_not_share_with_a_stranger(make_net: Any) -> None:
    """Law 2: who has a key has to prove it, whoever is met at that address already."""
    net = make_net()
    alice = by_name(net)
    assert net.told(alice, "www.example").verdict is Verdict.ONLY
    net.zone["shop.example"] = ((BOB,), (KEY["other"].public,))
    assert net.told(alice, "shop.example").verdict is Verdict.REFUSE


@pytest.mark.parametrize("below", [Action.BLOCK, Action.CLEAR])
def test_an_error_is_not_a_name_without_a_key(make_net: Any, below: Action) -> None:
    """Law 3: it may have one, and whoever made the error be would have us meet him in its place."""
    net = make_net()
    alice = by_name(net, below)
    net.of_type["bob.example", IPSECKEY] = Outcome.ERROR
    assert net.told(alice, "bob.example").verdict is Verdict.REFUSE
    assert not alice.sad


@pytest.mark.parametrize("below", [Action.BLOCK, Action.CLEAR])
def test_a_name_where_nobody_answers(make_net: Any, below: Action) -> None:
    net = make_net()
    alice = by_name(net, below)
    net.zone["bob.example"] = ((EVE,), ())
    told = net.told(alice, "bob.example")
    assert told.verdict is (Verdict.REFUSE if below is Action.BLOCK else Verdict.PASS)


def test_an_alias_of_a_stranger(make_net: Any) -> None:
    net = make_net()
    alice = by_name(net)
    net.aliases["alias.example"] = "bob.example"
    told = net.told(alice, "alias.example")
    assert (told.verdict, told.addresses) == (Verdict.ONLY, (BOB,))
    assert {peer.name for peer in alice.node.peers if peer.policies} == {"bob.example"}


def test_who_proves_a_name_is_no_stranger_any_more(make_net: Any) -> None:
    """The same host, met by a name without a key, and then by one with it."""
    net = make_net()
    alice = by_name(net)
    net.told(alice, "www.example")
    assert net.packet(alice, BOB) is Action.PROTECT
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    assert net.told(alice, "bob.example").addresses == (BOB,)
    assert net.packet(alice, BOB) is Action.PROTECT
    assert alice.about("ike.established")[-1]["level"] == "named"


# --- the trust store ---


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("require", [Assurance.ENCRYPTED, Assurance.TRUSTED])
def test_a_key_of_the_trust_store(make_net: Any, require: Assurance, trusted: bool) -> None:
    """RFC 5386 s2: an entry for one key, wherever he is who has it; it comes before the wildcard."""
    net = make_net()
    store = TrustStore([Trusted(KEY["bob"].public.fingerprint, "bob's")] if trusted else [])
    alice = net.host("alice", Rule(ALL, require), trusted=store)
    bob = net.host("bob", ANYBODY)
    net.start()
    met = trusted or require is Assurance.ENCRYPTED
    assert net.fate(alice, BOB, patience=20) is (Action.PROTECT if met else Action.BLOCK)
    assert net.fate(bob, ALICE, patience=20) is (Action.PROTECT if met else Action.BLOCK)
    if met:
        assert alice.about("ike.established")[-1]["level"] == ("trusted" if trusted else "encrypted")
    else:
        assert "hushwire trust add SHA256:" in alice.about("ike.closed")[-1]["reason"]


def test_a_key_that_is_trusted_from_now_on(make_net: Any) -> None:
    """Who is here by it is raised: not a message is sent for that."""
    net = make_net()
    alice, _ = met(net, None, None)
    assert net.fate(alice, BOB) is Action.PROTECT
    (sa,) = alice.node.ike.sas
    alice.trusted = [Trusted(KEY["other"].public.fingerprint), Trusted(KEY["bob"].public.fingerprint, "bob's")]
    said = len(alice.said)
    reply = net.ask(alice, TrustChanged)
    assert (reply.ok, reply.text) == (True, "2 keys are trusted now")
    assert alice.node.ike.sas == [sa]
    assert sa.authenticated.assurance is Assurance.TRUSTED
    assert [notice["level"] for notice in alice.about("peer.raised")] == ["trusted"]
    assert not any(isinstance(effect, Send) for effect in alice.said[said:])
    assert alice.node._known.of(str(BOB)).level is Assurance.TRUSTED


@pytest.mark.parametrize("require", [Assurance.ENCRYPTED, Assurance.TRUSTED])
@pytest.mark.parametrize("read", [True, False])
def test_a_key_that_is_trusted_no_more(make_net: Any, require: Assurance, read: bool) -> None:
    """Who was let in by it is out at once; who may be anybody comes again, and is worth less.  The control: unread."""
    net = make_net()
    store = TrustStore([Trusted(KEY["bob"].public.fingerprint, "bob's")])
    alice = net.host("alice", Rule(ALL, require), trusted=store)
    net.host("bob", ANYBODY)
    net.start()
    assert net.fate(alice, BOB) is Action.PROTECT
    (before,) = alice.node.ike.sas
    alice.refuse = lambda effect: not read and isinstance(effect, ReadTrusted)
    assert net.ask(alice, TrustChanged).ok is read
    net.wait(1)
    assert (before not in alice.node.ike.sas) is read
    assert bool(alice.about("trust.withdrawn")) is read
    out = read and require is Assurance.TRUSTED
    assert net.fate(alice, BOB, patience=20) is (Action.BLOCK if out else Action.PROTECT)
    if read and not out:
        assert alice.about("ike.established")[-1]["level"] == "continuous"


# --- continuity ---


LEAP = Rule(ALL, Assurance.CONTINUOUS)


def again(net: Any, name: str, rule: Rule, key: str = "") -> Any:
    """A host that starts anew with what it remembered; with another `key`, it is somebody else at its address."""
    before = net.hosts.pop(name)
    host = net.host(name, rule, key=key)
    remembered = {}
    for effect in before.said if not key else ():
        match effect:
            case Remember(known):
                remembered[known.subject] = known
            case Forget(subject):
                remembered.pop(subject, None)
    net.step(host, Recalled(tuple(remembered.values()), True))
    net.step(host, AddressesChanged(host.addresses))
    net.run()
    return host


@pytest.mark.parametrize("rule", [ANYBODY, LEAP])
@pytest.mark.parametrize("memory", ["kept", "lost"])
@pytest.mark.parametrize("who", ["bob", "eve"])
def test_the_second_contact(make_net: Any, rule: Rule, memory: str, who: str) -> None:
    """RFC 5387 s5.7: an active attacker who was not there at first is refused, or told of; the control forgets."""
    net = make_net()
    alice, _ = met(net, rule, ANYBODY)
    assert net.fate(alice, BOB) is Action.PROTECT
    alice = again(net, "alice", rule)
    if memory == "lost":
        assert net.ask(alice, KnownForget, str(BOB)).ok
    again(net, "bob", ANYBODY, "" if who == "bob" else "eve")
    refused = who == "eve" and memory == "kept" and rule is LEAP
    assert net.fate(alice, BOB, patience=20) is (Action.BLOCK if refused else Action.PROTECT)
    assert bool(alice.about("known.changed")) is (who == "eve" and memory == "kept")
    if refused:
        assert "hushwire known pin 192.0.2.2 SHA256:" in alice.about("ike.closed")[0]["reason"]
    elif who == "bob" and memory == "kept":
        assert alice.about("ike.established")[0]["level"] == "continuous"


@pytest.mark.parametrize("pinned", ["bob", "eve"])
def test_a_pinned_key(make_net: Any, pinned: str) -> None:
    """Whatever the rule takes, and before anybody was met."""
    net = make_net()
    alice, _ = met(net, None, None)
    assert net.ask(alice, KnownPin, str(BOB), KEY[pinned].public.fingerprint).ok
    assert net.fate(alice, BOB, patience=20) is (Action.PROTECT if pinned == "bob" else Action.BLOCK)


def met_and_gone(net: Any, later: float = 0.0) -> Any:
    """Alice, started again `later`; Bob, whom she met protected and may meet in clear, is not there any more."""
    alice, _ = met(net, PERHAPS, PERHAPS)
    assert net.fate(alice, BOB) is Action.PROTECT
    net.hosts["bob"].addresses = ()
    net.now = Now(net.now.monotonic, net.now.wall + later)
    return again(net, "alice", PERHAPS)


@pytest.mark.parametrize("connects", [False, True])
@pytest.mark.parametrize("forgotten", [False, True])
def test_who_was_met_protected_is_not_met_in_clear_after_a_restart(
    make_net: Any, forgotten: bool, connects: bool
) -> None:
    """No level sinks silently, nor because an administrator seeks him and nobody answers; he may say otherwise."""
    net = make_net()
    alice = met_and_gone(net)
    if forgotten:
        assert net.ask(alice, KnownForget, str(BOB)).ok
    if connects:
        net.ask(alice, Connect, str(BOB))
    assert net.fate(alice, BOB, patience=60) is (Action.CLEAR if forgotten else Action.BLOCK)


def test_a_month_later_an_address_may_be_anybody_s(make_net: Any) -> None:
    net = make_net()
    alice = met_and_gone(net, HELD_FOR + 1)
    assert net.fate(alice, BOB, patience=60) is Action.CLEAR
    (told,) = alice.about("peer.clear")
    assert (told["was"], told["until"]) == ("encrypted", "2027-02-14")


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INSECURE])
@pytest.mark.parametrize("key", ["bob", "eve"])
def test_who_was_named_is_no_stranger_with_another_key(make_net: Any, outcome: Outcome, key: str) -> None:
    """A name whose key is gone from the DNS: its host is known by it, and nobody else is taken for him."""
    net = make_net()
    alice = by_name(net)
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    assert net.told(alice, "bob.example").addresses == (BOB,)
    alice = again(net, "alice", Rule("*", Assurance.ENCRYPTED))
    again(net, "bob", ANYBODY, "" if key == "bob" else "eve")
    net.zone["bob.example"] = ((BOB,), ())
    net.outcome["bob.example"] = outcome
    if outcome is Outcome.DENIED:
        del net.outcome["bob.example"]
    assert net.told(alice, "bob.example").verdict is (Verdict.ONLY if key == "bob" else Verdict.REFUSE)


# --- a stranger who is introduced ---


@pytest.mark.parametrize("by", ["address", "name"])
@pytest.mark.parametrize("key", ["bob", "other"])
def test_a_stranger_whose_key_is_published(make_net: Any, by: str, key: str) -> None:
    """The key that it proved is the one: nothing is made anew.  It is another: what it proved was worth nothing."""
    net = make_net()
    if by == "name":
        alice = by_name(net)
        net.told(alice, "bob.example")
        net.zone["bob.example"] = ((BOB,), (KEY[key].public,))
    else:
        alice, _ = met(net, None, None)
        net.fate(alice, BOB)
        net.zone[reverse_name(BOB)] = ((), (KEY[key].public,))
    (before,) = alice.node.ike.sas
    sad = dict(alice.sad)
    for _ in range(20):
        net.wait(5)
        net.packet(alice, BOB)
    if key == "bob":
        assert [sa.spi_i for sa in alice.node.ike.sas] == [before.spi_i]
        assert alice.sad == sad
        assert [notice["level"] for notice in alice.about("peer.raised")] == ["named"]
    else:
        assert net.packet(alice, BOB) is Action.BLOCK
        assert not alice.sad


@pytest.mark.parametrize("number", ["nobody's", "another's"])
def test_a_policy_of_an_earlier_run_brings_its_peer_back(make_net: Any, number: str) -> None:
    """Killed, hushwire leaves policies with numbers that no peer has any more, or another has by now."""
    net = make_net()
    alice, _ = met(net, None, None)
    net.host("eve", ANYBODY)
    assert net.fate(alice, BOB) is Action.PROTECT
    reqid = alice.node.peers.by_name(str(BOB)).reqid
    alice = again(net, "alice", ANYBODY, "alice")
    if number == "another's":
        net.packet(alice, EVE)
        assert alice.node.peers.by_reqid(reqid).name == str(EVE)
    net.step(alice, Acquire(Flow(ALICE, BOB, 0, 0, 0), reqid, 7))
    net.run()
    assert alice.node.peers.by_name(str(BOB)) is not None
    assert net.packet(alice, BOB) is Action.PROTECT
