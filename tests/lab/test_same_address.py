"""ATTACKS rows 36 and 37: evil.example, well signed, has the victim's address and a key of its own (law 2)."""

import os
import sys
from collections.abc import Iterator

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab import uml
from hushwire.lab.hushwire import Hushwire
from hushwire.lab.story import Story

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
ALICE = '[[rule]]\npeer = "plain.example"\ngroup = "private-or-clear"\n[[rule]]\npeer = "*"\ngroup = "private"\n'
EVIL = PrivateKey.generate(KeyKind.ED25519)


@pytest.fixture
def story() -> Iterator[Story]:
    """Alice protects what she asks for; bob is the victim; plain.example has no key, and is at bob's, too."""
    with Story("alice", "bob", plane=PLANE) as story:
        bob = story["bob"]
        story.hire("alice", ALICE, dns='listen = ["127.0.0.153"]')
        story.world.publish("evil.example", [bob.v4], [EVIL.public])
        story.world.publish("plain.example", [bob.v4])
        yield story


def asked(story: Story, name: str) -> list[str]:
    """The addresses that a program gets."""
    return story.program(story["alice"], "kdig", "+short", "+timeout=8", "+retry=0", name, "A").stdout.split()


@pytest.mark.lab
@pytest.mark.parametrize("first", ["the victim", "evil"])
def test_off_path(story: Story, first: str) -> None:
    """Nobody with evil's key is at the address: evil gets nothing, and stands in nobody's way."""
    story.hire("bob", '[[rule]]\npeer = "alice.example"\ngroup = "private"\n')
    pages = story.serve_web(story["bob"])
    if first == "evil":
        assert asked(story, "evil.example") == []
    fetched, canaries = story.curl(story["alice"], "bob.example", pages)
    assert fetched, story.log()
    assert asked(story, "evil.example") == []
    fetched, more = story.curl(story["alice"], "bob.example", pages)
    assert fetched, story.log()
    assert story.seen([*canaries, *more]) == 0
    assert story.peer("alice", "bob.example")["level"] == "named"


@pytest.mark.lab
def test_off_path_where_the_victim_has_no_key(story: Story) -> None:
    """The black hole of row 37: the bare address, and a name without a key there, are as if evil were not."""
    pages = story.serve_web(story["bob"])
    assert asked(story, "evil.example") == []
    for name in ("plain.example", str(story["bob"].v4)):
        fetched, canaries = story.curl(story["alice"], name, pages)
        assert fetched, story.log()
        assert story.seen(canaries) > 0
    assert asked(story, "evil.example") == []


@pytest.mark.lab
@pytest.mark.parametrize("first", ["the victim", "evil"])
def test_on_path(story: Story, first: str) -> None:
    """Whoever answers at the address has evil's key, and is taken for evil and for nobody else."""
    bob = story["bob"]
    story.world.publish("bob.example", [bob.v4], [PrivateKey.generate(KeyKind.ED25519).public])
    config = story.config("evil", '[[rule]]\npeer = "alice.example"\ngroup = "private"\n')
    with Hushwire(bob, config, EVIL):
        pages = story.serve_web(bob)
        if first == "the victim":
            assert asked(story, "bob.example") == []
        fetched, canaries = story.curl(story["alice"], "evil.example", pages)
        assert fetched, story.log()
        # The victim's packets never go to who did not prove that name.
        fetched, more = story.curl(story["alice"], "bob.example", pages, limit=8)
        assert not fetched
        assert story.peer("alice", "bob.example")["level"] is None
        assert story.seen([*canaries, *more]) == 0


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    command = (sys.executable, "-m", "pytest", "-q", "-m", "lab", "-p", "no:cacheprovider", __file__)
    done = uml.run(command, timeout=400, env={**os.environ, "HUSHWIRE_PLANE": "kernel"})
    assert done.returncode == 0
