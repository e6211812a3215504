"""hushwire with an intruder in its node: what he can do there is told as JSON, in a line of the log.

    python intruder.py CONFIG [free]

He is let in where the node, confined, would begin to serve.  With "free" the node was not confined: the control.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path

from hushwire.config import parse
from hushwire.daemon import node
from hushwire.daemon.log import Log
from hushwire.daemon.parent import Parent
from hushwire.events import DeletePolicy, InstallPolicy, Send
from hushwire.linux.sandbox import Confinement
from hushwire.linux.xfrm import Xfrm
from hushwire.node.scope import PROTECT_PRIORITY, REQID_BASE, narrowness
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import Endpoint

ALICE, BOB = ip_address("192.0.2.1"), ip_address("192.0.2.2")
BETWEEN = Selector.between(ALICE, BOB)


def attempts(config: Path) -> Mapping[str, Callable[[], object]]:
    """What he tries, by name; an OSError is a failure."""

    def flush() -> None:
        with Xfrm() as xfrm:
            xfrm.install_policy(Policy(BETWEEN, Direction.OUT, Action.CLEAR, 1))

    return {
        "read a file": lambda: Path("/etc/passwd").read_bytes(),
        "read the key": lambda: (config.parent / "host.key").read_bytes(),
        "write a file": lambda: (config.parent / "written").write_bytes(b"x"),
        "run a program": lambda: subprocess.run(["/bin/true"], check=True),
        "be root": lambda: os.setuid(0),
        "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 6).close(),
        "open a packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close(),
        "open a tcp socket": lambda: socket.socket().close(),
        "signal the parent": lambda: os.kill(os.getppid(), 0),
        "trace the parent": lambda: Path(f"/proc/{os.getppid()}/mem").open("rb").close(),
        "permit clear": flush,
    }


def intrude(worker: node.Worker) -> None:
    """In place of serving: try everything, tell, and ask the parent for what it must not do."""
    told = {}
    for name, attempt in attempts(CONFIG).items():
        try:
            attempt()
            told[name] = "done"
        except (OSError, subprocess.SubprocessError) as refused:
            told[name] = type(refused).__name__
    Log("node").line(f"intruder {json.dumps(told)}")
    parent = worker._others.parent
    priority = PROTECT_PRIORITY - narrowness(BETWEEN)
    protect = Policy(BETWEEN, Direction.OUT, Action.PROTECT, priority, REQID_BASE + 1)
    parent.send(InstallPolicy(1, protect))
    parent.send(InstallPolicy(2, Policy(BETWEEN, Direction.OUT, Action.CLEAR, priority)))
    parent.send(DeletePolicy(BETWEEN, Direction.OUT))
    match sys.argv[2]:
        case "words":
            # A word of the node's own vocabulary, but not one for the parent.
            parent.send(Send(Endpoint(ALICE, 500), Endpoint(BOB, 500), b"hello"))
        case "garbage":
            worker._others.parent._sock.sendall(b"\xc1 no msgpack")
    signal.pause()


CONFIG = Path(sys.argv[1])

if __name__ == "__main__":
    node.Worker.run = intrude  # type: ignore[method-assign]
    if sys.argv[2] == "free":
        Parent._confine = lambda *_: Confinement((), ())  # type: ignore[assignment, method-assign]
        Parent._confine_self = lambda _: None  # type: ignore[method-assign]
    Parent(parse(CONFIG.read_text(), str(CONFIG)), Log("parent")).run()
