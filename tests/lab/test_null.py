"""Two hushwires of which one, or neither, says who it is (RFC 7619), and what others hear of them."""

import os
from collections.abc import Iterator

import pytest

from hushwire.lab import uml
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
NETWORKS = ("192.0.2.0/24", "2001:db8::/64")
NAMED = '[[rule]]\npeer = "bob.example"\n'
ANONYMOUS = 'anonymous = "us"\n'

HEARS = """
import sys
from hushwire.ike.protection import Protection
def open(protection, message, before=Protection.open):
    opened = before(protection, message)
    print("heard", opened._plaintext.hex(), file=sys.stderr, flush=True)
    return opened
Protection.open = open
"""
"""A node that tells what it deciphers."""


def strangers(story: Story, anonymous: str) -> str:
    """Rules for everybody, but for whom names are asked of."""
    said = "".join(f'[[rule]]\npeer = "{at}"\ngroup = "clear"\n' for at in (story["dns"].v4, story["dns"].v6))
    return said + "".join(
        f'[[rule]]\npeer = "{network}"\nrequire = "encrypted"\nanonymous = "{anonymous}"\n' for network in NETWORKS
    )


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    """Alice is a client and bob a server; mallory can have bob's address when he likes."""
    with Story("alice", "bob", "mallory", plane=PLANE) as story:
        story.serve_web(story["bob"])
        yield story


def fetch(story: Story, version: int, limit: float = 15) -> bool:
    """Whether alice gets a page of bob's.  Nobody else ever sees it."""
    bob = story["bob"]
    address = bob.v4 if version == 4 else bob.v6
    pages = story.folder / "pages-bob"
    fetched, canaries = story.curl(story["alice"], str(address), pages, version=version, limit=limit)
    assert story.seen(canaries) == 0
    return fetched


def named_server(story: Story) -> None:
    """Bob, whose key the DNS has, takes whoever comes."""
    server = story.instruct("bob", strangers(story, "peer"))
    story.world.publish("bob.example", [story["bob"].v4, story["bob"].v6], [server.key.public])


def said(story: Story, name: str) -> str:
    return story.daemons[name].log.read_text()


@pytest.mark.lab
@pytest.mark.parametrize("refuses", ["alice", "bob"])
def test_off_unless_a_rule_allows_it(story: Story, refuses: str) -> None:
    """RFC 7619 s2: AUTHENTICATION_FAILED where policy wants the other to authenticate itself."""
    for name in ("alice", "bob"):
        story.instruct(name, strangers(story, "no" if name == refuses else "us"))
    assert not fetch(story, 4, limit=4)
    assert "AUTHENTICATION_FAILED" in said(story, "alice"), story.log()
    for one, other in (("alice", "bob"), ("bob", "alice")):
        assert not story.peer(one, str(story[other].v4)).get("level")


@pytest.mark.lab
def test_nobody_says_who_he_is(story: Story) -> None:
    """RFC 7619 s2.1: no key and no name at either end, by IPv4 and IPv6; and packets are sealed."""
    for name in ("alice", "bob"):
        story.instruct(name, strangers(story, "both"))
    for version in (4, 6):
        assert fetch(story, version), story.log()
    for one, other in (("alice", "bob"), ("bob", "alice")):
        for address in (story[other].v4, story[other].v6):
            peer = story.peer(one, str(address))
            (sa,) = peer["ike"]  # type: ignore[misc]
            assert (peer["level"], sa["scheme"], sa["key"]) == ("encrypted", "NULL", None)  # type: ignore[index]


@pytest.mark.lab
def test_a_client_that_a_named_server_does_not_know(story: Story) -> None:
    """RFC 7619 s1: the server proves itself as ever; of the client it knows an address."""
    named_server(story)
    client = story.instruct("alice", NAMED + ANONYMOUS).key.public
    identifying = [story.relay.watch(each) for each in (b"alice", client.spki)]
    for version in (4, 6):
        assert fetch(story, version), story.log()
    assert story.peer("alice", "bob.example")["level"] == "named"
    (sa,) = story.peer("bob", str(story["alice"].v4))["ike"]  # type: ignore[misc]
    assert (sa["scheme"], sa["key"], sa["level"]) == ("NULL", None, "encrypted")  # type: ignore[index]
    assert not any(map(story.relay.report().seen, identifying))


@pytest.mark.lab
@pytest.mark.parametrize("anonymous", [True, False], ids=["anonymous", "control"])
def test_what_a_man_in_the_middle_hears_of_the_client(story: Story, anonymous: bool) -> None:
    """RFC 7619 s1: who answers in the server's place reads what the client sends, before she sees that it is not he.

    The control: who is not anonymous has said her name and shown her key by then.
    """
    alice, bob, mallory = story["alice"], story["bob"], story["mallory"]
    named_server(story)
    client = story.instruct("alice", NAMED + anonymous * ANONYMOUS).key.public
    if "mallory" not in story.daemons:
        mallory.run("ip", "address", "add", f"{bob.v4}/32", "dev", "lo")
        alice.run("ip", "neigh", "replace", str(bob.v4), "lladdr", mallory.mac, "dev", "eth0", "nud", "permanent")
        story.hire("mallory", strangers(story, "peer"), publish=False, without=HEARS)
    before = len(heard(story))
    # She tries again and again, and no page ever comes.
    assert eventually(lambda: fetch(story, 4, limit=4) or len(heard(story)) > before, 60), story.log()
    assert not fetch(story, 4, limit=4)
    assert "AUTHENTICATION_FAILED" in said(story, "alice"), story.log()
    told = b"".join(heard(story)[before:])
    assert (b"alice" in told, client.spki in told) == (not anonymous, not anonymous)


def heard(story: Story) -> list[bytes]:
    """What mallory deciphered, message by message."""
    return [bytes.fromhex(line.split()[-1]) for line in said(story, "mallory").splitlines() if " heard " in f" {line}"]


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    # What an end refuses, and what it tells of itself, is the Node's, whatever the plane.
    assert uml.lab_tests(__file__, "nobody or named").returncode == 0
