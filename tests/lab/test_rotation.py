"""A thousand requests by name while the server's key is rotated, and while its address changes: none lost."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest

from hushwire.lab.namespaces import Host
from hushwire.lab.peer import eventually
from hushwire.lab.story import LISTENER, Story

pytestmark = pytest.mark.lab

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
REQUESTS, EVERY = 1000, 0.025
"""And seconds between them."""
MOVED = IPv4Address("192.0.2.22")

CLIENT = """
import http.client, json, socket, sys, time
name, canary, count, every = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
failed, begin = [], time.monotonic()
for number in range(count):
    time.sleep(max(0.0, begin + number * every - time.monotonic()))
    try:
        # A look-up and a connection for each, as for programs that come and go.
        connection = http.client.HTTPConnection(socket.gethostbyname(name), timeout=10)
        connection.request("GET", f"/page?{canary}", headers={"Host": name, "Cookie": canary})
        response = connection.getresponse()
        if response.status != 200 or canary not in response.read().decode():
            failed.append([number, response.status])
        connection.close()
    except OSError as error:
        failed.append([number, repr(error)])
print(json.dumps(failed))
"""


@pytest.fixture
def story() -> Iterator[Story]:
    with Story("alice", "bob", plane=PLANE) as story:
        story.hire("bob", '[[rule]]\npeer = "*.example"\ngroup = "private"\n', dns='ask = ["alice.example"]')
        story.hire("alice", '[[rule]]\npeer = "*"\ngroup = "private"\n', dns=f'listen = ["{LISTENER}"]')
        yield story


@contextmanager
def requests(story: Story) -> Iterator[list[object]]:
    """A thousand from alice to bob; afterwards, those that failed."""
    canary = story.canary()
    (story.serve_web(story["bob"]) / "page").write_text(canary)
    client = story.start_program(
        story["alice"], sys.executable, "-c", CLIENT, "bob.example", canary, str(REQUESTS), str(EVERY)
    )
    failed: list[object] = []
    yield failed
    said, _ = client.communicate(timeout=120)
    failed += json.loads(said)
    assert story.seen([canary]) == 0


def proved(story: Story) -> set[object]:
    """The keys that bob proved to alice."""
    return {sa["key"] for sa in story.peer("alice", "bob.example").get("ike", ())}  # type: ignore[attr-defined]


def test_while_the_key_is_rotated(story: Story) -> None:
    bob, daemon = story["bob"], story.daemons["bob"]
    old = daemon.key.public.fingerprint.hex()
    with requests(story) as failed:
        assert eventually(lambda: proved(story) == {old}, 10), story.log()
        rotation = rotate(story, bob)
        said, _ = rotation.communicate(timeout=60)
        assert rotation.returncode == 0, said
        assert eventually(lambda: proved(story) and old not in proved(story), 15), story.log()
    assert failed == [], story.log()
    # The DNS has the new key alone.
    checked = bob.run(
        sys.executable, "-m", "hushwire", "dns", "check", "bob.example", "--anchor", str(story.world.anchor_path),
        "--forward", story.world.forward, "--key", str(daemon.folder / "host.key"), "--alarm-days", "0", check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert old not in checked.stdout


def rotate(story: Story, bob: Host) -> "subprocess.Popen[str]":
    """`hushwire key rotate`, as an administrator types it."""
    folder, world = story.daemons["bob"].folder, story.world
    return bob.start(
        sys.executable, "-m", "hushwire", "key", "rotate", str(folder / "host.key"), "--name", "bob.example",
        "--control", str(folder / "control"), "--tsig", str(world.tsig_path), "--server", world.forward,
        "--anchor", str(world.anchor_path), "--forward", world.forward, "--margin", "1",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def test_while_the_address_changes(story: Story) -> None:
    bob, key = story["bob"], story.daemons["bob"].key.public
    story.world.publish("bob.example", [bob.v4], [key])
    with requests(story) as failed:
        assert eventually(lambda: proved(story), 10), story.log()
        bob.run("ip", "address", "add", f"{MOVED}/24", "dev", "eth0")
        story.world.publish("bob.example", [bob.v4, MOVED], [key])
        assert eventually(lambda: str(MOVED) in str(story.peer("alice", "bob.example")["addresses"]), 15), story.log()
        story.world.publish("bob.example", [MOVED], [key])
        gone = eventually(lambda: story.peer("alice", "bob.example")["addresses"] == [str(MOVED)], 15)
        assert gone, story.log()
    assert failed == [], story.log()
    # What stood at the old address has ended.
    assert eventually(lambda: remotes(story) == {str(MOVED)}, 20), story.log()


def remotes(story: Story) -> set[str]:
    """Where alice has IKE SAs with bob."""
    sas = story.peer("alice", "bob.example").get("ike", ())
    return {sa["remote"].split(":")[0] for sa in sas}  # type: ignore[attr-defined]
