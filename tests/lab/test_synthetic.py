"""Synthetic addresses as programs meet them: each name its own, whoever else publishes the address behind it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab.hushwire import START
from hushwire.lab.peer import eventually
from hushwire.lab.stage import UDP_ECHO
from hushwire.lab.story import Story
from hushwire.names.synthetic import POOLS, is_synthetic

pytestmark = pytest.mark.lab

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
RULES = '[[rule]]\npeer = "*.example"\ngroup = "private"\n'
LISTEN = 'listen = ["127.0.0.153"]'
RRTYPES = {4: "A", 6: "AAAA"}

UDP_ASK = """
import socket, sys
far, port, octets = sys.argv[1:]
sock = socket.socket(socket.AF_INET6 if ":" in far else socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(5)
sock.connect((far, int(port)))
sock.send(bytes.fromhex(octets))
try:
    print(sock.recv(65536).hex())
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def story() -> Iterator[Story]:
    """alice's rule is about all names, which get addresses of their own; bob knows her by what she says."""
    with Story("alice", "bob", plane=PLANE) as story:
        story.hire("bob", RULES, dns='ask = ["alice.example"]')
        story.hire("alice", RULES + 'addressing = "synthetic"\n', dns=LISTEN)
        yield story


def told(story: Story, name: str, version: int) -> str:
    """The address that a program on alice is told; empty: none."""
    return story.program(story["alice"], "kdig", "+short", "+timeout=20", name, RRTYPES[version]).stdout.strip()


def ask(story: Story, host: str, far: str, port: int, octets: bytes) -> str:
    done = story[host].run(sys.executable, "-c", UDP_ASK, far, str(port), octets.hex())
    return done.stdout.strip()


def test_a_name_is_reached_by_an_address_of_its_own(story: Story) -> None:
    """curl, ping, UDP, a path that is too narrow, a port where nobody listens; and what bob begins."""
    alice, bob = story["alice"], story["bob"]
    pages = story.serve_web(bob)
    canaries = []
    echoes = {}
    for host in (alice, bob):
        echoes[host.name] = host.start(sys.executable, "-c", UDP_ECHO, stdout=subprocess.PIPE)
        assert echoes[host.name].stdout.readline() == "ready\n"
    for version in (4, 6):
        made = told(story, "bob.example", version)
        assert made, story.log()
        assert is_synthetic(ip_address(made)), made
        fetched, carried = story.curl(alice, "bob.example", pages, version=version)
        assert fetched, story.log()
        canaries += carried
        canary = story.relay.canary()
        # Fragments go as well; what must not be cut is refused at once, with the length that fits.
        for size in ("56", "4000"):
            pinged = story.program(
                alice, "ping", f"-{version}", "-c1", "-W5", "-s", size, "-p", canary.hex(), "bob.example"
            )
            assert pinged.returncode == 0, pinged.stdout + story.log()
            assert made in pinged.stdout
        narrow = alice.run("ping", "-c1", "-W2", "-M", "do", "-s", "1450", made, check=False)
        assert "1400" in narrow.stdout + narrow.stderr
        assert ask(story, "alice", made, 7, canary) == canary.hex()
        assert echoes["bob"].stdout.readline().strip() in map(str, (alice.v4, alice.v6))
        # An ICMP error of bob's, about a packet to his real address, finds the program that sent it to the other.
        # The packet filter cannot translate it: with the kernel plane it is dropped.
        refused = "ConnectionRefusedError" if PLANE == "userspace" else "TimeoutError"
        assert ask(story, "alice", made, 9, canary) == refused
        # What bob begins comes from the synthetic address, and the answer finds back.
        mine = str(alice.v4 if version == 4 else alice.v6)
        assert ask(story, "bob", mine, 7, canary) == canary.hex(), story.log()
        assert echoes["alice"].stdout.readline().strip() == made
        assert story.relay.report().seen(canary) == 0
    assert story.seen(canaries) == 0


def why(story: Story, subject: str) -> tuple[dict[str, Any], str]:
    """`hushwire why` on alice, as JSON and as text."""
    command = (sys.executable, "-m", "hushwire", "why", "--control", str(story.daemons["alice"].control), subject)
    return json.loads(story["alice"].run(*command, "--json").stdout), story["alice"].run(*command).stdout


def test_why_says_whose_address_it_is_and_where_it_leads(story: Story) -> None:
    """By name and by address: what programs are told, the name's rule and key, and an SA with the real address."""
    bob, key = story["bob"], story.daemons["bob"].key.public.fingerprint.hex()
    made = {version: told(story, "bob.example", version) for version in (4, 6)}
    leads = {made[4]: (bob.v4, f"{bob.v4}:"), made[6]: (bob.v6, f"[{bob.v6}]:")}
    of_name, text = why(story, "bob.example")
    assert of_name["rule"]["addressing"] == "synthetic"
    assert of_name["programs"] == f"{made[6]}, {made[4]}"
    assert f"A program that asks for it gets {made[6]}, {made[4]}.\n" in text
    fates = {packet["to"]: packet for packet in of_name["packets"]}
    for address, (real, far) in leads.items():
        line = (
            f"A packet to {address} (synthetic: bob.example at {real}) is protected, named: "
            f"the policy of bob.example, and its SA with {far}"
        )
        assert line in text
        of_address, text_of_address = why(story, address)
        assert of_address["peer"]["peer"] == "bob.example"
        assert of_address["packets"] == [fates[address]]
        assert of_address["rule"] == of_name["rule"]
        for said in (line, "rule     1: named", f"key      ed25519 {key}, by DNSSEC", f"sa       named with {far}"):
            assert said in text_of_address
    # The control: at the real address nothing is of that name.
    for address in map(str, (bob.v4, bob.v6)):
        assert "bob.example" not in fates[address]["because"]
        assert fates[address]["synthetic"] is None
    # Nobody has these; test_a_packet_for_one_never_leaves_as_it_is shows that it is so.
    for pool in POOLS.values():
        assert f"A packet to {pool[-2]} is dropped: no name's policy stands there" in why(story, str(pool[-2]))[1]


def test_whoever_publishes_its_address_changes_nothing(story: Story) -> None:
    """ATTACKS row 36: evil.example has bob's address and a key of its own, before bob is asked for, and after."""
    alice, bob = story["alice"], story["bob"]
    pages = story.serve_web(bob)
    key = PrivateKey.generate(KeyKind.ED25519)
    story.world.publish("evil.example", [bob.v4, bob.v6], [key.public])
    canaries = []
    known: dict[int, str] = {}
    for _ in range(2):
        for version in (4, 6):
            assert "SERVFAIL" in story.program(alice, "kdig", "+timeout=20", "evil.example", RRTYPES[version]).stdout
            fetched, carried = story.curl(alice, "bob.example", pages, version=version)
            assert fetched, story.log()
            canaries += carried
            assert known.setdefault(version, told(story, "bob.example", version)) == told(story, "bob.example", version)
    assert story.peer("alice", "bob.example")["level"] == "named"
    assert story.seen(canaries) == 0


def reaches_in_clear(story: Story, address: str) -> bool:
    """Whether a ping from alice comes by the relay as it is."""
    canary = story.relay.canary()
    # Where the kernel says "try again", ping does; so it has a deadline.
    story["alice"].run("ping", "-c", "1", "-W", "1", "-w", "2", "-p", canary.hex(), address, check=False)
    return story.relay.report().seen(canary) > 0


HEARS = """
import socket, sys
with socket.create_connection((sys.argv[1], 80), timeout=float(sys.argv[2])) as sock:
    print("ready", flush=True)
    try:
        sock.recv(1)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


def test_a_flow_with_a_name_ends_with_the_node_that_knew_it(story: Story) -> None:
    """The next one gives out these addresses anew: it must not go on with another name (RFC 5660 s2)."""
    alice, daemon = story["alice"], story.daemons["alice"]
    story.serve_web(story["bob"])
    made = told(story, "bob.example", 4)
    program = alice.start(sys.executable, "-c", HEARS, made, str(2 * START), stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n", story.log()
    node = daemon.child("node")
    assert node is not None
    os.kill(node, signal.SIGKILL)
    assert program.stdout.readline() == "ConnectionAbortedError\n", story.log()
    # And is had with the same name again, by another address.
    assert eventually(lambda: told(story, "bob.example", 4) not in ("", made), START), story.log()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_a_packet_for_one_never_leaves_as_it_is(story: Story, how: signal.Signals) -> None:
    """Neither for one that has a name nor for another of the pools, though there is a way out for both."""
    alice = story["alice"]
    alice.run("ip", "route", "add", "default", "via", str(story["bob"].v4))
    alice.run("ip", "-6", "route", "add", "default", "via", str(story["bob"].v6))
    addresses = [told(story, "bob.example", version) for version in (4, 6)] + [str(pool[-2]) for pool in POOLS.values()]
    assert all(addresses), story.log()
    assert not any(reaches_in_clear(story, address) for address in addresses)
    daemon = story.daemons["alice"]
    os.kill(daemon.pid, how)
    daemon._process.wait(60)
    assert not any(reaches_in_clear(story, address) for address in addresses)
    # The control: what is of no pool leaves by the same way.
    assert all(reaches_in_clear(story, address) for address in ("203.0.113.9", "2001:db8:9::9"))
    # And nobody can come from one.
    with daemon:
        assert not any(reaches_in_clear(story, address) for address in addresses)
