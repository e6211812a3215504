"""Each exchange, decrypted and drawn, against the drawing in ladders/.

After a change that is meant, run this file as a program: it draws them anew.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hushwire.config import Config, Ike, Rule
from hushwire.config import Host as HostConfig
from hushwire.config.proposal import ike_offer
from hushwire.events import Disconnect, Rekey
from hushwire.sim.host import Host
from hushwire.sim.ladder import ladder
from hushwire.sim.pair import ALICE, BOB, pair
from hushwire.sim.world import Frame, World

LADDERS = Path(__file__).parent / "ladders"


def first_contact(world: World, alice: Host, bob: Host) -> None:
    alice.say(BOB)
    world.run(0.5)
    bob.say(ALICE)
    world.run(0.5)


def cookie(world: World, alice: Host, bob: Host) -> None:
    host = bob.node.ike._host
    host.settings = replace(host.settings, cookie_threshold=0)
    first_contact(world, alice, bob)


def child_rekey(world: World, alice: Host, bob: Host) -> None:
    established(world, alice, bob)
    alice.tell(Rekey(1, BOB, False))
    world.run(1)


def ike_rekey(world: World, alice: Host, bob: Host) -> None:
    established(world, alice, bob)
    bob.tell(Rekey(1, ALICE, True))
    world.run(1)


def simultaneous_child_rekeys(world: World, alice: Host, bob: Host) -> None:
    established(world, alice, bob)
    alice.tell(Rekey(1, BOB, False))
    bob.tell(Rekey(1, ALICE, False))
    world.run(1)


def simultaneous_ike_rekeys(world: World, alice: Host, bob: Host) -> None:
    established(world, alice, bob)
    alice.tell(Rekey(1, BOB, True))
    bob.tell(Rekey(1, ALICE, True))
    world.run(1)


def both_begin(world: World, alice: Host, bob: Host) -> None:
    alice.say(BOB)
    bob.say(ALICE)
    world.run(1)


def delete(world: World, alice: Host, bob: Host) -> None:
    established(world, alice, bob)
    alice.tell(Disconnect(1, BOB))
    world.run(1)


def liveness(world: World, alice: Host, bob: Host) -> None:
    established(world, alice, bob)
    bob.stop()
    world.run(60)


def lost_response(world: World, alice: Host, bob: Host) -> None:
    lost: list[Frame] = []

    def fate(frame: Frame) -> int:
        if frame.sender == BOB and len(lost) < 2 and all(frame.data == other.data for other in lost):
            lost.append(frame)
            return 0
        return 1

    established(world, alice, bob)
    world.fate = fate
    alice.tell(Rekey(1, BOB, False))
    world.run(5)


def established(world: World, alice: Host, bob: Host) -> None:
    first_contact(world, alice, bob)
    world.wire.clear()


SCENES: tuple[Callable[[World, Host, Host], None], ...] = (
    first_contact, cookie, child_rekey, ike_rekey, simultaneous_child_rekeys, simultaneous_ike_rekeys, both_begin,
    delete, liveness, lost_response,
)  # fmt: skip


def draw(scene: Callable[[World, Host, Host], None], bob_config: Config | None = None) -> str:
    world = World(1)
    alice, bob = pair(world, bob=bob_config)
    for host in (alice, bob):
        host.start()
    world.run(1)
    scene(world, alice, bob)
    return ladder(world, alice, bob)


def draw_invalid_ke() -> str:
    """Bob takes another group only."""
    offers = (ike_offer("aes256gcm16-prfsha256-ecp256"),)
    return draw(first_contact, Config(HostConfig(BOB), ike=Ike(offers), rules=(Rule(ALICE),)))


DRAWINGS: dict[str, Callable[[], str]] = {
    "invalid_ke": draw_invalid_ke,
    **{scene.__name__: lambda scene=scene: draw(scene) for scene in SCENES},
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_ladder(name: str) -> None:
    assert DRAWINGS[name]() == (LADDERS / f"{name}.txt").read_text()


def test_every_drawing_has_its_scene() -> None:
    assert {path.stem for path in LADDERS.iterdir()} == set(DRAWINGS)


if __name__ == "__main__":
    for name, drawing in DRAWINGS.items():
        (LADDERS / f"{name}.txt").write_text(drawing())
