"""How fast ESP is: iperf3's TCP between two hosts of the lab, through whatever pair of daemons protects them.

python -m hushwire.lab.bench_esp [--rounds N] [--seconds S]
"""

import argparse
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from statistics import median

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

    def __str__(self) -> str:
        return f"{self.name:30} {median(self.rounds):6.2f} Gbit/s ({min(self.rounds):.2f} to {max(self.rounds):.2f})"


def measure(name: str, protected: Protected, rounds: int = 5, seconds: int = 2) -> Throughput:
    """TCP from alice to bob, `rounds` times, each for `seconds`, with hosts whose interfaces offload."""
    with Topology(("alice", "bob"), offloads=True) as topology:
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


PAIRS: dict[str, Protected] = {"clear": nothing, "strongSwan kernel-libipsec": strongswan_userspace}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="hushwire.lab.bench_esp")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    for name, protected in PAIRS.items():
        print(measure(name, protected, options.rounds, options.seconds), flush=True)


if __name__ == "__main__":
    main()
