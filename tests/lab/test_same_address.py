"""ATTACKS rows 36 and 37: evil.example, well signed, has the victim's address and a key of its own (law 2).

Each combination has a control: the guard that keeps it harmless is out, and evil gets the page meant for bob.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.daemon.front import REMEMBERED_LEAST
from hushwire.lab import uml
from hushwire.lab.hushwire import Hushwire
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story
from hushwire.names.ipseckey import KeyRecord

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
ALICE = '[[rule]]\npeer = "plain.example"\ngroup = "private-or-clear"\n[[rule]]\npeer = "*"\ngroup = "private"\n'
LISTEN = 'listen = ["127.0.0.153"]'
FOR_ALICE = '[[rule]]\npeer = "alice.example"\ngroup = "private"\n'
REFUSED_FOR = REMEMBERED_LEAST + 0.5
"""Seconds after which the listener asks again for a name that was refused."""
EVIL = PrivateKey.generate(KeyKind.ED25519)

# Whoever proves a key last has the policy of the address.
SHARED = """
from hushwire.node.policies import Policies
Policies._may_have = lambda *_: True
"""
# Programs are told an address as soon as a policy protects it, whoever's that is.
BY_ADDRESS = """
from hushwire.events import Verdict
from hushwire.node import capture
def judge(peer, since, now, holder, judge=capture.judge, **more):
    if holder() is not None:
        return capture.Told(Verdict.ONLY, 5, peer.addresses)
    return judge(peer, since, now, holder, **more)
capture.judge = judge
"""
# A name may say who speaks for its addresses, as prior art lets it.
GATEWAYS_FOLLOWED = """
from hushwire.daemon.guard import Guard
from hushwire.names import binding
from hushwire.node.peer import Peer
def proved(peer, where, now):
    peer.proven |= dict.fromkeys(peer.addresses, now)
    return True
binding._usable_records = lambda rdatas, *_: binding.read_records(rdatas)
Peer.gateway = property(lambda peer: peer.lookup and peer.lookup.binding and peer.lookup.binding.gateway)
Peer.identities = property(lambda peer: (peer.rule.expected,))
Peer.proved = proved
Guard._may_have_gateway = lambda *_: True
"""
GUARDS_OUT = {
    ("off path", "unknown"): GATEWAYS_FOLLOWED + BY_ADDRESS,
    ("off path", "reached"): GATEWAYS_FOLLOWED + SHARED,
    ("on path", "unknown"): BY_ADDRESS,
    ("on path", "asked for"): BY_ADDRESS,
    ("on path", "reached"): SHARED,
}
"""By where evil is, and what bob.example was to alice before she asked for evil.example."""


@pytest.fixture
def story() -> Iterator[Story]:
    """Alice protects what she asks for; bob is the victim; mallory is evil.example, and has bob's address as well."""
    with Story("alice", "bob", "mallory", plane=PLANE) as story:
        yield story


def asked(story: Story, name: str) -> list[str]:
    """The addresses that a program gets."""
    return story.program(story["alice"], "kdig", "+short", "+timeout=8", "+retry=0", name, "A").stdout.split()


def why(story: Story, name: str) -> str:
    """What an administrator of alice's is told about a name."""
    control = str(story.daemons["alice"].control)
    return story["alice"].run(sys.executable, "-m", "hushwire", "why", "--control", control, name).stdout


def lead(story: Story, where: str) -> None:
    """From now on, what alice sends to bob's address gets there: on the way to it is a switch that believed a lie."""
    alice, bob = story["alice"], story["bob"]
    alice.run("ip", "neigh", "replace", str(bob.v4), "lladdr", story[where].mac, "dev", "eth0", "nud", "permanent")


def evil(story: Story, where: str) -> Hushwire:
    """Mallory's: on the path he answers for bob's address, off it he is the gateway to it that his name gives."""
    alice, bob, mallory = story["alice"], story["bob"], story["mallory"]
    mallory.run("ip", "address", "add", f"{bob.v4}/32", "dev", "lo")
    gateways = [mallory.v4] if where == "off path" else []
    records = [KeyRecord(5, gateway, EVIL.public) for gateway in gateways] + [KeyRecord(10, None, EVIL.public)]
    story.world.publish("evil.example", [bob.v4], records)
    networks = f'mode = "tunnel"\nlocal-networks = ["{bob.v4}/32"]\nremote-networks = ["{alice.v4}/32"]\n'
    return Hushwire(mallory, story.config("evil", FOR_ALICE + networks * len(gateways)), EVIL)


@pytest.mark.lab
@pytest.mark.parametrize("control", [False, True], ids=["in", "out"])
@pytest.mark.parametrize(("where", "bobs"), GUARDS_OUT)
def test_what_is_for_bobs_name_gets_to_nobody_but_bob(story: Story, where: str, bobs: str, control: bool) -> None:
    alice, bob, mallory = story["alice"], story["bob"], story["mallory"]
    story.hire("alice", ALICE, dns=LISTEN, without=GUARDS_OUT[where, bobs] if control else "")
    key = story.hire("bob", FOR_ALICE, publish=False).key.public
    story.world.publish("bob.example", [bob.v4], [key])
    good, bad = story.serve_web(bob), story.serve_web(mallory)
    lead(story, "bob")
    canaries: list[str] = []

    def gets(pages: Path, limit: float = 15) -> bool:
        fetched, carried = story.curl(alice, "bob.example", pages, limit=limit)
        canaries.extend(carried)
        return fetched

    if bobs == "reached":
        assert gets(good), story.log()
        assert story.peer("alice", "bob.example")["level"] == "named"
    with evil(story, where) as daemon:
        lead(story, "mallory" if where == "on path" else "bob")
        if bobs == "asked for":
            assert asked(story, "bob.example") == []
        told = asked(story, "evil.example")
        if control:
            assert told == [str(bob.v4)], story.log()
            assert eventually(lambda: story.peer("alice", "evil.example")["level"] == "named"), story.log()
            assert eventually(lambda: gets(bad), REFUSED_FOR), story.log() + daemon.log.read_text()
        else:
            # Where nobody else is known to be, he is who his name says; and he is never another.
            assert told == ([str(bob.v4)] if where == "on path" and bobs != "reached" else []), story.log()
            assert not eventually(lambda: gets(bad, limit=3), REFUSED_FOR)
            assert gets(good, limit=3 if where == "on path" else 15) is (where == "off path"), story.log()
            level = "named" if where == "off path" or bobs == "reached" else None
            assert story.peer("alice", "bob.example")["level"] == level
            if where == "on path" and bobs == "reached":
                assert "gets SERVFAIL: evil.example: its address is another's" in why(story, "evil.example")
    assert story.seen(canaries) == 0


@pytest.mark.lab
def test_off_path_where_the_victim_has_no_key(story: Story) -> None:
    """The black hole of row 37: the bare address, and a name without a key there, are as if evil were not."""
    bob = story["bob"]
    story.hire("alice", ALICE, dns=LISTEN)
    story.world.publish("evil.example", [bob.v4], [EVIL.public])
    story.world.publish("plain.example", [bob.v4])
    pages = story.serve_web(bob)
    assert asked(story, "evil.example") == []
    for name in ("plain.example", str(bob.v4)):
        fetched, canaries = story.curl(story["alice"], name, pages)
        assert fetched, story.log()
        assert story.seen(canaries) > 0
    assert asked(story, "evil.example") == []


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    # The guards are the Node's, whatever the plane, and this machine is slow: so there are no controls.
    words = ("-m", "pytest", "-q", "-m", "lab", "-k", "not out and not asked", "-p", "no:cacheprovider")
    command = (sys.executable, *words, __file__)
    done = uml.run(command, timeout=400, env={**os.environ, "HUSHWIRE_PLANE": "kernel"})
    assert done.returncode == 0
