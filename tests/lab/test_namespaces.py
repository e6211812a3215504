"""The lab's hosts: that they reach each other, on every kind of machine, and leave nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from hushwire.lab import uml
from hushwire.lab.namespaces import Topology, run, unprivileged

STORY = """
from hushwire.lab.namespaces import Topology, run
with Topology(("alice", "bob")) as topology:
    alice, bob = topology["alice"], topology["bob"]
    assert not alice.ping(bob, timeout=1)
    topology.bridge()
    assert alice.ping(bob) and bob.ping(alice, version=6)
assert run("ip", "netns", "list").stdout == ""
print("well")
"""


@pytest.mark.lab
def test_hosts_reach_each_other_over_a_bridge_and_not_without() -> None:
    with Topology(("alice", "bob", "dns")) as topology:
        alice, bob, dns = (topology[name] for name in ("alice", "bob", "dns"))
        assert not alice.ping(bob, timeout=1)
        topology.bridge()
        assert alice.ping(bob)
        assert bob.ping(dns, version=6)
        assert alice.run("cat", "/sys/class/net/eth0/address").stdout.strip() == alice.mac


@pytest.mark.lab
def test_everything_of_ours_ends_and_nothing_else() -> None:
    with Topology(("alice",)) as other:
        with Topology(("alice", "bob")) as topology:
            sleeper = topology["alice"].start("sleep", "1000")
            names = {topology.middle.namespace, *(host.namespace for host in topology.hosts.values())}
            assert names <= set(run("ip", "netns", "list").stdout.split())
        assert sleeper.returncode == -15
        left = set(run("ip", "netns", "list").stdout.split())
        assert not names & left
        assert {other.middle.namespace, other["alice"].namespace} <= left


@pytest.mark.lab
def test_a_command_that_fails_says_why() -> None:
    with Topology(("alice",)) as topology:
        with pytest.raises(RuntimeError, match=r"status 2: ls: cannot access '/nowhere'"):
            topology["alice"].run("ls", "/nowhere")
        assert topology["alice"].run("false", check=False).returncode == 1


@pytest.mark.lab
@pytest.mark.parametrize("offloads", [False, True])
def test_offloads(offloads: bool) -> None:
    with Topology(("alice", "bob"), offloads=offloads, mtu=1400) as topology:
        features = topology["alice"].run("ethtool", "-k", "eth0").stdout
        state = "on" if offloads else "off"
        assert f"tcp-segmentation-offload: {state}" in features
        assert f"tx-checksumming: {state}" in features
        assert "mtu 1400" in topology["bob"].run("ip", "link", "show", "eth0").stdout


@pytest.mark.lab
def test_root_of_a_user_namespace_is_enough() -> None:
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = subprocess.run(
        [*nobody, *unprivileged([sys.executable, "-c", STORY])], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("well\n", "")


@pytest.mark.uml
def test_inside_user_mode_linux(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        done = uml.run([sys.executable, "-c", STORY], timeout=60, stdout=output)
    assert done.output == b"well\n"
