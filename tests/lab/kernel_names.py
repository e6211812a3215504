"""Two names at one address with the kernel plane, ESP and all: for a kernel that has ESP and nftables (`make qemu`).

bob holds the SAs of both names and answers as the one that he is told to be: so do two hosts behind one address.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from ctypes import CDLL, get_errno
from dataclasses import replace
from pathlib import Path

import pytest

from hushwire.config import Addressing, Config, Rule
from hushwire.config.model import Host as LabHost
from hushwire.crypto.secret import Secret
from hushwire.daemon import planes
from hushwire.daemon.synthetic import Names
from hushwire.events import Installed, InstallPolicy, InstallSA
from hushwire.lab.namespaces import Host, Topology
from hushwire.lab.stage import UDP_ECHO
from hushwire.linux.xfrm import Xfrm
from hushwire.names.synthetic import POOLS
from hushwire.node.base import base_policies
from hushwire.node.scope import REQID_BASE
from hushwire.policy.sad import SA, Direction, EspSuite, Lifetime, Mode, SAName
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import IPAddress
from hushwire.wire.registry import EncrID

ASK = """
import socket, sys
for far in sys.argv[1:]:
    sock = socket.socket(socket.AF_INET6 if ":" in far else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(2)
    sock.connect((far, 7))
    sock.send(b"hello")
    try:
        print(far, sock.recv(65536).decode())
    except OSError as error:
        print(far, type(error).__name__)
"""


def reqid(number: int) -> int:
    return REQID_BASE + 1 + number


class TwoNames:
    """alice's plane in a process of its own, and the SAs of both names at bob's."""

    def __init__(self, topology: Topology, one_reqid: bool = False) -> None:
        self.alice, self.bob = topology["alice"], topology["bob"]
        self.ends: list[tuple[IPAddress, IPAddress]] = [(self.alice.v4, self.bob.v4), (self.alice.v6, self.bob.v6)]
        self.sas = [self._pair(number, *ends) for number in range(2) for ends in self.ends]
        self.run(self.alice, lambda: self._alice(one_reqid))
        self.run(self.bob, self._bob)
        self.answer_as(0)

    def _pair(self, number: int, near: IPAddress, far: IPAddress) -> tuple[SA, SA]:
        pair = []
        for direction, source, destination in ((Direction.OUT, near, far), (Direction.IN, far, near)):
            suite, key = EspSuite(EncrID.AES_GCM_16, 128), Secret(os.urandom(20))
            spi = 0x1000 * (1 + (direction is Direction.IN)) + number
            pair.append(
                SA(
                    spi, direction, source, destination, Mode.TRANSPORT, suite, key, Secret(b""),
                    Selector.between(near, far), reqid(number), Lifetime(hard_seconds=3600),
                )
            )  # fmt: skip
        return pair[0], pair[1]

    def _alice(self, one_reqid: bool) -> None:
        plane = planes.KernelPlane(planes.Passing(), Names(planes.TUN_MTU, ()))
        lay_base()
        # An SA comes before its policy, as with a peer that proves itself first.
        for pair in self.sas:
            assert plane.perform(*(InstallSA(1, sa) for sa in pair)) == [Installed(1)] * 2
        for number in range(2):
            for near, far in self.ends:
                selector = Selector.between(near, POOLS[near.version][16 + number])
                for direction in Direction:
                    asked = reqid(0 if one_reqid and direction is Direction.OUT else number)
                    policy = Policy(selector, direction, Action.PROTECT, 500, asked, real=far)
                    assert plane.perform(InstallPolicy(1, policy)) == [Installed(1)]

    def answer_as(self, number: int) -> None:
        """bob speaks as this name from now on."""

        def speak() -> None:
            with Xfrm() as xfrm:
                for near, far in self.ends:
                    policy = Policy(Selector.between(far, near), Direction.OUT, Action.PROTECT, 500, reqid(number))
                    xfrm.install_policy(policy)

        self.run(self.bob, speak)

    def _bob(self) -> None:
        lay_base()
        with Xfrm() as xfrm:
            for there, back in self.sas:
                for sa, direction in ((there, Direction.IN), (back, Direction.OUT)):
                    xfrm.install_sa(replace(sa, direction=direction, selector=turned(sa.selector)))
            for near, far in self.ends:
                # Of either name, but in ESP.
                xfrm.install_policy(Policy(Selector.between(far, near), Direction.IN, Action.PROTECT, 500, 0))

    def carried(self, packets: list[int]) -> None:
        """So many came to bob over IPv4 by the SA of each name."""

        def look() -> None:
            with Xfrm() as xfrm:
                found = [xfrm.usage(SAName(self.sas[2 * number][0].spi, self.bob.v4)).packets for number in range(2)]
            assert found == packets, found

        self.run(self.bob, look)

    def run(self, host: Host, body: object) -> None:
        """Call it in a host's namespace."""
        pid = os.fork()
        if not pid:
            status = 1
            try:
                with open(f"/run/netns/{host.namespace}") as namespace:
                    assert not CDLL(None, use_errno=True).setns(namespace.fileno(), 0), os.strerror(get_errno())
                body()  # type: ignore[operator]
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0


def lay_base() -> None:
    """Neighbour discovery, and the block of the pools."""
    rules = (Rule("*", addressing=Addressing.SYNTHETIC),)
    with Xfrm() as xfrm:
        for policy in base_policies(Config(LabHost("lab.example"), rules=rules)):
            xfrm.install_policy(policy)


def turned(selector: Selector) -> Selector:
    return Selector(selector.remote, selector.local)


def asked(host: Host, *far: object) -> list[str]:
    return host.run(sys.executable, "-c", ASK, *map(str, far), timeout=120).stdout.splitlines()


@pytest.fixture
def topology() -> Iterator[Topology]:
    with Topology(("alice", "bob")) as topology:
        topology.bridge()
        yield topology


def echo(host: Host) -> "subprocess.Popen[str]":
    process = host.start(sys.executable, "-c", UDP_ECHO, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


MADE = [[POOLS[version][16 + number] for version in (4, 6)] for number in range(2)]


def test_each_name_answers_for_itself(topology: Topology) -> None:
    world = TwoNames(topology)
    asked(world.alice, MADE[1][0])
    world.carried([0, 1])
    echo(world.bob)
    for number in range(2):
        world.answer_as(number)
        assert asked(world.alice, *MADE[number]) == [f"{made} hello" for made in MADE[number]]
        assert asked(world.alice, *MADE[1 - number]) == [f"{made} TimeoutError" for made in MADE[1 - number]]
    for made in MADE[1]:
        for size in ("56", "4000"):
            done = world.alice.run("ping", "-c1", "-W5", "-s", size, str(made), check=False)
            assert f"bytes from {made}" in done.stdout, done.stdout


def test_with_one_reqid_they_cross(topology: Topology) -> None:
    """The control: what goes to the second name is carried by the first one's SA."""
    world = TwoNames(topology, one_reqid=True)
    asked(world.alice, MADE[1][0])
    world.carried([1, 0])


def test_what_a_name_begins_comes_from_its_address(topology: Topology) -> None:
    world = TwoNames(topology)
    process = echo(world.alice)
    assert process.stdout is not None
    for number in range(2):
        world.answer_as(number)
        for made, mine in zip(MADE[number], (world.alice.v4, world.alice.v6), strict=True):
            assert asked(world.bob, mine) == [f"{mine} hello"]
            assert process.stdout.readline().strip() == str(made)


def test_a_page_by_tcp(topology: Topology, tmp_path: Path) -> None:
    world = TwoNames(topology)
    (tmp_path / "page").write_bytes(bytes(300_000))
    server = (sys.executable, "-u", "-m", "http.server", "--bind", "::", "--directory", str(tmp_path), "80")
    process = world.bob.start(*server, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert "Serving" in process.stdout.readline()
    for made in MADE[0]:
        url = f"http://{f'[{made}]' if made.version == 6 else made}/page"
        done = world.alice.run("curl", "-s", "-o", "/dev/null", "-w", "%{size_download}", "-m", "60", url, timeout=90)
        assert done.stdout == "300000"
