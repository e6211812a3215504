"""A world: virtual time, the first packet between strangers, and the same run from the same seed."""

from ipaddress import ip_address

import pytest

from hushwire.config import Config, Rule
from hushwire.config import Host as HostConfig
from hushwire.crypto.secret import Secret
from hushwire.events import Connect, Outcome
from hushwire.policy.assurance import Assurance
from hushwire.sim.check import Check, unsettled
from hushwire.sim.host import CANARY, Host
from hushwire.sim.pair import ALICE, BOB, pair
from hushwire.sim.trial import Trial
from hushwire.sim.world import Violation, World


def started(world: World) -> tuple[Host, Host]:
    alice, bob = pair(world)
    for host in (alice, bob):
        host.start()
    world.run(1)
    return alice, bob


def test_the_first_packet_makes_an_sa_and_arrives() -> None:
    world = World(1)
    alice, bob = started(world)
    alice.say(BOB)
    world.run(1)
    bob.say(ALICE)
    world.run(1)
    assert bob.heard == [CANARY + b"alice.example-0"]
    assert alice.heard == [CANARY + b"bob.example-0"]
    assert unsettled(alice, bob) == ""
    assert [frame.sender[0] for frame in world.wire] == list("ababab")


def test_time_jumps_and_what_is_due_together_keeps_its_order() -> None:
    world, happened = World(1), list[tuple[float, str]]()
    for seconds, what in ((86400.0, "late"), (1.0, "first"), (1.0, "second")):
        world.after(seconds, lambda what=what: happened.append((world.time, what)))  # type: ignore[misc]
    world.run(1e6)
    assert happened == [(1.0, "first"), (1.0, "second"), (86400.0, "late")]
    assert world.now.wall - world.now.monotonic == pytest.approx(1_800_000_000)


def test_the_same_seed_is_the_same_run_to_the_octet() -> None:
    one, other = Trial(7), Trial(7)
    for trial in (one, other):
        trial.run()
    assert one.world.remarks == other.world.remarks
    assert one.world.wire == other.world.wire
    assert [host.notices for host in one.hosts] == [host.notices for host in other.hosts]


def test_another_seed_is_another_run() -> None:
    one, other = World(1), World(2)
    for world in (one, other):
        started(world)[0].say(BOB)
        world.run(1)
    assert not {frame.data for frame in one.wire} & {frame.data for frame in other.wire}


def test_a_name_that_cannot_be_looked_up_gets_no_packet_out() -> None:
    world = World(1)
    world.zone.faults[BOB] = Outcome.ERROR
    alice, _ = started(world)
    alice.tell(Connect(1, BOB))
    alice.say(BOB)
    world.run(3)
    assert world.wire == []


def test_a_shared_key_serves_too() -> None:
    world, check = World(1), Check()
    key = Secret(b"sixteen octets and more")

    def trusted(name: str, address: str, peer: str, peer_address: str) -> Host:
        rule = Rule(peer, Assurance.TRUSTED, psk="a file", address=ip_address(peer_address))
        return Host(world, Config(HostConfig(name), rules=(rule,)), (address,), check, {peer: key})

    alice = trusted(ALICE, "2001:db8::1", BOB, "2001:db8::2")
    bob = trusted(BOB, "2001:db8::2", ALICE, "2001:db8::1")
    for host in (alice, bob):
        host.start()
    alice.tell(Connect(1, BOB))
    world.run(1)
    assert unsettled(alice, bob) == ""
    assert [reply.ok for reply in alice.replies] == [True]


def test_a_deadline_that_never_goes_away_is_no_hang() -> None:
    world = World(1)
    alice, _ = started(world)
    alice.node.deadline = lambda: 0.0  # type: ignore[method-assign]
    alice.say(BOB)
    with pytest.raises(Violation, match="again and again"):
        world.run(1)


def test_a_storm_that_feeds_itself_is_no_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hushwire.sim.world.MOST_EVENTS", 1000)
    world = World(1)

    def again() -> None:
        world.after(0.001, again)

    again()
    with pytest.raises(Violation, match="no end"):
        world.run(60)
