"""Rules per protocol and port: of what two hosts say to each other, some is protected and the rest goes in clear."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hushwire.lab.stage import UDP_ECHO
from hushwire.lab.story import Story

pytestmark = pytest.mark.lab

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
UDP_ASK = """
import socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(3)
sock.sendto(bytes.fromhex(sys.argv[2]), (sys.argv[1], 7))
print(sock.recv(65536).hex())
"""
SPLITS = {
    "the web is private": (4, "tcp", 80, "private", "clear", {"web": False, "echo": True, "ping": True}),
    "all but the web is private": (4, "tcp", 80, "clear", "private", {"web": True, "echo": False, "ping": False}),
    "the web is private, and no rule speaks of the rest": (
        6,
        "tcp",
        80,
        "private",
        "",
        {"web": False, "echo": True, "ping": True},
    ),
    "all but the echo is private": (6, "udp", 7, "clear", "private", {"web": False, "echo": True, "ping": False}),
}
"""IP version; bob's protocol and port; the group for it and that for the rest, if any; who is overheard.

Each is the others' control: the same programs, and other rules.
"""


@pytest.fixture
def story() -> Iterator[Story]:
    """Bob has a web server, and sends every datagram to port 7 back."""
    with Story("alice", "bob", plane=PLANE) as story:
        echo = story["bob"].start(sys.executable, "-c", UDP_ECHO, stdout=subprocess.PIPE)
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"
        yield story


@pytest.mark.parametrize("split", SPLITS)
def test_one_port_apart_from_the_rest(story: Story, split: str) -> None:
    """Every program is answered; who listens sees what a rule says is clear, and nothing else."""
    version, protocol, port, its, others, shown = SPLITS[split]
    for name, other, whose in (("bob", "alice", "local"), ("alice", "bob", "remote")):
        far = story[other].v4 if version == 4 else story[other].v6
        rest, one = (f'[[rule]]\npeer = "{far}"\ngroup = "{group}"\n' if group else "" for group in (others, its))
        rules = f'{rest}{one}protocol = "{protocol}"\n{whose}-port = {port}\n'
        daemon = story.hire(name, rules, publish=False, start=False)
        story.publish_reverse(name, daemon.key.public)
    for name in ("bob", "alice"):
        story.start(name)
    assert say(story, version) == shown, story.log()
    assert story.peer("alice", str(far))["level"] == "named"


def say(story: Story, version: int) -> dict[str, bool]:
    """Say something by each program, and hear it; whether that was seen."""
    alice, bob = story["alice"], story["bob"]
    far = str(bob.v4 if version == 4 else bob.v6)
    fetched, page = story.curl(alice, far, story.serve_web(bob), version=version)
    assert fetched, story.log()
    echo, ping = story.relay.canary(), story.relay.canary()
    answer = alice.run(sys.executable, "-c", UDP_ASK, far, echo.hex(), check=False)
    assert answer.stdout.strip() == echo.hex(), answer.stderr + story.log()
    assert alice.ping(bob, version=version, pattern=ping), story.log()
    report = story.relay.report()
    return {"web": story.seen(page) > 0, "echo": report.seen(echo) > 0, "ping": report.seen(ping) > 0}
