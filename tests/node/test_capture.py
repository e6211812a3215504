"""Programs that ask for a name: what they are told, and when (DESIGN.md laws 1 to 3; docs/names.md)."""

from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.config import Group, Rule, Start
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import Answered, Asked, Capture, Connect, InstallPolicy, Outcome, Release, Verdict
from hushwire.names.allow import PER_SOURCE, AllowList, Pace
from hushwire.node import peers as peers_module
from hushwire.node import policies as policies_module
from hushwire.node.capture import ASK_LIMIT, LONGEST, OTHER_FAMILY, RETRY
from hushwire.node.idle import GRACE
from hushwire.node.peer import FALL_AFTER, HELD_FOR, Peer
from hushwire.policy.spd import Action
from hushwire.timers import NEVER

BOB, EVE, MOVED = map(ip_address, ("192.0.2.2", "192.0.2.66", "192.0.2.200"))
BOB6 = ip_address("2001:db8::2")
KEY = {name: PrivateKey.from_seed(Secret(name.encode().ljust(32))) for name in ("alice", "bob", "eve", "other")}
EVERY = Rule("*.example")
MAYBE = Rule("*.example", below=Action.CLEAR)


def named(name: str, **more: Any) -> Rule:
    return Rule(f"{name}.example", **more)


@pytest.fixture
def asking(make_net: Any) -> Any:
    """Alice, who has a rule about many, and Bob, who knows her by name."""

    def make(*rules: Rule, bob: bool = True) -> Any:
        net = make_net()
        net.host("alice", *(rules or (EVERY,)))
        if bob:
            net.host("bob", named("alice"))
        net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
        net.start()
        return net

    return make


# --- in what order ---


def test_policies_stand_before_the_answer(asking: Any) -> None:
    net = asking()
    alice = net.hosts["alice"]
    alice.slow = True
    number = net.look_up(alice, "bob.example")
    assert [e.policy.action for e in alice.said if isinstance(e, InstallPolicy)] == [Action.PROTECT] * 2
    assert number not in alice.releases
    net.confirm(alice)
    assert alice.releases[number] == Release(number, Verdict.ONLY, (BOB,), net.ttl)
    assert net.packet(alice, BOB) is Action.PROTECT


def test_what_is_refused_is_no_policy(asking: Any) -> None:
    net = asking()
    alice = net.hosts["alice"]
    alice.refuse = lambda effect: isinstance(effect, InstallPolicy)
    assert net.told(alice, "bob.example").verdict is Verdict.REFUSE


def test_one_look_up_for_all_who_ask_and_an_answer_for_each(asking: Any) -> None:
    net = asking()
    alice = net.hosts["alice"]
    net.silent.add("bob.example")
    numbers = [net.look_up(alice, "bob.example") for _ in range(10)]
    assert alice.questions == 4
    assert not alice.releases
    for host, question in net.late:
        net.step(host, net.answer(question))
    net.run()
    assert sorted(alice.releases) == numbers
    assert {release.addresses for release in alice.releases.values()} == {(BOB,)}


def test_a_slow_name_delays_no_other(asking: Any) -> None:
    net = asking()
    alice = net.hosts["alice"]
    net.silent.add("slow.example")
    slow = net.look_up(alice, "slow.example")
    assert net.told(alice, "bob.example").verdict is Verdict.ONLY
    assert slow not in alice.releases


def test_both_families_at_once(asking: Any) -> None:
    net = asking()
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    alice.addresses, bob.addresses = (*alice.addresses, ip_address("2001:db8::1")), (BOB, BOB6)
    net.zone["alice.example"] = (alice.addresses, (KEY["alice"].public,))
    net.zone["bob.example"] = (bob.addresses, (KEY["bob"].public,))
    net.start()
    net.wait(net.ttl + 2)
    release = net.told(alice, "bob.example")
    assert set(release.addresses) == {BOB, BOB6}
    assert alice.questions == 4
    assert {net.packet(alice, BOB), net.packet(alice, BOB6, local=alice.addresses[1])} == {Action.PROTECT}


def test_the_family_that_nobody_answers_at_is_left_out_for_a_while(asking: Any) -> None:
    net = asking()
    alice = net.hosts["alice"]
    alice.addresses = (*alice.addresses, ip_address("2001:db8::1"))
    net.zone["bob.example"] = ((BOB, BOB6), (KEY["bob"].public,))
    net.start()
    release = net.told(alice, "bob.example")
    assert (release.addresses, release.ttl) == ((BOB,), RETRY)


def test_of_many_addresses_in_a_family_one_will_do(asking: Any) -> None:
    net = asking()
    alice = net.hosts["alice"]
    net.zone["bob.example"] = ((BOB, MOVED), (KEY["bob"].public,))
    release = net.told(alice, "bob.example")
    assert (release.addresses, release.ttl) == ((BOB,), net.ttl)


# --- how long ---


def test_nobody_answers(asking: Any) -> None:
    net = asking(bob=False)
    alice, begun = net.hosts["alice"], net.now.monotonic
    assert net.told(alice, "bob.example").verdict is Verdict.REFUSE
    assert net.now.monotonic - begun <= ASK_LIMIT + 0.25
    # Row 37: a name that nobody answers for stands in nobody's way.
    assert not alice.policies(BOB)


def test_nobody_answers_and_the_rule_permits_clear(asking: Any) -> None:
    net = asking(MAYBE, bob=False)
    alice, begun = net.hosts["alice"], net.now.monotonic
    release = net.told(alice, "bob.example")
    assert (release.verdict, release.ttl) == (Verdict.PASS, RETRY)
    assert FALL_AFTER <= net.now.monotonic - begun <= FALL_AFTER + 0.25
    assert net.packet(alice, BOB) is Action.CLEAR


@pytest.mark.parametrize("rule", [EVERY, MAYBE])
def test_a_resolver_that_says_nothing(asking: Any, rule: Rule) -> None:
    """Law 3; and a deadline in the past would have the node spin."""
    net = asking(rule)
    alice, begun = net.hosts["alice"], net.now.monotonic
    net.silent.add("bob.example")
    assert net.told(alice, "bob.example").verdict is Verdict.REFUSE
    assert net.now.monotonic - begun <= ASK_LIMIT + 0.25
    assert alice.node.deadline() > net.now.monotonic


def test_who_is_not_sought_is_not_waited_for(asking: Any) -> None:
    for many in ("bob.example", "*.example"):
        net = asking(Rule(many, below=Action.CLEAR, start=Start.WAIT))
        begun = net.now.monotonic
        assert net.told(net.hosts["alice"], "bob.example").verdict is Verdict.PASS
        assert net.now.monotonic == begun


def test_who_began_once_and_was_protected_is_not_met_in_clear_again(asking: Any) -> None:
    """Section 4: nor when his peer has been let go."""
    net = asking(Rule("*.example", below=Action.CLEAR, start=Start.WAIT))
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    alice.node._claims._allowed = AllowList(["*"])
    net.packet(bob, alice.addresses[0])
    assert net.told(alice, "bob.example").verdict is Verdict.ONLY
    bob.addresses = ()
    net.wait(4 * (LONGEST + GRACE))
    assert alice.node.peers.by_name("bob.example") is None
    assert net.told(alice, "bob.example").verdict is Verdict.REFUSE


def test_a_rule_that_blocks_and_waits_for_the_peer_lets_nothing_go(asking: Any) -> None:
    net = asking(Rule("*.example", start=Start.WAIT))
    assert net.told(net.hosts["alice"], "bob.example").verdict is Verdict.REFUSE


def test_names_that_no_rule_closes(asking: Any) -> None:
    net = asking()
    alice = net.hosts["alice"]
    # Our own, too: its packets never leave.
    for name in ("bob.test", "alice.example"):
        assert net.told(alice, name).verdict is Verdict.PASS
    assert not alice.questions


# --- cache hits, and afterwards ---


def test_an_answer_from_the_cache_asserts_the_policies_again(asking: Any) -> None:
    """As long as programs ask, they stand, though no packet of theirs is ever counted."""
    net = asking()
    alice = net.hosts["alice"]
    for _ in range(20):
        assert net.told(alice, "bob.example").verdict is Verdict.ONLY
        net.wait(net.ttl)
    assert alice.node.peers.by_name("bob.example").asleep is False


@pytest.mark.parametrize("guard", ["in", "out"])
def test_asking_often_uses_up_nobodys_patience(asking: Any, guard: str, monkeypatch: Any) -> None:
    """Only who is sought anew counts (ATTACKS row 41)."""
    net = asking()
    alice = net.hosts["alice"]
    if guard == "out":
        monkeypatch.setattr(Pace, "take_back", lambda *_: None)
    for number in range(PER_SOURCE):
        name = f"bob{number}.example"
        net.zone[name] = ((BOB + number,), (KEY["bob"].public,))
        net.aliases[name] = ""
    for _ in range(3 * PER_SOURCE):
        assert net.told(alice, "bob.example").verdict is Verdict.ONLY
    peer = alice.node.peers.by_name("bob.example")
    assert peer.failures == 0
    assert bool(alice.node._seeking._pace._sources.get("192.0.2.0/24")) is (guard == "out")


def test_clear_goes_with_its_name(asking: Any) -> None:
    net = asking(MAYBE)
    alice = net.hosts["alice"]
    assert net.told(alice, "bob.example").verdict is Verdict.ONLY
    assert net.packet(alice, BOB) is Action.PROTECT
    for _ in range(20):
        # Flows live: they stay, though nobody asks any more.
        alice.carried += 10
        net.wait(60)
        assert net.packet(alice, BOB) is Action.PROTECT
    net.wait(2 * (LONGEST + GRACE) + 60)
    assert alice.node.peers.by_name("bob.example") is None
    assert not alice.spd
    assert not alice.node.ike.sas
    assert alice.node.deadline() == NEVER


def test_what_permits_no_clear_outlives_its_name_for_an_hour(asking: Any) -> None:
    net = asking()
    alice = net.hosts["alice"]
    net.told(alice, "bob.example")
    net.wait(2 * (LONGEST + GRACE) + 60)
    assert not alice.sad
    assert {policy.action for policy in alice.policies(BOB)} == {Action.PROTECT}
    questions = alice.questions
    net.wait(HELD_FOR - 2000)
    assert alice.questions == questions
    assert alice.policies(BOB)
    net.wait(2000)
    assert not alice.spd


def test_what_has_been_let_go_does_not_sink(asking: Any) -> None:
    """Section 4: a level that was reached is remembered, though nobody has used the name for long."""
    net = asking(MAYBE)
    alice = net.hosts["alice"]
    net.told(alice, "bob.example")
    net.wait(3 * (LONGEST + GRACE))
    assert alice.node.peers.by_name("bob.example") is None
    net.lost = lambda host, send: True
    assert net.told(alice, "bob.example").verdict is Verdict.REFUSE
    net.outcome["bob.example"] = Outcome.DENIED
    net.wait(3 * net.ttl)
    assert net.told(alice, "bob.example").verdict is Verdict.REFUSE
    # Control: a name that never reached it.
    net.zone["carol.example"] = ((ip_address("192.0.2.3"),), (KEY["other"].public,))
    assert net.told(alice, "carol.example").verdict is Verdict.PASS


def test_a_name_that_wakes_is_looked_up_before_it_is_believed(asking: Any) -> None:
    """Row 43: what was taken back while nobody used the name does not come back with the next packet."""
    net = asking()
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    net.told(alice, "bob.example")
    net.wait(2 * (LONGEST + GRACE) + 60)
    assert alice.node.peers.by_name("bob.example").asleep
    net.zone["bob.example"] = ((BOB,), (KEY["other"].public,))
    established = len(alice.about("ike.established"))
    assert net.fate(alice, BOB) is Action.BLOCK
    assert len(alice.about("ike.established")) == established
    bob.key = KEY["other"]


def test_an_answer_that_comes_after_the_name_was_let_go(asking: Any) -> None:
    net = asking(MAYBE)
    alice = net.hosts["alice"]
    net.told(alice, "bob.example")
    peer = alice.node.peers.by_name("bob.example")
    alice.node._asking.look_up(peer, net.now)
    questions, alice.node._effects = alice.node._effects, []
    alice.node.step(net.now, Asked(1, "nobody.test"))
    alice.node._policies.withdraw(peer)
    alice.node.peers.forget(peer)
    alice.said.clear()
    net.zone["bob.example"] = ((BOB,), (KEY["other"].public, KEY["bob"].public))
    for question in questions:
        net.step(alice, net.answer(question))
    assert not [effect for effect in alice.said if isinstance(effect, InstallPolicy)]


# --- aliases, movers, and who is no peer ---


def test_an_alias_is_proved_by_whom_it_leads_to(asking: Any) -> None:
    net = asking()
    alice = net.hosts["alice"]
    net.aliases["www.example"] = "bob.example"
    assert net.told(alice, "www.example").addresses == (BOB,)
    assert net.packet(alice, BOB) is Action.PROTECT


@pytest.mark.parametrize("guard", ["in", "out"])
@pytest.mark.parametrize("order", [("www", "bob", "ftp"), ("bob", "www", "ftp")])
def test_aliases_of_one_name_are_one_peer(asking: Any, guard: str, order: tuple[str, ...], monkeypatch: Any) -> None:
    """Each on its own would be refused the other's address, though it is the same host with the same key."""
    if guard == "out":
        monkeypatch.setattr(Peer, "is_alias", property(lambda _: False))
    net = asking()
    alice = net.hosts["alice"]
    net.aliases |= {"www.example": "bob.example", "ftp.example": "bob.example"}
    told = [net.told(alice, f"{name}.example").verdict for name in (*order, *order)]
    assert (set(told) == {Verdict.ONLY}) is (guard == "in")
    if guard == "in":
        assert net.packet(alice, BOB) is Action.PROTECT
        assert len(alice.node.ike.sas) == 1


@pytest.mark.parametrize(
    ("asked", "leads_to", "verdict"),
    [
        (Action.BLOCK, Action.CLEAR, Verdict.REFUSE), (Action.CLEAR, Action.BLOCK, Verdict.REFUSE),
        (Action.CLEAR, Action.CLEAR, Verdict.PASS),
    ],
)  # fmt: skip
def test_of_an_alias_and_what_it_leads_to_the_stricter_rule_counts(
    asking: Any, asked: Action, leads_to: Action, verdict: Verdict
) -> None:
    net = asking(Rule("*.test", below=asked), Rule("*.example", below=leads_to), bob=False)
    alice = net.hosts["alice"]
    net.aliases["www.test"] = "bob.example"
    net.told(alice, "bob.example")
    assert net.told(alice, "www.test").verdict is verdict


def test_aliases_that_lead_to_each_other(asking: Any) -> None:
    """One after the other, as answers that were true at different times."""
    net = asking()
    alice = net.hosts["alice"]
    net.zone["www.example"] = ((BOB,), (KEY["bob"].public,))
    net.aliases["www.example"] = "bob.example"
    net.told(alice, "www.example")
    net.aliases = {"bob.example": "www.example", "www.example": "bob.example"}
    net.wait(3 * net.ttl)
    for name in ("www.example", "bob.example"):
        assert net.told(alice, name).verdict is Verdict.REFUSE


def test_a_peer_that_roams_is_where_it_spoke_from(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", Rule("*.example", roams=True), ask=("*.example",))
    bob = net.host("bob", named("alice", start=Start.CONNECT))
    bob.addresses = (MOVED,)
    net.zone["bob.example"] = ((), (KEY["bob"].public,))
    net.start()
    assert {policy.selector.remote.network_address for policy in alice.spd.values()} == {MOVED}
    assert net.packet(alice, MOVED) is Action.PROTECT


def test_where_a_peer_that_roams_was_long_ago_it_is_no_more(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", Rule("*.example", roams=True), ask=("*.example",))
    bob = net.host("bob", named("alice", start=Start.CONNECT))
    net.zone["bob.example"] = ((), (KEY["bob"].public,))
    places = [ip_address(f"192.0.2.{number}") for number in range(200, 206)]
    for place in places:
        bob.addresses = (place,)
        net.start()
        net.wait(HELD_FOR / 3)
    standing = {policy.selector.remote.network_address for policy in alice.spd.values()}
    assert places[-1] in standing
    assert not standing & set(places[:2])


@pytest.mark.parametrize("guard", ["in", "out"])
def test_an_address_that_another_host_got_is_its_own(asking: Any, guard: str, monkeypatch: Any) -> None:
    """Bob moved, and Carol has his old address: what he proved there once does not keep her out."""
    if guard == "out":
        monkeypatch.setattr(policies_module, "_has_left", lambda *_: False)
    net = asking()
    alice, bob = net.hosts["alice"], net.hosts["bob"]
    assert net.told(alice, "bob.example").addresses == (BOB,)
    bob.addresses = (MOVED,)
    net.zone["bob.example"] = ((MOVED,), (KEY["bob"].public,))
    eve = net.host("eve", named("alice"))
    eve.addresses = (BOB,)
    net.zone["eve.example"] = ((BOB,), (KEY["eve"].public,))
    net.start()
    net.wait(net.ttl + 15)
    assert (net.told(alice, "eve.example").verdict is Verdict.ONLY) is (guard == "in")
    if guard == "in":
        assert net.packet(alice, BOB) is Action.PROTECT
        assert net.told(alice, "bob.example").addresses == (MOVED,)
        assert net.fate(alice, MOVED) is Action.PROTECT
        assert net.packet(alice, BOB) is Action.PROTECT


@pytest.mark.parametrize("text", ["127.0.0.1", "192.0.2.1", "169.254.1.1", "224.0.0.1", "0.0.0.0", "255.255.255.255"])
def test_names_do_not_lead_to_where_only_this_host_may_go(asking: Any, text: str) -> None:
    """Row 40."""
    net = asking()
    alice = net.hosts["alice"]
    net.zone["bob.example"] = ((ip_address(text),), (KEY["bob"].public,))
    assert net.told(alice, "bob.example").verdict is Verdict.REFUSE
    assert not alice.spd


def test_no_room_for_more(asking: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(peers_module, "MOST_BORN", 2)
    net = asking(bob=False)
    alice = net.hosts["alice"]
    net.silent |= {f"n{number}.example" for number in range(3)}
    numbers = [net.look_up(alice, f"n{number}.example") for number in range(3)]
    assert [number in alice.releases for number in numbers] == [False, False, True]
    assert alice.releases[numbers[2]].verdict is Verdict.REFUSE


@pytest.mark.parametrize("guard", ["in", "out"])
def test_names_without_keys_make_room(asking: Any, guard: str, monkeypatch: Any) -> None:
    """ATTACKS row 45: a web page has a program ask for names without end."""
    monkeypatch.setattr(peers_module, "MOST_BORN", 32)
    if guard == "out":
        monkeypatch.setattr(peers_module.Peers, "_make_room", lambda self: None)
    net = asking()
    alice = net.hosts["alice"]
    for number in range(100):
        assert net.told(alice, f"n{number}.example").verdict is Verdict.REFUSE
    assert (net.told(alice, "bob.example").verdict is Verdict.ONLY) is (guard == "in")


def test_what_a_rule_blocks_is_not_connected_to(asking: Any) -> None:
    net = asking(Rule("*.example", group=Group.BLOCK))
    alice = net.hosts["alice"]
    net.ask(alice, Connect, "bob.example")
    assert not alice.replies[net.requests].ok
    assert "blocks" in alice.replies[net.requests].text


# --- unbound's hook ---


@pytest.mark.parametrize(("known", "ok"), [(True, True), (False, False)])
def test_another_resolver_is_told_whether_it_may_answer(asking: Any, known: bool, ok: bool) -> None:
    net = asking(bob=known)
    alice = net.hosts["alice"]
    net.ask(alice, Capture, "bob.example")
    net.wait(ASK_LIMIT + 1)
    assert alice.replies[net.requests].ok is ok
    assert not alice.releases


def test_every_question_is_answered_once(asking: Any) -> None:
    net = asking(MAYBE)
    alice = net.hosts["alice"]
    net.silent.add("bob.example")
    for number in range(1, 50):
        net.step(alice, Asked(number, "bob.example"))
        net.wait(0.3)
        if number == 20:
            net.silent.clear()
            for host, question in net.late:
                net.step(host, net.answer(question))
            net.run()
    net.wait(30)
    assert [effect.request for effect in alice.said if isinstance(effect, Release)] == list(range(1, 50))
    net.step(alice, Answered(999_999, "bob.example", 1, Outcome.ERROR))


def test_questions_of_the_other_family_wait_only_for_so_long(asking: Any) -> None:
    net = asking()
    alice = net.hosts["alice"]
    alice.addresses = (*alice.addresses, ip_address("2001:db8::1"))
    net.zone["bob.example"] = ((BOB, BOB6), (KEY["bob"].public,))
    net.start()
    number, begun = net.look_up(alice, "bob.example"), net.now.monotonic
    assert number not in alice.releases
    assert alice.node.deadline() <= begun + OTHER_FAMILY
    net.wait(OTHER_FAMILY)
    assert number in alice.releases


def test_a_name_that_an_administrator_connects_to_stays_and_has_policies_wherever_it_is(asking: Any) -> None:
    net = asking()
    alice = net.hosts["alice"]
    net.zone["bob.example"] = ((BOB, MOVED), (KEY["bob"].public,))
    assert net.told(alice, "bob.example").addresses == (BOB,)
    assert not alice.policies(MOVED)
    net.ask(alice, Connect, "bob.example")
    assert alice.policies(MOVED)
    net.wait(LONGEST + GRACE + 100)
    assert alice.node.peers.by_name("bob.example") is not None
    assert alice.policies(BOB)
