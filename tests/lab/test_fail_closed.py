"""Nothing goes in clear that must not (DESIGN.md law 1): whatever ends, and however, while packets flow."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hushwire.lab import uml
from hushwire.lab.frame import Kind
from hushwire.lab.hushwire import Hushwire, pinned
from hushwire.lab.medium import MAX_SAMPLES
from hushwire.lab.namespaces import Host, Topology
from hushwire.lab.peer import eventually, introduced
from hushwire.lab.stage import Stage

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
CHILDREN = ["node", "keeper", "resolver"] + (["plane"] if PLANE == "userspace" else [])
VERSIONS = (4, 6)

RECEIVE = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 7777))
print("ready", flush=True)
while True:
    print(s.recv(100).hex(), flush=True)
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Stage]:
    with Stage() as stage:
        stage.connect()
        stage.publish(PLANE)
        yield stage
        for daemon in (stage.at_alice, stage.at_bob):
            daemon.__exit__()


@pytest.fixture
def stage(hosts: Stage) -> Stage:
    """alice and bob, with hushwire on both, who have spoken already.  A test leaves it as it is, or kills it."""
    for daemon in (hosts.at_bob, hosts.at_alice):
        if not runs(daemon):
            daemon.__enter__()
            hosts.await_names(daemon)
    assert eventually(lambda: reaches(hosts), 20), told(hosts)
    return hosts


def runs(daemon: Hushwire) -> bool:
    return daemon._process is not None and daemon._process.poll() is None


def told(stage: Stage) -> str:
    return stage.at_alice.log.read_text() + stage.at_bob.log.read_text()


@contextmanager
def traffic(stage: Stage) -> Iterator[bytes]:
    """Fifty pings a second from alice to bob over each IP version, filled with a canary."""
    canary = stage.relay.canary()
    esp = stage.relay.report().count(Kind.ESP)
    command = ("ping", "-n", "-i", "0.02", "-p", canary.hex())
    pings = [
        stage.alice.start(*command, str(address), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for address in (stage.bob.v4, stage.bob.v6)
    ]
    try:
        assert eventually(lambda: stage.relay.report().count(Kind.ESP) > esp + 40), told(stage)
        yield canary
        assert [ping.poll() for ping in pings] == [None, None]
    finally:
        for ping in pings:
            ping.send_signal(signal.SIGINT)
            ping.wait(5)


def end(daemon: Hushwire, how: signal.Signals) -> None:
    if runs(daemon):
        os.kill(daemon.pid, how)
    assert eventually(lambda: not runs(daemon), 5)


def reaches(stage: Stage) -> bool:
    return all(stage.alice.ping(stage.bob, version=version, timeout=1) for version in VERSIONS)


def tear_down(*hosts: Host) -> None:
    """Take away all that blocks, as only root can: what the controls do."""
    for host in hosts:
        host.run("ip", "xfrm", "policy", "flush")
        for family in ("-4", "-6"):
            host.run("ip", family, "route", "flush", "table", "26743", check=False)
        host.run("nft", "delete", "table", "inet", "hushwire", check=False)


def assert_hidden(stage: Stage, canary: bytes) -> None:
    """And nothing else between the two in clear; an ICMP error to the name server is no concern of theirs."""
    report = stage.relay.report()
    assert report.seen(canary) == 0, told(stage)
    ends = {host.v4.packed for host in (stage.alice, stage.bob)} | {host.v6.packed for host in (stage.alice, stage.bob)}
    for packet in (bytes.fromhex(sighting.start) for sighting in report.clear):
        source, destination = (packet[12:16], packet[16:20]) if packet[0] >> 4 == 4 else (packet[8:24], packet[24:40])
        assert not {source, destination} <= ends, (packet.hex(), told(stage))
    assert report.count(Kind.CLEAR) < MAX_SAMPLES
    assert report.missed == 0


@pytest.mark.lab
@pytest.mark.parametrize("name", CHILDREN)
def test_a_child_killed(stage: Stage, name: str) -> None:
    with traffic(stage) as canary:
        before = stage.at_alice.child(name)
        assert before is not None
        os.kill(before, signal.SIGKILL)
        assert eventually(lambda: stage.at_alice.child(name) not in (None, before), 10), told(stage)
        assert eventually(lambda: reaches(stage), 20), told(stage)
    assert_hidden(stage, canary)


@pytest.mark.lab
def test_the_parent_killed_and_started_again(stage: Stage) -> None:
    with traffic(stage) as canary:
        end(stage.at_alice, signal.SIGKILL)
        if PLANE == "userspace":
            assert eventually(lambda: not reaches(stage), 5)
            esp = stage.relay.report().count(Kind.ESP, "alice")
            for version in VERSIONS:
                assert not stage.alice.ping(stage.bob, version=version, timeout=1)
            assert stage.relay.report().count(Kind.ESP, "alice") == esp
        assert_hidden(stage, canary)
        stage.at_alice.__enter__()
        assert eventually(lambda: reaches(stage), 20), told(stage)
        assert_hidden(stage, canary)


@pytest.mark.lab
def test_stopped_politely(stage: Stage) -> None:
    with traffic(stage) as canary:
        end(stage.at_alice, signal.SIGTERM)
        assert eventually(lambda: not stage.at_bob.peer()["ike"], 5), told(stage)
        assert stage.at_alice.log.read_text().endswith("stopped; policies stand\n"), told(stage)
        for version in VERSIONS:
            assert not stage.alice.ping(stage.bob, version=version, timeout=1)
    assert_hidden(stage, canary)
    assert "Traceback" not in told(stage)


@pytest.mark.lab
@pytest.mark.parametrize("version", VERSIONS)
def test_a_program_that_names_the_device(stage: Stage, version: int) -> None:
    """It asks the routing tables for another way than through the TUN."""
    canary = stage.relay.canary()
    address = stage.bob.v4 if version == 4 else stage.bob.v6
    command = ("ping", "-n", "-c", "3", "-i", "0.05", "-W", "1", "-I", "eth0", "-p", canary.hex(), str(address))
    stage.alice.run(*command, check=False)
    assert_hidden(stage, canary)


@pytest.mark.lab
@pytest.mark.parametrize("state", ["runs", "stopped", "killed"])
def test_a_clear_packet_from_a_peer_is_not_taken(stage: Stage, state: str) -> None:
    """RFC 4301 s5.2: what ought to have come through an SA and did not is dropped."""
    end(stage.at_bob, signal.SIGKILL)
    tear_down(stage.bob)
    if state != "runs":
        end(stage.at_alice, signal.SIGTERM if state == "stopped" else signal.SIGKILL)
    receiver = stage.alice.start(sys.executable, "-c", RECEIVE, stdout=subprocess.PIPE)
    assert receiver.stdout is not None
    assert receiver.stdout.readline() == "ready\n"

    def send() -> list[bytes]:
        canaries = [stage.relay.canary() for _ in VERSIONS]
        for canary, address in zip(canaries, (stage.alice.v4, stage.alice.v6), strict=True):
            text = f"import socket; s = socket.socket(socket.{'AF_INET6' if ':' in str(address) else 'AF_INET'}, 2); "
            text += f"s.sendto(bytes.fromhex('{canary.hex()}'), ('{address}', 7777))"
            stage.bob.run(sys.executable, "-c", text)
        assert eventually(lambda: all(stage.relay.report().seen(canary) for canary in canaries), 5)
        return canaries

    dropped = send()
    tear_down(stage.alice)
    taken = send()
    # In order: had the first been taken they would stand before these.
    assert [receiver.stdout.readline().strip() for _ in VERSIONS] == [canary.hex() for canary in taken]
    assert set(dropped).isdisjoint(taken)
    receiver.kill()
    end(stage.at_alice, signal.SIGKILL)


@pytest.mark.lab
def test_control_the_canary_is_seen_when_nothing_blocks(stage: Stage) -> None:
    with traffic(stage) as canary:
        for daemon in (stage.at_alice, stage.at_bob):
            end(daemon, signal.SIGKILL)
        assert stage.relay.report().seen(canary) == 0
        tear_down(stage.alice, stage.bob)
        assert eventually(lambda: stage.relay.report().seen(canary) > 100, 10)
        assert stage.relay.report().count(Kind.CLEAR, "alice") > 50


@pytest.mark.lab
@pytest.mark.parametrize("version", VERSIONS)
def test_before_the_node_has_said_anything(version: int) -> None:
    """A peer whose place the configuration knows is blocked from the start, even if the start then fails."""
    with Topology(("alice", "bob", "dns")) as topology:
        topology.bridge()
        alice, bob = topology["alice"], topology["bob"]
        assert alice.ping(bob, version=version)
        daemon = pinned(alice, introduced(alice, bob, version=version)[0], plane=PLANE)
        (daemon.folder / "host.key").chmod(0o644)
        started = alice.run(sys.executable, "-m", "hushwire", "run", str(daemon.config), check=False)
        assert "gives others a private key" in started.stderr
        assert not alice.ping(bob, version=version, timeout=2)
        assert not bob.ping(alice, version=version, timeout=2)
        assert alice.ping(topology["dns"], version=version)
        assert alice.ping(bob, version=10 - version)


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    assert uml.lab_tests(__file__).returncode == 0
