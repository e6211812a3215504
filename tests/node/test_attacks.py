"""ATTACKS rows 35, 37, 41, 43, 44, 47 and 48, at the level of Nodes, each with its control."""

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from hushwire.config import Rule
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import Answered, Outcome, Send, Verdict
from hushwire.ike.state import State
from hushwire.names import binding as binding_module
from hushwire.names.allow import BURST, PER_SECOND, PER_SOURCE, Pace
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, write_record
from hushwire.node.peer import Peer
from hushwire.policy.spd import Action
from hushwire.timers import Now

VICTIM, ELSEWHERE = ip_address("192.0.2.2"), ip_address("198.51.100.66")
KEY = {name: PrivateKey.from_seed(Secret(name.encode().ljust(32))) for name in ("alice", "bob", "eve", "other")}
PRIVATE, MAYBE = Rule("*.example"), Rule("*.example", below=Action.CLEAR)


def stage(make_net: Any, *rules: Rule) -> Any:
    net = make_net()
    net.host("alice", *(rules or (PRIVATE,)))
    net.host("bob", Rule("alice.example"))
    net.start()
    return net


def begun(host: Any) -> list[Any]:
    """Where it has sent IKE_SA_INIT requests to."""
    return [effect.remote.address for effect in host.said if isinstance(effect, Send) and effect.data[8:16] == bytes(8)]


# --- row 35: a gateway to a third party ---


@pytest.mark.parametrize("guard", ["in", "out"])
@pytest.mark.parametrize("outcome", [Outcome.SECURE, Outcome.INSECURE])
def test_a_gateway_to_a_third_party(make_net: Any, guard: str, outcome: Outcome, monkeypatch: Any) -> None:
    """The name has an address, and a record that says: with this key, by way of him there."""
    net = make_net()
    alice = net.host("alice", PRIVATE)
    eve = net.host("eve", Rule("alice.example"))
    eve.addresses = (ELSEWHERE,)
    net.zone["bob.example"] = ((VICTIM,), (KEY["eve"].public,))
    plain = net.answer

    def answer(question: Any) -> Any:
        if (question.name, question.rdtype) != ("bob.example", IPSECKEY):
            return plain(question)
        rdata = (write_record(KeyRecord(10, ELSEWHERE, KEY["eve"].public)),)
        return Answered(question.request, question.name, IPSECKEY, outcome, rdata, 60)

    net.answer = answer
    if guard == "out" and outcome is Outcome.SECURE:
        usable = binding_module._usable_records
        monkeypatch.setattr(binding_module, "_usable_records", lambda r, n, a: usable(r, n, (*a, ELSEWHERE)))
        monkeypatch.setattr(Peer, "keys_at", lambda *_: (KEY["eve"].public,))
        monkeypatch.setattr(Peer, "addresses", property(lambda _: (ELSEWHERE,)))
    net.start()
    verdict = net.told(alice, "bob.example").verdict
    drawn = ELSEWHERE in begun(alice)
    assert drawn is (guard == "out" and outcome is Outcome.SECURE)
    assert verdict is Verdict.REFUSE


# --- row 37: a black hole ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_black_hole(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """A name with the victim's address and a key that nobody holds: that name is refused, and no other."""
    net = stage(make_net)
    alice = net.hosts["alice"]
    net.zone["hole.example"] = ((VICTIM,), (KEY["other"].public,))
    if guard == "out":
        # Policies stand before anybody has proved anything there, and stay.
        monkeypatch.setattr(Peer, "places", property(lambda peer: peer.addresses))
        monkeypatch.setattr(Peer, "yields_to", lambda *_: False)
    assert net.told(alice, "hole.example").verdict is Verdict.REFUSE
    assert bool(alice.policies(VICTIM)) is (guard == "out")
    assert (net.told(alice, "bob.example").verdict is Verdict.ONLY) is (guard == "in")
    if guard == "in":
        assert net.packet(alice, VICTIM) is Action.PROTECT
        assert net.told(alice, "hole.example").verdict is Verdict.REFUSE
        assert net.packet(alice, VICTIM) is Action.PROTECT


# --- row 41: IKE reflected at a target ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_many_names_with_one_target(make_net: Any, guard: str, monkeypatch: Any) -> None:
    net = make_net()
    alice = net.host("alice", PRIVATE)
    net.start()
    if guard == "out":
        monkeypatch.setattr(Pace, "admits", lambda *_: True)
    for number in range(200):
        name = f"n{number}.example"
        net.zone[name] = ((ELSEWHERE,), (KEY["other"].public,))
        net.look_up(alice, name)
    assert len(begun(alice)) == (PER_SOURCE if guard == "in" else 200)
    # And so it stays, for a minute; nobody is left waiting for it.
    for number in range(200):
        net.look_up(alice, f"n{number}.example")
    assert len(set(begun(alice))) == 1
    begun_by_names = {sa.peer.name for sa in alice.node.ike.sas if sa.state is State.INITIAL}
    assert len(begun_by_names) == (PER_SOURCE if guard == "in" else 200)


def test_a_thousand_names_with_a_thousand_targets(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", PRIVATE)
    net.start()
    for number in range(1000):
        name = f"n{number}.example"
        net.zone[name] = ((ip_address("198.51.0.1") + 256 * number,), (KEY["other"].public,))
        net.look_up(alice, name)
    assert len(begun(alice)) == BURST
    net.wait(1)
    for number in range(1000):
        net.look_up(alice, f"n{number}.example")
    assert len(set(begun(alice))) <= BURST + PER_SECOND + 1


# --- row 43: an old key that is still validly signed ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_an_old_key_lives_for_its_ttl_and_no_longer(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """Accepted until then; after that whoever holds it is nobody."""
    net = stage(make_net)
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    assert net.told(alice, "bob.example").verdict is Verdict.ONLY
    net.zone["bob.example"] = ((VICTIM,), (KEY["other"].public,))
    if guard == "out":
        monkeypatch.setattr("hushwire.node.peer.Peer.knows", lambda *_: True)
    net.wait(net.ttl - 5)
    assert net.packet(alice, VICTIM) is Action.PROTECT
    net.wait(20)
    assert (net.packet(alice, VICTIM) is Action.PROTECT) is (guard == "out")
    bob.key = KEY["other"]


# --- row 44: poisoned addresses in a zone that is not signed ---


@pytest.mark.parametrize("rule", [PRIVATE, MAYBE])
def test_poisoned_addresses(make_net: Any, rule: Rule) -> None:
    """No key is looked at where the zone is not signed; where it is, the address has to be, too."""
    net = make_net()
    alice = net.host("alice", rule)
    eve = net.host("eve", Rule("alice.example"))
    net.zone["bob.example"] = ((eve.addresses[0],), (KEY["eve"].public,))
    net.outcome["bob.example"] = Outcome.INSECURE
    net.start()
    verdict = net.told(alice, "bob.example").verdict
    assert verdict is (Verdict.REFUSE if rule is PRIVATE else Verdict.PASS)
    assert not alice.spd
    assert not begun(alice)


def test_control_of_poisoned_addresses(make_net: Any, monkeypatch: Any) -> None:
    """Taken as if it were signed, it is believed."""
    monkeypatch.setattr(binding_module, "_signed", lambda answer: answer.rdata if answer is not None else ())
    monkeypatch.setattr(binding_module, "require_known", lambda *_: None)
    net = make_net()
    alice = net.host("alice", PRIVATE)
    # He says that he is Bob.
    eve = net.host("bob", Rule("alice.example"), key="eve")
    eve.addresses = (ELSEWHERE,)
    net.zone["bob.example"] = ((eve.addresses[0],), (KEY["eve"].public,))
    plain = net.answer
    net.answer = lambda question: (
        Answered(question.request, question.name, question.rdtype, Outcome.INSECURE, plain(question).rdata, 60)
        if question.name == "bob.example" else plain(question)
    )  # fmt: skip
    net.start()
    assert net.told(alice, "bob.example").verdict is Verdict.ONLY


# --- row 47: a program that does not ask us ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_program_that_avoids_the_resolver(make_net: Any, guard: str) -> None:
    """DNS over HTTPS, a literal address, a cache: a rule about all addresses catches it; without one it is clear."""
    catch_all = (Rule(ip_network("0.0.0.0/0")),) if guard == "in" else ()
    net = stage(make_net, PRIVATE, *catch_all)
    alice = net.hosts["alice"]
    assert (net.fate(alice, VICTIM) is Action.CLEAR) is (guard == "out")
    assert net.told(alice, "bob.example").verdict is Verdict.ONLY
    assert net.packet(alice, VICTIM) is Action.PROTECT


# --- row 48: the clock ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_wall_clock_that_jumps(make_net: Any, guard: str) -> None:
    """Timers go by the other clock: what stands stays.  The control has them see the jump."""
    net = stage(make_net, MAYBE)
    alice, years = net.hosts["alice"], 10 * 365 * 86400.0
    assert net.told(alice, "bob.example").verdict is Verdict.ONLY
    before = set(alice.sad)
    for jump in (years, -years) if guard == "in" else (years,):
        seen = 0.0 if guard == "in" else jump
        net.now = Now(net.now.monotonic + seen, net.now.wall + jump)
        net.wait(10)
    assert (set(alice.sad) == before) is (guard == "in")
    if guard == "in":
        assert net.packet(alice, VICTIM) is Action.PROTECT
        assert net.told(alice, "bob.example").verdict is Verdict.ONLY


@pytest.mark.parametrize("guard", ["in", "out"])
@pytest.mark.parametrize("rule", [PRIVATE, MAYBE])
def test_a_clock_that_is_wrong_at_boot(make_net: Any, rule: Rule, guard: str) -> None:
    """To a validator with a wrong clock all is bogus: that is an error, never a reason for clear; and it passes.

    The control takes what does not validate for a proof that there is nothing.
    """
    net = stage(make_net, rule)
    alice = net.hosts["alice"]
    net.outcome["bob.example"] = Outcome.ERROR if guard == "in" else Outcome.DENIED
    in_clear = guard == "out" and rule is MAYBE
    assert net.told(alice, "bob.example").verdict is (Verdict.PASS if in_clear else Verdict.REFUSE)
    assert not alice.spd
    if guard == "in":
        net.outcome.clear()
        net.wait(30)
        assert net.told(alice, "bob.example").verdict is Verdict.ONLY


@pytest.mark.parametrize("guard", ["in", "out"])
def test_an_outage_is_over_when_the_dns_is_back(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """Ten minutes of errors make a name's own next look-up minutes away: a program's question comes before it."""
    if guard == "out":
        monkeypatch.setattr("hushwire.node.node.ASK_AGAIN", float("inf"))
    net = stage(make_net, PRIVATE)
    alice = net.hosts["alice"]
    net.outcome["bob.example"] = Outcome.ERROR
    for _ in range(60):
        assert net.told(alice, "bob.example").verdict is Verdict.REFUSE
        net.wait(10)
    net.outcome.clear()
    net.wait(5)
    assert net.told(alice, "bob.example").verdict is (Verdict.ONLY if guard == "in" else Verdict.REFUSE)
