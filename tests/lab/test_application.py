"""Programs ask who is at the other end of their connections, with whole hosts that were never introduced."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hushwire.lab import uml
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
NETWORKS = ("192.0.2.0/24", "2001:db8::/64")
NOBODY = 65534
PORT = 4000

SERVER = f"""
import dataclasses, hushwire, json, os, socket, sys
ask = hushwire.require
with socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
    print("ready", flush=True)
    while True:
        sock, _ = server.accept()
        with sock:
            there = ask(sock, "encrypted", socket_path=sys.argv[1])
            print(json.dumps(dataclasses.asdict(there), default=bytes.hex), flush=True)
            while octets := sock.recv(100):
                sock.sendall(octets)
"""
CLIENT = """
import dataclasses, hushwire, json, os, socket, sys
path, kind, address, level, opens, asks, canary = sys.argv[1:]
ask = hushwire.require
family = socket.AF_INET6 if ":" in address else socket.AF_INET
os.setresuid(-1, int(opens), -1)
sock = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
sock.settimeout(20)
sock.connect((address, 4000))
os.setresuid(-1, 0, -1)
os.setresuid(int(asks), int(asks), int(asks))
try:
    there = ask(sock, level, 15, socket_path=path)
except (hushwire.Insufficient, hushwire.Unavailable) as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error)}))
    raise SystemExit
sock.sendall(canary.encode())
if kind == "tcp":
    assert sock.recv(100) == canary.encode()
print(json.dumps(dataclasses.asdict(there), default=bytes.hex))
"""
HOLD = f"""
import socket, sys, time
with socket.create_connection((sys.argv[1], {PORT})):
    print(flush=True)
    time.sleep(60)
"""


@pytest.fixture
def story() -> Iterator[Story]:
    with Story("alice", "bob", plane=PLANE) as story:
        yield story


def rules(story: Story) -> str:
    said = "".join(f'[[rule]]\npeer = "{at}"\ngroup = "clear"\n' for at in (story["dns"].v4, story["dns"].v6))
    return said + "".join(f'[[rule]]\npeer = "{net}"\nrequire = "encrypted"\nbelow = "clear"\n' for net in NETWORKS)


def ask(
    story: Story, address: object, level: str = "encrypted", *, kind: str = "tcp", opens: int = NOBODY,
    asks: int = NOBODY,
) -> tuple[dict[str, Any], str]:  # fmt: skip
    """What a program of alice's is told, that says a canary if it was told enough."""
    canary = story.canary()
    path = str(story.daemons["alice"].control.with_name("peer.sock"))
    words = (path, kind, str(address), level, str(opens), str(asks), canary)
    told: dict[str, Any] = json.loads(story["alice"].run(sys.executable, "-c", CLIENT, *words, timeout=60).stdout)
    return told, canary


@pytest.mark.lab
def test_programs_ask(story: Story) -> None:
    alice, bob = (story.hire(name, rules(story), publish=False) for name in ("alice", "bob"))
    path = str(bob.control.with_name("peer.sock"))
    server = story["bob"].start(sys.executable, "-c", SERVER, path, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"

    # No packet has left yet, nor will one before it is known who is there.
    canaries = []
    told, canary = ask(story, story["bob"].v6, kind="udp")
    assert told.get("level") == "encrypted", (told, story.log())
    canaries.append(canary)
    assert told["how"].startswith("first contact")

    bindings = set()
    for address in (story["bob"].v4, story["bob"].v6):
        told, canary = ask(story, address)
        canaries.append(canary)
        there = json.loads(server.stdout.readline())
        assert (told["level"], there["level"]) == ("encrypted", "encrypted"), story.log()
        assert told["identity"] == told["key"] != there["key"]
        assert told["binding"] == there["binding"]
        bindings.add(told["binding"])
    # Of the same two, whatever their addresses.
    assert len(bindings) == 1
    assert story.seen(canaries) == 0

    # More than there is; of another user's connection, nothing, and root is told of all.
    told, _ = ask(story, story["bob"].v4, "named")
    assert told["error"] == "Insufficient"
    assert told["text"].startswith("encrypted, and named is required: first contact")
    server.stdout.readline()
    told, _ = ask(story, story["bob"].v4, opens=0)
    assert told == {"error": "Unavailable", "text": f"you have no connection with {story['bob'].v4}"}
    server.stdout.readline()
    assert ask(story, story["bob"].v4, asks=0)[0]["level"] == "encrypted"
    server.stdout.readline()

    # As an administrator asks, about a connection that is open.
    held = story["alice"].start(sys.executable, "-c", HOLD, str(story["bob"].v4), stdout=subprocess.PIPE)
    assert held.stdout is not None
    held.stdout.readline()
    there = json.loads(server.stdout.readline())
    whois = (sys.executable, "-m", "hushwire", "whois", "--control", str(alice.control), f"{story['bob'].v4}:{PORT}")
    (found,) = json.loads(story["alice"].run(*whois, "--json").stdout)
    assert (found["level"], found["binding"]) == ("encrypted", there["binding"])
    assert "encrypted\nhow          first contact" in story["alice"].run(*whois).stdout

    # The socket outlives the process that answers at it, and it is the same key that is met again.
    pids = Path(f"/proc/{alice.pid}/task/{alice.pid}/children").read_text().split()
    (node,) = (int(pid) for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "hushwire:node\n")
    os.kill(node, signal.SIGKILL)
    told = {}

    def is_answered() -> bool:
        told.clear()
        told.update(ask(story, story["bob"].v4, kind="udp")[0])
        return "error" not in told

    assert eventually(is_answered, 60), (told, story.log())
    assert told["binding"] == there["binding"]

    # Without a daemon nobody can say.
    alice.__exit__()
    told, _ = ask(story, story["bob"].v4, kind="udp")
    assert told["error"] == "Unavailable"
    assert "no hushwire runs here" in told["text"]


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    assert uml.lab_tests(__file__).returncode == 0
