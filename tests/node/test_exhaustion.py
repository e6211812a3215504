"""What a stranger can make us hold, and how fast (ATTACKS row 55): each bound, and what he would have without it."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from hushwire.config import Anonymous, Rule
from hushwire.daemon.guard import MOST_SAS
from hushwire.events import AddressesChanged, Send, Timeout
from hushwire.ike import allowance, create_child
from hushwire.ike.negotiation import Wanted
from hushwire.ike.state import State
from hushwire.names.allow import Pace
from hushwire.node import claims
from hushwire.node.peers import MOST_BORN
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity
from hushwire.policy.spd import Action
from hushwire.wire.registry import ExchangeType

from .conftest import ADDRESS

ALICE, EVE = ADDRESS["alice"], ADDRESS["eve"]
ALL = ip_network("192.0.2.0/24")
SIGNED = Rule(ALL, Assurance.ENCRYPTED)
ANONYMOUS = replace(SIGNED, anonymous=Anonymous.BOTH)
WHO = pytest.mark.parametrize("rule", [SIGNED, ANONYMOUS], ids=["a key", "anonymous"])
GUARD = pytest.mark.parametrize("guard", ["in", "out"])


async def nothing(*_: Any) -> None:
    """What she does in place of deleting what she has had replaced."""


@pytest.fixture
def met(make_net: Any) -> Callable[[Rule], tuple[Any, Any, Any]]:
    """Alice, and Eve, who is a stranger and has one IKE SA with one Child SA."""

    def meet(rule: Rule) -> tuple[Any, Any, Any]:
        net = make_net()
        alice, eve = net.host("alice", rule), net.host("eve", rule)
        net.start()
        assert net.fate(eve, ALICE) is Action.PROTECT
        # Of hers one is enough for herself; she wants all that she can have of Alice's.
        eve.node.ike._settle = lambda: None
        act(net, eve)
        return net, alice, eve

    return meet


def newest(host: Any) -> Any:
    """Her IKE SA in which things are asked for."""
    (sa,) = [sa for sa in host.node.ike.sas if sa.state is State.ESTABLISHED]
    return sa


def act(net: Any, host: Any) -> None:
    """What was asked of her Endpoint goes its way."""
    net.step(host, Timeout())
    net.run()


def begin(net: Any, host: Any) -> None:
    """One more IKE SA with Alice."""
    entry = host.node.peers.of_address(ALICE).entry(ALICE, host.addresses)
    host.node.ike.initiate(entry, host.addresses[0], ALICE, Wanted(entry.selectors, entry.mode), net.now)
    act(net, host)


def goes_on(net: Any, alice: Any, eve: Any) -> None:
    """What she had she has, and nobody is in her way."""
    assert net.packet(eve, ALICE) is net.packet(alice, EVE) is Action.PROTECT


# --- Child SAs ---


@GUARD
@WHO
def test_child_sas(met: Any, rule: Rule, guard: str, monkeypatch: Any) -> None:
    """RFC 7296 s1.3: NO_ADDITIONAL_SAS.  Of whom an administrator named, see tests/ike/test_create_child.py."""
    if guard == "out":
        monkeypatch.setattr(allowance, "PER_SELECTOR", 1 << 20)
    net, alice, eve = met(rule)
    (child,) = newest(eve).children.values()
    for _ in range(20):
        eve.node.ike.create_child(newest(eve), Wanted((child.selector,), child.mode), net.now)
        act(net, eve)
    assert len(newest(alice).children) == (allowance.PER_SELECTOR if guard == "in" else 21)
    assert len(alice.sad) == 2 * len(newest(alice).children)
    goes_on(net, alice, eve)


@GUARD
@WHO
def test_child_sas_that_were_replaced(met: Any, rule: Rule, guard: str, monkeypatch: Any) -> None:
    """She has one replaced, and that one again, and deletes none."""
    if guard == "out":
        monkeypatch.setattr(allowance, "PER_SELECTOR", 1 << 20)
    monkeypatch.setattr(create_child, "delete_child", nothing)
    net, alice, eve = met(rule)
    for _ in range(20):
        *_, last = newest(eve).children.values()
        newest(eve).children.rekey(last)
        act(net, eve)
    assert len(newest(alice).children) == (allowance.PER_SELECTOR if guard == "in" else 21)
    goes_on(net, alice, eve)


# --- rekeys ---


@GUARD
@pytest.mark.parametrize("ike", [False, True], ids=["Child SAs", "IKE SAs"])
@WHO
def test_rekeys_without_a_pause(met: Any, rule: Rule, ike: bool, guard: str, monkeypatch: Any) -> None:
    """Each costs us a key exchange.  TEMPORARY_FAILURE, until time has passed; another IKE SA is no way around it."""
    monkeypatch.setattr(allowance, "REKEYS", 10.0)
    if guard == "out":
        monkeypatch.setattr(allowance.Pace, "count", lambda *_: None)
    net, alice, eve = met(rule)
    kind = "ike.rekeyed" if ike else "child.up"
    before = len(alice.about(kind))
    for _ in range(20):
        eve.node.ike.rekey(newest(eve), net.now, ike=ike)
        act(net, eve)
    assert len(alice.about(kind)) - before == (10 if guard == "in" else 20)
    goes_on(net, alice, eve)
    net.wait(8.0)
    eve.node.ike.rekey(newest(eve), net.now, ike=not ike)
    act(net, eve)
    assert len(alice.about("child.up" if ike else "ike.rekeyed")) > 0
    goes_on(net, alice, eve)


def test_all_of_many_child_sas_at_once(net: Any) -> None:
    """Who is named, and has as many as he may, can have all of them replaced."""
    alice, bob = net.hosts.values()
    assert net.fate(bob, ALICE) is Action.PROTECT
    (child,) = newest(bob).children.values()
    for _ in range(allowance.MOST_CHILDREN - 2):
        bob.node.ike.create_child(newest(bob), Wanted((child.selector,), child.mode), net.now)
        act(net, bob)
    standing = set(newest(alice).children)
    bob.node.ike.rekey(newest(bob), net.now, ike=False)
    act(net, bob)
    assert len(newest(alice).children) == len(standing) == allowance.MOST_CHILDREN - 1
    assert not standing & set(newest(alice).children)
    assert "ike.rekey-failed" not in bob.kinds()


# --- IKE SAs ---


@GUARD
@pytest.mark.parametrize("children", [True, False], ids=["with Child SAs", "without"])
def test_ike_sas_with_the_same_key(met: Any, children: bool, guard: str, monkeypatch: Any) -> None:
    """She never says INITIAL_CONTACT, and deletes none: for each that is too many her oldest goes."""
    net, alice, eve = met(SIGNED)
    first = newest(eve)
    if guard == "out":
        monkeypatch.setattr(allowance, "MOST_IKE_SAS", 1 << 20)
        monkeypatch.setattr(allowance, "PER_SELECTOR", 1 << 20)
    if not children:
        # RFC 6023: she asks for none.
        monkeypatch.setattr("hushwire.ike.auth.request_payloads", lambda *_, **__: [])
    for _ in range(20):
        begin(net, eve)
    # Child SAs are counted over all of them.
    most = allowance.PER_SELECTOR if children else allowance.MOST_IKE_SAS
    assert len(alice.node.ike.sas) == (most if guard == "in" else 21)
    assert len(alice.sad) == 2 * sum(len(sa.children) for sa in alice.node.ike.sas)
    spis = {sa.spi_i for sa in alice.node.ike.sas}
    assert (first.spi_i in spis) is (guard == "out")
    assert [sa for sa in eve.node.ike.sas if sa.state is State.ESTABLISHED][-1].spi_i in spis
    assert net.packet(alice, EVE) is Action.PROTECT or not children


@GUARD
def test_ike_sas_without_a_pause(met: Any, guard: str, monkeypatch: Any) -> None:
    """One in the place of her oldest is as one that is rekeyed: it has the pace of the others."""
    monkeypatch.setattr(allowance, "REKEYS", 10.0)
    if guard == "out":
        monkeypatch.setattr(allowance.Pace, "count", lambda *_: None)
    net, alice, eve = met(SIGNED)
    for _ in range(30):
        begin(net, eve)
    # She has asked for four at first, and for the others in the place of one of these.
    assert len(alice.about("child.up")) == (4 + 10 if guard == "in" else 31)
    net.wait(1.0)
    begin(net, eve)
    assert len(alice.about("child.up")) == (15 if guard == "in" else 32)


def test_who_forgets_many_times_comes_back(met: Any) -> None:
    """Many restarts in a row, without a word, and each time she is there at once: her oldest IKE SAs make room."""
    net, alice, eve = met(SIGNED)
    for _ in range(2 * allowance.MOST_IKE_SAS):
        eve = net.host("eve", SIGNED)
        net.step(eve, AddressesChanged(eve.addresses))
        net.run()
        # The first packet asks for SAs.
        net.packet(eve, ALICE)
        goes_on(net, alice, eve)
    assert len(alice.node.ike.sas) <= allowance.PER_SELECTOR
    net.wait(60.0)
    assert len(alice.node.ike.sas) == 1


def test_who_forgets_and_has_no_key_comes_back(met: Any) -> None:
    """Whoever is anonymous may be another: the one who was there is asked whether he lives."""
    net, alice, eve = met(ANONYMOUS)
    eve = net.host("eve", ANONYMOUS)
    net.step(eve, AddressesChanged(eve.addresses))
    net.run()
    assert net.packet(eve, ALICE) is not Action.PROTECT
    assert net.fate(eve, ALICE, patience=60) is Action.PROTECT
    assert len(alice.node.ike.sas) == 1


@GUARD
def test_anonymous_ike_sas(met: Any, guard: str, monkeypatch: Any) -> None:
    """One for each pair of addresses (RFC 7619 s2.5); without the guard as many as with a key."""
    if guard == "out":
        monkeypatch.setattr("hushwire.ike.auth._keep_apart", lambda *_: None)
    net, alice, eve = met(ANONYMOUS)
    for _ in range(20):
        begin(net, eve)
    assert len(alice.node.ike.sas) == (1 if guard == "in" else allowance.MOST_IKE_SAS)
    goes_on(net, alice, eve)


@GUARD
@WHO
def test_ike_sas_that_were_replaced(met: Any, rule: Rule, guard: str, monkeypatch: Any) -> None:
    """She has her IKE SA replaced, and that one again, and deletes none: they stay for 23.5 s each."""
    monkeypatch.setattr("hushwire.ike.rekey_ike.delete_ike", nothing)
    if guard == "out":
        monkeypatch.setattr(allowance, "MOST_IKE_SAS", 1 << 20)
    net, alice, eve = met(rule)
    for _ in range(20):
        newest(eve).rekey()
        act(net, eve)
    assert len(alice.node.ike.sas) == (allowance.MOST_IKE_SAS if guard == "in" else 21)
    goes_on(net, alice, eve)
    net.wait(25.0)
    assert len(alice.node.ike.sas) < allowance.MOST_IKE_SAS


# --- identities and addresses ---


@GUARD
def test_addresses_of_one_network(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """New strangers of a /24, or of an IPv6 /64 that one host may have to himself: so many in an hour."""
    monkeypatch.setattr(claims, "NEIGHBOURS", 3)
    if guard == "out":
        monkeypatch.setattr(Pace, "admits", lambda *_: True)
    net = make_net()
    alice, eve = net.host("alice", SIGNED), net.host("eve", SIGNED)
    net.start()
    eve.addresses = tuple(EVE + number for number in range(10))
    net.step(eve, AddressesChanged(eve.addresses))
    for address in eve.addresses:
        net.packet(eve, ALICE, local=address)
    assert len({sa.remote.address for sa in alice.node.ike.sas}) == (3 if guard == "in" else 10)
    assert len([peer for peer in alice.node.peers if peer.born]) == (3 if guard == "in" else 10)


@GUARD
def test_strangers_in_all(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """4,096 stand at once.  One more is refused, and nobody is in the way of those who stand."""
    monkeypatch.setattr(Pace, "admits", lambda *_: True)
    monkeypatch.setattr("hushwire.node.peers.MOST_BORN", 2 if guard == "in" else 4096)
    net = make_net()
    alice, *others = [net.host(name, SIGNED) for name in ("alice", "bob", "carol", "eve")]
    net.start()
    fates = [net.fate(other, ALICE, patience=5) for other in others]
    assert fates == [Action.PROTECT, Action.PROTECT, Action.BLOCK if guard == "in" else Action.PROTECT]
    for other in others[:2]:
        assert net.packet(other, ALICE) is net.packet(alice, other.addresses[0]) is Action.PROTECT


def test_all_strangers_leave_room_for_others() -> None:
    """Of the SAs that the guard lets a host have: else nobody who was introduced would get any more."""
    assert MOST_BORN * allowance.PER_SELECTOR * 2 <= MOST_SAS // 2


def test_what_a_stranger_says_he_is_is_kept_nowhere(make_net: Any) -> None:
    """A thousand names at one address are one stranger, and one line of what is remembered."""
    net = make_net()
    alice = net.host("alice", SIGNED)
    net.start()
    for number in range(30):
        said = Identity.fqdn(f"n{number}.evil.test")
        eve = net.host("eve", replace(SIGNED, own_identity=said))
        net.step(eve, AddressesChanged(eve.addresses))
        net.run()
        assert net.fate(eve, ALICE, patience=60) is Action.PROTECT
    assert [peer.name for peer in alice.node.peers if peer.born] == [str(EVE)]
    assert len(alice.node.ike.sas) <= allowance.MOST_IKE_SAS
    assert "evil.test" not in str(alice.notices)


# --- liveness ---


@GUARD
@WHO
def test_questions_whether_somebody_lives(make_net: Any, rule: Rule, guard: str, monkeypatch: Any) -> None:
    """Another who claims his address has us ask him; however often, it is once in a second."""
    if guard == "out":
        monkeypatch.setattr("hushwire.ike.sa.DOUBT", 0.0)
    net = make_net()
    alice, bob = net.host("alice", rule), net.host("bob", rule)
    net.start()
    assert net.fate(bob, ALICE) is Action.PROTECT
    net.wait(1.5)
    (first,) = alice.node.ike.sas
    asked = first.window.next_id
    eve = net.host("eve", rule)
    eve.addresses = bob.addresses
    net.step(eve, AddressesChanged(eve.addresses))
    net.run()
    net.packet(eve, ALICE)
    for _ in range(20):
        begin(net, eve)
    assert alice.node.ike.sas == [first]
    assert first.window.next_id - asked == (1 if guard == "in" else 21)


def test_he_asks_whether_we_live(met: Any) -> None:
    """An answer to each question, no longer than it, and nothing is kept.  No guard, and so no control."""
    net, alice, eve = met(ANONYMOUS)
    before = len(alice.said), len(eve.said)
    for _ in range(50):
        newest(eve).start(lambda: eve.node.ike._host.exchanges.liveness(newest(eve)))
        act(net, eve)
    answers, questions = (
        [effect.data for effect in host.said[since:] if isinstance(effect, Send)]
        for host, since in zip((alice, eve), before, strict=True)
    )
    assert len(answers) == len(questions) == 50
    assert {data[18] for data in answers} == {ExchangeType.INFORMATIONAL}
    assert max(map(len, answers)) <= min(map(len, questions))
    assert len(alice.node.ike.sas) == 1
    assert not alice.node.ike._host.waiting
