"""The application's question at a Node (RFC 5387 s3.2, RFC 5660 s2.3): the answer is what its packets meet."""

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.config import Addressing, Anonymous, Group, Rule, Start
from hushwire.crypto.channel_binding import channel_binding
from hushwire.events import KnownForget, KnownPin, Recalled, Rekey, Timeout, Whois
from hushwire.ike.negotiation import Wanted
from hushwire.ike.proposals import EspOffer
from hushwire.names.reverse import reverse_name
from hushwire.node.base import base_policies
from hushwire.node.known import APART
from hushwire.node.policies import Policies
from hushwire.node.telling import level
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import Known
from hushwire.policy.pad import fingerprint_text
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Flow
from hushwire.policy.spd import Action
from hushwire.policy.trust import Trusted, TrustStore
from hushwire.timers import Now
from hushwire.wire.registry import EncrID, EsnID

from .conftest import ADDRESS, KEY, named

ALICE, BOB, EVE = ADDRESS["alice"], ADDRESS["bob"], ADDRESS["eve"]
ALL = ip_network("192.0.2.0/24")
TCP = 6
ANYBODY = Rule(ALL, Assurance.ENCRYPTED, Action.BLOCK)
PERHAPS = Rule(ALL, Assurance.ENCRYPTED, Action.CLEAR)
AES_128 = (EspOffer(((EncrID.AES_GCM_16, 128),), (), (EsnID.ESN,)),)
BINDING = channel_binding(KEY["alice"].public, KEY["bob"].public).hex()


def strangers(make_net: Any, rule: Rule = ANYBODY, **more: Any) -> Any:
    net = make_net()
    net.host("alice", rule, **more)
    net.host("bob", rule)
    net.start()
    return net


def flow(remote: Any = BOB, port: int = 25, local: Any = ALICE) -> Flow:
    return Flow(local, remote, TCP, 40_000, port)


def ask(net: Any, name: str, about: Flow, *require: Any) -> tuple[Any, dict[str, Any]]:
    """The Reply and what is in it, which is never more than its packets meet."""
    host = net.hosts[name]
    reply = net.ask(host, Whois, about, *require)
    assert reply is not None
    told = json.loads(reply.body)
    assert told["level"] in fate(host, about)
    return reply, told


def fate(host: Any, about: Flow) -> set[str | None]:
    """What its plane does with packets of a flow, as levels: nothing that is told may be better."""
    if about.remote in host.addresses or about.remote.is_loopback:
        return {"clear"}
    out = [
        policy for policy in (*host.spd.values(), *base_policies(host.node._config))
        if policy.direction is Direction.OUT and policy.selector.matches(about)
    ]  # fmt: skip
    # What is made up for a name has a way of its own, past the block of all such addresses.
    policy = min(out, key=lambda policy: (policy.real is None, policy.priority), default=None)
    if policy is None or policy.action is Action.CLEAR:
        return {"clear"}
    real = replace(about, remote=policy.real or about.remote)
    carried = policy.action is Action.PROTECT and any(
        sa.direction is Direction.OUT and sa.reqid == policy.reqid and sa.selector.matches(real)
        for sa in host.sad.values()
    )
    return {str(level) for level in Assurance if level > Assurance.CLEAR} if carried else {None}


def wait_for(net: Any, name: str, about: Flow, require: Assurance, patience: float = 10.0) -> Any:
    """The Reply to who requires more than there may be, and the seconds until it came."""
    host = net.hosts[name]
    reply, began = net.ask(host, Whois, about, require, patience), net.now.monotonic
    number = net.requests
    for _ in range(int(patience * 10) + 1):
        if reply is not None:
            break
        net.wait(0.1)
        reply = host.replies.get(number)
    return reply, net.now.monotonic - began


# --- What is told -----------------------------------------------------------------------------------------------------


def test_who_has_a_name(net: Any) -> None:
    assert net.fate(net.hosts["alice"], BOB) is Action.PROTECT
    net.wait(5)
    reply, told = ask(net, "alice", flow())
    assert reply.ok
    assert reply.text == "named: DNSSEC says that the key is of bob.example"
    assert told | {"ike_suite": "", "esp_suite": "", "established": 0} == {
        "level": "named", "how": "DNSSEC says that the key is of bob.example", "peer": "bob.example",
        "identity": "bob.example", "key": fingerprint_text(KEY["bob"].public.fingerprint), "since": None, "met": 0,
        "established": 0, "ike_suite": "", "esp_suite": "", "mode": "transport", "binding": BINDING,
    }  # fmt: skip
    assert told["established"] >= 5
    assert "AES_GCM" in told["esp_suite"]
    assert "CURVE25519" in told["ike_suite"]


def test_who_has_a_name_that_another_leads_to(make_net: Any) -> None:
    """The key is of the host that the alias means (RFC 1034 s3.6.2)."""
    net = make_net()
    net.host("alice", Rule("www.example"))
    net.host("bob", named("alice"))
    net.aliases["www.example"] = "bob.example"
    net.start()
    assert net.fate(net.hosts["alice"], BOB) is Action.PROTECT
    _, told = ask(net, "alice", flow())
    assert (told["peer"], told["how"]) == ("www.example", "DNSSEC says that the key is of bob.example")


def test_a_stranger_and_the_same_stranger_again(make_net: Any) -> None:
    net = strangers(make_net)
    alice = net.hosts["alice"]
    assert net.fate(alice, BOB) is Action.PROTECT
    met = net.now.wall
    _, told = ask(net, "alice", flow())
    assert (told["level"], told["met"]) == ("encrypted", 1)
    assert told["identity"] == told["key"] == fingerprint_text(KEY["bob"].public.fingerprint)
    assert told["how"].startswith("first contact")
    assert abs(told["since"] - met) < 10
    net.wait(3600)
    for sa in list(alice.node.ike.sas):
        alice.node.ike.delete(sa, net.now)
    net.wait(5)
    assert net.fate(alice, BOB) is Action.PROTECT
    _, told = ask(net, "alice", flow())
    assert (told["level"], told["met"]) == ("continuous", 2)
    assert told["how"].startswith("the same key since 2027-01-15, met 2 times")
    # Flows of the same peer that began when nothing was known of it are with the same party.
    assert told["binding"] == BINDING


def test_who_is_trusted(make_net: Any) -> None:
    store = TrustStore([Trusted(KEY["bob"].public.fingerprint, "the other office")])
    net = strangers(make_net, trusted=store)
    assert net.fate(net.hosts["alice"], BOB) is Action.PROTECT
    _, told = ask(net, "alice", flow())
    assert (told["level"], told["how"]) == ("trusted", "its key is in the trust store as the other office")
    # At the other end nothing is known of who trusts.
    _, told = ask(net, "bob", flow(ALICE, local=BOB))
    assert told["level"] == "encrypted"


def test_who_is_pinned_in_the_configuration(make_net: Any) -> None:
    net = make_net()
    net.host("alice", Rule("bob.example", Assurance.TRUSTED, key="bob.pem", address=BOB),
             pinned={"bob.example": KEY["bob"].public})  # fmt: skip
    net.host("bob", named("alice"))
    net.start()
    assert net.fate(net.hosts["alice"], BOB) is Action.PROTECT
    _, told = ask(net, "alice", flow())
    assert (told["level"], told["how"]) == ("trusted", "an administrator has configured its key")


def test_who_is_pinned_by_command(make_net: Any) -> None:
    net = strangers(make_net)
    alice = net.hosts["alice"]
    assert net.ask(alice, KnownPin, str(BOB), KEY["bob"].public.fingerprint).ok
    assert net.fate(alice, BOB) is Action.PROTECT
    _, told = ask(net, "alice", flow())
    assert (told["level"], told["how"]) == ("continuous", "an administrator has pinned its key")
    # Pinned anew, it was not met since.
    assert net.ask(alice, KnownForget, str(BOB)).ok
    assert net.ask(alice, KnownPin, str(BOB), KEY["bob"].public.fingerprint).ok
    _, told = ask(net, "alice", flow())
    assert (told["since"], told["met"]) == (None, 0)


def test_who_shares_a_key_has_no_binding(make_net: Any) -> None:
    net = make_net()
    for name, other in (("alice", "bob"), ("bob", "alice")):
        rule = Rule(f"{other}.example", Assurance.TRUSTED, psk="file", address=ADDRESS[other])
        net.host(name, rule, shared={f"{other}.example": b"shared"})
    net.start()
    assert net.fate(net.hosts["alice"], BOB) is Action.PROTECT
    _, told = ask(net, "alice", flow())
    assert (told["level"], told["key"], told["binding"]) == ("trusted", None, None)
    assert told["how"] == "it has the key that an administrator shares with it"


def test_nobody_has_no_binding(make_net: Any) -> None:
    """RFC 7619: of who stays anonymous, and towards whom we do, there is nothing to bind to."""
    net = strangers(make_net, Rule(ALL, Assurance.ENCRYPTED, Action.BLOCK, anonymous=Anonymous.BOTH))
    assert net.fate(net.hosts["alice"], BOB) is Action.PROTECT
    for name, other in (("alice", BOB), ("bob", ALICE)):
        _, told = ask(net, name, flow(other, local=ADDRESS[name]))
        assert (told["level"], told["identity"], told["key"], told["binding"]) == ("encrypted", "anonymous", None, None)
        assert "anonymous" in told["how"]


def test_what_no_rule_speaks_of_is_clear(net: Any) -> None:
    reply, told = ask(net, "alice", flow(EVE))
    assert reply.ok
    assert (told["level"], told["peer"], told["how"]) == ("clear", None, f"no policy speaks of {EVE}")


@pytest.mark.parametrize("remote", [ALICE, ip_address("127.0.0.1"), ip_address("::1")])
def test_what_stays_on_the_host_is_clear(make_net: Any, remote: Any) -> None:
    net = strangers(make_net)
    _, told = ask(net, "alice", flow(remote))
    assert (told["level"], told["how"]) == ("clear", "it does not leave this host")


def test_before_anything_is_proved_nothing_stands(make_net: Any) -> None:
    net = strangers(make_net)
    _, told = ask(net, "alice", flow())
    assert told["level"] is None
    assert (told["peer"], told["how"]) == (str(ALL), "nothing is proved yet")


def test_who_is_not_there_and_may_be_met_in_clear(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", PERHAPS)
    net.start()
    assert net.fate(alice, BOB, patience=60) is Action.CLEAR
    _, told = ask(net, "alice", flow())
    assert (told["level"], told["peer"]) == ("clear", str(BOB))


def test_what_is_blocked(make_net: Any) -> None:
    net = make_net()
    net.host("alice", Rule(ip_network("192.0.2.2/32"), group=Group.BLOCK))
    net.start()
    reply, told = ask(net, "alice", flow(), Assurance.ENCRYPTED, 5.0)
    assert (reply.ok, told["level"]) == (False, None)
    assert "a rule blocks it" in reply.text


def test_what_its_policy_blocks_no_sa_carries(make_net: Any) -> None:
    net = strangers(make_net)
    alice = net.hosts["alice"]
    assert net.fate(alice, BOB) is Action.PROTECT
    peer = alice.node.peers.of_address(BOB)
    for held in (peer.policies, alice.spd):
        for key in [key for key in held if BOB in key[0].remote]:
            held[key] = replace(held[key], action=Action.BLOCK)
    assert ask(net, "alice", flow())[1]["level"] is None


def test_a_port_that_a_rule_lets_go_in_clear_is_clear(make_net: Any) -> None:
    """Though the same peer's other packets are protected: the rule's policy comes before the peer's."""
    net = make_net()
    alice = net.host(
        "alice", Rule(ip_network("192.0.2.2/32"), Assurance.ENCRYPTED, Action.BLOCK),
        Rule(ip_network("192.0.2.2/32"), Assurance.CLEAR, protocol=TCP, remote_port=25),
    )  # fmt: skip
    net.host("bob", ANYBODY)
    net.start()
    # What nobody could change is not sought.
    reply, _ = ask(net, "alice", flow(port=25), Assurance.ENCRYPTED, 5.0)
    assert (reply.ok, alice.node.ike.sas) == (False, [])
    assert net.fate(alice, BOB) is Action.PROTECT
    _, other = ask(net, "alice", flow(port=80))
    reply, told = ask(net, "alice", flow(port=25), Assurance.ENCRYPTED, 5.0)
    assert (reply.ok, told["level"], told["how"]) == (False, "clear", "the configuration lets it go in clear")
    assert other["level"] == "encrypted"


def test_each_port_has_its_own_sa(make_net: Any) -> None:
    """That another port's packets are sealed for the same peer is nothing to a flow."""
    net = make_net()
    ports = [Rule("bob.example", protocol=TCP, remote_port=port) for port in (25, 80)]
    net.host("alice", *ports)
    net.host("bob", named("alice"))
    net.start()
    net.packet(net.hosts["alice"], BOB, TCP, 25)
    net.wait(2)
    assert ask(net, "alice", flow(port=25))[1]["level"] == "named"
    assert ask(net, "alice", flow(port=80))[1]["level"] is None
    reply, _ = wait_for(net, "alice", flow(port=80), Assurance.NAMED)
    assert reply.ok, reply.text


def begin_another(net: Any, host: Any, remote: Any) -> None:
    """One more IKE SA, with a Child SA for the same; of those there are the host lets none go."""
    entry = host.node.peers.of_address(remote).entry(remote, host.addresses)
    host.node.ike._settle = lambda: None
    host.node.ike.initiate(entry, host.addresses[0], remote, Wanted(entry.selectors, entry.mode), net.now)
    net.step(host, Timeout())


def test_of_two_that_may_carry_a_flow_the_one_that_proves_less_counts(make_net: Any) -> None:
    """Whichever the plane takes: more is told when the other is gone."""
    net = strangers(make_net)
    alice = net.hosts["alice"]
    assert net.fate(alice, BOB) is Action.PROTECT
    (first,) = alice.node.ike.sas
    net.now = Now(net.now.monotonic + 1, net.now.wall + APART)
    begin_another(net, alice, BOB)
    # While more may come of it, who requires more waits.
    net.step(alice, Whois(1, flow(), Assurance.CONTINUOUS, 5.0))
    assert 1 not in alice.replies
    net.run()
    _, second = alice.node.ike.sas
    assert (level(first), level(second)) == (Assurance.ENCRYPTED, Assurance.CONTINUOUS)
    assert not alice.replies[1].ok
    reply, told = ask(net, "alice", flow(), Assurance.CONTINUOUS)
    assert not reply.ok
    assert (told["level"], told["how"]) == ("encrypted", "a stranger with this key since 2027-01-15")
    alice.node.ike.delete(first, net.now)
    net.step(alice, Timeout())
    net.run()
    reply, told = ask(net, "alice", flow(), Assurance.CONTINUOUS)
    assert (reply.ok, told["level"], told["met"]) == (True, "continuous", 2)


def test_of_several_in_one_the_newest_is_told_of(make_net: Any) -> None:
    """It is what a plane takes."""
    net = strangers(make_net)
    alice = net.hosts["alice"]
    assert net.fate(alice, BOB) is Action.PROTECT
    (sa,) = alice.node.ike.sas
    (old,) = sa.children.values()
    net.wait(1)
    shared = alice.node.ike._host
    shared.settings = replace(shared.settings, esp_offers=AES_128)
    alice.node.ike.create_child(sa, Wanted((old.selector,), old.mode), net.now)
    net.step(alice, Timeout())
    net.run()
    assert len(sa.children) == 2
    assert "GCM_16-128" in ask(net, "alice", flow())[1]["esp_suite"]


def test_what_is_remembered_of_another_key_is_not_told(net: Any) -> None:
    alice = net.hosts["alice"]
    before = Known("bob.example", KEY["other"].public.fingerprint, 1e9, 1e9, 3, Assurance.NAMED)
    net.step(alice, Recalled((before,), True))
    assert net.fate(alice, BOB) is Action.PROTECT
    _, told = ask(net, "alice", flow())
    assert (told["level"], told["since"], told["met"]) == ("named", None, 0)


def test_a_synthetic_address_belongs_to_its_name(make_net: Any) -> None:
    net = make_net()
    net.host("alice", Rule("*.example", group=Group.PRIVATE, addressing=Addressing.SYNTHETIC))
    net.host("bob", named("alice"))
    net.start()
    (made,) = net.told(net.hosts["alice"], "bob.example").addresses
    _, told = ask(net, "alice", flow(made))
    assert (told["level"], told["peer"], told["binding"]) == ("named", "bob.example", BINDING)
    _, real = ask(net, "alice", flow(BOB))
    assert real["peer"] is None


# --- Channel bindings -------------------------------------------------------------------------------------------------


def test_both_ends_have_one_binding_over_rekeys_and_new_sas(make_net: Any) -> None:
    net = strangers(make_net)
    alice = net.hosts["alice"]
    assert net.fate(alice, BOB) is Action.PROTECT

    def bindings() -> set[str]:
        ends = ("alice", flow()), ("bob", flow(ALICE, local=BOB))
        return {ask(net, name, about)[1]["binding"] for name, about in ends}

    assert bindings() == {BINDING}
    for ike in (False, True):
        assert net.ask(alice, Rekey, str(BOB), ike).ok
        net.wait(5)
        assert bindings() == {BINDING}
    for sa in list(alice.node.ike.sas):
        alice.node.ike.delete(sa, net.now)
    net.wait(5)
    assert net.fate(alice, BOB) is Action.PROTECT
    assert bindings() == {BINDING}


def test_who_is_between_has_another_binding_with_each(make_net: Any) -> None:
    """RFC 5387 s5.3: at first contact he is taken for both; what tells them is that their bindings differ."""
    found = {}
    for name, other in (("alice", BOB), ("bob", ALICE)):
        net = make_net()
        victim, mallory = net.host(name, ANYBODY), net.host("eve", ANYBODY)
        mallory.addresses = (other,)
        net.start()
        assert net.fate(victim, other) is Action.PROTECT
        _, told = ask(net, name, flow(other, local=ADDRESS[name]))
        assert told["level"] == "encrypted"
        found[name] = told["binding"]
    assert found["alice"] != found["bob"]
    assert BINDING not in found.values()


# --- What is required -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [ANYBODY, PERHAPS])
def test_required_before_the_first_packet(make_net: Any, rule: Rule) -> None:
    net = strangers(make_net, rule)
    alice = net.hosts["alice"]
    assert not alice.sad
    reply, _ = wait_for(net, "alice", flow(), Assurance.ENCRYPTED)
    assert reply.ok, reply.text
    assert json.loads(reply.body)["binding"] == BINDING
    assert net.packet(alice, BOB, TCP, 25) is Action.PROTECT
    # And then at once.
    assert ask(net, "alice", flow(), Assurance.ENCRYPTED)[0].ok


def test_required_of_a_name_that_is_in_clear_until_it_is_reached(make_net: Any) -> None:
    """No policy speaks of it before."""
    net = make_net()
    net.host("alice", named("bob", below=Action.CLEAR, start=Start.WAIT))
    net.host("bob", named("alice"))
    net.start()
    _, told = ask(net, "alice", flow())
    assert told["level"] == "clear"
    reply, _ = wait_for(net, "alice", flow(), Assurance.NAMED)
    assert reply.ok, reply.text
    assert net.packet(net.hosts["alice"], BOB, TCP, 25) is Action.PROTECT


def test_required_when_it_is_in_clear_already(make_net: Any) -> None:
    """Its peer was not there at first, and is now: the flow is raised, and the answer waits for the policy."""
    net = make_net()
    alice, _ = net.host("alice", PERHAPS), net.host("bob", PERHAPS)
    net.start()
    net.lost = lambda host, send: True
    assert net.fate(alice, BOB, patience=60) is Action.CLEAR
    net.lost = lambda host, send: False
    reply, _ = wait_for(net, "alice", flow(), Assurance.ENCRYPTED, 60.0)
    assert reply.ok, reply.text
    assert net.packet(alice, BOB, TCP, 25) is Action.PROTECT


def test_the_answer_waits_for_the_policy(make_net: Any) -> None:
    """Until the plane has confirmed it, a packet may go as before."""
    net = strangers(make_net, PERHAPS)
    alice = net.hosts["alice"]
    alice.slow = True
    reply, _ = wait_for(net, "alice", flow(), Assurance.ENCRYPTED, 2.0)
    assert alice.unconfirmed
    assert not reply.ok
    number = net.requests + 1
    assert net.ask(alice, Whois, flow(), Assurance.ENCRYPTED, 20.0) is None
    net.confirm(alice)
    net.wait(1)
    net.confirm(alice)
    assert alice.replies[number].ok


def test_control_of_that(make_net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it a program is told that all is well while the plane has no such policy."""
    monkeypatch.setattr(Policies, "pending", lambda self, peer: False)
    net = strangers(make_net, PERHAPS)
    alice = net.hosts["alice"]
    alice.slow = True
    reply, _ = wait_for(net, "alice", flow(), Assurance.ENCRYPTED, 2.0)
    assert reply.ok
    assert alice.unconfirmed


def test_required_more_than_there_will_be(make_net: Any) -> None:
    net = strangers(make_net)
    reply, took = wait_for(net, "alice", flow(), Assurance.NAMED, 30.0)
    assert not reply.ok
    assert reply.text.startswith("encrypted, and named is required: first contact")
    assert json.loads(reply.body)["level"] == "encrypted"
    assert took < 10


def test_required_of_who_does_not_answer(make_net: Any) -> None:
    """Told as soon as the attempt has failed, and why."""
    net = make_net()
    net.host("alice", ANYBODY)
    net.start()
    reply, took = wait_for(net, "alice", flow(), Assurance.ENCRYPTED, 60.0)
    assert not reply.ok
    assert reply.text.startswith("nothing stands yet, and encrypted is required: ")
    assert "no answer" in reply.text or "not answer" in reply.text, reply.text
    assert took < 40


def test_nobody_waits_longer_than_he_likes(make_net: Any) -> None:
    net = make_net()
    net.host("alice", ANYBODY)
    net.start()
    reply, took = wait_for(net, "alice", flow(), Assurance.ENCRYPTED, 2.0)
    assert not reply.ok
    assert 1.9 <= took <= 2.2


def test_required_of_a_name_that_loses_its_key(make_net: Any) -> None:
    """From then on nobody can prove it, and who waits is told so."""
    net = make_net()
    net.ttl = 5
    net.host("alice", named("bob", start=Start.WAIT))
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    net.start()
    net.zone["bob.example"] = ((BOB,), ())
    reply, took = wait_for(net, "alice", flow(), Assurance.NAMED, 30.0)
    assert not reply.ok
    assert took < 10


def test_required_of_a_port_that_no_rule_speaks_of(make_net: Any) -> None:
    """That the host's other ports could be protected is nothing to it."""
    net = make_net()
    net.host("alice", named("bob", below=Action.CLEAR, start=Start.WAIT, protocol=TCP, remote_port=25))
    net.host("bob", named("alice"))
    net.start()
    reply, told = ask(net, "alice", flow(port=80), Assurance.NAMED, 30.0)
    assert (reply.ok, told["level"], told["peer"]) == (False, "clear", None)


def test_what_nobody_could_raise_is_answered_at_once(net: Any) -> None:
    reply, told = ask(net, "alice", flow(EVE), Assurance.ENCRYPTED, 30.0)
    assert (reply.ok, told["level"]) == (False, "clear")
    reply, _ = ask(net, "alice", flow(ip_address("127.0.0.1")), Assurance.ENCRYPTED, 30.0)
    assert "does not leave this host" in reply.text


def test_who_waits_is_bounded(make_net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hushwire.node.whois.MOST_WAITING", 2)
    net = make_net()
    alice = net.host("alice", ANYBODY)
    net.start()
    assert [net.ask(alice, Whois, flow(), Assurance.ENCRYPTED, 9.0) for _ in range(2)] == [None, None]
    assert not net.ask(alice, Whois, flow(), Assurance.ENCRYPTED, 9.0).ok


def test_who_is_found_in_the_reverse_zone_meanwhile_is_named(make_net: Any) -> None:
    net = strangers(make_net)
    assert net.fate(net.hosts["alice"], BOB) is Action.PROTECT
    net.zone[reverse_name(BOB)] = ((), (KEY["bob"].public,))
    net.wait(120)
    _, told = ask(net, "alice", flow(), Assurance.NAMED)
    assert told["level"] == "named"
