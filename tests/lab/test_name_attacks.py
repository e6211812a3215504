"""ATTACKS rows 29 to 32, 35, 38, 40, 41, 44 and 48 with whole hosts: a hostile DNS, or somebody on the path to it.

Each has a control, in which the guard is out and the attack succeeds.
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab import uml
from hushwire.lab.capture import dissect
from hushwire.lab.defects import STRANGER
from hushwire.lab.hushwire import Hushwire
from hushwire.lab.peer import eventually
from hushwire.lab.story import EvilStory
from hushwire.names.allow import PER_SOURCE
from hushwire.names.ipseckey import KeyRecord

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
LISTEN = 'listen = ["127.0.0.153"]'
EVIL = PrivateKey.generate(KeyKind.ED25519)
KEY_TYPES = ("IPSECKEY", "TLSA")
YEAR = 365 * 86400.0
OWN_CLOCK, STARTED = bool(os.environ.get("HUSHWIRE_OWN_CLOCK")), time.time() - time.monotonic()

UNSIGNED_IS_SIGNED = """
from hushwire.names import binding
binding._signed = lambda answer: answer.rdata if answer is not None else ()
binding.require_known = lambda *_: None
"""
ERRORS_ARE_DENIALS = """
from dataclasses import replace
from hushwire.daemon import unbound
from hushwire.events import Outcome
error = unbound._error
unbound._error = lambda *why: replace(error(*why), outcome=Outcome.DENIED)
"""
ERRORS_LOOSEN = """
from hushwire.node.peer import Peer
Peer.may_loosen = property(lambda peer: True)
"""
ANY_ADDRESS = """
from hushwire.names import binding
binding.why_unusable = lambda *_: None
"""
GATEWAYS_FOLLOWED = """
from hushwire.lab.asking import bind_by_gateway
from hushwire.names.lookup import NameLookup
NameLookup._bind = bind_by_gateway
"""
NO_PACE = """
from hushwire.names.allow import Pace
Pace.admits = lambda *_: True
"""


def rule(peer: str, group: str = "private") -> str:
    return f'[[rule]]\npeer = "{peer}"\ngroup = "{group}"\n'


@pytest.fixture
def story() -> Iterator[EvilStory]:
    """Alice's programs ask her hushwire; bob is who he is, and mallory has the address that lies lead to."""
    with EvilStory("alice", "bob", "mallory", plane=PLANE) as story:
        yield story


def told(story: EvilStory, name: str, rdtype: str = "A") -> list[str]:
    """What a program on alice gets: addresses, or else how the DNS calls it."""
    said = story.program(story["alice"], "kdig", "+timeout=9", "+retry=0", name, rdtype).stdout
    found = re.findall(rf"\s{rdtype}\s+(\S+)$", said, re.MULTILINE)
    return found or re.findall(r"status: (\w+);", said)


def begun(story: EvilStory, address: object = "") -> set[str]:
    """The IKE SAs, by initiator's SPI, that alice has begun on the wire: all, or with an address."""
    story.relay.report()
    show = f"isakmp.exchangetype == 34 && ip.src == {story['alice'].v4}" + (
        f" && ip.dst == {address}" if address else ""
    )
    return {spi for row in dissect(story.relay.pcap, "isakmp.ispi", show=show) for spi in row["isakmp.ispi"]}


def asked_for(story: EvilStory, name: str) -> bool:
    """Whether anybody asked the DNS for a name."""
    story.relay.report()
    return bool(dissect(story.relay.pcap, "dns.qry.name", show=f'dns.qry.name == "{name}"'))


def reached(story: EvilStory, name: str) -> object:
    return story.peer("alice", name).get("level")


@pytest.mark.lab
@pytest.mark.parametrize("without", ["", UNSIGNED_IS_SIGNED], ids=["", "control"])
def test_row_29_keys_in_a_zone_that_is_not_signed(story: EvilStory, without: str) -> None:
    """Whoever is on the path writes them.  Mallory has written his key, and is at the address."""
    alice, mallory, names = story["alice"], story["mallory"], ("private.unsigned.example", "open.unsigned.example")
    for name in names:
        story.world.publish(name, [mallory.v4], [EVIL.public])
    rules = rule(names[0]) + rule(names[1], "private-or-clear")
    key = story.hire("alice", rules, dns=LISTEN, without=without).key.public
    story.world.publish("alice.example", [alice.v4], [key])
    pages = story.serve_web(mallory)
    if not without:
        fetched, canaries = story.curl(alice, names[1], pages)
        assert fetched, story.log()
        assert story.seen(canaries) > 0
        assert reached(story, names[1]) is None
    with Hushwire(mallory, story.config("private.unsigned", rule("alice.example")), EVIL):
        fetched, canaries = story.curl(alice, names[0], pages, limit=9)
        assert fetched is bool(without), story.log()
        assert reached(story, names[0]) == ("named" if without else None)
        assert story.seen(canaries) == 0
        assert bool(begun(story)) is bool(without)


ATTACKS = {
    "bogus": (("spoil",), ()),
    "keys dropped": (("drop",), KEY_TYPES),
    "keys fail": (("servfail",), KEY_TYPES),
    "keys stripped": (("strip_signatures",), KEY_TYPES),
    "keys denied": (("deny",), KEY_TYPES),
}


@pytest.mark.lab
@pytest.mark.parametrize("attack", ATTACKS)
def test_rows_30_31_nothing_but_a_signed_denial_leads_to_clear(story: EvilStory, attack: str) -> None:
    """Somebody on the path to the DNS wants alice to do without IPsec, before she has reached bob and after."""
    alice, bob = story["alice"], story["bob"]
    names = ("bob.example", "open.example")
    story.hire("alice", rule("bob.example") + rule("open.example", "private-or-clear"), dns=LISTEN, start=False)
    story.hire("bob", rule("alice.example"))
    story.world.publish("open.example", [bob.v4], [EVIL.public])
    pages = story.serve_web(bob)
    defects, types = ATTACKS[attack]
    for name in names:
        story.world.misbehave(name, *defects, types=types)
    story.start("alice")
    for name in names:
        assert told(story, name) == ["SERVFAIL"], story.log()
        fetched, canaries = story.curl(alice, name, pages, limit=9)
        assert not fetched
        assert story.seen(canaries) == 0
    # When it ends, so does what it did, and hushwire goes on running.
    story.world.behave()
    assert eventually(lambda: told(story, "bob.example") == [str(bob.v4)], 30, 0.5), story.log()
    fetched, canaries = story.curl(alice, "bob.example", pages)
    assert fetched, story.log()
    # What stands stays, for as long as the DNS said.
    for name in names:
        story.world.misbehave(name, *defects, types=types)
    end_at = time.monotonic() + 6
    while time.monotonic() < end_at:
        fetched, more = story.curl(alice, "bob.example", pages)
        assert fetched, story.log()
        canaries += more
        time.sleep(0.5)
    assert reached(story, "bob.example") == "named"
    assert story.seen(canaries) == 0


@pytest.mark.lab
@pytest.mark.parametrize("control", ["the owner says so", "errors taken for denials"])
def test_rows_30_31_control(story: EvilStory, control: str) -> None:
    """A signed denial does lead to clear; and so would an error that were taken for one."""
    bob, forged = story["bob"], control == "errors taken for denials"
    story.world.publish("open.example", [bob.v4], [EVIL.public] if forged else [])
    if forged:
        story.world.misbehave("open.example", "servfail", types=KEY_TYPES)
    without = ERRORS_ARE_DENIALS if forged else ""
    story.hire("alice", rule("open.example", "private-or-clear"), dns=LISTEN, without=without)
    fetched, canaries = story.curl(story["alice"], "open.example", story.serve_web(bob))
    assert fetched, story.log()
    assert story.seen(canaries) > 0


@pytest.mark.lab
@pytest.mark.parametrize("without", ["", ERRORS_LOOSEN], ids=["", "control"])
def test_row_31_what_was_reached_does_not_sink(story: EvilStory, without: str) -> None:
    """The DNS is silenced until all that it said is too old; a program has the address, and goes on."""
    alice, bob = story["alice"], story["bob"]
    story.hire("alice", rule("bob.example", "private-or-clear"), dns=LISTEN, start=False, without=without)
    story.hire("bob", rule("alice.example"))
    story.start("alice")
    assert eventually(lambda: alice.ping(bob) and reached(story, "bob.example") == "named", 20), story.log()
    story.world.misbehave("example", "drop")
    assert eventually(lambda: story.peer("alice", "bob.example")["addresses"] == [], 40), story.log()
    canary = story.relay.canary()
    assert eventually(lambda: alice.ping(bob, pattern=canary) or story.relay.report().seen(canary), 5) is bool(without)


@pytest.mark.lab
def test_row_32_an_ad_bit_that_somebody_on_the_path_has_set(story: EvilStory) -> None:
    """The bit is nothing to hushwire; who goes by it is led to mallory: the control."""
    alice, mallory, dns = story["alice"], story["mallory"], str(story["dns"].v4)
    assert str(mallory.v4) == STRANGER
    rules = rule("bob.example") + rule("open.example", "private-or-clear")
    names = ("bob.example", "open.example")
    for name in names:
        story.world.publish(name, [story["bob"].v4])
        story.world.misbehave(name, "forge")
    story.hire("alice", rules, dns=LISTEN)
    pages = story.serve_web(mallory)
    for name in names:
        assert told(story, name) == ["SERVFAIL"], story.log()
        fetched, canaries = story.curl(alice, name, pages, limit=9)
        assert not fetched
        believed = story.program(alice, "kdig", "+adflag", name, "A", server=dns).stdout
        assert re.search(r"Flags: [^;]*\bad\b", believed)
        assert STRANGER in believed
        fetched, seen = story.curl(alice, name, pages, server=dns)
        assert fetched
        assert story.seen(seen) > 0
        assert story.seen(canaries) == 0


@pytest.mark.lab
@pytest.mark.parametrize("group", ["private", "private-or-clear"])
def test_row_44_a_poisoned_address_in_a_zone_that_is_not_signed(story: EvilStory, group: str) -> None:
    """Private: nothing leaves.  Where clear is permitted it is what it is without us: the control."""
    story.world.publish("www.unsigned.example", [story["bob"].v4])
    story.world.misbehave("www.unsigned.example", "forge")
    story.hire("alice", rule("*.example", group), dns=LISTEN)
    fetched, canaries = story.curl(story["alice"], "www.unsigned.example", story.serve_web(story["mallory"]), limit=9)
    assert fetched is (group == "private-or-clear"), story.log()
    assert bool(story.seen(canaries)) is fetched
    assert reached(story, "www.unsigned.example") is None
    assert not begun(story)


GATEWAYS = pytest.mark.parametrize("gateway", ["an address", "a name"])


def lure(story: EvilStory, gateway: str) -> KeyRecord:
    """With mallory's key, by way of mallory."""
    mallory = story["mallory"]
    story.world.publish("mallory.example", [mallory.v4])
    return KeyRecord(5, mallory.v4 if gateway == "an address" else "mallory.example", EVIL.public)


@pytest.mark.lab
@GATEWAYS
@pytest.mark.parametrize("also", [False, True], ids=["alone", "beside bob's own"])
def test_rows_35_38_a_gateway_to_a_third_party(story: EvilStory, gateway: str, also: bool) -> None:
    """Packets go to the name's own address, or nowhere; a gateway's name is not even asked for."""
    alice, bob, mallory = story["alice"], story["bob"], story["mallory"]
    story.hire("alice", rule("*"), dns=LISTEN, start=False)
    key = story.hire("bob", rule("alice.example")).key.public
    lured = lure(story, gateway)
    story.world.publish("bob.example", [bob.v4], [lured, KeyRecord(10, None, key)] if also else [lured])
    story.start("alice")
    with Hushwire(mallory, story.config("bob", rule("alice.example")), EVIL):
        fetched, canaries = story.curl(alice, "bob.example", story.serve_web(bob), limit=9)
        assert fetched is also, story.log()
        assert story.seen(canaries) == 0
        assert not begun(story, mallory.v4)
        assert bool(begun(story, bob.v4)) is also
        assert asked_for(story, "bob.example")
        assert not asked_for(story, "mallory.example")


@pytest.mark.lab
@GATEWAYS
def test_rows_35_38_control(story: EvilStory, gateway: str) -> None:
    """Who goes where the record says is mallory's; a gateway's name is asked for first."""
    alice, bob, mallory = story["alice"], story["bob"], story["mallory"]
    story.world.publish("bob.example", [bob.v4], [lure(story, gateway)])
    story.hire("alice", rule("*"), dns=LISTEN, without=GATEWAYS_FOLLOWED)
    pages = story.serve_web(mallory)
    with Hushwire(mallory, story.config("bob", rule("alice.example")), EVIL):
        assert eventually(lambda: told(story, "bob.example") == [str(mallory.v4)], 25, 0.5), story.log()
        fetched, _ = story.curl(alice, "bob.example", pages)
        assert fetched, story.log()
        assert begun(story, mallory.v4)
        assert reached(story, "bob.example") == "named"
        assert asked_for(story, "mallory.example") is (gateway == "a name")


V4 = ("127.0.0.1", "127.9.9.9", "192.0.2.1", "169.254.1.1", "224.0.0.5", "0.0.0.0", "255.255.255.255")
V6 = ("::1", "2001:db8::1", "fe80::1", "ff02::5", "::ffff:127.0.0.1")
NOT_PEERS = [*(("A", address) for address in V4), *(("AAAA", address) for address in V6)]


@pytest.mark.lab
@pytest.mark.parametrize("without", ["", ANY_ADDRESS], ids=["", "control"])
def test_row_40_rebinding(story: EvilStory, without: str) -> None:
    """A name leads to alice herself, or to where no host is: programs are not told, and no IKE is spoken."""
    # Whoever speaks IKE waits for an answer, so in the control three will do.
    rdtypes = {f"n{number}.evil.example": each for number, each in enumerate(NOT_PEERS[:3] if without else NOT_PEERS)}
    for name, (_, address) in rdtypes.items():
        story.world.publish(name, [ip_address(address)], [EVIL.public])
    story.hire("alice", rule("*"), dns=LISTEN, without=without)
    heard = listen(story)
    for name, (rdtype, _) in rdtypes.items():
        assert told(story, name, rdtype) == ["SERVFAIL"], story.log()
        if not without:
            assert story.peer("alice", name)["addresses"] == []
    assert ("isakmp" in heard.read_text()) is bool(without), story.log()


@pytest.mark.lab
@pytest.mark.parametrize("without", ["", ANY_ADDRESS], ids=["", "control"])
def test_row_40_where_clear_is_permitted(story: EvilStory, without: str) -> None:
    """Accepted: the name's owner may send programs where he could without us; but IKE is not spoken there."""
    story.world.publish("n.evil.example", [ip_address("127.0.0.1")], [EVIL.public])
    story.hire("alice", rule("*", "private-or-clear"), dns=LISTEN, without=without)
    heard = listen(story)
    assert told(story, "n.evil.example") == ["127.0.0.1"]
    assert story.peer("alice", "n.evil.example")["addresses"] == (["127.0.0.1"] if without else [])
    assert ("isakmp" in heard.read_text()) is bool(without), story.log()


def listen(story: EvilStory) -> Path:
    """What tcpdump says, from now on, of IKE on any interface of alice's, loopback among them."""
    heard = story.folder / "heard"
    with heard.open("w") as file:
        watched = ("udp", "port", "500", "or", "udp", "port", "4500")
        story["alice"].start("tcpdump", "-l", "-n", "-i", "any", *watched, stdout=file, stderr=file)
    assert eventually(lambda: "listening" in heard.read_text())
    return heard


MANY = """
import socket, sys, time
listener, names = sys.argv[1], int(sys.argv[2])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in range(names):
    label = b"n%d" % number
    name = bytes([len(label)]) + label + b"\\x04evil\\x07example\\x00"
    header = number.to_bytes(2, "big") + b"\\x01\\x00\\x00\\x01" + bytes(6)
    sock.sendto(header + name + b"\\x00\\x01\\x00\\x01", (listener, 53))
    time.sleep(0.05)
sock.settimeout(15)
for _ in range(names):
    sock.recv(4096)
print("answered")
"""
VICTIM = "198.51.100.66"


@pytest.mark.lab
@pytest.mark.parametrize("without", ["", NO_PACE], ids=["", "control"])
def test_row_41_ike_reflected_at_a_victim(story: EvilStory, without: str) -> None:
    """A web page of mallory's has two hundred names of evil.example, all with the victim's address."""
    alice, bob = story["alice"], story["bob"]
    alice.run("ip", "route", "add", "198.51.100.0/24", "dev", "eth0")
    story["mallory"].run("ip", "address", "add", f"{VICTIM}/32", "dev", "eth0")
    story.world.publish("*.evil.example", [ip_address(VICTIM)], [EVIL.public])
    story.hire("alice", rule("*"), dns=LISTEN, start=False, without=without)
    story.hire("bob", rule("alice.example"))
    story.start("alice")
    pages = story.serve_web(bob)
    page = story.start_program(alice, sys.executable, "-c", MANY, "127.0.0.153", "200")
    fetched, canaries = story.curl(alice, "bob.example", pages)
    assert fetched, story.log()
    assert story.seen(canaries) == 0
    assert page.communicate(timeout=40)[0] == "answered\n"
    attempts = len(begun(story, VICTIM))
    assert attempts > 20 * PER_SOURCE if without else 1 <= attempts <= PER_SOURCE


@pytest.mark.lab
def test_row_48_a_clock_that_is_wrong(story: EvilStory) -> None:
    """A year behind, as a board without a battery is at boot.  It is an error, and passes."""
    alice, bob, names = story["alice"], story["bob"], ("bob.example", "open.example")
    set_clock(story, -YEAR)
    story.hire("alice", rule("*", "private-or-clear") + rule("bob.example"), dns=LISTEN, start=False)
    story.hire("bob", rule("alice.example"))
    story.world.publish("open.example", [bob.v4])
    story.start("alice")
    pages = story.serve_web(bob)
    for name in names:
        assert told(story, name) == ["SERVFAIL"], story.log()
        fetched, canaries = story.curl(alice, name, pages, limit=9)
        assert not fetched
        assert story.seen(canaries) == 0
    set_clock(story, 0)
    # The library does without a zone's keys for a minute.
    assert eventually(lambda: told(story, "bob.example") == [str(bob.v4)], 120, 1), story.log()
    fetched, canaries = story.curl(alice, "bob.example", pages)
    assert fetched, story.log()
    assert story.seen(canaries) == 0
    # The control: with a clock that is right, what has no key is met in clear.
    assert eventually(lambda: told(story, "open.example") == [str(bob.v4)], 20, 1), story.log()
    fetched, canaries = story.curl(alice, "open.example", pages)
    assert fetched


def set_clock(story: EvilStory, seconds: float) -> None:
    """Make the hosts' clock wrong by that.  Only its difference from the DNS's counts, so where it is not ours to set,
    it is the DNS's that is wrong, the other way."""
    story.world.shift_clock(-seconds)
    if OWN_CLOCK:
        assert "User Mode Linux" in Path("/proc/cpuinfo").read_text()
        time.clock_settime(time.CLOCK_REALTIME, STARTED + time.monotonic() + seconds)


@pytest.mark.uml
def test_row_48_with_a_kernel_whose_clock_is_set() -> None:
    command = (sys.executable, "-m", "pytest", "-q", "-k", "row_48_a_clock", "-p", "no:cacheprovider", __file__)
    done = uml.run(command, timeout=400, env={**os.environ, "HUSHWIRE_OWN_CLOCK": "1", "HUSHWIRE_PLANE": "kernel"})
    assert done.returncode == 0
