"""Recursion: a hushwire that forwards nothing asks from the root down, by referrals, and believes what is signed."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from hushwire.lab.capture import dissect
from hushwire.lab.dns import SignedWorld
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import eventually
from hushwire.lab.story import Hosts

ROOT, EXAMPLE, HOSTS = "192.0.2.53", "192.0.2.54", "192.0.2.55"
RECURSIVE = f'listen = ["127.0.0.153"]\nroots = ["{ROOT}"]'


class Delegated(SignedWorld):
    """The hosts' zones on a server of their own, below that of example., below that of the root."""

    def __init__(self, dns: Host) -> None:
        super().__init__(HOSTS, 53, ("alice.example", "bob.example"), dns.prefix)
        self._root = SignedWorld(ROOT, 53, (), dns.prefix)
        self.example = SignedWorld(EXAMPLE, 53, ("example",), dns.prefix)
        self._above = ExitStack()

    @property
    def anchor_path(self) -> Path:
        return self._root.anchor_path

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._root)
            stack.enter_context(self.example)
            super().__enter__()
            stack.callback(super().__exit__, None, None, None)
            delegate(self._root, "example", self.example)
            for zone in ("alice.example", "bob.example"):
                delegate(self.example, zone, self)
            self._above = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._above.close()


class Descent(Hosts[Delegated]):
    def _world(self, dns: Host) -> Delegated:
        for address in (EXAMPLE, HOSTS):
            dns.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        return Delegated(dns)


def delegate(parent: SignedWorld, zone: str, child: SignedWorld) -> None:
    parent.set(zone, {"NS": [f"ns.{zone}."], "DS": child.ds(zone)})
    for world in (parent, child):
        world.set(f"ns.{zone}", {"A": [child.address]})


@pytest.fixture
def descent() -> Iterator[Descent]:
    with Descent("alice", "bob") as descent:
        descent.hire("bob", '[[rule]]\npeer = "alice.example"\ngroup = "private"\n', dns=RECURSIVE, start=False)
        descent.hire("alice", '[[rule]]\npeer = "*"\ngroup = "private"\n', dns=RECURSIVE, start=False)
        yield descent


@pytest.mark.lab
def test_a_resolver_that_forwards_nothing(descent: Descent) -> None:
    for name in ("bob", "alice"):
        descent.start(name)
    pages = descent.serve_web(descent["bob"])
    for version in (4, 6):
        fetched, canaries = descent.curl(descent["alice"], "bob.example", pages, version=version)
        assert fetched, descent.log()
        assert descent.seen(canaries) == 0
    assert descent.peer("alice", "bob.example")["level"] == "named"
    # Who has no answer says who is nearer to it, and who has it was asked last.
    for server, said in (
        (ROOT, 'dns.count.answers == 0 && dns.ns == "ns.example"'),
        (EXAMPLE, 'dns.count.answers == 0 && dns.ns == "ns.bob.example"'),
        (HOSTS, 'dns.resp.type == 45 && dns.resp.name == "bob.example"'),
    ):
        to_alice = f"ip.src == {server} && ip.dst == {descent['alice'].v4}"
        assert dissect(descent.relay.pcap, "frame.number", show=f"{to_alice} && {said}"), server
    secure = descent.program(descent["alice"], "kdig", "+dnssec", "example", "NS").stdout
    assert "ns.example." in secure
    assert " ad" in secure


@pytest.mark.lab
def test_a_zone_that_its_parent_does_not_vouch_for(descent: Descent) -> None:
    """The control: the same servers and records, but example. signed that bob.example has another key."""
    descent.world.example.set("bob.example", {"DS": [f"1 13 2 {'ab' * 32}"]})
    for name in ("bob", "alice"):
        descent.start(name)
    fetched, canaries = descent.curl(descent["alice"], "bob.example", descent.serve_web(descent["bob"]))
    assert not fetched
    assert descent.seen(canaries) == 0
    why = f"no keys have a DS with algorithm ECDSAP256SHA256 from {HOSTS}"
    asking = ("kdig", "+edns", "bob.example", "A")
    # What failed a moment ago is told without a reason until it is asked for anew.
    assert eventually(lambda: why in descent.program(descent["alice"], *asking).stdout, 60, 1)
