"""The relay on a real wire: what it carries, finds and disturbs."""

import subprocess
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from hushwire.lab.frame import Frame, Kind
from hushwire.lab.medium import Delivery, Rule
from hushwire.lab.namespaces import Topology
from hushwire.lab.relay import Relay

pytestmark = pytest.mark.lab


def to_alice_only(frame: Frame, dice: Random) -> Iterable[Delivery] | None:
    """A script: all clear packets come back to alice."""
    return [Delivery(frame.octets, to="alice")] if frame.kind == Kind.CLEAR else None


def test_hosts_reach_each_other_and_all_of_it_is_seen(tmp_path: Path) -> None:
    with Topology() as topology, Relay(topology, tmp_path / "wire.pcap") as relay:
        alice, bob, dns = (topology[name] for name in ("alice", "bob", "dns"))
        canary, absent = relay.canary(), relay.canary()
        assert alice.ping(bob, count=3, pattern=canary)
        assert bob.ping(dns, version=6)
        report = relay.report()
        assert report.seen(canary) == 6
        assert report.seen(absent) == 0
        assert {host: report.count(Kind.CLEAR, host) for host in topology.hosts} == {"alice": 3, "bob": 4, "dns": 1}
        assert report.count(Kind.NEIGHBOUR) >= 4
        assert len(report.clear) == 8
        read = subprocess.run(
            ("tshark", "-r", relay.pcap, "-Y", "icmp || icmpv6.type in {128,129}"), capture_output=True
        )
        assert len(read.stdout.splitlines()) == 8


def test_without_the_relay_nothing_passes() -> None:
    with Topology(("alice", "bob")) as topology:
        with Relay(topology):
            assert topology["alice"].ping(topology["bob"])
        assert not topology["alice"].ping(topology["bob"], timeout=1)


def test_rules_come_and_go_while_traffic_flows() -> None:
    with Topology(("alice", "bob")) as topology, Relay(topology) as relay:
        alice, bob = topology["alice"], topology["bob"]
        relay.add(Rule(kind=Kind.CLEAR, source="bob", drop=True))
        assert not alice.ping(bob, timeout=1)
        assert relay.report().dropped >= 1
        relay.clear_rules()
        assert alice.ping(bob)
        relay.add(Rule(kind=Kind.CLEAR, skip=2, times=1, drop=True))
        assert not alice.ping(bob, count=3, timeout=1)
        assert alice.ping(bob, count=3)
        relay.clear_rules()
        relay.add(Rule(kind=Kind.CLEAR, source="alice", delay=0.3))
        assert "time=3" in alice.run("ping", "-n", "-c", "1", str(bob.v4)).stdout
        relay.clear_rules()
        relay.add(Rule(kind=Kind.CLEAR, source="alice", copies=2))
        assert "DUP!" in alice.run("ping", "-n", "-c", "2", str(bob.v4)).stdout


def test_a_script_decides(tmp_path: Path) -> None:
    with Topology(("alice", "bob")) as topology, Relay(topology, script=to_alice_only) as relay:
        assert not topology["alice"].ping(topology["bob"], timeout=1)
        assert relay.report().count(Kind.CLEAR, "bob") == 0
        assert relay.report().dropped == 0


def test_what_is_injected_arrives() -> None:
    with Topology(("alice", "bob")) as topology, Relay(topology) as relay:
        bob = topology["bob"]
        mac = bytes.fromhex(bob.mac.replace(":", ""))
        request = bytes.fromhex("0001 0800 06 04 0001 020000000042 c0000242 000000000000") + bob.v4.packed
        relay.inject("bob", mac + bytes.fromhex("020000000042 0806") + request)
        for _ in range(100):
            if relay.report().count(Kind.NEIGHBOUR, "bob"):
                break
        assert relay.report().count(Kind.NEIGHBOUR, "bob") == 1


def test_a_command_that_makes_no_sense_is_refused() -> None:
    with Topology(("alice", "bob")) as topology, Relay(topology) as relay:
        with pytest.raises(ValueError, match="everywhere"):
            relay.watch(b"")
        assert topology["alice"].ping(topology["bob"])


@pytest.mark.parametrize("offloads", [False, True])
def test_bulk_traffic_passes_with_and_without_offloads(offloads: bool) -> None:
    with Topology(("alice", "bob"), offloads=offloads) as topology, Relay(topology) as relay:
        topology["bob"].start("iperf3", "-s", "-1", stdout=subprocess.DEVNULL)
        command = ("iperf3", "-c", str(topology["bob"].v4), "-n", "20M")
        # iperf3 -s has no way to say that it listens.
        for _ in range(20):
            if topology["alice"].run(*command, check=False).returncode == 0:
                break
        report = relay.report()
        assert (report.count(Kind.CLEAR, "alice") > 10_000) != offloads
        assert relay.pcap.stat().st_size > 15_000_000
        assert (report.missed, report.lost, report.unrecorded) == (0, 0, 0)
