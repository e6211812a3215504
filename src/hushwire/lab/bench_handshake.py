"""What a handshake costs the responder: its CPU time over many, each of IKE_SA_INIT, IKE_AUTH and a deletion.

    python -m hushwire.lab.bench_handshake [--handshakes N]

Ed25519 raw keys, X25519, AES-256-GCM; the initiator is strongSwan.
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from hushwire.lab.namespaces import Topology
from hushwire.lab.peer import Mode, introduced
from hushwire.lab.strongswan import Esp, StrongSwan


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one responder."""

    name: str
    handshakes: int
    cpu: float
    """Milliseconds of the responder's processes, user and system, for each handshake."""
    elapsed: float
    """Milliseconds from one to the next; the initiator's work, one after the other, is in it."""

    def __str__(self) -> str:
        return (
            f"{self.name:30} {self.cpu:6.2f} ms of CPU, {self.elapsed:6.1f} ms elapsed ({self.handshakes} handshakes)"
        )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its children that are alive, and of those it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    # proc(5): utime, stime, cutime, cstime are the fields 14 to 17; the first one here is the third.
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) for child in children)


def repeat(name: str, initiator: StrongSwan, responder_pid: int, handshakes: int) -> Cost:
    """Set the initiator's SAs up and delete them, `handshakes` times."""
    initiator.initiate()
    initiator.terminate()
    before, started = cpu_seconds(responder_pid), monotonic()
    for _ in range(handshakes):
        initiator.initiate()
        initiator.terminate()
    cpu, elapsed = cpu_seconds(responder_pid) - before, monotonic() - started
    return Cost(name, handshakes, cpu * 1000 / handshakes, elapsed * 1000 / handshakes)


def strongswan(handshakes: int) -> Cost:
    """strongSwan as the responder, with ESP in userspace so that it runs on any kernel."""
    with Topology(("alice", "bob")) as topology:
        topology.bridge()
        ours, theirs = introduced(topology["alice"], topology["bob"], mode=Mode.TUNNEL)
        with (
            StrongSwan(topology["alice"], ours, esp=Esp.USERSPACE) as alice,
            StrongSwan(topology["bob"], theirs, esp=Esp.USERSPACE) as bob,
        ):
            return repeat("strongSwan kernel-libipsec", alice, bob.pid, handshakes)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="hushwire.lab.bench_handshake")
    parser.add_argument("--handshakes", type=int, default=200)
    print(strongswan(parser.parse_args().handshakes))


if __name__ == "__main__":
    main()
