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
from hushwire.names.binding import Unbound
from hushwire.names.ipseckey import IPSECKEY, KeyRecord, write_record
from hushwire.node import Node
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


def take_for_signed(monkeypatch: Any) -> None:
    """The guard out: what is in an answer counts, signed or not."""
    monkeypatch.setattr(binding_module, "_signed", lambda answer: answer.rdata if answer is not None else ())
    monkeypatch.setattr(binding_module, "require_known", lambda *_: None)


def deny_what_is_unknown(*answers: Any, **more: Any) -> Any:
    """The guard out: an error is as good as a signed denial."""
    try:
        return binding_module.bind(*answers, **more)
    except Unbound as unbound:
        raise Unbound(unbound.name, unbound.reason, Outcome.DENIED, unbound.ttl) from None


# --- row 35: a gateway to a third party ---


@pytest.mark.parametrize(
    ("outcome", "without"),
    [
        (Outcome.SECURE, ""),
        (Outcome.SECURE, "gateway"),
        (Outcome.INSECURE, ""),
        (Outcome.INSECURE, "gateway"),
        (Outcome.INSECURE, "gateway, signature"),
    ],
)
def test_a_gateway_to_a_third_party(make_net: Any, outcome: Outcome, without: str, monkeypatch: Any) -> None:
    """The name has an address, and a record that says: with this key, by way of him there.

    What is not signed is stopped by that already, whatever is thought of gateways.
    """
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
    if "gateway" in without:
        usable = binding_module._usable_records
        monkeypatch.setattr(binding_module, "_usable_records", lambda r, n, a: usable(r, n, (*a, ELSEWHERE)))
        monkeypatch.setattr(Peer, "keys_at", lambda peer, _: peer.lookup.binding.keys)
        monkeypatch.setattr(Peer, "addresses", property(lambda peer: (ELSEWHERE,) if peer.lookup.binding else ()))
    if "signature" in without:
        take_for_signed(monkeypatch)
    net.start()
    verdict = net.told(alice, "bob.example").verdict
    drawn = ELSEWHERE in begun(alice)
    assert drawn is ((outcome, without) in [(Outcome.SECURE, "gateway"), (Outcome.INSECURE, "gateway, signature")])
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


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_thousand_names_with_a_thousand_targets(make_net: Any, guard: str, monkeypatch: Any) -> None:
    net = make_net()
    alice = net.host("alice", PRIVATE)
    net.start()
    if guard == "out":
        monkeypatch.setattr(Pace, "admits", lambda *_: True)
    for number in range(400):
        name = f"n{number}.example"
        net.zone[name] = ((ip_address("198.51.0.1") + 256 * number,), (KEY["other"].public,))
        net.look_up(alice, name)
    assert len(begun(alice)) == (BURST if guard == "in" else 400)
    net.wait(1)
    for number in range(400):
        net.look_up(alice, f"n{number}.example")
    assert (len(set(begun(alice))) <= BURST + PER_SECOND + 1) is (guard == "in")


# --- row 43: an old key that is still validly signed ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_an_old_key_lives_for_its_ttl_and_no_longer(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """Accepted until then; after that whoever holds it is nobody."""
    net = stage(make_net)
    alice = net.hosts["alice"]
    assert net.told(alice, "bob.example").verdict is Verdict.ONLY
    net.zone["bob.example"] = ((VICTIM,), (KEY["other"].public,))
    if guard == "out":
        monkeypatch.setattr("hushwire.node.peer.Peer.knows", lambda *_: True)
    net.wait(net.ttl - 5)
    assert net.packet(alice, VICTIM) is Action.PROTECT
    net.wait(20)
    assert (net.packet(alice, VICTIM) is Action.PROTECT) is (guard == "out")


# --- row 44: poisoned addresses in a zone that is not signed ---


@pytest.mark.parametrize("rule", [PRIVATE, MAYBE])
@pytest.mark.parametrize("guard", ["in", "out"])
def test_poisoned_addresses(make_net: Any, rule: Rule, guard: str, monkeypatch: Any) -> None:
    """Eve's address and Eve's key, and she is there and says that she is Bob: but nobody has signed that."""
    if guard == "out":
        take_for_signed(monkeypatch)
    net = make_net()
    alice = net.host("alice", rule)
    eve = net.host("bob", Rule("alice.example"), key="eve")
    eve.addresses = (ELSEWHERE,)
    net.zone["bob.example"] = (eve.addresses, (KEY["eve"].public,))
    net.outcome["bob.example"] = Outcome.INSECURE
    net.start()
    release = net.told(alice, "bob.example")
    if guard == "in":
        assert release.verdict is (Verdict.REFUSE if rule is PRIVATE else Verdict.PASS)
        assert not alice.spd
        assert not begun(alice)
    else:
        assert (release.verdict, release.addresses) == (Verdict.ONLY, (ELSEWHERE,))
        assert net.packet(alice, ELSEWHERE) is Action.PROTECT


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
def test_a_wall_clock_that_jumps(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """Timers go by the other clock: what stands stays.  In the control they go by this one."""
    net = stage(make_net, MAYBE)
    if guard == "out":
        step, deadline = Node.step, Node.deadline
        monkeypatch.setattr(Node, "step", lambda node, now, event: step(node, Now(now.wall, now.wall), event))
        monkeypatch.setattr(Node, "deadline", lambda node: deadline(node) - net.now.wall + net.now.monotonic)
    alice, years = net.hosts["alice"], 10 * 365 * 86400.0
    net.wait(20)
    assert net.told(alice, "bob.example").verdict is Verdict.ONLY
    before = set(alice.sad)
    for jump in (years, -years) if guard == "in" else (years,):
        net.now = Now(net.now.monotonic, net.now.wall + jump)
        net.wait(10)
    assert (set(alice.sad) == before) is (guard == "in")
    assert (net.packet(alice, VICTIM) is Action.PROTECT) is (guard == "in")
    if guard == "in":
        assert net.told(alice, "bob.example").verdict is Verdict.ONLY


@pytest.mark.parametrize(("rule", "guard"), [(PRIVATE, "in"), (MAYBE, "in"), (MAYBE, "out")])
def test_a_clock_that_is_wrong_at_boot(make_net: Any, rule: Rule, guard: str, monkeypatch: Any) -> None:
    """To a validator with a wrong clock all is bogus: that is an error, never a reason for clear; and it passes.

    In the control it is taken for a proof that there is nothing.  With PRIVATE there is none: nothing that the DNS may
    say leads to clear.
    """
    net = stage(make_net, rule)
    alice = net.hosts["alice"]
    net.outcome["bob.example"] = Outcome.ERROR
    if guard == "out":
        monkeypatch.setattr("hushwire.names.lookup.bind", deny_what_is_unknown)
    assert net.told(alice, "bob.example").verdict is (Verdict.REFUSE if guard == "in" else Verdict.PASS)
    assert not alice.spd
    net.outcome.clear()
    net.wait(30)
    assert (net.told(alice, "bob.example").verdict is Verdict.ONLY) is (guard == "in")


@pytest.mark.parametrize("guard", ["in", "out"])
def test_an_outage_is_over_when_the_dns_is_back(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """Ten minutes of errors make a name's own next look-up minutes away: a program's question comes before it."""
    if guard == "out":
        monkeypatch.setattr("hushwire.node.programs.ASK_AGAIN", float("inf"))
    net = stage(make_net, PRIVATE)
    alice = net.hosts["alice"]
    net.outcome["bob.example"] = Outcome.ERROR
    for _ in range(60):
        assert net.told(alice, "bob.example").verdict is Verdict.REFUSE
        net.wait(10)
    net.outcome.clear()
    net.wait(5)
    assert net.told(alice, "bob.example").verdict is (Verdict.ONLY if guard == "in" else Verdict.REFUSE)
