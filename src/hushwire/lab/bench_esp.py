"""How fast ESP is: iperf3's TCP between two hosts of the lab, through whatever pair of daemons protects them.

AES-256-GCM in UDP, everything on the same processors, the pairs in turn.  With `offloads` the hosts' interfaces pass
bursts whole, as veth does; without, every datagram crosses the wire by itself, as on a real network.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from statistics import median

from hushwire.lab.hushwire import pinned
from hushwire.lab.namespaces import Topology, end
from hushwire.lab.peer import Mode, eventually, introduced
from hushwire.lab.strongswan import Esp, StrongSwan

Protected = Callable[[Topology], AbstractContextManager[None]]
"""Within it, traffic between alice and bob is encrypted."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Of one pair of daemons."""

    name: str
    rounds: tuple[float, ...]
    """Gbit/s that arrived, of each round."""

    @property
    def middle(self) -> float:
        """The median, in Gbit/s."""
        return median(self.rounds)

    def __str__(self) -> str:
        return f"{self.name:30} {self.middle:6.2f} Gbit/s ({min(self.rounds):.2f} to {max(self.rounds):.2f})"


def measure(name: str, protected: Protected, rounds: int = 5, seconds: int = 2, *, offloads: bool = True) -> Throughput:
    """TCP from alice to bob, `rounds` times, each for `seconds`."""
    with Topology(("alice", "bob"), offloads=offloads) as topology:
        topology.bridge()
        with protected(topology):
            return Throughput(name, tuple(gbit_per_second(topology, seconds) for _ in range(rounds)))


def gbit_per_second(topology: Topology, seconds: int) -> float:
    """One round."""
    alice, bob = topology["alice"], topology["bob"]
    server = bob.start("iperf3", "-s", "-1", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        listening = ("sh", "-c", "ss -ltn | grep -q ':5201 '")
        if not eventually(lambda: bob.run(*listening, check=False).returncode == 0):
            raise RuntimeError("iperf3 does not listen")
        words = ("iperf3", "-J", "-t", str(seconds), "-c", str(bob.v4))
        result = json.loads(alice.run(*words, timeout=seconds + 30).stdout)
    finally:
        end(server)
    return float(result["end"]["sum_received"]["bits_per_second"]) / 1e9


@contextmanager
def nothing(topology: Topology) -> Iterator[None]:
    """No protection: what the machine can do."""
    yield


@contextmanager
def strongswan_userspace(topology: Topology) -> Iterator[None]:
    """strongSwan's kernel-libipsec: AES-256-GCM over TUN and UDP."""
    ours, theirs = introduced(topology["alice"], topology["bob"], mode=Mode.TUNNEL)
    with (
        StrongSwan(topology["alice"], ours, esp=Esp.USERSPACE) as alice,
        StrongSwan(topology["bob"], theirs, esp=Esp.USERSPACE),
    ):
        alice.initiate()
        yield


@contextmanager
def hushwire_userspace(topology: Topology) -> Iterator[None]:
    """hushwire's userspace plane: AES-256-GCM over TUN and UDP."""
    ours, theirs = introduced(topology["alice"], topology["bob"])
    with (
        pinned(topology["bob"], theirs, plane="userspace"),
        pinned(topology["alice"], ours, plane="userspace") as alice,
    ):
        alice.initiate()
        yield


PAIRS: dict[str, Protected] = {
    "clear": nothing,
    "hushwire userspace plane": hushwire_userspace,
    "strongSwan kernel-libipsec": strongswan_userspace,
}


def compare(
    rounds: int, seconds: int, *, offloads: bool, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Throughput]:
    """Every pair in turn, `rounds` times."""
    found: dict[str, list[float]] = {name: [] for name in PAIRS}
    for number in range(1, rounds + 1):
        for name, protected in PAIRS.items():
            found[name] += measure(name, protected, 1, seconds, offloads=offloads).rounds
        tell(f"round {number} of {rounds}: " + ", ".join(f"{name} {rates[-1]:.2f}" for name, rates in found.items()))
    return {name: Throughput(name, tuple(rates)) for name, rates in found.items()}
