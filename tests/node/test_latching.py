"""Connection latching (RFC 5660): whom a flow is with, and what becomes of it when somebody else is there."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from itertools import count
from typing import Any

import pytest

from hushwire.config import Addressing, Anonymous, Rule
from hushwire.events import (
    AddressesChanged,
    Began,
    CloseFlows,
    CountFlows,
    FlowsFound,
    Forget,
    InstallPolicy,
    InstallSA,
    KnownForget,
    Recalled,
    Rekey,
    Remember,
)
from hushwire.ike import create_child, negotiation
from hushwire.ike.negotiation import Wanted
from hushwire.ike.proposals import EspOffer
from hushwire.names.reverse import reverse_name
from hushwire.node.known import KnownPeers
from hushwire.node.latches import Latches, Quality
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import HELD_FOR
from hushwire.policy.sad import Mode
from hushwire.policy.selector import Flow
from hushwire.policy.spd import Action
from hushwire.timers import Now
from hushwire.wire.registry import EncrID, EsnID

from .conftest import ADDRESS, KEY, named

ALICE, BOB, EVE = ADDRESS["alice"], ADDRESS["bob"], ADDRESS["eve"]
ALL = ip_network("192.0.2.0/24")
ANYBODY = Rule(ALL, Assurance.ENCRYPTED)
PERHAPS = Rule(ALL, Assurance.ENCRYPTED, Action.CLEAR)
ANONYMOUS = replace(ANYBODY, anonymous=Anonymous.BOTH)
SSH = Flow(ALICE, BOB, 6, 50000, 22)
"""A connection of a program of Alice's."""


def met(net: Any, rule: Rule = ANYBODY) -> Any:
    """Alice has met Bob, and a program of hers has a connection with him."""
    alice, _ = net.host("alice", rule), net.host("bob", rule)
    net.start()
    assert net.fate(alice, BOB) is Action.PROTECT
    alice.flows.append(SSH)
    return alice


def anew(net: Any, name: str, rule: Rule, key: str = "", sealed: tuple[Any, ...] = (), ends: bool = True) -> Any:
    """A host that starts again and remembers; with another `key`, it is another host at the same address."""
    before = net.hosts.pop(name)
    host = net.host(name, rule, key=key)
    remembered = {}
    for effect in () if key else before.said:
        match effect:
            case Remember(known):
                remembered[known.subject] = known
            case Forget(subject):
                remembered.pop(subject, None)
    if not key:
        host.flows = before.flows
    net.step(host, Began(sealed, ends))
    net.step(host, Recalled(tuple(remembered.values()), True))
    net.step(host, AddressesChanged(host.addresses))
    net.run()
    return host


def closed_first(host: Any) -> bool:
    """Whether flows were closed before anything that could carry them was installed for whoever came after."""
    kinds = [type(effect) for effect in host.said]
    last = len(kinds) - 1 - kinds[::-1].index(CloseFlows)
    sas = [number for number, kind in enumerate(kinds) if kind is InstallSA]
    # Both directions of what is there now come after it.
    return len([number for number in sas if number > last]) == 2


def test_whom_flows_are_with_is_known_from_the_first_contact(make_net: Any) -> None:
    """What was begun before, in clear or held, goes on: it is raised."""
    net = make_net()
    alice, bob = net.host("alice", PERHAPS), net.host("bob", PERHAPS)
    bob.addresses = ()
    net.start()
    assert net.fate(alice, BOB) is Action.CLEAR
    alice.flows.append(SSH)
    bob.addresses = (BOB,)
    net.step(bob, AddressesChanged(bob.addresses))
    assert net.fate(bob, ALICE) is Action.PROTECT
    assert net.fate(alice, BOB, patience=130) is Action.PROTECT
    assert alice.flows == [SSH]


def rekey(net: Any, alice: Any) -> None:
    assert net.ask(alice, Rekey, str(BOB), False).ok


def rekey_ike(net: Any, alice: Any) -> None:
    assert net.ask(alice, Rekey, str(BOB), True).ok


def restart_of_the_peer(net: Any, alice: Any) -> None:
    net.fate(anew(net, "bob", ANYBODY), ALICE, patience=60)


@pytest.mark.parametrize("what", [rekey, rekey_ike, restart_of_the_peer])
def test_a_flow_goes_on_with_the_same_party(make_net: Any, what: Callable[[Any, Any], None]) -> None:
    """RFC 5660 s2: over whatever SAs."""
    net = make_net()
    alice = met(net)
    before = [sa.spi_i for sa in alice.node.ike.sas], [*alice.sad]
    what(net, alice)
    net.wait(1)
    assert ([sa.spi_i for sa in alice.node.ike.sas], [*alice.sad]) != before
    assert net.packet(alice, BOB) is Action.PROTECT
    assert alice.flows == [SSH]


@pytest.mark.parametrize("guard", [True, False])
def test_a_flow_does_not_go_on_with_another_stranger(
    make_net: Any, guard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 5660 s2: a conflict breaks it, before the other could get a packet of it, and that is told."""
    if not guard:
        monkeypatch.setattr(Latches, "proved", lambda *_: None)
    net = make_net()
    alice = met(net)
    eve = anew(net, "bob", ANYBODY, "eve")
    assert net.fate(eve, ALICE, patience=120) is Action.PROTECT
    assert net.packet(alice, BOB) is Action.PROTECT
    assert alice.flows == ([] if guard else [SSH])
    if guard:
        assert closed_first(alice)
        (told,) = alice.about("latch.broken")
        assert (told["at"], told["flows"]) == (str(BOB), 1)
        assert str(told["was"]) != str(told["is"])
        assert "SHA256:" in told["was"]


def test_a_flow_with_another_host_goes_on(make_net: Any) -> None:
    net = make_net()
    alice = met(net)
    other = Flow(ALICE, EVE, 6, 50001, 22)
    alice.flows.append(other)
    assert net.fate(anew(net, "bob", ANYBODY, "eve"), ALICE, patience=120) is Action.PROTECT
    assert alice.flows == [other]


def test_a_stranger_who_is_raised_keeps_his_flows(make_net: Any) -> None:
    """And has a name from then on, whose key may change."""
    net = make_net()
    alice = met(net)
    net.zone[reverse_name(BOB)] = ((), (KEY["bob"].public,))
    for _ in range(20):
        net.wait(5)
        net.packet(alice, BOB)
    assert alice.about("peer.raised")
    net.zone[reverse_name(BOB)] = ((), (KEY["eve"].public,))
    assert net.fate(anew(net, "bob", ANYBODY, "eve"), ALICE, patience=300) is Action.PROTECT
    assert alice.flows == [SSH]


@pytest.mark.parametrize("key", ["bob", "eve"])
def test_who_proves_a_name_after_a_stranger(make_net: Any, key: str) -> None:
    """Flows with the stranger are his alone: they go on only if that is who he was."""
    net = make_net()
    net.zone["bob.example"] = net.zone["www.example"] = ((BOB,), ())
    alice = net.host("alice", Rule("*", Assurance.ENCRYPTED))
    net.host("bob", ANYBODY)
    net.start()
    net.told(alice, "www.example")
    assert net.packet(alice, BOB) is Action.PROTECT
    alice.flows.append(SSH)
    if key == "eve":
        anew(net, "bob", ANYBODY, "eve")
    net.zone["bob.example"] = ((BOB,), (KEY[key].public,))
    for _ in range(20):
        net.told(alice, "bob.example")
        net.wait(10)
    assert alice.about("ike.established")[-1]["level"] == "named"
    assert alice.flows == ([SSH] if key == "bob" else [])


def test_a_name_whose_key_is_rotated_keeps_its_flows(make_net: Any) -> None:
    """Of who is known by name the key may change: the DNS says so."""
    net = make_net()
    alice, _ = net.host("alice", named("bob")), net.host("bob", named("alice"))
    net.start()
    assert net.fate(alice, BOB) is Action.PROTECT
    alice.flows.append(SSH)
    net.zone["bob.example"] = ((BOB,), (KEY["eve"].public,))
    net.wait(70)
    assert net.fate(anew(net, "bob", named("alice"), "eve"), ALICE, patience=120) is Action.PROTECT
    assert alice.flows == [SSH]


@pytest.mark.parametrize("what", [rekey, rekey_ike])
def test_an_anonymous_peer_is_the_same_only_within_its_ike_sa(make_net: Any, what: Callable[[Any, Any], None]) -> None:
    """RFC 7619 s2.1: of two that say they are nobody, none can show to be the other."""
    net = make_net()
    alice = met(net, ANONYMOUS)
    what(net, alice)
    net.wait(1)
    assert alice.flows == [SSH]
    assert net.fate(anew(net, "bob", ANONYMOUS), ALICE, patience=120) is Action.PROTECT
    assert alice.flows == []


# --- quality of protection ---


AES_128 = (EspOffer(((EncrID.AES_GCM_16, 128),), (), (EsnID.ESN,)),)


@pytest.mark.parametrize("begins", ["alice", "bob"])
@pytest.mark.parametrize("guard", ["both", "responder", "out"])
def test_a_rekey_makes_nothing_weaker(make_net: Any, begins: str, guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 5660 s2: to go on with shorter keys is not proposed, and refused; what there was stays."""
    net = make_net()
    alice = met(net)
    assert {sa.suite.key_bits for sa in alice.sad.values()} == {256}
    with_less(net.hosts[begins])
    if guard != "both":
        monkeypatch.setattr(create_child, "Wanted", lambda *wanted, **_: Wanted(*wanted))
    if guard == "out":
        monkeypatch.setattr(negotiation, "not_below", lambda offers, _: offers)
        for host in net.hosts.values():
            with_less(host)
    before = [*alice.sad]
    net.ask(net.hosts[begins], Rekey, str(BOB if begins == "alice" else ALICE), False)
    net.wait(1)
    assert ([*alice.sad] == before) is (guard != "out")
    # Where it comes to that all the same, they are ended.
    assert alice.flows == ([] if guard == "out" else [SSH])


@pytest.mark.parametrize("weaker", [True, False])
def test_a_flow_does_not_go_on_with_shorter_keys(make_net: Any, weaker: bool) -> None:
    """Of the same party, which has other settings after a restart."""
    net = make_net()
    alice = met(net)
    bob = anew(net, "bob", ANYBODY)
    if weaker:
        with_less(bob)
    assert net.fate(bob, ALICE, patience=120) is Action.PROTECT
    assert (128 in {sa.suite.key_bits for sa in alice.sad.values()}) is weaker
    assert alice.flows == ([] if weaker else [SSH])
    assert [notice["is"] for notice in alice.about("latch.broken")] == (
        ["transport mode, keys of 128 bits"] if weaker else []
    )


def with_less(host: Any) -> None:
    """From now on it proposes, and takes, shorter keys only."""
    shared = host.node.ike._host
    shared.settings = replace(shared.settings, esp_offers=AES_128)


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        (Quality(Mode.TRANSPORT, 128), Quality(Mode.TRANSPORT, 128), True),
        (Quality(Mode.TRANSPORT, 128), Quality(Mode.TRANSPORT, 256), True),
        (Quality(Mode.TRANSPORT, 256), Quality(Mode.TRANSPORT, 128), False),
        (Quality(Mode.TRANSPORT, 256), Quality(Mode.TUNNEL, 256), False),
        (Quality(Mode.TUNNEL, 256), Quality(Mode.TRANSPORT, 256), False),
    ],
)
def test_what_keeps_the_quality(before: Quality, after: Quality, kept: bool) -> None:
    assert before.is_kept_by(after) is kept


# --- down to clear ---


@pytest.mark.parametrize("guard", [True, False])
def test_what_was_protected_does_not_go_on_in_clear(
    make_net: Any, guard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only an administrator can bring that about; no flow that is there follows him."""
    if not guard:
        monkeypatch.setattr(Latches, "loosened", lambda *_: None)
    net = make_net()
    alice = met(net, PERHAPS)
    net.hosts["bob"].addresses = ()
    alice = anew(net, "alice", PERHAPS, sealed=(BOB,))
    assert net.ask(alice, KnownForget, str(BOB)).ok
    assert net.fate(alice, BOB, patience=60) is Action.CLEAR
    assert alice.flows == ([] if guard else [SSH])
    if guard:
        assert [notice["is"] for notice in alice.about("latch.broken")] == ["clear"]
        kinds = [type(effect) for effect in alice.said]
        clear = [
            number for number, effect in enumerate(alice.said)
            if isinstance(effect, InstallPolicy) and effect.policy.action is Action.CLEAR
        ]  # fmt: skip
        assert kinds.index(CloseFlows) < min(clear)


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("who", ["bob", "eve"])
def test_what_begins_in_clear_when_protection_has_ended_is_raised(make_net: Any, restart: bool, who: str) -> None:
    """It has nothing to do with who was there, nor with how they were protected."""
    net = make_net()
    alice = met(net, PERHAPS)
    alice.flows.clear()
    net.hosts["bob"].addresses = ()
    if restart:
        alice = anew(net, "alice", PERHAPS, sealed=(BOB,))
    else:
        net.wait(3 * 3700)
    assert net.ask(alice, KnownForget, str(BOB)).ok
    assert net.fate(alice, BOB, patience=60) is Action.CLEAR
    alice.flows.append(SSH)
    other = anew(net, "bob", PERHAPS, "" if who == "bob" else "eve")
    with_less(other)
    assert net.fate(other, ALICE, patience=120) is Action.PROTECT
    assert alice.flows == [SSH]
    # And of what was not there nothing is said.
    assert not alice.about("latch.broken")


# --- a restart ---


@pytest.mark.parametrize("who", ["bob", "eve"])
@pytest.mark.parametrize("sealed", [(BOB,), ()], ids=["what it had is seen", "what it had is not seen"])
@pytest.mark.parametrize("memory", ["kept", "lost"])
def test_a_restart_restores_or_closes(make_net: Any, who: str, sealed: tuple[Any, ...], memory: str) -> None:
    """Who was there is remembered.  Of whom nothing is, flows go on only where an earlier run had none of its own."""
    net = make_net()
    met(net)
    alice = anew(net, "alice", ANYBODY, sealed=sealed)
    if memory == "lost":
        assert net.ask(alice, KnownForget, str(BOB)).ok
    anew(net, "bob", ANYBODY, "" if who == "bob" else "eve")
    assert net.fate(alice, BOB, patience=60) is Action.PROTECT
    closed = (who == "eve") if memory == "kept" else bool(sealed)
    assert alice.flows == ([] if closed else [SSH])


def test_flows_in_clear_with_who_was_met_long_ago_are_raised(make_net: Any) -> None:
    """A month later somebody else may have the address, with whom they were begun."""
    net = make_net()
    met(net, PERHAPS)
    bob = net.hosts["bob"]
    bob.addresses = ()
    net.now = Now(net.now.monotonic, net.now.wall + HELD_FOR + 1)
    alice = anew(net, "alice", PERHAPS)
    assert net.fate(alice, BOB, patience=60) is Action.CLEAR
    eve = anew(net, "bob", PERHAPS, "eve")
    assert net.fate(eve, ALICE, patience=60) is Action.PROTECT
    assert alice.flows == [SSH]


def test_a_restart_closes_what_was_with_nobody(make_net: Any) -> None:
    """Nothing is remembered of who is anonymous."""
    net = make_net()
    met(net, ANONYMOUS)
    alice = anew(net, "alice", ANONYMOUS, sealed=(BOB,))
    assert net.fate(alice, BOB, patience=120) is Action.PROTECT
    assert alice.flows == []


def test_a_restart_keeps_flows_with_who_is_in_the_configuration(make_net: Any) -> None:
    net = make_net()
    alice, _ = net.host("alice", named("bob")), net.host("bob", named("alice"))
    net.start()
    assert net.fate(alice, BOB) is Action.PROTECT
    alice.flows.append(SSH)
    alice = anew(net, "alice", named("bob"), sealed=(BOB,))
    assert net.fate(alice, BOB, patience=60) is Action.PROTECT
    assert alice.flows == [SSH]


@pytest.mark.parametrize("was", ["named", "a stranger"])
def test_a_restart_knows_a_name_from_a_stranger_at_it(make_net: Any, was: str) -> None:
    """Of a name whose key the DNS had, another key is the same party; of one that had none, a stranger was there."""
    net, rule = make_net(), Rule("*", Assurance.ENCRYPTED)
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,) if was == "named" else ())
    alice = net.host("alice", rule)
    net.host("bob", ANYBODY)
    net.start()
    net.told(alice, "bob.example")
    assert net.packet(alice, BOB) is Action.PROTECT
    alice.flows.append(SSH)
    alice = anew(net, "alice", rule, sealed=(BOB,))
    net.zone["bob.example"] = ((BOB,), (KEY["eve"].public,))
    anew(net, "bob", ANYBODY, "eve")
    net.told(alice, "bob.example")
    assert net.fate(alice, BOB, patience=60) is Action.PROTECT
    assert alice.about("ike.established")[-1]["level"] == "named"
    assert alice.flows == ([SSH] if was == "named" else [])


@pytest.mark.parametrize("key", ["bob", "eve"])
def test_a_restart_knows_a_stranger_from_a_name_at_his_address(make_net: Any, key: str) -> None:
    """Flows were with him by his address; who proves a name there is another, unless it is his key."""
    net, rule = make_net(), Rule("*", Assurance.ENCRYPTED)
    met(net)
    alice = anew(net, "alice", rule, sealed=(BOB,))
    net.zone["bob.example"] = ((BOB,), (KEY[key].public,))
    anew(net, "bob", ANYBODY, "" if key == "bob" else "eve")
    net.told(alice, "bob.example")
    assert net.fate(alice, BOB, patience=60) is Action.PROTECT
    assert alice.about("ike.established")[-1]["level"] == "named"
    assert alice.flows == ([SSH] if key == "bob" else [])


def test_flows_of_an_earlier_run_are_with_who_is_remembered_however_long_ago(make_net: Any) -> None:
    """They were protected until just now, though he was last counted a month ago."""
    net = make_net()
    met(net)
    net.now = Now(net.now.monotonic, net.now.wall + HELD_FOR + 1)
    alice = anew(net, "alice", ANYBODY, sealed=(BOB,))
    assert net.fate(alice, BOB, patience=60) is Action.PROTECT
    assert alice.flows == [SSH]


# --- where flows cannot be ended ---


def test_what_could_not_be_ended_is_not_said_to_have_been() -> None:
    said: list[Any] = []
    latches, place = Latches(KnownPeers(said.append), count(1).__next__, said.append), ip_network("192.0.2.2/32")
    latches.found([BOB])
    latches.loosened(place)
    assert said == [CloseFlows(1, (place,))]
    latches.refused(1)
    latches.closed(FlowsFound(1, 3))
    assert len(said) == 1


@pytest.mark.parametrize("ends", [True, False])
def test_where_the_kernel_ends_no_flows_no_stranger_may_change(make_net: Any, ends: bool) -> None:
    """What cannot be broken must not come to be needed."""
    net = make_net()
    met(net)
    alice = anew(net, "alice", ANYBODY, sealed=(BOB,), ends=ends)
    anew(net, "bob", ANYBODY, "eve")
    assert net.fate(alice, BOB, patience=60) is (Action.PROTECT if ends else Action.BLOCK)
    assert bool(alice.about("known.changed"))


# --- for the life of a flow ---


@pytest.mark.parametrize("flows", [True, False])
def test_what_protects_a_flow_stays_while_it_pauses(make_net: Any, flows: bool) -> None:
    """However long: a connection that says nothing for a day is still one."""
    net = make_net()
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    alice = net.host("alice", Rule("*.example"))
    net.host("bob", named("alice"))
    net.start()
    net.told(alice, "bob.example")
    assert net.packet(alice, BOB) is Action.PROTECT
    alice.flows += [SSH] if flows else []
    net.wait(3 * 3700)
    assert (alice.node.peers.by_name("bob.example") is not None) is flows
    assert bool(alice.sad) is flows
    assert any(isinstance(effect, CountFlows) for effect in alice.said)
    if flows:
        assert net.packet(alice, BOB) is Action.PROTECT
        alice.flows.clear()
        net.wait(3 * 3700)
        assert alice.node.peers.by_name("bob.example") is None


def test_two_names_of_one_host_are_not_in_each_other_s_way(make_net: Any) -> None:
    """Each has an address of its own, and flows of its own."""
    net = make_net()
    for name in ("bob.example", "www.example"):
        net.zone[name] = ((BOB,), (KEY["bob"].public,))
    rule = Rule("*.example", addressing=Addressing.SYNTHETIC)
    alice = net.host("alice", rule)
    net.host("bob", named("alice"))
    net.start()
    (made,) = net.told(alice, "bob.example").addresses
    flow = replace(SSH, remote=made)
    alice.flows.append(flow)
    net.told(alice, "www.example")
    net.wait(5)
    assert alice.flows == [flow]
