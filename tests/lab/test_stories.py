"""The three ways a name comes in, as stories: a rule says it, a peer says it, a program asks for it (docs/names.md).

Programs are those that people use; what they say is never seen between the hosts where a rule says block.
"""

import os
import sys
from collections.abc import Iterator

import pytest

from hushwire.lab import uml
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
LISTEN = 'listen = ["127.0.0.153"]'


def rule(peer: str, *settings: str) -> str:
    return "\n".join(("[[rule]]", f'peer = "{peer}"', *settings, ""))


@pytest.fixture
def story() -> Iterator[Story]:
    with Story("alice", "bob", plane=PLANE) as story:
        yield story


@pytest.mark.lab
def test_a_name_that_a_rule_says(story: Story) -> None:
    """Both know each other's names; ssh by name, to and fro."""
    alice, bob, dns = story["alice"], story["bob"], str(story["dns"].v4)
    story.hire("bob", rule("alice.example", 'group = "private"'))
    story.hire("alice", rule("bob.example", 'group = "private"'))
    story.serve_ssh(bob)
    assert eventually(lambda: story.peer("alice", "bob.example")["addresses"], 20), story.log()
    said = story.canary()
    assert story.ssh(alice, "bob.example", ["echo", said], server=dns) == f"{said}\n", story.log()
    pages = story.serve_web(bob)
    fetched, canaries = story.curl(alice, "bob.example", pages, server=dns)
    assert fetched, story.log()
    assert story.peer("alice", "bob.example")["level"] == "named"
    assert story.seen([said, *canaries]) == 0


@pytest.mark.lab
def test_a_name_that_a_peer_says(story: Story) -> None:
    """Bob's rule is about all of example: he looks alice up when she says who she is, as he may."""
    alice, bob, dns = story["alice"], story["bob"], str(story["dns"].v4)
    story.hire("bob", rule("*.example", 'group = "private"'), dns='ask = ["*.example"]')
    story.hire("alice", rule("bob.example", 'group = "private"'))
    pages = story.serve_web(bob)
    assert story.peer("bob", "alice.example") == {}
    fetched, canaries = story.curl(alice, "bob.example", pages, server=dns)
    assert fetched, story.log()
    assert story.peer("bob", "alice.example")["level"] == "named"
    assert story.seen(canaries) == 0
    # What is told back is protected as well, from the first packet on: alice's name has a policy on bob now.
    canary = story.relay.canary()
    assert bob.ping(alice, pattern=canary)
    assert story.relay.report().seen(canary) == 0


@pytest.mark.lab
def test_nobody_is_looked_up_who_may_not_be_asked_for(story: Story) -> None:
    """The control of the story above: the same peer, and an empty allow-list."""
    alice, bob, dns = story["alice"], story["bob"], str(story["dns"].v4)
    story.hire("bob", rule("*.example", 'group = "private"'))
    story.hire("alice", rule("bob.example", 'group = "private"'))
    pages = story.serve_web(bob)
    fetched, canaries = story.curl(alice, "bob.example", pages, server=dns, limit=4)
    assert not fetched
    assert story.peer("bob", "alice.example") == {}
    assert "dns.ask does not allow" in story.log()
    assert story.seen(canaries) == 0


@pytest.mark.lab
def test_a_name_that_a_program_asks_for(story: Story) -> None:
    """Alice's rule is about all names: a program's question makes the policy, before it gets its answer."""
    alice, bob = story["alice"], story["bob"]
    story.hire("bob", rule("*.example", 'group = "private"'), dns='ask = ["alice.example"]')
    story.hire("alice", rule("*", 'group = "private"'), dns=LISTEN)
    pages = story.serve_web(bob)
    for version in (4, 6):
        fetched, canaries = story.curl(alice, "bob.example", pages, version=version)
        assert fetched, story.log()
        assert story.seen(canaries) == 0
    assert story.peer("alice", "bob.example")["level"] == "named"
    # Whoever asks over TCP is answered, and with what else there is.
    asked = story.program(alice, "kdig", "+tcp", "+short", "bob.example", "A")
    assert asked.stdout.split() == [str(bob.v4)], story.log()
    asked = story.program(alice, "kdig", "+tcp", "example", "SOA")
    assert "ns.example." in asked.stdout


@pytest.mark.lab
def test_a_resolver_that_forwards_nothing(story: Story) -> None:
    """Alice's hushwire asks from the root down, delegation by delegation."""
    alice, bob, dns = story["alice"], story["bob"], story["dns"]
    story.hire("bob", rule("*.example", 'group = "private"'), dns='ask = ["alice.example"]')
    story.hire("alice", rule("*", 'group = "private"'), dns=f'{LISTEN}\nroots = ["{dns.v4}"]')
    fetched, canaries = story.curl(alice, "bob.example", story.serve_web(bob))
    assert fetched, story.log()
    assert story.peer("alice", "bob.example")["level"] == "named"
    assert story.seen(canaries) == 0
    asked = story.program(alice, "kdig", "+dnssec", "example", "NS")
    assert "ns.example." in asked.stdout
    assert " ad" in asked.stdout


@pytest.mark.lab
def test_private_or_clear_and_private_where_there_is_no_key(story: Story) -> None:
    """Securely none: with the one group a program goes in clear, with the other it gets SERVFAIL."""
    alice, bob = story["alice"], story["bob"]
    story.world.publish("bob.example", [bob.v4, bob.v6])
    rules = rule("*.example", 'group = "private-or-clear"') + rule("secret.example", 'group = "private"')
    story.hire("alice", rules, dns=LISTEN)
    story.world.publish("secret.example", [bob.v4])
    pages = story.serve_web(bob)
    fetched, canaries = story.curl(alice, "bob.example", pages)
    assert fetched, story.log()
    # The relay's eyes are good: this is the control of all that is not seen.
    assert story.seen(canaries) > 0
    fetched, canaries = story.curl(alice, "secret.example", pages, limit=8)
    assert not fetched
    assert story.seen(canaries) == 0
    asked = story.program(alice, "kdig", "secret.example", "A")
    assert "SERVFAIL" in asked.stdout


@pytest.mark.lab
def test_a_laptop_that_roams(story: Story) -> None:
    """Its address changes, and no DNS says where it is: the office knows it by its key, and follows."""
    alice, bob, dns = story["alice"], story["bob"], str(story["dns"].v4)
    laptop = story.hire("alice", rule("bob.example", 'group = "private"'), start=False, publish=False)
    story.world.publish("alice.example", [], [laptop.key.public])
    story.hire("bob", rule("alice.example", 'group = "private"', "roams = true"))
    story.start("alice")
    pages = story.serve_web(bob)
    fetched, canaries = story.curl(alice, "bob.example", pages, server=dns)
    assert fetched, story.log()
    canary = story.relay.canary()
    assert bob.ping(alice, pattern=canary), story.log()
    for moved in ("192.0.2.101", "192.0.2.102"):
        alice.run("ip", "-4", "address", "flush", "dev", "eth0")
        alice.run("ip", "address", "add", f"{moved}/24", "dev", "eth0")
        fetched, more = story.curl(alice, "bob.example", pages, server=dns)
        assert fetched, story.log()
        canaries += more
        command = ("ping", "-n", "-c", "2", "-W", "2", "-p", canary.hex(), moved)
        assert bob.run(*command, check=False).returncode == 0, story.log()
    # Where it was, it is no more, and what is meant for it does not go there in clear.
    bob.run("ping", "-n", "-c", "2", "-W", "1", "-p", canary.hex(), str(alice.v4), check=False)
    assert story.seen(canaries) == story.relay.report().seen(canary) == 0


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    command = (sys.executable, "-m", "pytest", "-q", "-m", "lab", "-p", "no:cacheprovider", __file__)
    done = uml.run(command, timeout=400, env={**os.environ, "HUSHWIRE_PLANE": "kernel"})
    assert done.returncode == 0
