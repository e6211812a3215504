"""Everything else on the wire: programs that use bare addresses, and rules about networks (RFC 4025, RFC 4322)."""

import os
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from hushwire.lab import uml
from hushwire.lab.hushwire import Hushwire
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story
from hushwire.names.ipseckey import KeyRecord, generic, write_record
from hushwire.names.reverse import reverse_name

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
NETWORKS = ("192.0.2.0/24", "2001:db8::/64")


def rules(group: str, *, clear: tuple[str, ...] = ()) -> str:
    about = [("clear", address) for address in clear] + [(group, network) for network in NETWORKS]
    return "".join(f'[[rule]]\npeer = "{peer}"\ngroup = "{word}"\n' for word, peer in about)


def name_server(story: Story) -> tuple[str, ...]:
    return str(story["dns"].v4), str(story["dns"].v6)


@pytest.fixture
def story() -> Iterator[Story]:
    with Story("alice", "bob", "carol", plane=PLANE) as story:
        yield story


def hire(story: Story, *names: str, group: str = "private") -> list[Hushwire]:
    daemons = []
    for name in names:
        daemon = story.hire(name, rules(group, clear=name_server(story)), publish=False)
        story.publish_reverse(name, daemon.key.public)
        daemons.append(daemon)
    return daemons


@pytest.mark.lab
def test_one_rule_for_a_network_is_a_pair_of_sas_for_each_peer(story: Story) -> None:
    alice, *others = story["alice"], story["bob"], story["carol"]
    hire(story, "bob", "carol", "alice")
    canary = story.relay.canary()
    for other in others:
        for version in (4, 6):
            assert eventually(lambda o=other, v=version: alice.ping(o, version=v, pattern=canary), 15), story.log()
    peers = {peer["peer"]: peer for peer in story.daemons["alice"].status()["peers"]}
    assert {str(other.v4) for other in others} | {str(other.v6) for other in others} <= set(peers)
    assert all(peers[str(other.v4)]["level"] == "named" for other in others)
    assert story.relay.report().seen(canary) == 0


@pytest.mark.lab
@pytest.mark.parametrize("said", ["by its own reverse zone", "by nobody"])
def test_an_address_whose_gateway_is_another_host(story: Story, said: str) -> None:
    """RFC 4025 s2.5: its owner says that bob speaks for it, so what is for it goes through a tunnel to bob."""
    alice, bob = story["alice"], story["bob"]
    behind = ip_address("192.0.2.77")
    bob.run("ip", "address", "add", f"{behind}/32", "dev", "lo")
    (daemon,) = hire(story, "alice")
    rule = f'[[rule]]\npeer = "{alice.v4}"\nmode = "tunnel"\nlocal-networks = ["{behind}/32"]\n'
    gateway = story.hire("bob", f'{rule}remote-networks = ["{alice.v4}/32"]\n', publish=False)
    if said == "by its own reverse zone":
        record = KeyRecord(10, bob.v4, gateway.key.public)
        story.world.set(reverse_name(behind), {"IPSECKEY": [generic(write_record(record))]})
    canary = story.relay.canary()
    command = ("ping", "-n", "-c", "1", "-W", "1", "-p", canary.hex(), str(behind))
    arrived = eventually(lambda: alice.run(*command, check=False).returncode == 0, 15 if said != "by nobody" else 4)
    assert arrived is (said != "by nobody"), story.log()
    assert story.relay.report().seen(canary) == 0
    if arrived:
        (peer,) = (peer for peer in daemon.status()["peers"] if peer["peer"] == str(behind))
        assert peer["ike"][0]["remote"].startswith(f"{bob.v4}:")
        assert peer["ike"][0]["children"][0]["mode"] == "tunnel"


@pytest.mark.lab
def test_an_address_without_a_key(story: Story) -> None:
    """Securely none.  Private: nothing leaves.  Private or clear: it leaves as it would without us."""
    alice, bob = story["alice"], story["bob"]
    private, pages = story.canary(), story.serve_web(bob)
    hire(story, "alice")
    fetched, canaries = story.curl(alice, str(bob.v4), pages, limit=4)
    assert not fetched
    assert story.seen([*canaries, private]) == 0


@pytest.mark.lab
def test_the_same_address_where_clear_is_permitted(story: Story) -> None:
    alice, bob = story["alice"], story["bob"]
    pages = story.serve_web(bob)
    hire(story, "alice", group="private-or-clear")
    for version, address in ((4, bob.v4), (6, bob.v6)):
        fetched, canaries = story.curl(alice, str(address), pages, version=version)
        assert fetched, story.log()
        assert story.seen(canaries) > 0
    # And who comes in is answered.
    assert eventually(lambda: bob.ping(alice), 10), story.log()


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    assert uml.lab_tests(__file__).returncode == 0
