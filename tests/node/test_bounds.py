"""What strangers can fill, and does not grow (ATTACKS row 45)."""

from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.config import Addressing, Rule, Start
from hushwire.crypto.keys import PrivateKey
from hushwire.crypto.secret import Secret
from hushwire.events import AddressesChanged, Verdict
from hushwire.node import peers as peers_module
from hushwire.node.peer import MOST_ADDRESSES, Peer
from hushwire.node.peers import Peers
from hushwire.policy.spd import Action

ALICE, BOB = map(ip_address, ("192.0.2.1", "192.0.2.2"))
KEY = {name: PrivateKey.from_seed(Secret(name.encode().ljust(32))) for name in ("bob", "eve")}
MOST = 32


@pytest.mark.parametrize("below", [Action.CLEAR, Action.BLOCK])
def test_names_that_have_keys_and_do_not_answer_make_room(make_net: Any, below: Action, monkeypatch: Any) -> None:
    """A signed wildcard gives each name that a program is made to ask for a key and an address."""
    monkeypatch.setattr(peers_module, "MOST_BORN", MOST)
    net = make_net()
    alice = net.host("alice", Rule("*", below=below))
    net.host("bob", Rule("alice.example"))
    net.zone["bob.example"] = ((BOB,), (KEY["bob"].public,))
    net.start()
    for number in range(MOST):
        name = f"n{number}.evil.test"
        net.zone[name] = ((ip_address("203.0.113.0") + number,), (KEY["eve"].public,))
        net.look_up(alice, name)
    # Those with whom IKE is under way do not go; it ends, and they do.
    net.wait(30)
    assert net.told(alice, "bob.example").verdict is Verdict.ONLY
    assert len([peer for peer in alice.node.peers if peer.born]) <= MOST


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_thousand_names_without_a_key_are_not_asked_for_again(make_net: Any, guard: str, monkeypatch: Any) -> None:
    """Their owner says for how long that holds: the shorter, the more often, and nobody has use for it."""
    if guard == "out":
        monkeypatch.setattr(Peer, "is_kept_current", property(lambda peer: not peer.asleep))
    net = make_net()
    net.ttl = 2
    alice = net.host("alice", Rule("*", below=Action.CLEAR))
    net.start()
    for number in range(50):
        net.zone[f"n{number}.evil.test"] = ((ip_address("203.0.113.0") + number,), ())
        assert net.told(alice, f"n{number}.evil.test").verdict is Verdict.PASS
    before = alice.questions
    net.wait(60)
    assert (alice.questions == before) is (guard == "in")
    # Who asks for one again gets it asked for.
    net.told(alice, "n7.evil.test")
    assert alice.questions > before


def test_who_is_being_sought_does_not_make_room(make_net: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(peers_module, "MOST_BORN", 1)
    net = make_net()
    alice = net.host("alice", Rule("*"))
    net.zone["n.evil.test"] = ((BOB,), (KEY["eve"].public,))
    net.start()
    net.look_up(alice, "n.evil.test")
    assert net.told(alice, "bob.example").verdict is Verdict.REFUSE
    assert alice.node.peers.by_name("n.evil.test") is not None


def test_who_roams_without_end_does_not_fill_the_spd(make_net: Any) -> None:
    net = make_net()
    alice = net.host("alice", Rule("bob.example", roams=True, start=Start.WAIT))
    bob = net.host("bob", Rule("alice.example"))
    net.start()
    for number in range(MOST_ADDRESSES + 20):
        address = ip_address("198.51.100.0") + number
        bob.addresses = (address,)
        net.step(bob, AddressesChanged(bob.addresses))
        net.run()
        net.packet(bob, ALICE)
        net.wait(0.5)
    assert len({policy.selector.remote for policy in alice.spd.values()}) == MOST_ADDRESSES
    assert len({told["left out"] for told in alice.about("name.crowded")}) == 20


@pytest.mark.parametrize("guard", ["in", "out"])
@pytest.mark.parametrize("below", [Action.CLEAR, Action.BLOCK])
def test_who_changes_his_addresses_without_end_does_not_empty_the_pool(
    make_net: Any, below: Action, guard: str, monkeypatch: Any
) -> None:
    if guard == "out":
        monkeypatch.setattr(Peers, "give_back_synthetic", lambda *_: None)
    net = make_net()
    net.ttl = 5
    alice = net.host("alice", Rule("*.example", below=below, addressing=Addressing.SYNTHETIC))
    net.start()
    for change in range(20):
        first = ip_address("203.0.113.0") + 12 * change
        net.zone["evil.example"] = (tuple(first + number for number in range(8)), (KEY["eve"].public,))
        net.look_up(alice, "evil.example")
        net.wait(7)
    taken = len(alice.node.peers._synthetic._given)
    bound = 8 if below is Action.CLEAR else MOST_ADDRESSES
    assert (taken <= bound) is (guard == "in" or below is Action.BLOCK)
    assert taken == len(alice.node.peers.by_name("evil.example").synthetic)
