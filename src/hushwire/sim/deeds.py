"""sim: what is done to hosts in every kind of story; what chance has to say was drawn before."""

from collections.abc import Sequence

from hushwire.sim.host import Host
from hushwire.sim.world import Weather, World

CALM = Weather(delay=(0.005, 0.02), inside=0.001)


def restart(host: Host, down: float) -> None:
    """The power fails, and is back after `down` seconds."""
    if host.up:
        host.world.remark(f"{host.name} goes down for {down:.1f} s")
        host.stop()
        host.world.after(down, lambda: bring_up(host))


def new_key(host: Host) -> None:
    """Its key is replaced, at the host and in the DNS."""
    if host.up:
        host.world.remark(f"{host.name} has a new key, and restarts")
        host.stop()
        host.new_key()
        host.publish()
        host.start()


def move(host: Host, address: str) -> None:
    """It has another address, and says so in the DNS."""
    host.world.remark(f"{host.name} moves to {address}")
    host.move(address)
    host.publish()


def calm(world: World, hosts: Sequence[Host]) -> None:
    """Nothing is lost or lies any more, and everybody is up."""
    world.remark("the weather is calm")
    world.weather = CALM
    world.zone.faults.clear()
    for host in hosts:
        bring_up(host)


def bring_up(host: Host) -> None:
    """Unless it is."""
    if not host.up:
        host.start()
