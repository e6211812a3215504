"""A stranger whose key is published while packets flow is raised as he is: none is lost, and none is in clear."""

import os
import re
from typing import Any

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab import uml
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
NETWORKS = ("192.0.2.0/24", "2001:db8::/64")
COUNT = 45
"""Packets of each flow, one in 0.4 s: the DNS is asked again after 5 s."""


def rules(story: Story, *more: str) -> str:
    said = "".join(f'[[rule]]\npeer = "{at}"\ngroup = "clear"\n' for at in (story["dns"].v4, story["dns"].v6))
    return said + "".join(f'[[rule]]\npeer = "{peer}"\nrequire = "encrypted"\n' for peer in (*NETWORKS, *more))


class Flow:
    """Pings without a break, filled with a canary."""

    def __init__(self, story: Story, source: Host, target: str) -> None:
        self.canary = story.relay.canary()
        ping = ("ping", "-n", "-i", "0.4", "-c", str(COUNT), "-W", "5", "-p", self.canary.hex(), target)
        self._process = story.start_program(source, *ping)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def count(self) -> tuple[int, int]:
        """How many have left in the end, and how many came back."""
        said = self._process.communicate(timeout=COUNT + 60)[0]
        counted = re.search(r"(\d+) packets transmitted, (\d+) received", said)
        assert counted is not None, said
        return int(counted[1]), int(counted[2])


def spis(peers: list[dict[str, Any]]) -> list[list[str]]:
    """Of all SAs with each."""
    return [
        [sa["spi_i"] for sa in peer["ike"]] + [child["spi_in"] for sa in peer["ike"] for child in sa["children"]]
        for peer in peers
    ]


@pytest.mark.lab
def test_a_stranger_is_raised_while_packets_flow() -> None:
    """Bob is met by his address, carol by her name; of mallory's address it turns out that another should be there."""
    with Story("alice", "bob", "carol", "mallory", plane=PLANE) as story:
        alice = story.hire("alice", rules(story, "*"), dns='listen = ["127.0.0.153"]', publish=False)
        keys = [story.hire(name, rules(story), publish=False).key.public for name in ("bob", "carol", "mallory")]
        met = (str(story["bob"].v4), "carol.example", str(story["mallory"].v4))
        story.world.publish("carol.example", [story["carol"].v4])
        flows = [Flow(story, story["alice"], target) for target in met]

        def peers() -> list[dict[str, Any]]:
            return [story.peer("alice", name) for name in met]

        def levels() -> list[object]:
            return [peer.get("level") for peer in peers()]

        assert eventually(lambda: levels() == ["encrypted"] * 3, 30), story.log()
        before = spis(peers())
        story.publish_reverse("bob", keys[0])
        story.world.publish("carol.example", [story["carol"].v4], [keys[1]])
        story.publish_reverse("mallory", PrivateKey.generate(KeyKind.ED25519).public)
        assert eventually(lambda: levels() == ["named", "named", None], 30), story.log()
        assert all(flow.runs for flow in flows), "the flows have ended too early for this"
        *raised, ended = [flow.count() for flow in flows]
        assert raised == [(COUNT, COUNT)] * 2, story.log()
        assert 0 < ended[1] < ended[0]
        assert spis(peers())[:2] == before[:2]
        for name in met:
            raises = alice.log.read_text().count(f"peer.raised peer={name} ")
            assert raises == (name != met[2])
        assert not any(story.relay.report().seen(flow.canary) for flow in flows)


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    assert uml.lab_tests(__file__).returncode == 0
