"""The userspace plane's barrier: a peer's packets go through the TUN or nowhere, and others' go where they did."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from hushwire.config import parse
from hushwire.daemon import planes
from hushwire.lab.namespaces import Host, Topology, end
from hushwire.node.base import ICMPV6, NEIGHBOUR_DISCOVERY, base_policies
from hushwire.node.scope import PROTECT_PRIORITY, narrowness
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import host_network

PROGRAM = Path(__file__).parent / "barrier.py"


def test_base_policies() -> None:
    """Neighbour discovery, what may be clear, and a block under each peer whose place the configuration knows."""
    config = parse(
        """
        [host]
        name = "alice.example"
        [[rule]]
        peer = "bob.example"
        [[rule]]
        peer = "192.0.2.3"
        psk = "/etc/hushwire/carol.psk"
        [[rule]]
        peer = "dave.example"
        address = "2001:db8::4"
        psk = "/etc/hushwire/dave.psk"
        below = "clear"
        [[rule]]
        peer = "192.0.2.0/24"
        require = "clear"
        [[rule]]
        peer = "gate.example"
        address = "2001:db8::9"
        psk = "/etc/hushwire/gate.psk"
        mode = "tunnel"
        remote-networks = ["fd02::/64"]
        """,
        "alice.toml",
    )
    found = base_policies(config)
    clear = {(str(policy.selector), policy.direction) for policy in found if policy.action is Action.CLEAR}
    assert len(clear) == 2 * len(NEIGHBOUR_DISCOVERY) + 2
    assert all("protocol 58" in selector or "192.0.2.0/24" in selector for selector, _ in clear)
    blocks = [policy for policy in found if policy.action is Action.BLOCK]
    assert {str(policy.selector) for policy in blocks} == {"0.0.0.0/0 <-> 192.0.2.3", "::/0 <-> fd02::/64"}
    assert len(blocks) == 4
    blocks = [policy for policy in blocks if policy.selector.remote.version == 4]
    # Over a wider prefix that may be clear, under the protection of one host.
    wide, one = priority("0.0.0.0/0", "192.0.2.0/24"), priority("192.0.2.1", "192.0.2.3")
    assert all(one < policy.priority < wide for policy in blocks)


@pytest.mark.parametrize("addressing", ["real", "synthetic"])
def test_synthetic_addresses_are_blocked_from_the_start_to_the_end(addressing: str) -> None:
    """Over every rule that says clear, and only where there are any."""
    config = parse(
        f"""
        [host]
        name = "alice.example"
        [[rule]]
        peer = "*.example"
        addressing = "{addressing}"
        [[rule]]
        peer = "0.0.0.0/0"
        protocol = "tcp"
        remote-port = 80
        require = "clear"
        """,
        "alice.toml",
    )
    found = base_policies(config)
    blocks = {(str(each.selector), each.direction) for each in found if each.action is Action.BLOCK}
    pools = {("0.0.0.0/0 <-> 198.18.0.0/15", way) for way in Direction}
    pools |= {("::/0 <-> fd68:7773:6877:1::/96", way) for way in Direction}
    assert blocks == (pools if addressing == "synthetic" else set())
    rules = [each.priority for each in found if each.action is Action.CLEAR and "protocol 58" not in str(each.selector)]
    assert all(each.priority < min(rules) for each in found if each.action is Action.BLOCK)


def priority(local: str, remote: str, protocol: int = 0, port: int = 0) -> int:
    """Of a policy that speaks of the packets between two."""
    return PROTECT_PRIORITY - narrowness(Selector(ip_network(local), ip_network(remote), protocol, 0, port))


TRAPS = """
    [host]
    name = "alice.example"
    [dns]
    forward = ["192.0.2.53", "192.0.2.54@5353"]
    [[rule]]
    peer = "0.0.0.0/0"
    require = "named"
    below = "clear"
    [[rule]]
    peer = "192.0.2.0/25"
    require = "named"
    [[rule]]
    peer = "192.0.2.54"
    psk = "/etc/hushwire/server.psk"
    """


def test_what_a_trap_for_many_leaves_alone() -> None:
    """It comes just before the traps that speak of it, and behind a rule about the one host."""
    found = base_policies(parse(TRAPS, "alice.toml"))
    alone = {
        str(policy.selector).removeprefix("0.0.0.0/0 <-> "): policy.priority
        for policy in found
        if policy.action is Action.CLEAR and policy.direction is Direction.OUT and policy.selector.remote.version == 4
    }
    wide, narrow = priority("192.0.2.1", "0.0.0.0/0"), priority("192.0.2.1", "192.0.2.0/25")
    host = priority("192.0.2.1", "192.0.2.54")
    # Of a server that no rule is about, before whatever peer may be born at its address.
    port = priority("192.0.2.1", "192.0.2.53", 17, 53) - 1
    assert port < priority("192.0.2.1", "192.0.2.53")
    assert alone == {
        "224.0.0.0/4": wide - 1,
        "255.255.255.255": priority("192.0.2.1", "255.255.255.255") - 1,
        "169.254.0.0/16": wide - 1,
        "0.0.0.0/0 port 68 <-> 0.0.0.0/0 port 67 protocol 17": narrow - 1,
        "192.0.2.53 port 53 protocol 17": port,
        "192.0.2.53 port 53 protocol 6": port,
        "192.0.2.54 port 5353 protocol 17": narrow - 1,
        "192.0.2.54 port 5353 protocol 6": narrow - 1,
    }
    assert host < narrow - 1
    # No trap of IPv6, no need.
    sixes = [policy for policy in found if policy.selector.remote.version == 6]
    assert {policy.selector.protocol for policy in sixes} == {ICMPV6}


def test_what_does_not_outlive_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """Soft policies are installed again and again; whoever asked for them gone, they end; so do lifetimes."""
    clock = [1000.0]
    monkeypatch.setattr(planes.time, "monotonic", lambda: clock[0])
    passing = planes.Passing()

    def after(seconds: float) -> tuple[list[Policy], list[Policy]]:
        clock[0] += seconds
        return passing.turn()

    here, there = ip_address("192.0.2.1"), ip_address("192.0.2.2")
    soft = Policy(Selector.between(here, there), Direction.OUT, Action.PROTECT, 936, 7, soft=True)
    brief = Policy(Selector.between(here, there + 1), Direction.OUT, Action.CLEAR, 936, lifetime=60)
    wide = Policy(Selector(host_network(here), ip_network("0.0.0.0/0")), Direction.OUT, Action.PROTECT, 968, 8)
    for policy in (soft, brief, wide):
        passing.hold(policy)
    assert passing.all() == [soft, brief]
    assert after(0) == ([], [])
    assert passing.wait() == 40
    assert after(40) == ([soft], [])
    assert passing.wait() == 22
    assert after(21) == ([], [])
    assert after(2) == ([], [brief])
    assert after(20) == ([soft], [])
    passing.orphan()
    assert after(119) == ([], [])
    assert after(1) == ([], [soft])
    # One that the new node asks for again is no orphan, and one that is deleted nobody's.
    passing.hold(soft)
    passing.orphan()
    passing.hold(soft)
    assert after(120) == ([soft], [])
    passing.drop(soft.selector, soft.direction)
    assert after(120) == ([], [])
    passing.hold(replace(wide, soft=True))
    passing.hold(soft)
    assert [policy.priority for policy in passing.all()] == [968, 936]


@pytest.mark.lab
def test_what_an_earlier_run_left(topology: Topology) -> None:
    """Hard policies are kept; soft ones end by themselves, those of many at once."""
    program = """
import sys
from ipaddress import ip_address, ip_network
from dataclasses import replace
from hushwire.daemon.barrier import SOFT_SECONDS
from hushwire.daemon.planes import KernelPlane, Passing, found_policies
from hushwire.events import InstallPolicy
from hushwire.linux.xfrm import Xfrm
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
here, bob, carol = map(ip_address, ("192.0.2.1", "192.0.2.2", "192.0.2.3"))
hard = Policy(Selector.between(here, bob), Direction.OUT, Action.PROTECT, 936, 0x68770001)
soft = replace(hard, selector=Selector.between(here, carol), soft=True)
clear = replace(soft, direction=Direction.IN, action=Action.CLEAR, reqid=0, lifetime=60)
trap = replace(soft, selector=Selector(soft.selector.local, ip_network("198.51.100.0/24")))
plane = KernelPlane(Passing())
plane.perform(*(InstallPolicy(1, policy) for policy in (hard, soft, clear, trap)))
with Xfrm() as xfrm:
    if sys.argv[1] == "stopped":
        plane.end((), stopping=True)
        assert [each.policy for each in xfrm.policies()] == [hard]
    else:
        plane.end((), stopping=False)
        assert len(xfrm.policies()) == 4
    assert found_policies(xfrm) == [hard]
    left = {each.policy for each in xfrm.policies()}
    held = {replace(clear, soft=False), replace(soft, soft=False, lifetime=SOFT_SECONDS)}
    assert left == {hard} | (held if sys.argv[1] == "killed" else set()), left
"""
    for how in ("stopped", "killed"):
        done = topology["alice"].run(sys.executable, "-c", program, how, check=False)
        assert done.returncode == 0, done.stderr
        topology["alice"].run("ip", "xfrm", "policy", "flush")


@pytest.mark.lab
def test_one_host_and_a_range_of_one_priority(topology: Topology) -> None:
    """A rule that lets a host be met in clear, and a peer that an earlier run of ours left shut off."""
    program = """
import subprocess
from ipaddress import ip_network
from hushwire.daemon.barrier import Filter
from hushwire.policy.sad import Direction
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy
own, everywhere, peer, dns = map(ip_network, ("2001:db8::1/128", "::/0", "2001:db8::2/128", "2001:db8::53/128"))
one, many = Selector(own, peer), Selector(everywhere, dns)
def filter():
    return Filter("hushwire0", (500, 4500))
filter().put(Policy(one, Direction.OUT, Action.BLOCK, 5))
again = filter()
again.put(Policy(many, Direction.OUT, Action.CLEAR, 5))
again.put(Policy(one, Direction.OUT, Action.BLOCK, 5))
listing = ("nft", "list", "table", "inet", "hushwire")
subprocess.run(listing, check=True)
again.take(many, Direction.OUT)
again.take(one, Direction.OUT)
print("---", flush=True)
subprocess.run(listing, check=True)
"""
    done = topology["alice"].run(sys.executable, "-c", program, check=False)
    assert done.returncode == 0, done.stderr
    stood, left = done.stdout.split("---")
    for element in ("2001:db8::2 . 2001:db8::1", "2001:db8::53 . ::/0"):
        assert element in stood
        assert element not in left


class Held:
    """alice with a barrier, bob without, on one wire."""

    def __init__(self, topology: Topology) -> None:
        self.alice, self.bob, self.carol = (topology[name] for name in ("alice", "bob", "carol"))
        self.begin()

    def begin(self) -> None:
        self.process = self.alice.start(sys.executable, str(PROGRAM), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, what: str, *selectors: str) -> None:
        """`what` as barrier.py has it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{what} {' '.join(selectors)}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def between(self, version: int, *more: int) -> str:
        local, remote = (self.alice.v4, self.bob.v4) if version == 4 else (self.alice.v6, self.bob.v6)
        return ",".join(map(str, (local, remote, *more)))

    def knocks(self, host: Host, version: int, port: int) -> bool:
        """Whether it says that nobody listens there: our packets and its own come through."""
        address = host.v4 if version == 4 else host.v6
        knock = f"""
import socket
try:
    socket.create_connection(("{address}", {port}), timeout=1)
except ConnectionRefusedError:
    raise SystemExit(0)
except OSError:
    raise SystemExit(1)
"""
        return self.alice.run(sys.executable, "-c", knock, check=False).returncode == 0

    def reaches(self, host: Host, version: int, *options: str) -> bool:
        address = host.v4 if version == 4 else host.v6
        command = ("ping", "-n", "-c", "1", "-W", "1", *options, str(address))
        return self.alice.run(*command, check=False).returncode == 0


@pytest.fixture
def topology() -> Iterator[Topology]:
    with Topology(("alice", "bob", "carol")) as made:
        yield made


@pytest.fixture
def held() -> Iterator[Held]:
    with Topology(("alice", "bob", "carol")) as topology:
        topology.bridge()
        made = Held(topology)
        yield made
        end(made.process)


@pytest.mark.lab
@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_is_shut_off_and_nobody_else(held: Held, version: int) -> None:
    held.tell("raise")
    assert held.reaches(held.bob, version)
    held.tell("raise", held.between(version))
    held.tell("raise", held.between(version))
    for options in ((), ("-I", "eth0"), ("-I", str(held.alice.v4 if version == 4 else held.alice.v6))):
        assert not held.reaches(held.bob, version, *options)
    assert held.reaches(held.carol, version)
    # The process and its TUN gone, all stands.
    end(held.process)
    for options in ((), ("-I", "eth0")):
        assert not held.reaches(held.bob, version, *options)
    assert held.reaches(held.carol, version)


@pytest.mark.lab
@pytest.mark.parametrize("version", [4, 6])
def test_lowered_it_is_as_before(held: Held, version: int) -> None:
    held.tell("raise", held.between(version))
    held.tell("lower", held.between(version))
    assert held.reaches(held.bob, version)
    held.tell("lower", held.between(version))


@pytest.mark.lab
@pytest.mark.parametrize("version", [4, 6])
def test_what_another_policy_needs_stays(held: Held, version: int) -> None:
    """Two rules of one peer, for different ports; one of them permits clear."""
    whole, web = held.between(version), held.between(version, 6, 80)
    held.tell("raise", whole, web)
    held.tell("lower", web)
    assert not held.reaches(held.bob, version)
    held.tell("lower", whole)
    assert held.reaches(held.bob, version)


@pytest.mark.lab
@pytest.mark.parametrize("version", [4, 6])
def test_one_port_is_shut_off_and_no_other(held: Held, version: int) -> None:
    """Also when the process and its TUN are gone; and what is about all ports counts for that one as well."""
    held.tell("raise", held.between(version, 6, 80))
    for _ in range(2):
        assert held.reaches(held.bob, version)
        assert held.knocks(held.bob, version, 81)
        assert not held.knocks(held.bob, version, 80)
        assert held.knocks(held.carol, version, 80)
        end(held.process)
    held.begin()
    held.tell("raise", held.between(version), held.between(version, 6, 80))
    held.tell("lower", held.between(version, 6, 80))
    assert not held.knocks(held.bob, version, 80)
    assert not held.knocks(held.bob, version, 81)
    held.tell("raise", held.between(version, 6, 80))
    held.tell("lower", held.between(version))
    assert not held.knocks(held.bob, version, 80)
    assert held.knocks(held.bob, version, 81)
    held.tell("lower", held.between(version, 6, 80))
    assert held.knocks(held.bob, version, 80)


@pytest.mark.lab
@pytest.mark.parametrize("version", [4, 6])
def test_the_narrower_counts(held: Held, version: int) -> None:
    """Everything shut off; but bob's network in clear; but bob."""
    own = held.alice.v4 if version == 4 else held.alice.v6
    everything, network, bob = (
        (f"{own},0.0.0.0/0", f"{own},192.0.2.0/29", f"{own},{held.bob.v4}")
        if version == 4
        else (f"{own},::/0", f"{own},2001:db8::/125", f"{own},{held.bob.v6}")
    )
    held.tell("raise", bob, everything)
    assert not held.reaches(held.bob, version)
    assert not held.reaches(held.carol, version)
    held.tell("clear", network)
    assert not held.reaches(held.bob, version)
    assert held.reaches(held.carol, version)
    assert held.reaches(held.carol, version, "-I", "eth0")
    held.tell("clear", bob)
    assert held.reaches(held.bob, version)
    held.tell("raise", bob)
    held.tell("raise", network)
    for host in (held.bob, held.carol):
        assert not held.reaches(host, version)
        assert not held.reaches(host, version, "-I", "eth0")
    held.tell("clear", bob)
    held.tell("lower", bob)
    assert not held.reaches(held.bob, version)
    # Another run keeps what the first one shut off, and nothing else.
    held.tell("clear", network)
    end(held.process)
    held.begin()
    held.tell("raise")
    if version == 6:
        assert not held.reaches(held.carol, version)
        assert not held.reaches(held.carol, version, "-I", "eth0")


@pytest.mark.lab
@pytest.mark.parametrize("version", [4, 6])
def test_networks_behind_both(held: Held, version: int) -> None:
    """What is forwarded between them is shut off, both ways; the two hosts' own traffic is not theirs."""
    near, far = ("10.1.0.{}", "10.2.0.{}") if version == 4 else ("fd01::{}", "fd02::{}")
    bits, whole = (24, 32) if version == 4 else (64, 128)
    path = "ipv4/ip_forward" if version == 4 else "ipv6/conf/all/forwarding"
    for host, own, other, via in ((held.alice, near, far, held.bob), (held.bob, far, near, held.alice)):
        host.run("ip", "address", "add", f"{own.format(1)}/{whole}", "dev", "lo")
        gateway = str(via.v4 if version == 4 else via.v6)
        host.run(
            "ip", "route", "add", f"{other.format(0) if version == 4 else other.format('')}/{bits}", "via", gateway
        )
        host.run("sh", "-c", f"echo 1 >/proc/sys/net/{path}")
    # carol is behind alice.
    held.carol.run("ip", "address", "add", f"{near.format(9)}/{whole}", "dev", "lo")
    gateway = str(held.alice.v4 if version == 4 else held.alice.v6)
    held.carol.run("ip", "route", "add", f"{far.format(0) if version == 4 else far.format('')}/{bits}", "via", gateway)
    back = str(held.carol.v4 if version == 4 else held.carol.v6)
    held.alice.run("ip", "route", "add", f"{near.format(9)}/{whole}", "via", back)

    def passes(host: Host, source: str, target: str) -> bool:
        return host.run("ping", "-n", "-c1", "-W1", "-I", source, target, check=False).returncode == 0

    held.tell("raise")
    ways = [
        (held.carol, near.format(9), far.format(1)),
        (held.alice, near.format(1), far.format(1)),
        (held.bob, far.format(1), near.format(9)),
        (held.bob, far.format(1), near.format(1)),
    ]
    assert [passes(*way) for way in ways] == [True] * 4
    network = "10.1.0.0/24,10.2.0.0/24" if version == 4 else "fd01::/64,fd02::/64"
    held.tell("raise", network)
    assert [passes(*way) for way in ways] == [False] * 4
    assert held.reaches(held.bob, version)
    end(held.process)
    assert [passes(*way) for way in ways] == [False] * 4
