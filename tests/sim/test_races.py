"""Races that the campaign found, each as small as it can be told: in the end the two agree on one Child SA."""

import pytest

from hushwire.events import Expire, Rekey
from hushwire.policy.sad import SA, Direction, SAName
from hushwire.sim.check import children, unsettled
from hushwire.sim.host import Host
from hushwire.sim.pair import ALICE, BOB, pair
from hushwire.sim.world import Weather, World

CALM = Weather(delay=(0.01, 0.03), inside=0.01)


def established(seed: int = 1, weather: Weather = CALM) -> tuple[World, Host, Host]:
    world = World(seed, weather)
    alice, bob = pair(world)
    for host in (alice, bob):
        host.start()
    world.run(1)
    alice.say(BOB)
    world.run(1)
    assert unsettled(alice, bob) == ""
    return world, alice, bob


def expire(host: Host) -> None:
    """The hard lifetime of its inbound SA passes."""
    sa = next(sa for sa in children(host).values() if sa.direction is Direction.IN)
    host.tell(Expire(SAName(sa.spi, sa.destination), True))


def test_the_peer_is_told_of_a_child_sa_that_expired() -> None:
    world, alice, bob = established()
    expire(alice)
    world.run(1)
    assert children(alice) == children(bob) == {}


@pytest.mark.parametrize("seed", range(5))
def test_what_was_asked_for_while_a_rekey_was_under_way_is_not_made_twice(seed: int) -> None:
    world, alice, bob = established(seed)
    alice.tell(Rekey(1, BOB, False))
    expire(alice)
    world.run(0.011)
    alice.say(BOB)
    world.run(2)
    assert unsettled(alice, bob) == ""


@pytest.mark.parametrize("seed", range(20))
def test_both_want_a_child_sa_at_once(seed: int) -> None:
    world, alice, bob = established(seed)
    expire(alice)
    world.run(1)
    alice.say(BOB)
    bob.say(ALICE)
    world.run(2)
    assert unsettled(alice, bob) == ""


@pytest.mark.parametrize("seed", range(60))
def test_both_rekey_at_once_whatever_overtakes_what(seed: int) -> None:
    world, alice, bob = established(seed, Weather(delay=(0.005, 0.1), inside=0.03))
    alice.tell(Rekey(1, BOB, False))
    bob.tell(Rekey(1, ALICE, False))
    world.run(3)
    assert unsettled(alice, bob) == ""


def test_an_ike_rekey_does_not_forget_what_the_peer_is_to_be_told() -> None:
    world, alice, bob = established()
    # Alice's liveness exchange hangs, so that her Delete has to wait behind it.
    world.fate = lambda frame: 0 if frame.sender == ALICE else 1
    world.run(31)
    expire(alice)
    world.fate = None
    bob.tell(Rekey(1, ALICE, True))
    world.run(30)
    assert children(alice).keys() == children(bob).keys()


def test_an_ike_rekey_does_not_forget_a_delete_that_is_under_way() -> None:
    world, alice, bob = established()
    bob.tell(Rekey(1, ALICE, False))
    world.fate = lambda frame: 0 if frame.sender == BOB else 1
    world.run(0.2)
    assert len(bob.sad) == 4
    # Bob's Delete of the old one is lost, and before he says it again it expires.
    expire(bob)
    world.fate = None
    alice.tell(Rekey(1, BOB, True))
    world.run(10)
    assert unsettled(alice, bob) == ""


def test_half_a_child_sa_is_none() -> None:
    """Bob's plane refuses the outbound half of what alice's rekey made."""
    world, alice, bob = established()
    refused: list[SA] = []

    def full(sa: SA) -> bool:
        if sa.direction is Direction.IN or refused:
            return False
        refused.append(sa)
        return True

    bob.full = full
    alice.tell(Rekey(1, BOB, False))
    world.run(2)
    assert refused
    assert children(alice).keys() == children(bob).keys()
    for host, peer in ((alice, BOB), (bob, ALICE)):
        host.say(peer)
    world.run(3)
    assert unsettled(alice, bob) == ""
