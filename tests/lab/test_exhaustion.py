"""What strangers who want all can make a whole host hold (ATTACKS row 55).  Bound by bound it is in tests/node.

They are hushwires that were changed: one begins IKE SAs and Child SAs without end, as one name after another, and
deletes none; one has all replaced without a pause; one comes from one address after another.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from time import monotonic

import pytest

from hushwire.ike import allowance
from hushwire.lab.hushwire import Hushwire
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
NEIGHBOURS = 4
"""New strangers of one network in an hour, here: 256 would take half a minute to come.  Bob has three in his."""
REKEYS, REKEYS_PER_SECOND = 8.0, 0.5
"""Here: 256 would take as long."""
MUCH = 4 << 10
"""KiB of memory, that a few dozen strangers do not need."""
CHILDREN = allowance.PER_SELECTOR + allowance.MOST_IKE_SAS
"""Of one stranger.  One that is being made in each of his IKE SAs is not counted yet."""
STREET, ADDRESSES = "198.51.100.0/24", 24
"""Of one network, and how many of it a stranger has."""
ASKED = 300
"""Times that each of them wants something."""

LOW_BOUNDS = f"""
from hushwire.node import claims
from hushwire.ike import allowance
claims.NEIGHBOURS = {NEIGHBOURS}
allowance.REKEYS, allowance.REKEYS_PER_SECOND = {REKEYS}, {REKEYS_PER_SECOND}
"""
NO_BOUNDS = """
from hushwire.ike import allowance
from hushwire.node import claims
allowance.MOST_IKE_SAS = allowance.PER_SELECTOR = 1 << 20
allowance.Pace.count = lambda *_: None
claims.NEIGHBOURS = 1 << 20
"""
# How many SAs the userspace plane has; and who asks for the status is told of memory that nothing has any more.
GAUGE = """
import gc, mmap, os
from hushwire.node.commands import Commands
def perform(commands, command, now, perform=Commands.perform):
    gc.collect()
    perform(commands, command, now)
Commands.perform = perform

from hushwire.esp.plane import Plane
gauge = mmap.mmap(os.open({path!r}, os.O_RDWR), 8)
def install(plane, request, now, install=Plane.install):
    outputs = install(plane, request, now)
    gauge[:] = (len(plane._outbound) + len(plane._inbound)).to_bytes(8)
    return outputs
Plane.install = install
"""
# Fifty times a second she wants something, until she has wanted it often enough.
GREEDY = f"""
from dataclasses import replace
from ipaddress import ip_address
from hushwire.events import InstallSA, Notice
from hushwire.ike import allowance, create_child, rekey_ike
from hushwire.ike.endpoint import Endpoint
from hushwire.ike.negotiation import Wanted
from hushwire.ike.state import State
from hushwire.node.node import Node
from hushwire.policy.pad import Identity

ALICE = ip_address("192.0.2.1")
allowance.MOST_IKE_SAS = allowance.PER_SELECTOR = 1 << 20
Endpoint._settle = lambda endpoint: None

async def nothing(*_):
    pass

def begin(node, now, local):
    peer = node.peers.of_address(ALICE)
    entry = peer.entry(ALICE, node.peers.own)
    if entry is None:
        node._keep_current(peer, now)
        return
    entry = replace(entry, own_identity=Identity.fqdn(f"n{{node.wanted}}.evil.test"))
    node.ike.initiate(entry, local, ALICE, Wanted(entry.selectors, entry.mode), now)

def idle(node):
    return [sa for sa in node.ike.sas if sa.state is State.ESTABLISHED and sa._ours is None and sa.children]

def step(node, now, event, step=Node.step):
    if not hasattr(node, "wanted"):
        node.wanted, node.got, node.next = 0, 0, now.monotonic
    if node.wanted < {ASKED} and node.peers.own and node.next <= now.monotonic:
        node.wanted += 1
        node.next = now.monotonic + 0.02
        want(node, now)
        if node.wanted == {ASKED}:
            node._emit(Notice("greedy.done", (("got", node.got),)))
    effects = step(node, now, event)
    node.got += sum(isinstance(effect, InstallSA) for effect in effects) // 2
    return effects

def deadline(node, deadline=Node.deadline):
    return min(deadline(node), node.next) if getattr(node, "wanted", {ASKED}) < {ASKED} else deadline(node)

Node.step, Node.deadline = step, deadline
"""
HOARDER = f"""{GREEDY}
create_child.delete_child = rekey_ike.delete_ike = nothing

def want(node, now):
    sas = idle(node)
    if node.wanted % 8 == 1 or not sas:
        begin(node, now, node.peers.own[0])
        return
    sa = sas[node.wanted % len(sas)]
    *_, last = sa.children.values()
    if node.wanted % 8 == 2:
        sa.rekey()
    elif node.wanted % 2:
        node.ike.create_child(sa, Wanted((last.selector,), last.mode), now)
    else:
        sa.children.rekey(last)
"""
RESTLESS = f"""{GREEDY}
def want(node, now):
    if not node.ike.sas:
        begin(node, now, node.peers.own[0])
    for sa in idle(node):
        node.ike.rekey(sa, now, ike=node.wanted % 8 == 0)
"""
WANDERER = f"""{GREEDY}
def want(node, now):
    own = [address for address in node.peers.own if str(address).startswith("198.51.100.")]
    begin(node, now, own[node.wanted % len(own)])
"""

SERVER = """
import socket, threading
def answer(connection):
    with connection:
        while octets := connection.recv(100):
            connection.sendall(octets)
listener = socket.create_server(("", 7))
print("ready", flush=True)
while True:
    threading.Thread(target=answer, args=listener.accept()[:1], daemon=True).start()
"""
TALKER = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], 7), timeout=30)
while True:
    connection.sendall(b"x")
    assert connection.recv(100)
    print("heard", flush=True)
    time.sleep(0.1)
"""


@dataclass(slots=True)
class Most:
    """What alice has had, at any time."""

    ike: int = 0
    """IKE SAs with one peer."""
    children: int = 0
    """Child SAs with one peer."""
    neighbours: int = 0
    """Peers of one network."""
    sas: int = 0
    """In the plane."""
    memory: int = 0
    """Of her node's process, KiB, more than at first."""


class Siege:
    """Alice, bob who talks to her, and those who want all."""

    def __init__(self, story: Story, guard: str) -> None:
        self.story = story
        self.rules = f'[[rule]]\npeer = "{story["dns"].v4}"\ngroup = "clear"\n'
        for network in ("192.0.2.0/24", STREET):
            self.rules += f'[[rule]]\npeer = "{network}"\nrequire = "encrypted"\nbelow = "block"\n'
        self._gauge = story.folder / "gauge"
        self._gauge.write_bytes(bytes(8))
        story.plane = PLANE
        without = GAUGE.format(path=str(self._gauge)) + (LOW_BOUNDS if guard == "in" else NO_BOUNDS)
        self.alice = story.hire("alice", self.rules, publish=False, without=without)
        story.plane = "userspace"
        story.hire("bob", self.rules, publish=False)
        self._heard = story.folder / "heard"
        self._talk()
        self._first = self._memory()
        self.most = Most()

    def _talk(self) -> None:
        """A flow of bob's."""
        server = self.story["alice"].start(sys.executable, "-c", SERVER, stdout=subprocess.PIPE)
        assert server.stdout is not None
        assert server.stdout.readline()
        with self._heard.open("w") as file:
            self.story["bob"].start(sys.executable, "-c", TALKER, str(self.story["alice"].v4), stdout=file)
        assert self.goes_on(), self.story.log()

    def goes_on(self) -> bool:
        """Whether bob hears more, over the connection that he has had from the beginning."""
        before = self._heard.stat().st_size
        return eventually(lambda: self._heard.stat().st_size > before + 20, 60)

    def let_loose(self) -> list[Hushwire]:
        """Those who want all."""
        self.story["alice"].run("ip", "route", "add", STREET, "dev", "eth0")
        for number in range(1, ADDRESSES + 1):
            self.story["q"].run("ip", "address", "add", f"198.51.100.{number}/32", "dev", "eth0")
        programs = {"mallory": HOARDER, "carol": RESTLESS, "q": WANDERER}
        return [self.story.hire(name, self.rules, publish=False, without=each) for name, each in programs.items()]

    def look(self) -> None:
        """See what alice has now."""
        met = {peer["peer"]: peer["ike"] for peer in self.alice.status()["peers"] if peer["ike"]}
        most = self.most
        most.ike = max(most.ike, *(len(sas) for sas in met.values()))
        most.children = max(most.children, *(sum(len(sa["children"]) for sa in sas) for sas in met.values()))
        most.neighbours = max(most.neighbours, sum(ip_address(peer) in ip_network(STREET) for peer in met))
        most.sas = max(most.sas, self._sas())
        most.memory = max(most.memory, self._memory() - self._first)

    def _sas(self) -> int:
        if PLANE == "kernel":
            return int(self.story["alice"].run("ip", "xfrm", "state", "count").stdout.split()[-1])
        return int.from_bytes(self._gauge.read_bytes())

    def _memory(self) -> int:
        status = Path(f"/proc/{self.alice.child('node')}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.lab
@pytest.mark.parametrize("guard", ["in", "out"])
def test_strangers_who_want_all(guard: str) -> None:
    """None has more than its bound at any time, bob keeps what he has, and a newcomer is served meanwhile."""
    with Story("alice", "bob", "mallory", "carol", "q", "r", plane="userspace") as story:
        siege = Siege(story, guard)
        bob, pages = str(story["bob"].v4), story.serve_web(story["alice"])
        (before,) = story.peer("alice", bob)["ike"]  # type: ignore[misc]
        began = monotonic()
        greedy = siege.let_loose()
        if guard == "in":
            story.hire("r", siege.rules, publish=False)
            fetched, canaries = story.curl(story["r"], str(story["alice"].v4), pages, limit=60)
            assert fetched, story.log()
            assert story.seen(canaries) == 0

        def over() -> bool:
            siege.look()
            return all("greedy.done" in each.log.read_text() for each in greedy)

        assert eventually(over, 120, 0.3), story.log()
        allowed = REKEYS + REKEYS_PER_SECOND * (monotonic() - began)
        rekeyed = int(greedy[1].log.read_text().partition("got=")[2].split()[0])
        most = siege.most
        # Those that were replaced open what is late for some seconds more.
        sas = 2 * CHILDREN * (NEIGHBOURS + 4) + allowed
        if guard == "in":
            assert siege.goes_on()
            (after,) = story.peer("alice", bob)["ike"]  # type: ignore[misc]
            assert after["spi_i"] == before["spi_i"]
            assert most.ike <= allowance.MOST_IKE_SAS
            assert most.children <= CHILDREN
            assert most.neighbours <= NEIGHBOURS
            assert rekeyed <= 1 + allowed
            assert most.sas <= sas
            assert most.memory < MUCH
            # What she says that she is is nothing to anybody.
            assert "evil.test" not in siege.alice.log.read_text() + str(siege.alice.status())
        else:
            assert most.ike > allowance.MOST_IKE_SAS
            assert most.children > CHILDREN
            assert most.neighbours > NEIGHBOURS
            assert rekeyed > 1 + allowed
            assert most.sas > sas
            assert most.memory > MUCH
