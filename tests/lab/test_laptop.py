"""examples/laptop.toml and examples/office.toml: a laptop that changes its addresses, and an office that follows.

No DNS says where it is: the office knows it by its key.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hushwire.lab import uml
from hushwire.lab.namespaces import Host
from hushwire.lab.story import Story
from hushwire.wire.address import IPAddress

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
EXAMPLES = Path(__file__).parents[2] / "examples"
LAPTOP, OFFICE = ((EXAMPLES / name).read_text() for name in ("laptop.toml", "office.toml"))
FILES = "files.client.example"


@pytest.fixture
def story() -> Iterator[Story]:
    with Story("alice", "bob", "mallory", plane=PLANE) as story:
        yield story


@pytest.mark.lab
def test_a_laptop_that_roams(story: Story) -> None:
    laptop, office, mallory = story["alice"], story["bob"], story["mallory"]
    pages = meet(story, OFFICE, [])
    home = (str(laptop.v4), str(laptop.v6))
    control, canary = story.relay.canary(), story.relay.canary()
    canaries: list[str] = []
    for addresses in (home, ("192.0.2.101", "2001:db8::101"), ("192.0.2.102", "2001:db8::102")):
        move(laptop, *addresses)
        for version in (4, 6):
            fetched, carried = story.curl(laptop, FILES, pages, version=version)
            assert fetched, story.log()
            canaries += carried
        # And what the office says by itself, each packet of it.
        assert all(pings(office, address, canary) for address in addresses), story.log()
    assert story.peer("bob", "laptop.consult.example")["level"] == "named"
    # Whoever has the addresses now that the laptop had gets nothing, in clear least of all.
    for address in (*home, "192.0.2.103", "2001:db8::103"):
        add(mallory, address)
    assert not any(pings(office, address, canary) for address in home)
    assert story.seen(canaries) == story.relay.report().seen(canary) == 0
    # The control of that: the same host, by addresses that never were the laptop's.
    assert all(pings(office, address, control) for address in ("192.0.2.103", "2001:db8::103"))
    assert story.relay.report().seen(control) > 0
    # All others: protected where they can be.
    story.world.publish("www.example", [mallory.v4, mallory.v6])
    pages = story.serve_web(mallory)
    for version in (4, 6):
        fetched, carried = story.curl(laptop, "www.example", pages, version=version)
        assert fetched, story.log()
        assert all(story.seen([canary]) for canary in carried)


@pytest.mark.lab
def test_a_laptop_that_may_not_roam(story: Story) -> None:
    """The control: a rule that does not say `roams` takes it where the DNS says it is, and nowhere else."""
    laptop = story["alice"]
    pages = meet(story, OFFICE.replace("roams = true\n", ""), [laptop.v4, laptop.v6])
    for version in (4, 6):
        fetched, canaries = story.curl(laptop, FILES, pages, version=version)
        assert fetched, story.log()
        assert story.seen(canaries) == 0
    elsewhere = ("192.0.2.101", "2001:db8::101")
    move(laptop, *elsewhere)
    for version, address in zip((4, 6), elsewhere, strict=True):
        fetched, canaries = story.curl(laptop, FILES, pages, version=version, limit=5)
        assert not fetched, story.log()
        assert story.seen(canaries) == 0
        assert f"nothing is known that would prove laptop.consult.example at {address}" in story.log()


def meet(story: Story, office: str, whereabouts: Sequence[IPAddress]) -> Path:
    for name, called, config, addresses in (
        ("bob", FILES, office, [story["bob"].v4, story["bob"].v6]),
        ("alice", "laptop.consult.example", LAPTOP, whereabouts),
    ):
        daemon = story.employ(name, story.settle(config))
        story.world.publish(called, addresses, [daemon.key.public])
        story.start(name)
    return story.serve_web(story["bob"])


def move(host: Host, *addresses: str) -> None:
    host.run("ip", "address", "flush", "dev", "eth0", "scope", "global")
    for address in addresses:
        add(host, address)


def add(host: Host, address: str) -> None:
    length = ("/64", "nodad") if ":" in address else ("/24",)
    host.run("ip", "address", "add", address + length[0], "dev", "eth0", *length[1:])


def pings(host: Host, address: str, pattern: bytes) -> bool:
    """Whether both of two are answered."""
    command = ("ping", "-n", "-c", "2", "-i", "0.5", "-W", "3", "-p", pattern.hex(), address)
    return " 0% packet loss" in host.run(*command, check=False).stdout


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    command = (sys.executable, "-m", "pytest", "-q", "-m", "lab", "-p", "no:cacheprovider", __file__)
    done = uml.run(command, timeout=400, env={**os.environ, "HUSHWIRE_PLANE": "kernel"})
    assert done.returncode == 0
