"""What was reached does not sink, whichever way one came to it (DESIGN.md section 4, laws 1 and 3)."""

from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.config import Group, Rule
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import Outcome, Verdict
from hushwire.names.ipseckey import IPSECKEY
from hushwire.node.peer import LEAVING, Peer
from hushwire.node.rulebook import Rulebook
from hushwire.policy.spd import Action

BOB, MOVED = map(ip_address, ("192.0.2.2", "192.0.2.200"))
KEY = {"bob": PrivateKey.from_seed(Secret(b"bob".ljust(32)))}
MAYBE = {"below": Action.CLEAR}


def named(name: str, **more: Any) -> Rule:
    return Rule(f"{name}.example", **more)


@pytest.fixture
def reached(make_net: Any) -> Any:
    """Alice, whose rule about bob permits clear, has an SA with him."""
    net = make_net()
    alice = net.host("alice", named("bob", **MAYBE))
    net.host("bob", named("alice", **MAYBE))
    net.start()
    net.wait(2)
    assert net.packet(alice, BOB) is Action.PROTECT
    return net


# --- one name, by whichever alias ---


@pytest.mark.parametrize("guard", ["in", "out"])
@pytest.mark.parametrize("rule", [Rule("*.secure"), Rule("*.secure", group=Group.BLOCK)], ids=["private", "block"])
def test_no_alias_loosens_the_rule_of_the_name_that_it_leads_to(
    make_net: Any, rule: Rule, guard: str, monkeypatch: Any
) -> None:
    """Whoever publishes an alias would have a private name's packets go in clear, if he keeps IKE from passing."""
    if guard == "out":
        monkeypatch.setattr(Rulebook, "for_alias", lambda self, rules, canonical: (Rule(canonical, **MAYBE),))
    net = make_net()
    alice = net.host("alice", Rule("*.evil", **MAYBE), rule)
    net.host("bob", named("alice"))
    net.zone["bob.secure"] = ((BOB,), (KEY["bob"].public,))
    net.aliases["www.evil"] = "bob.secure"
    net.start()
    net.lost = lambda *_: True
    told = [net.told(alice, name).verdict for name in ("www.evil", "bob.secure", "www.evil")]
    assert (told == [Verdict.REFUSE] * 3) is (guard == "in")


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_strict_alias_of_a_loose_name_holds_when_hushwire_does_not(
    make_net: Any, guard: str, monkeypatch: Any
) -> None:
    """Law 1: a policy that permits clear goes when nobody renews it, and the alias's rule permits none."""
    if guard == "out":
        monkeypatch.setattr("hushwire.node.capture.Captures.forbids_clear", lambda *_: False)
    net = make_net()
    alice = net.host("alice", Rule("*.strict"), Rule("*.example", **MAYBE))
    net.host("bob", named("alice"))
    net.aliases["www.strict"] = "bob.example"
    net.start()
    assert net.told(alice, "bob.example").verdict is Verdict.ONLY
    assert all(policy.soft for policy in alice.policies(BOB))
    assert net.told(alice, "www.strict").verdict is Verdict.ONLY
    assert all(policy.soft for policy in alice.policies(BOB)) is (guard == "out")


def test_a_strict_alias_does_not_close_a_loose_name_that_nobody_proves(make_net: Any) -> None:
    """Else whoever publishes an alias could keep others from a host that does no IPsec."""
    net = make_net()
    alice = net.host("alice", Rule("*.strict"), Rule("*.example", **MAYBE))
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    net.aliases["www.strict"] = "bob.example"
    net.start()
    assert net.told(alice, "www.strict").verdict is Verdict.REFUSE
    assert net.told(alice, "bob.example").verdict is Verdict.PASS


@pytest.mark.parametrize("guard", ["in", "out"])
@pytest.mark.parametrize("group", [Group.PRIVATE, Group.BLOCK])
@pytest.mark.parametrize("outcome", [Outcome.DENIED, Outcome.INSECURE])
def test_a_name_of_which_nothing_can_be_proved_is_not_clear_by_an_alias(
    make_net: Any, outcome: Outcome, group: Group, guard: str, monkeypatch: Any
) -> None:
    if guard == "out":
        monkeypatch.setattr(Peer, "dead_end", "")
    net = make_net()
    alice = net.host("alice", Rule("*.evil", **MAYBE), Rule("*.secure", group=group))
    net.zone["bob.secure"] = net.zone["www.evil"] = ((BOB,), ())
    net.aliases["www.evil"] = "bob.secure"
    if outcome is Outcome.INSECURE:
        net.outcome["www.evil"] = outcome
    net.start()
    assert net.told(alice, "www.evil").verdict is (Verdict.REFUSE if guard == "in" else Verdict.PASS)


def test_an_alias_that_a_rule_names_stands_for_the_name_that_it_leads_to(make_net: Any) -> None:
    """Else that name, by another alias, would be refused the addresses of its own host."""
    net = make_net()
    alice = net.host("alice", Rule("alias.example"), Rule("*.branch.example"))
    net.host("bob", named("alice"))
    net.aliases |= {"alias.example": "bob.example", "bob.branch.example": "bob.example"}
    net.zone["alias.example"] = net.zone["bob.branch.example"] = net.zone["bob.example"]
    net.start()
    for name in ("alias.example", "bob.branch.example", "alias.example"):
        assert net.told(alice, name).verdict is Verdict.ONLY
        assert net.fate(alice, BOB) is Action.PROTECT
    assert "name.contested" not in alice.kinds()


def test_where_an_alias_leads_is_not_settled_while_two_lead_to_each_other(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", Rule("*.example", **MAYBE))
    net.zone["www.example"] = ((BOB,), (KEY["bob"].public,))
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    net.start()
    net.aliases = {"bob.example": "www.example", "www.example": "bob.example"}
    told = [net.told(alice, name).verdict for name in ("www.example", "bob.example")]
    assert told == [Verdict.REFUSE, Verdict.REFUSE]


# --- a name whose key is taken out of the DNS, or that moves ---


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_denial_does_not_sink_what_was_reached(reached: Any, guard: str, monkeypatch: Any) -> None:
    """Whoever may write the name's records, or has its zone's key, takes nobody back to clear."""
    if guard == "out":
        monkeypatch.setattr(Peer, "may_loosen", True)
    net, alice = reached, reached.hosts["alice"]
    net.of_type["bob.example", IPSECKEY] = Outcome.DENIED
    net.wait(net.ttl + 20)
    assert (net.packet(alice, BOB) is Action.BLOCK) is (guard == "in")
    assert (net.told(alice, "bob.example").verdict is Verdict.REFUSE) or guard == "out"


@pytest.mark.parametrize("guard", ["in", "out"])
def test_what_is_under_way_to_an_address_that_a_name_leaves_stays_protected(
    reached: Any, guard: str, monkeypatch: Any
) -> None:
    if guard == "out":
        monkeypatch.setattr(Peer, "is_leaving", lambda *_: False)
    net, alice = reached, reached.hosts["alice"]
    net.zone["bob.example"] = ((MOVED,), (KEY["bob"].public,))
    fates = []
    for _ in range(4 * (net.ttl + 30)):
        net.wait(0.25)
        fates.append(net.fate(alice, BOB))
        if not any(sa.remote.address == BOB for sa in alice.node.ike.sas):
            break
    # While there is an SA with it; and then it is no address of bob's any more.
    assert (set(fates[:-1]) == {Action.PROTECT}) is (guard == "in")
    assert fates[-1] is Action.CLEAR
    assert net.now.monotonic < net.ttl + LEAVING + 20


def test_an_address_that_came_back_did_not_leave(reached: Any) -> None:
    net, alice = reached, reached.hosts["alice"]
    for addresses in ((MOVED,), (BOB,)):
        net.zone["bob.example"] = (addresses, (KEY["bob"].public,))
        alice.node._asking.look_up(alice.node.peers.by_name("bob.example"), net.now)
        net.wait(0.25)
    net.wait(LEAVING + 5)
    assert net.fate(alice, BOB) is Action.PROTECT
