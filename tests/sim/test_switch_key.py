"""The keys of hosts are switched while they talk, over a network that loses and reorders: no packet is the price."""

from collections.abc import Callable

import pytest

from hushwire.crypto.keys import PrivateKey
from hushwire.events import Rekey, SwitchKey
from hushwire.ike.sa import IkeSA
from hushwire.ike.state import State
from hushwire.sim.campaign import attempt
from hushwire.sim.check import unsettled
from hushwire.sim.host import Host
from hushwire.sim.pair import ALICE, BOB, pair
from hushwire.sim.trial import Trial
from hushwire.sim.world import Frame, Weather, World

ROUGH = Weather(loss=0.15, duplication=0.1, delay=(0.01, 0.05), inside=0.01)
"""For IKE; what the applications say is spared, so that each packet which does not arrive is our doing."""
EVERY = 0.02
"""Seconds between packets."""


def is_ike(frame: Frame) -> bool:
    return frame.destination.port == 500 or frame.data[:4] == bytes(4)


def talking(seed: int, *, weather: Weather = ROUGH, ttl: int = 5) -> tuple[World, Host, Host]:
    """Two hosts that say something to each other fifty times a second; ESP is overtaken, too, but not lost."""
    world = World(seed, weather)
    world.zone.ttl = ttl
    chance = world.chance

    def fate(frame: Frame) -> int:
        if not is_ike(frame) or chance.random() >= weather.loss:
            return 1
        return 0 if chance.random() < 0.7 else 2

    hosts = alice, bob = pair(world)
    world.fate = lambda frame: 1
    for host in hosts:
        host.start()
    world.run(2)
    alice.say(BOB)
    world.run(2)
    assert unsettled(alice, bob) == ""
    world.fate = fate
    return world, alice, bob


def talk(world: World, *hosts: Host, seconds: float) -> None:
    for host in hosts:
        peer = next(other.name for other in hosts if other is not host)
        host.talk(peer, EVERY, world.time + seconds)


def prepare(host: Host) -> PrivateKey:
    """A new key, published beside the old one."""
    old = host.key
    host.new_key()
    host.world.zone.publish(host.name, host.addresses, old.public, host.key.public)
    return old


def withdraw(host: Host) -> None:
    host.world.zone.publish(host.name, host.addresses, host.key.public)


def proved_by(host: Host, peer: Host) -> set[bytes]:
    """Fingerprints by which `peer` knows `host`."""
    sas = [sa for sa in peer.node.ike.sas if sa.state is State.ESTABLISHED]
    return {
        sa.authenticated.verified.public.fingerprint
        for sa in sas
        if sa.authenticated is not None and sa.authenticated.verified.public is not None
    }


def lost(alice: Host, bob: Host) -> set[bytes]:
    return {*alice.said, *bob.said} - {*alice.heard, *bob.heard}


@pytest.mark.parametrize("seed", range(1, 21))
@pytest.mark.parametrize("who", ["alice", "bob", "both"])
def test_keys_switched_while_packets_flow(seed: int, who: str) -> None:
    world, alice, bob = talking(seed)
    switching = {"alice": [alice], "bob": [bob], "both": [alice, bob]}[who]
    for host in switching:
        prepare(host)
    world.run(8)
    talk(world, alice, bob, seconds=40)
    world.run(1)
    for host in switching:
        host.tell(SwitchKey(1))
    world.run(20)
    for host in switching:
        withdraw(host)
    world.run(30)
    assert lost(alice, bob) == set()
    for host in switching:
        assert host.replies[-1].ok
        assert proved_by(host, bob if host is alice else alice) == {host.key.public.fingerprint}
    assert unsettled(alice, bob) == ""


@pytest.mark.parametrize("seed", range(1, 21))
def test_the_peer_learns_of_the_key_late(seed: int) -> None:
    """Before the DNS tells it, the peer refuses the new key: the old IKE SA stays, and it is tried again."""
    world, alice, bob = talking(seed, ttl=20)
    talk(world, alice, bob, seconds=200)
    prepare(alice)
    alice.tell(SwitchKey(1))
    world.run(220)
    assert proved_by(alice, bob) == {alice.key.public.fingerprint}
    assert lost(alice, bob) == set()
    assert unsettled(alice, bob) == ""


@pytest.mark.parametrize("seed", range(1, 21))
def test_rekeys_at_the_same_time(seed: int) -> None:
    world, alice, bob = talking(seed)
    prepare(alice)
    world.run(8)
    alice.tell(SwitchKey(1))
    for host, peer in ((alice, BOB), (bob, ALICE)):
        host.later(world.chance.random() / 5, lambda host=host, peer=peer: host.tell(Rekey(2, peer, True)))  # type: ignore[misc]
        host.later(world.chance.random() / 5, lambda host=host, peer=peer: host.tell(Rekey(3, peer, False)))  # type: ignore[misc]
    world.run(60)
    assert proved_by(alice, bob) == {alice.key.public.fingerprint}
    assert unsettled(alice, bob) == ""


def test_control_to_delete_the_old_one_first_loses_packets() -> None:
    world, alice, bob = talking(1)
    prepare(alice)
    world.run(8)
    talk(world, alice, bob, seconds=20)
    world.run(1)
    alice.tell(SwitchKey(1))
    sa: IkeSA
    for sa in alice.node.ike.sas:
        alice.node.ike.delete(sa, world.now)
    world.run(30)
    assert lost(alice, bob)


class Story(Trial):
    """Of what is done to the hosts, a good part is to switch their keys; the DNS may lag behind."""

    def _deed(self) -> Callable[[], None]:
        if self._chance.random() < 0.7:
            return super()._deed()
        host, late = self._chance.choice(self.hosts), self._chance.choice((0.0, 2.0, 70.0))

        def act() -> None:
            if host.up:
                self.world.remark(f"{host.name} switches its key")
                prepare(host)
                host.later(late, lambda: host.tell(SwitchKey(1)))
                self.world.after(late + 100, host.publish)

        return act


@pytest.mark.parametrize("seed", range(1, 21))
def test_among_everything_else_that_happens(seed: int) -> None:
    result = attempt(Story(seed))
    assert result.failure == ""
