"""What a handshake costs the responder: CPU time of all its processes, for IKE_SA_INIT, IKE_AUTH and a Child SA.

Ed25519 raw keys, X25519, AES-256-GCM, ESP in userspace.  One initiator, hushwire's own IKE without a plane, does one
handshake after the other with hushwire and with strongSwan, in turn, so that a noisy machine is noisy to both.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hushwire.lab.hushwire import pinned
from hushwire.lab.initiator import Task
from hushwire.lab.namespaces import Host, Topology
from hushwire.lab.peer import Connection, Mode, Peer, introduced
from hushwire.lab.strongswan import Esp, StrongSwan

WARM_UP = 20
"""Handshakes before those that are counted."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one responder in one round."""

    handshakes: int
    cpu: dict[str, float]
    """Milliseconds of each of its processes, user and system, for each handshake."""
    elapsed: float
    """Milliseconds from one to the next; the initiator's work, one after the other, is in it."""

    @property
    def total(self) -> float:
        """Milliseconds of CPU of all processes."""
        return sum(self.cpu.values())


@dataclass(frozen=True, slots=True)
class Comparison:
    """Some rounds, hushwire and strongSwan in turn."""

    ours: tuple[Cost, ...]
    theirs: tuple[Cost, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """hushwire's CPU over strongSwan's, of each round."""
        return tuple(one.total / other.total for one, other in zip(self.ours, self.theirs, strict=True))

    def __str__(self) -> str:
        lines = []
        for name, costs in (("hushwire", self.ours), ("strongSwan", self.theirs)):
            totals = sorted(cost.total for cost in costs)
            elapsed = median(cost.elapsed for cost in costs)
            lines.append(
                f"{name:11} {median(totals):5.2f} ms of responder CPU a handshake "
                f"({totals[0]:.2f} to {totals[-1]:.2f}), {1000 / elapsed:4.0f} a second"
            )
        parts = ", ".join(f"{name} {median(c.cpu[name] for c in self.ours):.2f}" for name in self.ours[0].cpu)
        ratios = sorted(self.ratios)
        lines.append(f"            of which {parts}")
        lines.append(f"ratio       {median(ratios):5.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), {len(ratios)} rounds")
        return "\n".join(lines)


Responder = Callable[[Host, Connection], AbstractContextManager[Peer]]


def hushwire(host: Host, connection: Connection) -> AbstractContextManager[Peer]:
    """hushwire on the userspace plane."""
    return pinned(host, connection, plane="userspace")


def strongswan(host: Host, connection: Connection) -> AbstractContextManager[Peer]:
    """strongSwan with kernel-libipsec."""
    return StrongSwan(host, connection, esp=Esp.USERSPACE)


def cost(responder: Responder, handshakes: int) -> Cost:
    """One round with one responder."""
    with Topology(("alice", "bob")) as topology:
        topology.bridge()
        # kernel-libipsec knows tunnel mode only.
        ours, theirs = introduced(topology["alice"], topology["bob"], mode=Mode.TUNNEL)

        def handshake(count: int) -> float:
            words = (sys.executable, "-m", "hushwire.lab.initiator", Task.of(ours, count).write())
            return float(topology["alice"].run(*words, timeout=60 + count).stdout)

        with responder(topology["bob"], theirs) as bob:
            handshake(WARM_UP)
            processes = family(bob.pid)
            before = [cpu_seconds(pid) for pid in processes]
            elapsed = handshake(handshakes)
            after = [cpu_seconds(pid) for pid in processes]
    spent: dict[str, float] = {}
    for name, first, last in zip(processes.values(), before, after, strict=True):
        spent[name] = spent.get(name, 0.0) + (last - first) * 1000 / handshakes
    return Cost(handshakes, spent, elapsed * 1000 / handshakes)


def family(pid: int) -> dict[int, str]:
    """A process and its descendants, and what each is called."""
    found = {pid: Path(f"/proc/{pid}/comm").read_text().strip()}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found |= family(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, all its threads, to the nanosecond (times are counted in ticks elsewhere)."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def compare(rounds: int, handshakes: int, tell: Callable[[str], None] = lambda line: None) -> Comparison:
    """hushwire and strongSwan in turn."""
    ours, theirs = [], []
    for number in range(1, rounds + 1):
        ours.append(cost(hushwire, handshakes))
        theirs.append(cost(strongswan, handshakes))
        tell(f"round {number} of {rounds}: hushwire {ours[-1].total:.2f} ms, strongSwan {theirs[-1].total:.2f} ms")
    return Comparison(tuple(ours), tuple(theirs))
