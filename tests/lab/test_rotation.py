"""Requests by name, one after another, while the server's key is rotated and while its address changes: none fails."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path
from time import monotonic

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab.hushwire import MAIN
from hushwire.lab.peer import eventually
from hushwire.lab.story import LISTENER, Story

pytestmark = pytest.mark.lab

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
MOVED = IPv4Address("192.0.2.22")
LEAST, LAST = 1000, 40
"""Requests: of all, and of those after the client was told to stop.  What was done last is under load as well."""
EVERY, LIMIT = 0.025, 300.0
"""Seconds from one request to the next, and until the client ends by itself."""

CLIENT = """
import http.client, json, os, socket, sys, time
name, canary, stop = sys.argv[1:4]
least, last, every, limit = map(float, sys.argv[4:])
answered, failed, begin = [], "", time.monotonic()
while last > 0 and not failed and time.monotonic() < begin + limit:
    time.sleep(max(0.0, begin + len(answered) * every - time.monotonic()))
    try:
        # A look-up and a connection for each, as for programs that come and go.
        connection = http.client.HTTPConnection(socket.gethostbyname(name), timeout=10)
        connection.request("GET", f"/page?{canary}", headers={"Host": name, "Cookie": canary})
        response = connection.getresponse()
        if response.status != 200 or canary not in response.read().decode():
            failed = f"status {response.status}"
        connection.close()
    except OSError as error:
        failed = repr(error)
    answered.append(time.monotonic())
    if len(answered) == 1 and not failed:
        print("answered", flush=True)
    last -= len(answered) >= least and os.path.exists(stop)
print(json.dumps([answered, failed]))
"""
"""Says when the first was answered; ends at the first that fails, or when it was told to and has made enough."""


@pytest.fixture
def story() -> Iterator[Story]:
    with Story("alice", "bob", plane=PLANE) as story:
        story.hire("bob", '[[rule]]\npeer = "*.example"\ngroup = "private"\n', dns='ask = ["alice.example"]')
        story.hire("alice", '[[rule]]\npeer = "*"\ngroup = "private"\n', dns=f'listen = ["{LISTENER}"]')
        yield story


@dataclass(slots=True)
class Requests:
    """From alice to bob by name."""

    client: "subprocess.Popen[str]"
    stop: Path
    """When this is there, the client ends soon."""
    canary: str
    answered: tuple[float, ...] = ()
    """Monotonic times, once it has ended."""
    failed: str = ""
    """What became of the last one, if it failed."""

    def end(self, patience: float) -> None:
        """Hear what it has to say; or TimeoutExpired: it goes on."""
        said, _ = self.client.communicate(timeout=patience)
        answered, self.failed = json.loads(said)
        self.answered = tuple(answered[:-1] if self.failed else answered)

    def between(self, *moments: float) -> list[int]:
        """How many were answered before, between and after these moments."""
        edges = (0.0, *moments, float("inf"))
        return [sum(since <= at < until for at in self.answered) for since, until in pairwise(edges)]


def start(story: Story) -> Requests:
    canary, stop = story.canary(), story.folder / "stop"
    (story.serve_web(story["bob"]) / "page").write_text(canary)
    numbers = map(str, (LEAST, LAST, EVERY, LIMIT))
    command = (sys.executable, "-c", CLIENT, "bob.example", canary, str(stop), *numbers)
    requests = Requests(story.start_program(story["alice"], *command), stop, canary)
    assert requests.client.stdout is not None
    # The client waits no longer than ten seconds for each.
    assert requests.client.stdout.readline() == "answered\n", story.log()
    return requests


@contextmanager
def none_fails(story: Story) -> Iterator[Requests]:
    """Meanwhile there are requests, from before until after."""
    requests = start(story)
    yield requests
    # Or it has ended at a failure.
    running = requests.client.poll() is None
    requests.stop.touch()
    requests.end(60)
    assert (running, requests.failed) == (True, ""), story.log()
    assert len(requests.answered) >= LEAST
    assert story.seen([requests.canary]) == 0


def proved(story: Story) -> set[object]:
    """The keys that bob proved to alice."""
    return {sa["key"] for sa in story.peer("alice", "bob.example").get("ike", ())}  # type: ignore[attr-defined]


def known(story: Story) -> str:
    """What alice last heard of bob's name, as her log has it."""
    log = story.daemons["alice"].log.read_text()
    return [line for line in log.splitlines() if "name.bound name=bob.example" in line][-1]


def test_while_the_key_is_rotated(story: Story) -> None:
    bob, daemon = story["bob"], story.daemons["bob"]
    old = daemon.key.public.fingerprint.hex()
    with none_fails(story) as requests:
        assert proved(story) == {old}
        begun = monotonic()
        rotation, said = rotate(story)
        # The switch: FILE is FILE.old now.
        assert eventually((daemon.folder / "host.key.old").exists, 120), said.read_text()
        switched = monotonic()
        assert rotation.wait(120) == 0, said.read_text()
        withdrawn = monotonic()
        # That it was withdrawn is nothing to alice until she has heard of it.
        assert eventually(lambda: old[:16] not in known(story), 30), story.log()
        assert old not in proved(story)
    # At each moment alice knew the key in use: what stood need not have helped out.
    assert REFUSED not in story.log()
    before, published, waited, after = requests.between(begun, switched, withdrawn)
    assert before > 0
    assert published > LAST
    assert waited > LAST
    assert after >= LAST
    # The DNS has the new key alone.
    checked = bob.run(
        sys.executable, "-m", "hushwire", "dns", "check", "bob.example", "--anchor", str(story.world.anchor_path),
        "--forward", story.world.forward, "--key", str(daemon.folder / "host.key"), "--alarm-days", "0", check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert old not in checked.stdout


def test_control_in_the_wrong_order(story: Story) -> None:
    """The new key takes the old one's place in the DNS while bob uses the old one: why there is a timetable."""
    requests, bob = start(story), story["bob"]
    story.world.publish("bob.example", [bob.v4, bob.v6], [PrivateKey.generate(KeyKind.ED25519).public])
    requests.end(60)
    assert requests.failed, story.log()
    assert story.seen([requests.canary]) == 0


def test_control_without_the_waits(story: Story) -> None:
    """In the right order, but at once: bob proves a key that alice does not know yet."""
    requests = start(story)
    rotation, said = rotate(story, WITHOUT_WAITS)
    assert rotation.wait(60) == 0, said.read_text()
    assert eventually(lambda: REFUSED in story.log()), story.log()
    assert story.seen([requests.canary]) == 0


REFUSED = "AUTHENTICATION_FAILED: the peer's key is none of those known for it"
WITHOUT_WAITS = "from hushwire.names.rollover import Rollover\nRollover.wait = 0.0\n"


def rotate(story: Story, without: str = "") -> tuple["subprocess.Popen[str]", Path]:
    """`hushwire key rotate`, as an administrator types it who has one name server; and where it says what it does.

    `without`: statements that take a guard out before it starts.
    """
    folder, world, said = story.daemons["bob"].folder, story.world, story.folder / "rotation"
    with said.open("w") as output:
        process = story["bob"].start(
            sys.executable, "-c", without + MAIN, "key", "rotate", str(folder / "host.key"), "--name", "bob.example",
            "--control", str(folder / "control"), "--tsig", str(world.tsig_path), "--server", world.forward,
            "--anchor", str(world.anchor_path), "--forward", world.forward, "--margin", "0",
            stdout=output, stderr=output,
        )  # fmt: skip
    return process, said


def test_while_the_address_changes(story: Story) -> None:
    bob, key = story["bob"], story.daemons["bob"].key.public
    story.world.publish("bob.example", [bob.v4], [key])
    with none_fails(story) as requests:
        begun = monotonic()
        appear(story)
        story.world.publish("bob.example", [bob.v4, MOVED], [key])
        assert eventually(lambda: str(MOVED) in str(story.peer("alice", "bob.example")["addresses"]), 15), story.log()
        story.world.publish("bob.example", [MOVED], [key])
        gone = eventually(lambda: story.peer("alice", "bob.example")["addresses"] == [str(MOVED)], 15)
        assert gone, story.log()
        # What stood at the old address ends, ten seconds later.
        assert eventually(lambda: remotes(story) == {str(MOVED)}, 20), story.log()
        disappear(story)
        moved = monotonic()
    before, during, after = requests.between(begun, moved)
    assert before > 0
    assert during > LAST
    assert after >= LAST


def test_control_the_old_address_goes_first(story: Story) -> None:
    """And the new one, which is there, is not published yet."""
    requests = start(story)
    appear(story)
    disappear(story)
    requests.end(60)
    assert requests.failed, story.log()
    assert story.seen([requests.canary]) == 0


def appear(story: Story) -> None:
    """Bob has the new address as well."""
    bob = story["bob"]
    # Linux would take it away together with the first one of the same network.
    bob.run("sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1")
    bob.run("ip", "address", "add", f"{MOVED}/24", "dev", "eth0")


def disappear(story: Story) -> None:
    """Bob has his old address no more."""
    bob = story["bob"]
    bob.run("ip", "address", "delete", f"{bob.v4}/24", "dev", "eth0")


def remotes(story: Story) -> set[str]:
    """Where alice has IKE SAs with bob."""
    sas = story.peer("alice", "bob.example").get("ike", ())
    return {sa["remote"].split(":")[0] for sa in sas}  # type: ignore[attr-defined]
