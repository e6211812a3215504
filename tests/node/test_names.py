"""A Node and its names: who is let in, whose an address is, and what the DNS may loosen (DESIGN.md laws 1 to 3)."""

from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.config import Rule
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import (
    Acquire,
    AddressesChanged,
    Connect,
    Outcome,
    Status,
)  # fmt: skip
from hushwire.ike import auth, proof
from hushwire.names import binding
from hushwire.names.tlsa import TLSA
from hushwire.node.peer import ACQUIRE_LIFE, LEAVING, MOST_ADDRESSES, Peer
from hushwire.node.policies import Policies
from hushwire.node.scope import REQID_BASE
from hushwire.policy.selector import Flow
from hushwire.policy.spd import Action
from hushwire.timers import Now
from hushwire.wire.registry import CertEncoding

ADDRESS = {
    name: ip_address(text) for name, text in [("alice", "192.0.2.1"), ("bob", "192.0.2.2"), ("eve", "192.0.2.66")]
}
MOVED = ip_address("192.0.2.200")
KEY = {name: PrivateKey.from_seed(Secret(name.encode().ljust(32))) for name in (*ADDRESS, "other")}


def named(name: str, **more: Any) -> Rule:
    return Rule(f"{name}.example", **more)


# --- P2: who is not let in ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_the_right_name_with_the_wrong_key(make_net: Any, guard: str, monkeypatch: Any) -> None:
    net = make_net()
    net.zone["bob.example"] = ((ADDRESS["bob"],), (KEY["bob"].public,))
    net.host("alice", named("bob"))
    net.host("bob", named("alice"), key="other")
    net.start()
    if guard == "out":
        monkeypatch.setattr(Peer, "keys_at", lambda *_: (KEY["other"].public, KEY["alice"].public))
    alice = net.hosts["alice"]
    net.packet(alice, ADDRESS["bob"])
    assert (net.packet(alice, ADDRESS["bob"]) is Action.PROTECT) is (guard == "out")
    assert ("peer.failed" in alice.kinds()) is (guard == "in")


@pytest.mark.parametrize("guard", ["in", "out"])
def test_the_right_key_from_an_address_that_is_not_the_names(net: Any, guard: str, monkeypatch: Any) -> None:
    """Law 2, at the responder: Alice comes from where her name does not point."""
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    alice.addresses = (MOVED,)
    net.step(alice, AddressesChanged(alice.addresses))
    if guard == "out":
        monkeypatch.setattr(Peer, "keys_at", lambda *_: (KEY["alice"].public, KEY["bob"].public))
        monkeypatch.setattr(Peer, "addresses", property(lambda peer: (MOVED, ADDRESS["bob"])))
    net.packet(alice, ADDRESS["bob"])
    assert bool(bob.sad) is (guard == "out")
    assert ("ike.established" in bob.kinds()) is (guard == "out")


def test_a_stranger_is_told_nothing_and_no_question_is_asked_for_him(net: Any) -> None:
    bob = net.hosts["bob"]
    asked = bob.questions
    eve = net.host("eve", named("bob"))
    net.start()
    net.packet(eve, ADDRESS["bob"])
    assert not bob.sad
    assert not eve.sad
    assert bob.questions == asked


def test_whoever_speaks_for_a_name_that_has_moved_waits_until_it_was_looked_up(net: Any) -> None:
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.wait(10)
    alice.addresses = (MOVED,)
    net.zone["alice.example"] = ((MOVED,), (KEY["alice"].public,))
    net.step(alice, AddressesChanged(alice.addresses))
    net.silent.add("alice.example")
    net.packet(alice, ADDRESS["bob"])
    assert not bob.sad
    net.wait(2)
    for host, question in net.late:
        net.step(host, net.answer(question))
    net.run()
    assert bob.sad
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_a_parked_authorization_ends_when_the_resolver_does_not_answer(net: Any) -> None:
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.wait(10)
    alice.addresses = (MOVED,)
    net.step(alice, AddressesChanged(alice.addresses))
    net.silent.add("alice.example")
    net.packet(alice, ADDRESS["bob"])
    assert bob.node._parked
    # Alice seeks him again, for as long as her packet may be waiting.
    net.wait(ACQUIRE_LIFE + 60)
    assert not bob.node._parked
    assert not bob.sad


# --- known by a fingerprint alone ---


@pytest.fixture
def vouched(make_net: Any, monkeypatch: Any) -> Any:
    """Alice and Bob, of whose key the zone has a digest (TLSA 3 1 1) and no more; and the forms of the keys that were
    sent."""

    def make(key: str, begins: str, outcome: Outcome = Outcome.SECURE) -> tuple[Any, list[CertEncoding]]:
        read, forms = auth.public_key_from_cert, []
        monkeypatch.setattr(auth, "public_key_from_cert", lambda form, data: forms.append(form) or read(form, data))
        net = make_net()
        net.zone["bob.example"] = ((ADDRESS["bob"],), ())
        net.vouched["bob.example"] = (KEY[key].public,)
        net.of_type["bob.example", TLSA] = outcome
        net.host("alice", named("bob"))
        net.host("bob", named("alice"))
        net.start()
        net.fate(net.hosts[begins], ADDRESS["alice" if begins == "bob" else "bob"], 3)
        return net, forms

    return make


@pytest.mark.parametrize("begins", ["alice", "bob"])
def test_a_key_that_is_known_by_its_digest_is_sent_and_proves_its_owner(vouched: Any, begins: str) -> None:
    """RFC 7670: the key itself comes in CERT 15."""
    net, forms = vouched("bob", begins)
    alice = net.hosts["alice"]
    assert alice.node.peers.by_name("bob.example").keys_at(ADDRESS["bob"]) == ()
    assert forms == [CertEncoding.RAW_PUBLIC_KEY] * 2
    assert [notice["level"] for notice in alice.about("ike.established")] == ["named"]
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    net.wait(net.ttl + 20)
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


@pytest.mark.parametrize("begins", ["alice", "bob"])
@pytest.mark.parametrize("guard", ["in", "out"])
def test_the_digest_of_another_key(vouched: Any, begins: str, guard: str, monkeypatch: Any) -> None:
    if guard == "out":
        # It is compared twice: when the peer proves itself, and when it is to stand.
        monkeypatch.setattr(proof, "_candidates", lambda entry, sent: [sent])
        monkeypatch.setattr(Peer, "knows", lambda *_: True)
    net, forms = vouched("other", begins)
    alice = net.hosts["alice"]
    assert CertEncoding.RAW_PUBLIC_KEY in forms
    assert (net.packet(alice, ADDRESS["bob"]) is Action.PROTECT) is (guard == "out")
    assert bool(alice.sad) is (guard == "out")
    refusals = {failure["reason"].partition(":")[0] for failure in net.hosts[begins].about("peer.failed")}
    assert refusals == ({"AUTHENTICATION_FAILED"} if guard == "in" else set())


@pytest.mark.parametrize("begins", ["alice", "bob"])
@pytest.mark.parametrize("sends", [True, False])
def test_a_digest_is_of_no_use_without_the_key(vouched: Any, begins: str, sends: bool, monkeypatch: Any) -> None:
    if not sends:
        monkeypatch.setattr(auth, "_certificates", lambda *_: [])
    net, forms = vouched("bob", begins)
    assert bool(forms) is sends
    assert (net.packet(net.hosts["alice"], ADDRESS["bob"]) is Action.PROTECT) is sends


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_digest_that_nobody_has_signed(vouched: Any, guard: str, monkeypatch: Any) -> None:
    if guard == "out":
        monkeypatch.setattr(binding, "_signed", lambda answer: answer.rdata)
    net, _ = vouched("bob", "bob", Outcome.INSECURE)
    assert bool(net.hosts["alice"].sad) is (guard == "out")


# --- law 2: two names at one address ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_name_that_points_at_anothers_address_gets_no_policy_there(
    make_net: Any, guard: str, monkeypatch: Any
) -> None:
    """ATTACKS rows 36 and 37: eve.example, well signed, has Bob's address and Eve's key."""
    net = make_net()
    alice = net.host("alice", named("bob"), named("eve"))
    net.host("bob", named("alice"))
    net.zone["eve.example"] = ((ADDRESS["bob"],), (KEY["eve"].public,))
    if guard == "out":
        monkeypatch.setattr(Policies, "_may_have", lambda *_: True)
    net.start()
    reqids = {policy.reqid for policy in alice.policies(ADDRESS["bob"])}
    bob = next(peer for peer in alice.node.peers if peer.name == "bob.example")
    assert (reqids == {bob.reqid}) is (guard == "in")
    assert ("name.contested" in alice.kinds()) is (guard == "in")
    if guard == "in":
        net.packet(alice, ADDRESS["bob"])
        assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_a_name_that_was_first_and_that_nobody_answers_for_gives_way(make_net: Any) -> None:
    """ATTACKS row 37: the black hole lasts one attempt."""
    net = make_net()
    alice = net.host("alice", named("eve"), named("bob"))
    net.host("bob", named("alice"))
    net.zone["eve.example"] = ((ADDRESS["bob"],), (KEY["eve"].public,))
    net.start()
    for _ in range(4):
        if net.packet(alice, ADDRESS["bob"]) is Action.PROTECT:
            break
        net.wait(60)
    bob = next(peer for peer in alice.node.peers if peer.name == "bob.example")
    assert {policy.reqid for policy in alice.policies(ADDRESS["bob"])} == {bob.reqid}
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_a_name_that_answered_is_not_displaced(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", named("bob"))
    net.host("bob", named("alice"))
    net.start()
    net.packet(alice, ADDRESS["bob"])
    net.zone["eve.example"] = ((ADDRESS["bob"],), (KEY["eve"].public,))
    reply = net.ask(alice, Connect, "eve.example")
    net.wait(120)
    assert reply is None or not reply.ok
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


# --- what changes in the DNS ---


def test_a_new_key_ends_the_old_sa_at_once(net: Any) -> None:
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.packet(alice, ADDRESS["bob"])
    old = set(alice.sad)
    bob.key = KEY["other"]
    net.zone["bob.example"] = ((ADDRESS["bob"],), (KEY["other"].public,))
    net.wait(net.ttl + 5)
    assert "name.changed" in alice.kinds()
    assert not old & set(alice.sad)
    assert {policy.action for policy in alice.policies(ADDRESS["bob"])} == {Action.PROTECT}


def test_a_new_address_ends_the_old_sa_and_the_old_policies_stay(net: Any) -> None:
    """P1: what went to the old address goes nowhere, rather than in clear."""
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.packet(alice, ADDRESS["bob"])
    bob.addresses = (MOVED,)
    net.step(bob, AddressesChanged(bob.addresses))
    net.zone["bob.example"] = ((MOVED,), (KEY["bob"].public,))
    net.wait(net.ttl + 40)
    assert not [sa for sa in alice.sad.values() if ADDRESS["bob"] in (sa.source, sa.destination)]
    assert {policy.action for policy in alice.policies(ADDRESS["bob"])} == {Action.PROTECT}
    assert net.packet(alice, ADDRESS["bob"]) is Action.BLOCK
    net.packet(alice, MOVED)
    assert net.packet(alice, MOVED) is Action.PROTECT


@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INSECURE, Outcome.ERROR])
@pytest.mark.parametrize("below", [Action.BLOCK, Action.CLEAR])
def test_whatever_the_dns_says_the_level_that_was_reached_does_not_sink(
    two: Any, outcome: Outcome, below: Action
) -> None:
    """Law 3, and DESIGN.md section 4."""
    net = two({"below": below})
    alice = net.hosts["alice"]
    net.packet(alice, ADDRESS["bob"])
    net.wait(5)
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    net.outcome["bob.example"] = outcome
    net.wait(net.ttl + 600)
    assert "name.unbound" in alice.kinds()
    assert not alice.sad
    assert net.packet(alice, ADDRESS["bob"]) is Action.BLOCK
    # And what comes back is taken up again.
    del net.outcome["bob.example"]
    net.wait(600)
    net.packet(alice, ADDRESS["bob"])
    net.wait(70)
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_an_error_changes_nothing_while_the_last_answer_is_good(net: Any) -> None:
    alice = net.hosts["alice"]
    net.packet(alice, ADDRESS["bob"])
    net.outcome["bob.example"] = Outcome.ERROR
    net.wait(net.ttl + 5)
    assert "name.unbound" not in alice.kinds()
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_a_key_taken_back_during_the_handshake(net: Any) -> None:
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    policy = alice.policies(ADDRESS["bob"])[0]
    net.step(alice, Acquire(Flow(ADDRESS["alice"], ADDRESS["bob"], 0), policy.reqid, 1))
    net.zone["bob.example"] = ((ADDRESS["bob"],), (KEY["other"].public,))
    net.now = Now(net.now.monotonic + net.ttl + 2, net.now.wall)
    alice.node._asking.look_up(next(iter(alice.node.peers)), net.now)
    net.step(alice, Status(1))
    net.run()
    net.wait(1)
    assert not alice.sad
    assert not bob.sad


def test_a_packet_that_came_before_the_name_was_looked_up(make_net: Any) -> None:
    """Policies that an earlier run left trap it; a kernel tells of it once in half a minute."""
    net = make_net()
    net.silent = {"bob.example"}
    alice, _ = net.host("alice", named("bob")), net.host("bob", named("alice"))
    net.start()
    for _ in range(100):
        net.step(alice, Acquire(Flow(ADDRESS["alice"], ADDRESS["bob"], 0), REQID_BASE + 1, 1))
    assert not alice.sad
    net.silent = set()
    for host, question in net.late:
        net.step(host, net.answer(question))
    net.run()
    assert len(alice.sad) == 2


@pytest.mark.parametrize("below", [Action.BLOCK, Action.CLEAR])
def test_a_name_that_moves_without_end_does_not_fill_the_spd(two: Any, below: Action) -> None:
    net = two({"below": below})
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    places = [ADDRESS["bob"], *(ip_address("198.51.100.0") + n for n in range(100))]
    for place in places[1:]:
        bob.addresses = (place,)
        net.step(bob, AddressesChanged(bob.addresses))
        net.zone["bob.example"] = (bob.addresses, (KEY["bob"].public,))
        net.wait(net.ttl + 40)
    protected = [place for place in places if alice.policies(place)]
    if below is Action.CLEAR:
        assert protected == places[-1:]
    else:
        assert protected == places[:MOST_ADDRESSES]
        assert {policy.action for policy in alice.spd.values()} == {Action.PROTECT}
        crowded = alice.about("name.crowded")
        assert [notice["left out"] for notice in crowded] == [str(place) for place in places[MOST_ADDRESSES:]]
        # Nobody is believed to be the peer there either: what it sent us would be answered in clear.
        assert not alice.node.ike.sas
        net.zone["bob.example"] = ((places[7],), (KEY["bob"].public,))
        bob.addresses = (places[7],)
        net.step(bob, AddressesChanged(bob.addresses))
        net.wait(net.ttl + 40)
        net.packet(alice, places[7])
        assert net.packet(alice, places[7]) is Action.PROTECT


# --- below = clear ---


def test_below_clear_nothing_is_trapped_and_protection_is_sought(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", named("bob", below=Action.CLEAR))
    net.zone["bob.example"] = ((ADDRESS["bob"],), (KEY["bob"].public,))
    net.start()
    assert net.packet(alice, ADDRESS["bob"]) is Action.CLEAR
    assert alice.node.ike.sas
    net.host("bob", named("alice", below=Action.CLEAR))
    net.start()
    net.wait(120)
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT


def test_what_was_once_reached_does_not_sink_silently(two: Any) -> None:
    net = two({"below": Action.CLEAR})
    alice = net.hosts["alice"]
    net.wait(5)
    assert net.packet(alice, ADDRESS["bob"]) is Action.PROTECT
    net.lost = lambda host, send: True
    net.wait(300)
    assert not alice.sad
    assert net.packet(alice, ADDRESS["bob"]) is Action.BLOCK


@pytest.mark.parametrize("key", ["stays", "goes"])
def test_what_is_under_way_to_an_address_that_a_name_leaves_gets_time_to_end(net: Any, key: str) -> None:
    """The key is still the name's, so nobody else can have it there.  A key that was taken back ends it at once."""
    alice = net.hosts["alice"]
    policy = alice.policies(ADDRESS["bob"])[0]
    net.step(alice, Acquire(Flow(ADDRESS["alice"], ADDRESS["bob"], 0), policy.reqid, 1))
    net.run()
    assert len(alice.sad) == 2
    net.zone["bob.example"] = ((MOVED,), (KEY["bob" if key == "stays" else "other"].public,))
    net.wait(net.ttl + 2)
    assert len(alice.sad) == (2 if key == "stays" else 0)
    net.wait(LEAVING)
    assert not alice.sad
    assert alice.policies(ADDRESS["bob"])


def test_a_packet_is_not_forgotten_where_an_attempt_fails_while_the_peer_stands_elsewhere(make_net: Any) -> None:
    """Bob has learned one of Alice's addresses only, when she speaks to him from both."""
    net = make_net()
    six = {"alice": ip_address("2001:db8::1"), "bob": ip_address("2001:db8::2")}
    alice, bob = net.host("alice", named("bob")), net.host("bob", named("alice"))
    for name, host in (("alice", alice), ("bob", bob)):
        host.addresses = (ADDRESS[name], six[name])
        net.zone[f"{name}.example"] = (host.addresses, (KEY[name].public,))
    net.zone["alice.example"] = ((ADDRESS["alice"],), (KEY["alice"].public,))
    net.start()
    net.packet(alice, ADDRESS["bob"])
    policy = alice.policies(six["bob"])[0]
    net.step(alice, Acquire(Flow(six["alice"], six["bob"], 0), policy.reqid, 2))
    net.run()
    assert {sa.destination for sa in alice.sad.values()} == {ADDRESS["alice"], ADDRESS["bob"]}
    net.zone["alice.example"] = (alice.addresses, (KEY["alice"].public,))
    net.wait(20)
    assert six["bob"] in {sa.destination for sa in alice.sad.values()}
