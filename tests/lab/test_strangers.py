"""Hosts that were never introduced: no key in any zone, no configuration but one rule for everybody (RFC 5386)."""

import os
import sys
from collections.abc import Iterator

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab import uml
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
NETWORKS = ("192.0.2.0/24", "2001:db8::/64")


def rules(story: Story, below: str, require: str = "encrypted") -> str:
    said = "".join(f'[[rule]]\npeer = "{at}"\ngroup = "clear"\n' for at in (story["dns"].v4, story["dns"].v6))
    return said + "".join(f'[[rule]]\npeer = "{net}"\nrequire = "{require}"\nbelow = "{below}"\n' for net in NETWORKS)


@pytest.fixture
def story() -> Iterator[Story]:
    with Story("alice", "bob", plane=PLANE) as story:
        yield story


@pytest.mark.lab
@pytest.mark.parametrize("below", ["block", "clear"])
def test_strangers_encrypt(story: Story, below: str) -> None:
    """The web by a bare address: the first packet waits until both ends know each other's keys."""
    for name in ("alice", "bob"):
        story.hire(name, rules(story, below), publish=False)
    alice, bob = story["alice"], story["bob"]
    pages = story.serve_web(bob)
    for version, address in ((4, bob.v4), (6, bob.v6)):
        fetched, canaries = story.curl(alice, str(address), pages, version=version)
        assert fetched, story.log()
        assert story.seen(canaries) == 0
        at_alice, at_bob = (
            story.peer("alice", str(address)),
            story.peer("bob", str(alice.v4 if version == 4 else alice.v6)),
        )
        assert (at_alice["level"], at_bob["level"]) == ("encrypted", "encrypted")
        assert at_alice["ike"][0]["key"] == story.daemons["bob"].key.public.fingerprint.hex()  # type: ignore[index]


@pytest.mark.lab
@pytest.mark.parametrize("below", ["block", "clear"])
def test_who_has_no_ipsec_is_met_as_the_rule_says(story: Story, below: str) -> None:
    story.hire("alice", rules(story, below), publish=False)
    pages = story.serve_web(story["bob"])
    fetched, canaries = story.curl(story["alice"], str(story["bob"].v4), pages)
    assert fetched is (below == "clear"), story.log()
    assert (story.seen(canaries) > 0) is (below == "clear")
    assert eventually(lambda: story["bob"].ping(story["alice"], timeout=2), 10) is (below == "clear")


@pytest.mark.lab
def test_the_second_contact(story: Story) -> None:
    """RFC 5387 s5.7, after a restart of both: the same key is known again, another is refused until it is forgotten."""
    alice, bob = (story.hire(name, rules(story, "block", "continuous"), publish=False) for name in ("alice", "bob"))
    pages, address = story.serve_web(story["bob"]), str(story["bob"].v4)
    assert story.curl(story["alice"], address, pages)[0], story.log()
    alice.restart()
    bob.restart()
    assert story.curl(story["alice"], address, pages)[0], story.log()
    assert story.peer("alice", address)["level"] == "continuous"
    bob.restart(PrivateKey.generate(KeyKind.ED25519))
    alice.restart()
    fetched, canaries = story.curl(story["alice"], address, pages, limit=5)
    assert not fetched, story.log()
    assert "known.changed" in alice.log.read_text()
    forget = (sys.executable, "-m", "hushwire", "known", "forget", "--control", str(alice.control), address)
    said = story["alice"].run(*forget).stdout
    assert "forgotten" in said, said
    fetched, more = story.curl(story["alice"], address, pages, limit=30)
    assert fetched, story.log()
    assert story.seen([*canaries, *more]) == 0


@pytest.mark.lab
def test_a_trust_store_that_changes(story: Story) -> None:
    """What an administrator says counts at once, for who is not here yet and for who is."""
    alice, bob = (
        story.hire(name, rules(story, "block", require), publish=False)
        for name, require in (("alice", "trusted"), ("bob", "encrypted"))
    )
    pages, address = story.serve_web(story["bob"]), str(story["bob"].v4)
    fetched, canaries = story.curl(story["alice"], address, pages, limit=3)
    assert not fetched, story.log()

    def trust(*words: str) -> str:
        command = (sys.executable, "-m", "hushwire", "trust", *words)
        store = ("--store", str(alice.folder / "trusted"), "--control", str(alice.control))
        return story["alice"].run(*command, *store).stdout

    fingerprint = bob.key.public.fingerprint.hex()
    assert "has read it: 1 keys are trusted now" in trust("add", fingerprint, "--label", "bob")
    fetched, more = story.curl(story["alice"], address, pages, limit=30)
    assert fetched, story.log()
    assert story.peer("alice", address)["level"] == "trusted"
    assert "has read it: 0 keys are trusted now" in trust("remove", "bob")
    assert eventually(lambda: story.peer("alice", address)["level"] is None, 20), story.log()
    fetched, again = story.curl(story["alice"], address, pages, limit=3)
    assert not fetched, story.log()
    assert story.seen([*canaries, *more, *again]) == 0


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    # Not what outlives a restart: SQLite does not open its file again on the file system that this kernel has.
    assert uml.lab_tests(__file__, "encrypt or second").returncode == 0
