"""A world: virtual time, the first packet between strangers, and the same run from the same seed."""



from hushwire.config import Config, Rule
from hushwire.config import Host as HostConfig
from hushwire.sim.check import Check, unsettled
from hushwire.sim.host import CANARY, Host
from hushwire.sim.world import Weather, World


def two(seed: int = 1, weather: Weather | None = None) -> tuple[World, Host, Host]:
    world, check = World(seed, weather), Check()
    alice = Host(world, Config(HostConfig("alice.example"), rules=(Rule("bob.example"),)), ("192.0.2.1",), check)
    bob = Host(world, Config(HostConfig("bob.example"), rules=(Rule("alice.example"),)), ("192.0.2.2",), check)
    for host in (alice, bob):
        host.publish()
        host.start()
    world.run(1)
    return world, alice, bob


def test_the_first_packet_makes_an_sa_and_arrives() -> None:
    world, alice, bob = two()
    alice.say("bob.example")
    world.run(1)
    bob.say("alice.example")
    world.run(1)
    assert bob.heard == [CANARY + b"alice.example-0"]
    assert alice.heard == [CANARY + b"bob.example-0"]
    assert unsettled(alice, bob) == ""
    assert [frame.sender[0] for frame in world.wire] == list("ababab")
