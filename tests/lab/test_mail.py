"""Mail between hosts that were never introduced, by agents (Exim) that know of no encryption (RFC 5321).

Nobody has published a key, and all that any host is told is one rule for everybody.
"""

import os
from collections.abc import Iterator

import pytest

from hushwire.lab import uml
from hushwire.lab.exim import Exim
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
EVERYBODY = """
[[rule]]
peer = "0.0.0.0/0"
require = "encrypted"
below = "clear"

[[rule]]
peer = "::/0"
require = "encrypted"
below = "clear"
"""


class Post(Story):
    """Three hosts with mail agents of their own, whose domains have MX records."""

    def open(self, *protected: str) -> None:
        """`protected` have hushwire."""
        for name in protected:
            self.hire(name, clear(self) + EVERYBODY, publish=False)
        self.agents: dict[str, Exim] = {}
        for name in ("alice", "bob", "carol"):
            self.world.publish(f"mx.{name}.example", [self[name].v4, self[name].v6])
            self.world.set(f"{name}.example", {"MX": [f"10 mx.{name}.example."]})
            self.agents[name] = self._stack.enter_context(Exim(self[name], str(self["dns"].v4)))

    def carry(self, sender: str, recipient: str) -> int:
        """Frames in which the relay saw what a message says, in its subject or its body; it has arrived."""
        subject, body = self.canary(), self.canary()
        self.agents[sender].send(f"postmaster@{recipient}.example", subject, body)
        assert eventually(
            lambda: any(subject in text and body in text for text in self.agents[recipient].mail()), 30
        ), self.agents[sender].last_words() + self.agents[recipient].last_words() + self.log()
        return self.seen([subject, body])


def clear(story: Story) -> str:
    """The DNS server, which no host could ask whether it may be asked."""
    servers = (story["dns"].v4, story["dns"].v6)
    return "".join(f'[[rule]]\npeer = "{address}"\ngroup = "clear"\n' for address in servers)


@pytest.fixture
def post() -> Iterator[Post]:
    with Post("alice", "bob", "carol", plane=PLANE) as story:
        yield story


@pytest.mark.lab
def test_mail_is_sealed_and_nobody_did_anything(post: Post) -> None:
    """Carol has no hushwire: what worked before works."""
    post.open("alice", "bob")
    assert post.carry("alice", "bob") == 0
    assert post.carry("bob", "alice") == 0
    assert post.carry("alice", "carol") > 0
    assert post.carry("carol", "bob") > 0
    assert post.carry("alice", "bob") == 0


@pytest.mark.lab
def test_control_mail_without_hushwire(post: Post) -> None:
    post.open()
    assert post.carry("alice", "bob") > 0


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    # What is seen without hushwire needs no other plane.
    assert uml.lab_tests(__file__, "not control").returncode == 0
