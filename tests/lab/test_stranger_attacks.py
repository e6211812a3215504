"""What strangers try against whole hosts (ATTACKS rows 49 to 54).  Between Nodes it is in tests/node.

The guards are the Node's, whatever the plane; the kernel that others run their tests in again ends no connections.
Of what ends them alice may have the other plane, in a kernel that does (HUSHWIRE_PLANE, make qemu).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import eventually
from hushwire.lab.stage import CURL
from hushwire.lab.story import Story

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
GUARD = pytest.mark.parametrize("guard", ["in", "out"])

# Whoever answers at an address may have it, whoever was introduced there (row 51).
NO_SECOND_SEARCH = """
from hushwire.node.peers import Peers
Peers.introduced_at = lambda *_: None
"""
# Who cannot prove what he says he is is anybody (row 52).
FALL_THROUGH = """
from hushwire.ike.errors import Unauthorized
from hushwire.node.claims import Claims
from hushwire.node.peer import Peer
def entry(claims, peer, wanted, strictly=Claims.entry):
    try:
        return strictly(claims, peer, wanted)
    except Unauthorized:
        return strictly(claims, claims._peers.of_address(wanted.remote.address), wanted)
Claims.entry = entry
Peer.may_be_anybody = property(lambda peer: peer.rule.btns)
"""
# A stranger may be where another is (row 53).
NOT_APART = """
from hushwire.ike import auth
auth._keep_apart = lambda *_: None
"""
# Connections go on with whoever is there (row 54).
UNLATCHED = """
from hushwire.node.latches import Latches
Latches._close = lambda *_: None
"""
QUICK = "[ike]\nliveness = 2\nretransmit = [0.5, 1.0, 1.0]\n"
"""Who is silent is soon known to be dead."""

SINK = """
import socket
listener = socket.create_server(("", 7))
print("ready", flush=True)
connection, _ = listener.accept()
while connection.recv(65536):
    print("heard", flush=True)
"""
TALKER = """
import errno, socket, sys, time
connection = socket.create_connection((sys.argv[1], 7), timeout=30)
print("connected", flush=True)
for _ in range(1200):
    try:
        connection.send(sys.argv[2].encode())
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
        break
    time.sleep(0.1)
"""
EAR = """
import socket, sys
opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
opened.bind(("hushwire0", 3))
print("ready", flush=True)
with open(sys.argv[1], "ab", buffering=0) as file:
    while True:
        file.write(opened.recv(65536))
"""


@pytest.fixture
def story() -> Iterator[Story]:
    with Story("alice", "bob", "mallory", plane="userspace") as story:
        yield story


def anybody(story: Story, require: str = "encrypted", more: str = "") -> str:
    """Rules: the name server in clear, and one for all others."""
    said = f'[[rule]]\npeer = "{story["dns"].v4}"\ngroup = "clear"\n'
    return f'{said}[[rule]]\npeer = "192.0.2.0/24"\nrequire = "{require}"\nbelow = "block"\n{more}'


def lead(story: Story, *where: str) -> None:
    """From now on, what alice sends to bob's address gets there: to one, or by a broadcast address to both."""
    alice, address = story["alice"], str(story["bob"].v4)
    mac = story[where[0]].mac if len(where) == 1 else "ff:ff:ff:ff:ff:ff"
    alice.run("ip", "neigh", "replace", address, "lladdr", mac, "dev", "eth0", "nud", "permanent")


def take_address(story: Story) -> None:
    """Mallory has bob's address, too."""
    story["mallory"].run("ip", "address", "add", f"{story['bob'].v4}/32", "dev", "lo")


def meets(story: Story, name: str) -> bool:
    """Whether alice, at bob's address, has IKE SAs with a host, and with no other."""
    sas = story.peer("alice", str(story["bob"].v4))["ike"]
    return {sa["key"] for sa in sas} == {story.daemons[name].key.public.fingerprint.hex()}  # type: ignore[attr-defined]


def start(host: Host, program: str, *words: str) -> "subprocess.Popen[str]":
    """A program that has said that it is ready."""
    process = host.start(sys.executable, "-c", program, *words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def from_bobs_address(story: Story, host: Host, url: str) -> bool:
    """Whether somebody gets a page of alice's, who speaks from bob's address."""
    words = ("--interface", str(story["bob"].v4), "--max-time", "6", "-o", "/dev/null", url)
    return host.run(*CURL, *words, check=False).returncode == 0


@pytest.mark.lab
@pytest.mark.parametrize("require", ["encrypted", "continuous"])
def test_rows_49_50_an_active_attacker(story: Story, require: str) -> None:
    """At first contact he succeeds, and nothing tells; at the second he is refused, or reported.

    The control of either is the other: who is there first is whom alice knows.
    """
    alice = story.hire("alice", anybody(story, require), publish=False)
    for name in ("bob", "mallory"):
        story.hire(name, anybody(story), publish=False)
    take_address(story)
    pages = {name: story.serve_web(story[name]) for name in ("bob", "mallory")}
    address, canaries = str(story["bob"].v4), list[str]()

    def gets(name: str, limit: float = 20) -> bool:
        fetched, carried = story.curl(story["alice"], address, pages[name], limit=limit)
        canaries.extend(carried)
        return fetched

    lead(story, "mallory")
    assert gets("mallory"), story.log()
    assert meets(story, "mallory")
    assert story.peer("alice", address)["level"] == require
    assert "known.changed" not in alice.log.read_text()

    # The second contact is with bob himself; to alice it is he who is another.
    lead(story, "bob")
    alice.restart()
    assert gets("bob", 20 if require == "encrypted" else 4) is (require == "encrypted"), story.log()
    assert "known.changed" in alice.log.read_text()
    if require == "continuous":
        story["alice"].run(
            sys.executable, "-m", "hushwire", "known", "forget", "--control", str(alice.control), address
        )
        assert gets("bob", 30), story.log()
    assert meets(story, "bob")
    assert story.seen(canaries) == 0


@pytest.mark.lab
@GUARD
def test_rows_51_52_who_was_introduced(story: Story, guard: str) -> None:
    """Bob's address, and bob's name: to others than bob they are of no use.  Bob himself is away.

    With the second search out, whoever has his address has SAs with alice; that her packets go to bob alone stands.
    """
    story.world.publish("bob.example", [story["bob"].v4], [PrivateKey.generate(KeyKind.ED25519).public])
    rules = anybody(story, more='[[rule]]\npeer = "bob.example"\nstart = "wait"\n')
    story.hire("alice", rules, without=NO_SECOND_SEARCH + FALL_THROUGH if guard == "out" else "")
    pages, succeeds = story.serve_web(story["alice"]), guard == "out"
    claims = {"bob": "", "mallory": 'own-identity = "bob.example"\n'}
    for name, more in claims.items():
        story.hire(name, anybody(story, more=more), publish=False)
        limit = 15 if succeeds and name == "mallory" else 3
        fetched, canaries = story.curl(story[name], str(story["alice"].v4), pages, limit=limit)
        assert fetched is (succeeds and name == "mallory"), story.log()
        assert story.seen(canaries) == 0
    met = {peer["peer"] for peer in story.daemons["alice"].status()["peers"] if peer["ike"]}
    assert met == ({str(story[name].v4) for name in claims} if succeeds else set()), story.log()


@pytest.mark.lab
@GUARD
def test_row_53_the_address_of_a_stranger_who_lives(story: Story, guard: str) -> None:
    """Mallory has bob's address, and gets all that is sent there, as bob does."""
    story.hire("alice", anybody(story), publish=False, without=NOT_APART if guard == "out" else "")
    for name in ("bob", "mallory"):
        story.hire(name, anybody(story), publish=False)
    take_address(story)
    story.serve_web(story["alice"])
    lead(story, "bob", "mallory")
    url = f"http://{story['alice'].v4}/"
    assert eventually(lambda: from_bobs_address(story, story["bob"], url), 20), story.log()
    assert meets(story, "bob")
    if guard == "out":
        assert eventually(lambda: from_bobs_address(story, story["mallory"], url), 20), story.log()
        assert not meets(story, "bob")
    else:
        assert not from_bobs_address(story, story["mallory"], url)
        assert "there is somebody at" in story.daemons["alice"].log.read_text()
        assert meets(story, "bob")
        assert from_bobs_address(story, story["bob"], url), story.log()


@pytest.mark.lab
@GUARD
def test_row_54_a_connection_with_one_goes_on_with_no_other(story: Story, guard: str, tmp_path: Path) -> None:
    """Bob dies, and mallory takes his address: alice's connection ends (RFC 5660 s2), and her next is with mallory.

    Without latches what alice says to bob is said to mallory.
    """
    rules = QUICK + anybody(story)
    story.plane = PLANE
    alice = story.hire("alice", rules, publish=False, without=UNLATCHED if guard == "out" else "")
    story.plane = "userspace"
    for name in ("bob", "mallory"):
        story.hire(name, anybody(story), publish=False)
    take_address(story)
    pages, opened, address = story.serve_web(story["mallory"]), tmp_path / "opened", str(story["bob"].v4)
    said = story.canary()
    lead(story, "bob")
    heard = start(story["bob"], SINK)
    start(story["mallory"], EAR, str(opened))
    talker = start(story["alice"], TALKER, address, said)
    assert heard.stdout is not None
    assert talker.stdout is not None
    assert heard.stdout.readline() == "heard\n"

    story["bob"].run("ip", "link", "set", "eth0", "down")
    lead(story, "mallory")
    # It is the kernel that says so: by its own, or by what mallory's answers.
    assert talker.stdout.readline() == ("ECONNABORTED\n" if guard == "in" else "ECONNRESET\n"), story.log()
    fetched, canaries = story.curl(story["alice"], address, pages, limit=20)
    assert fetched, story.log()
    assert meets(story, "mallory")
    assert "known.changed" in alice.log.read_text()
    assert ("latch.broken" in alice.log.read_text()) is (guard == "in")
    assert (said.encode() in opened.read_bytes()) is (guard == "out")
    # What mallory's host opened is all here.
    assert canaries[0].encode() in opened.read_bytes()
    assert story.seen([*canaries, said]) == 0
