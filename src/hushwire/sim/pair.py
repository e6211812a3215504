"""sim: two hosts that know each other by name, the usual population of a world."""

from hushwire.config import Config, Rule
from hushwire.config import Host as HostConfig
from hushwire.sim.check import Check
from hushwire.sim.host import Host
from hushwire.sim.world import World

ALICE, BOB = "alice.example", "bob.example"
IPV4, IPV6 = ("192.0.2.1", "198.51.100.1"), ("2001:db8:1::1", "2001:db8:2::1")
"""Addresses of the two."""


def pair(
    world: World, alice: Config | None = None, bob: Config | None = None, addresses: tuple[str, str] = IPV4
) -> tuple[Host, Host]:
    """Alice and Bob, published but not started, under one Check."""
    check = Check()
    hosts = (
        Host(world, alice or plain(ALICE, BOB), (addresses[0],), check),
        Host(world, bob or plain(BOB, ALICE), (addresses[1],), check),
    )
    for host in hosts:
        host.publish()
    return hosts


def plain(name: str, peer: str) -> Config:
    """The configuration of a host that has one rule and else every default."""
    return Config(HostConfig(name), rules=(Rule(peer),))
