"""The three ways a name comes in, as stories: a rule says it, a peer says it, a program asks for it (docs/names.md).

Programs are those that people use: curl, ssh, and kdig as a client of a DNS server over TCP, by IPv4 and by IPv6.  What
they say is never seen between the hosts where a rule says block.
"""

import os
import sys
from collections.abc import Iterator

import pytest

from hushwire.lab import uml
from hushwire.lab.frame import Kind
from hushwire.lab.peer import eventually
from hushwire.lab.relay import Rule
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
    """Both know each other's names."""
    alice, bob, dns = story["alice"], story["bob"], str(story["dns"].v4)
    story.hire("alice", rule("bob.example", 'group = "private"'), start=False)
    story.hire("bob", rule("alice.example", 'group = "private"'))
    story.start("alice")
    pages = story.serve(bob)
    assert eventually(lambda: story.peer("alice", "bob.example")["addresses"], 20), story.log()
    talk = story.talk(alice, "bob.example", pages, server=dns)
    assert talk.silent == (), story.log()
    assert story.peer("alice", "bob.example")["level"] == "named"
    assert story.seen(talk.canaries) == 0


@pytest.mark.lab
def test_a_name_that_a_peer_says(story: Story) -> None:
    """Bob's rule is about all of example: he looks alice up when she says who she is, as he may."""
    alice, bob, dns = story["alice"], story["bob"], str(story["dns"].v4)
    story.hire("bob", rule("*.example", 'group = "private"'), dns='ask = ["*.example"]')
    story.hire("alice", rule("bob.example", 'group = "private"'))
    pages = story.serve(bob)
    assert story.peer("bob", "alice.example") == {}
    talk = story.talk(alice, "bob.example", pages, server=dns)
    assert talk.silent == (), story.log()
    assert story.peer("bob", "alice.example")["level"] == "named"
    assert story.seen(talk.canaries) == 0
    # What is told back is protected as well, from the first packet on: alice's name has a policy on bob now.
    canary = story.relay.canary()
    assert all(bob.ping(alice, version=version, pattern=canary) for version in (4, 6))
    assert story.relay.report().seen(canary) == 0


@pytest.mark.lab
def test_nobody_is_looked_up_who_may_not_be_asked_for(story: Story) -> None:
    """The control of the story above: the same peer, and an empty allow-list."""
    alice, bob, dns = story["alice"], story["bob"], str(story["dns"].v4)
    story.hire("bob", rule("*.example", 'group = "private"'))
    story.hire("alice", rule("bob.example", 'group = "private"'))
    pages = story.serve_web(bob)
    for version in (4, 6):
        fetched, canaries = story.curl(alice, "bob.example", pages, version=version, server=dns, limit=3)
        assert not fetched
        assert story.seen(canaries) == 0
    assert story.peer("bob", "alice.example") == {}
    assert "dns.ask does not allow" in story.log()


@pytest.mark.lab
def test_a_name_that_a_program_asks_for(story: Story) -> None:
    """Alice's rule is about all names: a program's question makes the policy, before it gets its answer."""
    alice, bob = story["alice"], story["bob"]
    story.hire("bob", rule("*.example", 'group = "private"'), dns='ask = ["alice.example"]')
    story.hire("alice", rule("*", 'group = "private"'), dns=LISTEN)
    pages = story.serve(bob)
    story.world.set("branch.example", {"DNAME": ["example."]})
    story.world.set("alias.example", {"CNAME": ["bob.example."]})
    # Four messages of IKE with 0.3 s each: an answer that did not wait for them would be there long before an SA is.
    story.relay.add(Rule(kind=Kind.IKE, delay=0.3))
    asked = story.program(alice, "kdig", "+short", "+timeout=9", "+retry=0", "alias.branch.example", "AAAA")
    assert story.peer("alice", "bob.example")["ike"], story.log()
    assert asked.stdout.split() == ["example.", "alias.example.", "bob.example.", str(bob.v6)]
    story.relay.clear_rules()
    for version in (4, 6):
        fetched, canaries = story.curl(alice, "alias.branch.example", pages, version=version)
        assert fetched, story.log()
        assert story.seen(canaries) == 0
    talk = story.talk(alice, "bob.example", pages)
    assert talk.silent == (), story.log()
    assert story.seen(talk.canaries) == 0
    assert story.peer("alice", "bob.example")["level"] == "named"
    # Whoever asks the listener over TCP is answered, and with what else there is.
    asked = story.program(alice, "kdig", "+tcp", "+short", "bob.example", "A")
    assert asked.stdout.split() == [str(bob.v4)], story.log()
    asked = story.program(alice, "kdig", "+tcp", "example", "SOA")
    assert "ns.example." in asked.stdout


@pytest.mark.lab
def test_private_or_clear_and_private_where_there_is_no_key(story: Story) -> None:
    """Securely none: with the one group a program goes in clear, with the other it gets SERVFAIL."""
    alice, bob = story["alice"], story["bob"]
    story.world.publish("bob.example", [bob.v4, bob.v6])
    story.world.publish("secret.example", [bob.v4, bob.v6])
    rules = rule("*.example", 'group = "private-or-clear"') + rule("secret.example", 'group = "private"')
    story.hire("alice", rules, dns=LISTEN)
    pages = story.serve(bob)
    talk = story.talk(alice, "bob.example", pages)
    assert talk.silent == (), story.log()
    # The relay's eyes are good: this is the control of all that is not seen, in this file and others.
    assert [canary for canary in talk.canaries if not story.seen([canary])] == []
    secret = story.talk(alice, "secret.example", pages)
    assert len(secret.silent) == 6
    assert story.seen(sorted({*secret.canaries} - {*talk.canaries})) == 0
    assert "SERVFAIL" in story.program(alice, "kdig", "secret.example", "A").stdout


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    # What is seen in clear needs no other plane.
    stories = ("-m", "lab", "-k", "not private_or_clear", "-p", "no:cacheprovider", __file__)
    command = (sys.executable, "-m", "pytest", "-q", *stories)
    done = uml.run(command, timeout=400, env={**os.environ, "HUSHWIRE_PLANE": "kernel"})
    assert done.returncode == 0
