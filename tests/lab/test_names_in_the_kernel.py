"""Synthetic addresses with the kernel plane, as far as a kernel without ESP goes: whose SA is asked for, what leaks.

The whole way, ESP included, needs a kernel that has it and nftables: see docs/results.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hushwire.lab.namespaces import Host, Topology, end
from hushwire.lab.peer import eventually
from hushwire.lab.relay import Relay
from hushwire.names.synthetic import POOLS

pytestmark = pytest.mark.lab

SEND = """
import socket, sys
far, octets = sys.argv[1:]
sock = socket.socket(socket.AF_INET6 if ":" in far else socket.AF_INET, socket.SOCK_DGRAM)
try:
    sock.sendto(bytes.fromhex(octets), (far, 9))
except OSError:
    pass
"""


class Lab:
    def __init__(self, topology: Topology, relay: Relay, version: int) -> None:
        self.alice, self.bob, self.relay = topology["alice"], topology["bob"], relay
        self.made = [str(POOLS[version][number]) for number in (16, 17)]
        ends = [str(host.v4 if version == 4 else host.v6) for host in (self.alice, self.bob)]
        self.real = ends[1]
        words = (sys.executable, str(Path(__file__).with_name("names_host.py")), *ends, *self.made)
        self.plane = self.alice.start(*words, stdout=subprocess.PIPE)
        assert self.plane.stdout is not None
        assert self.plane.stdout.readline() == "ready\n"

    def leaves(self, address: str) -> bool:
        """Whether a datagram for it comes by the relay as it is."""
        canary = self.relay.canary()
        self.alice.run(sys.executable, "-c", SEND, address, canary.hex())
        return eventually(lambda: self.relay.report().seen(canary) > 0, 0.5)


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Topology(("alice", "bob")) as topology, Relay(topology) as relay:
        default_way(topology["alice"], topology["bob"])
        lab = Lab(topology, relay, request.param)
        yield lab
        end(lab.plane)


def default_way(alice: Host, bob: Host) -> None:
    """So that what has no route of its own has a way out."""
    alice.run("ip", "route", "add", "default", "via", str(bob.v4))
    alice.run("ip", "-6", "route", "add", "default", "via", str(bob.v6))


def test_each_asks_for_the_sa_of_its_own_name(lab: Lab) -> None:
    """What goes to a synthetic address meets the policy of its mark, under its real address."""
    assert lab.plane.stdout is not None
    for number, address in enumerate(lab.made, 1):
        assert not lab.leaves(address)
        assert lab.plane.stdout.readline() == f"{lab.real} {number}\n"
    # The control: nobody has anything against bob's real address.
    assert lab.leaves(lab.real)
    said = lab.alice.run("ip", "xfrm", "policy").stdout
    assert set(re.findall(r"mark (0x\w+)", said)) == {"0x68770001", "0x68770002"}


def test_what_is_left_lets_nothing_out(lab: Lab) -> None:
    """Killed; without the packet filter; without the routes as well."""
    other = str(POOLS[4 if "." in lab.real else 6][99])
    addresses = [*lab.made, other]
    assert not any(lab.leaves(address) for address in addresses)
    lab.plane.kill()
    lab.plane.wait(10)
    assert not any(lab.leaves(address) for address in addresses)
    lab.alice.run("nft", "delete", "table", "inet", "hushwire_names")
    assert not any(lab.leaves(address) for address in addresses)
    assert lab.leaves(lab.real)


def test_the_userspace_plane_takes_it_away(lab: Lab) -> None:
    """But for the block of the pools."""
    end(lab.plane)
    others = ("src", "203.0.113.1", "dst", "203.0.113.2", "dir", "out", "mark", "7")
    lab.alice.run("ip", "xfrm", "policy", "add", *others)
    program = "from hushwire.daemon.synthetic import Xfrm, take_away; take_away(Xfrm())"
    for _ in range(2):
        lab.alice.run(sys.executable, "-c", program)
    assert not any(lab.leaves(address) for address in lab.made)
    assert lab.leaves(lab.real)
    assert re.findall(r"mark (\w+)", lab.alice.run("ip", "xfrm", "policy").stdout) == ["0x7"]
    assert not lab.alice.run("nft", "list", "ruleset").stdout
    assert "hushwire-names" not in lab.alice.run("ip", "link").stdout


def test_begun_anew_it_knows_nobody_of_before(lab: Lab) -> None:
    end(lab.plane)
    program = Path(__file__).with_name("names_host.py")
    local = str(lab.alice.v4 if "." in lab.real else lab.alice.v6)
    lab.plane = lab.alice.start(sys.executable, str(program), local, lab.real, lab.made[1], stdout=subprocess.PIPE)
    assert lab.plane.stdout is not None
    assert lab.plane.stdout.readline() == "ready\n"
    assert not lab.leaves(lab.made[0])
    assert not lab.leaves(lab.made[1])
    assert lab.plane.stdout.readline() == f"{lab.real} 1\n"
    said = lab.alice.run("ip", "xfrm", "policy").stdout
    assert set(re.findall(r"mark (0x\w+)", said)) == {"0x68770001"}
