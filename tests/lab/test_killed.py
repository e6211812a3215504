"""Kill -9 of every process in turn while a stranger's flow is under way: it goes on or breaks, and never in clear.

Above all with the userspace plane, where one of the processes has all keys and all packets.  RFC 5660: latches have to
be known again afterwards, by what is remembered of the peer.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest

from hushwire.lab import uml
from hushwire.lab.capture import dissect
from hushwire.lab.hushwire import Hushwire
from hushwire.lab.namespaces import end
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
PARENT = "parent"
CASES = [
    ("clear", ("keeper", "memory", PARENT)),
    ("clear", ("node", "plane", "resolver")),
    ("block", ("memory", "plane", PARENT)),
]
"""What the rule permits below its level, and what is killed.  A stranger who comes again four times within a minute is
told to wait until the first is known to be gone (ATTACKS row 55)."""
if PLANE == "kernel":
    CASES = [("clear", ("node", PARENT))]
SERVE = """
import socket, sys
listener = socket.create_server(("", 7777))
print("ready", flush=True)
while True:
    try:
        with listener.accept()[0] as flow, flow.makefile("rw") as lines:
            for line in lines:
                lines.write(f"{sys.argv[1]} {line.split()[1]}\\n")
                lines.flush()
    except OSError:
        pass
"""
SPEAK = """
import itertools, socket, sys, time
try:
    with socket.create_connection((sys.argv[1], 7777)) as flow, flow.makefile("rw") as lines:
        for number in itertools.count():
            lines.write(f"{sys.argv[2]} {number}\\n")
            lines.flush()
            print(lines.readline().split()[1], flush=True)
            time.sleep(0.1)
except (OSError, IndexError) as error:
    print(f"broken: {error}", flush=True)
"""


@contextmanager
def serving(story: Story) -> Iterator[str]:
    """Bob answers every line with a canary, one flow after the other."""
    canary = story.canary()
    server = story["bob"].start(sys.executable, "-c", SERVE, canary, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield canary
    finally:
        end(server)


class Flow:
    """One connection from alice to bob, with a canary there and one back, ten times a second."""

    def __init__(self, story: Story, canary: str) -> None:
        self.told: list[str] = []
        """What the program says: the number of each answer, and at last why there are no more."""
        words = (sys.executable, "-c", SPEAK, str(story["bob"].v4), canary)
        self.program = story["alice"].start(*words, stdout=subprocess.PIPE)
        Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.program.stdout is not None
        self.told.extend(line.strip() for line in self.program.stdout)

    @property
    def broken(self) -> bool:
        return bool(self.told) and self.told[-1].startswith("broken")

    def goes_on(self) -> bool:
        """Whether some more is answered."""
        before = len(self.told)
        return eventually(lambda: self.broken or len(self.told) > before + 5, 60) and not self.broken


@pytest.mark.lab
@pytest.mark.parametrize(("below", "processes"), CASES)
def test_every_process_killed_in_turn(below: str, processes: Sequence[str]) -> None:
    with Story("alice", "bob", plane=PLANE) as story, serving(story) as down:
        control = story.canary()
        flow = Flow(story, control)
        assert flow.goes_on()
        end(flow.program)
        alice = hire(story, below)
        # What is looked for can be seen: there, back, and in the packets of the connection.
        clear = seen(story, down)
        assert min(story.seen([control]), *clear) > 0
        up = story.canary()
        flow = Flow(story, up)
        assert flow.goes_on(), story.log()
        before = remembered(alice)

        for name in processes:
            kill(alice, name)
            if not flow.goes_on():
                assert flow.broken, (name, story.log())
                flow = Flow(story, up)
                assert flow.goes_on(), (name, story.log())
            assert remembered(alice) == before, (name, story.log())
            assert story.seen([up]) == 0, (name, story.log())
        assert seen(story, down) == clear, story.log()


@pytest.mark.lab
def test_without_what_stands_for_a_while() -> None:
    """The control: where nothing of a soft policy stays when the parent is gone, the flow goes on in clear."""
    with Story("alice", "bob", plane=PLANE) as story, serving(story):
        alice = hire(
            story, "clear", without="from hushwire.daemon import barrier; barrier.is_of_one_host = lambda _: False"
        )
        up = story.canary()
        flow = Flow(story, up)
        assert flow.goes_on(), story.log()
        assert story.seen([up]) == 0
        os.kill(alice.pid, signal.SIGKILL)
        assert eventually(lambda: story.seen([up]) > 0, 20), story.log()


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    assert uml.lab_tests(__file__, "in_turn").returncode == 0


def hire(story: Story, below: str, without: str = "") -> Hushwire:
    """hushwire on both, who are strangers to each other; alice's is returned."""
    rules = f'[[rule]]\npeer = "{story["dns"].v4}"\ngroup = "clear"\n'
    rules += f'[[rule]]\npeer = "192.0.2.0/24"\nrequire = "encrypted"\nbelow = "{below}"\n'
    story.hire("bob", rules, publish=False)
    return story.hire("alice", rules, publish=False, without=without)


def kill(daemon: Hushwire, name: str) -> None:
    """And wait until another is in its place; the parent's is begun by us, as systemd does."""
    before = daemon.pid if name == PARENT else daemon.child(name)
    assert before is not None
    os.kill(before, signal.SIGKILL)
    if name == PARENT:
        assert daemon._process is not None
        daemon._process.wait(5)
        daemon.__enter__()
    else:
        assert eventually(lambda: daemon.child(name) not in (None, before), 30), daemon.log.read_text()


def remembered(daemon: Hushwire) -> list[Any]:
    """Whom it knows, by which key and since when."""
    words = (sys.executable, "-m", "hushwire", "known", "list", "--json", "--control", str(daemon.control))
    told: list[str] = []

    def asked() -> bool:
        done = daemon.host.run(*words, check=False)
        told.append(done.stdout)
        return done.returncode == 0

    assert eventually(asked, 30), daemon.log.read_text()
    known = json.loads(told[-1])
    found = [[each[field] for field in ("subject", "fingerprint", "first", "times")] for each in known]
    assert len(found) == 1, found
    return found


def seen(story: Story, canary: str) -> tuple[int, int]:
    """Frames with a canary, and packets of the connection that anybody could read."""
    frames = story.seen([canary])
    return frames, len(dissect(story.relay.pcap, "frame.number", show="tcp.port == 7777"))
