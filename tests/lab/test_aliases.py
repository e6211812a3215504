"""Names that are others' (CNAME, DNAME): a program asks for one, and the policy of the host that it leads to stands."""

from collections.abc import Iterator

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab.frame import Kind
from hushwire.lab.relay import Rule
from hushwire.lab.story import Story

LISTEN = 'listen = ["127.0.0.153"]'
# The listener has programs wait for no name.
NOBODY_WAITS = "from hushwire.node.rulebook import Rulebook\nRulebook.speaks_of = lambda *_: False"

# The rule of the name that an alias leads to does not count, or that of the alias.
TARGET_UNHEARD = """
from dataclasses import replace
from hushwire.node.rulebook import Rulebook
Rulebook.for_alias = lambda _, rules, canonical: tuple(replace(rule, peer=canonical) for rule in rules)
"""
ALIAS_UNHEARD = """
from hushwire.node import capture
from hushwire.node.rulebook import Rulebook
Rulebook.for_alias = lambda rulebook, _, canonical: rulebook.for_name(canonical)
asked = capture._Question
capture._Question = lambda request, since, command, clear: asked(request, since, command, True)
"""

# Where an alias leads is not looked at, neither by the listener nor where nothing can be proved.
DEAD_END_UNSEEN = """
from hushwire.daemon.front import Front
from hushwire.node.peer import Peer
Front._ruled_end = lambda *_: b""
Peer.dead_end = ""
"""


def rule(peer: str, group: str) -> str:
    return f'[[rule]]\npeer = "{peer}"\ngroup = "{group}"\n'


@pytest.fixture
def story() -> Iterator[Story]:
    with Story("alice", "bob") as story:
        yield story


@pytest.mark.lab
@pytest.mark.parametrize("guard", ["in", "out"])
@pytest.mark.parametrize("name", ["alias.cname.example", "bob.dname.example", "alias.cname.dname.example"])
def test_the_policy_stands_before_the_answer(story: Story, name: str, guard: str) -> None:
    """No rule speaks of bob.example: that of the name as asked counts.  Four messages of IKE take 0.3 s each."""
    alice, bob = story["alice"], story["bob"]
    story.world.set("alias.cname.example", {"CNAME": ["bob.example."]})
    story.world.set("dname.example", {"DNAME": ["example."]})
    story.hire("bob", rule("*.example", "private"), dns='ask = ["alice.example"]')
    rules = rule("*.cname.example", "private") + rule("*.dname.example", "private")
    story.hire("alice", rules, dns=LISTEN, without=NOBODY_WAITS if guard == "out" else "")
    story.relay.add(Rule(kind=Kind.IKE, delay=0.3))
    answer = story.program(alice, "kdig", "+short", "+timeout=9", "+retry=0", name, "A").stdout
    assert answer.split()[-2:] == ["bob.example.", str(bob.v4)], story.log()
    # An answer that did not wait would be here a second before an SA is.
    assert bool(story.peer("alice", "bob.example").get("ike")) is (guard == "in"), story.log()
    story.relay.clear_rules()
    pages = story.serve_web(bob)
    for version in (4, 6):
        fetched, canaries = story.curl(alice, name, pages, version=version)
        assert fetched, story.log()
        assert [bool(story.seen([canary])) for canary in canaries] == [guard == "out"] * 2


@pytest.mark.lab
@pytest.mark.parametrize(
    ("target", "group", "without"),
    [
        ("private", "private-or-clear", ""),
        ("private", "private-or-clear", TARGET_UNHEARD),
        ("private-or-clear", "private", ""),
        ("private-or-clear", "private", ALIAS_UNHEARD),
        ("private-or-clear", "private-or-clear", ""),
    ],
    ids=["its target's", "its target's unheard", "its own", "its own unheard", "neither"],
)
def test_the_rule_for_the_two_names(story: Story, target: str, group: str, without: str) -> None:
    """Of an alias's rule and that of the name it leads to, the stricter counts.

    Bob has no hushwire: what must not be clear cannot be had, though the name has a key.
    """
    alice, bob = story["alice"], story["bob"]
    story.world.publish("bob.target.example", [bob.v4, bob.v6], [PrivateKey.generate(KeyKind.ED25519).public])
    story.world.set("bob.cname.example", {"CNAME": ["bob.target.example."]})
    story.world.set("dname.example", {"DNAME": ["target.example."]})
    rules = rule("*.target.example", target) + rule("*.cname.example", group) + rule("*.dname.example", group)
    story.hire("alice", rules, dns=LISTEN, without=without)
    pages = story.serve_web(bob)
    may_be_clear = bool(without) or "private" not in (target, group)
    for name, version in (("bob.cname.example", 4), ("bob.dname.example", 6)):
        fetched, canaries = story.curl(alice, name, pages, version=version)
        assert fetched is may_be_clear, story.log()
        assert [bool(story.seen([canary])) for canary in canaries] == [may_be_clear] * 2


@pytest.mark.lab
@pytest.mark.parametrize("guard", ["in", "out"])
@pytest.mark.parametrize("group", ["private-or-clear", ""], ids=["another rule", "no rule"])
def test_an_alias_of_a_name_that_may_not_be_clear(story: Story, group: str, guard: str) -> None:
    """That name has no key, and the alias's own rule, or its having none, would let everything go in clear."""
    alice, bob = story["alice"], story["bob"]
    story.world.publish("bob.target.example", [bob.v4, bob.v6])
    story.world.set("bob.cname.example", {"CNAME": ["bob.target.example."]})
    rules = rule("*.target.example", "private") + (rule("*.cname.example", group) if group else "")
    story.hire("alice", rules, dns=LISTEN, without=DEAD_END_UNSEEN if guard == "out" else "")
    pages = story.serve_web(bob)
    # The second time, what was found is remembered.
    for version in (4, 6, 4):
        fetched, canaries = story.curl(alice, "bob.cname.example", pages, version=version)
        assert fetched is (guard == "out"), story.log()
        assert [bool(story.seen([canary])) for canary in canaries] == [guard == "out"] * 2
