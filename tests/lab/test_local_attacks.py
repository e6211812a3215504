"""ATTACKS rows 45 to 47 with whole hosts: other users, spoofed loopback, programs that do without us, a dead upstream.

Each has a control, in which the guard is out and the attack succeeds.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import dns.message
import pytest

from hushwire.lab import uml
from hushwire.lab.capture import dissect
from hushwire.lab.defects import STRANGER
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import eventually
from hushwire.lab.story import LISTENER, EvilStory

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
LISTEN = f'listen = ["{LISTENER}"]'
NETWORKS = ("192.0.2.0/24", "2001:db8::/64")
HUSHWIRE = (sys.executable, "-m", "hushwire")
NOBODY = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
ANYBODY = """
from hushwire.daemon import listener
listener._is_local = lambda sender: True
"""

SHARED_ADDRESS = """
import socket
from types import SimpleNamespace
from hushwire.daemon import listener
def opened(*kind):
    sock = socket.socket(*kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock
listener.socket = SimpleNamespace(**vars(socket) | {"socket": opened})
"""
LIAR = f"""
import socket
import dns.message, dns.rrset
taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
    taken.setsockopt(socket.SOL_SOCKET, option, 1)
try:
    taken.bind(("{LISTENER}", 53))
except OSError as error:
    print(error.strerror, flush=True)
    raise SystemExit
print("taken", flush=True)
while True:
    octets, asker = taken.recvfrom(4096)
    lie = dns.message.make_response(dns.message.from_wire(octets))
    lie.answer = [dns.rrset.from_text(lie.question[0].name, 60, "IN", "A", "{STRANGER}")]
    taken.sendto(lie.to_wire(), asker)
"""


def rule(peer: str, group: str = "private") -> str:
    return f'[[rule]]\npeer = "{peer}"\ngroup = "{group}"\n'


@pytest.fixture
def story() -> Iterator[EvilStory]:
    with EvilStory("alice", "bob", plane=PLANE) as story:
        yield story


def why(story: EvilStory, subject: str) -> dict[str, Any]:
    """What `hushwire why` says on alice."""
    control = str(story.daemons["alice"].control)
    told: dict[str, Any] = json.loads(
        story["alice"].run(*HUSHWIRE, "why", subject, "--json", "--control", control).stdout
    )
    return told


@pytest.mark.lab
def test_row_46_the_control_socket_is_its_owners(story: EvilStory) -> None:
    """The folder that it is in lets everybody in: the socket itself does not."""
    daemon = story.hire("alice", rule("bob.example"))
    daemon.folder.chmod(0o755)
    command = (*NOBODY, *HUSHWIRE, "disconnect", "bob.example", "--control", str(daemon.control))
    refused = story["alice"].run(*command, check=False)
    assert refused.returncode == 1
    assert refused.stderr.strip().endswith("only the user that runs hushwire may command it")
    # The control: open to all, it does as anybody says.
    daemon.control.chmod(0o666)
    assert "is not connected" in story["alice"].run(*command, check=False).stderr


@pytest.mark.lab
@pytest.mark.parametrize("without", ["", SHARED_ADDRESS], ids=["", "control"])
def test_row_46_another_user_and_the_resolver(story: EvilStory, without: str) -> None:
    """He is told what anybody is, and cannot take the resolver's place, on a host that lets any user have any port."""
    alice, bob, names = story["alice"], story["bob"], ("plain.example", "keyless.example")
    for name in names:
        story.world.publish(name, [bob.v4])
    alice.run("sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=0")
    story.hire("alice", rule("keyless.example"), dns=LISTEN, without=without)
    honest = {name: told(story, name) for name in names}
    assert honest["plain.example"] == str(bob.v4)
    assert "SERVFAIL" in honest["keyless.example"]
    for name in names:
        said = story.program(alice, *NOBODY, "kdig", "+timeout=9", "+retry=0", name, "A").stdout
        assert (str(bob.v4) if name == "plain.example" else "SERVFAIL") in said
    liar = story.start_program(alice, *NOBODY, sys.executable, "-c", LIAR)
    assert liar.stdout is not None
    assert liar.stdout.readline().strip() == ("taken" if without else "Address already in use")
    assert {told(story, name) == STRANGER for name in names} == {bool(without)}


@pytest.mark.lab
@pytest.mark.parametrize("without", ["", ANYBODY], ids=["", "control"])
def test_row_46_the_listener_answers_nobody_from_outside(story: EvilStory, without: str) -> None:
    """Many hosts let 127.0.0.0/8 be reached from outside (route_localnet): the kernel is no guard there."""
    alice, bob = story["alice"], story["bob"]
    story.hire("alice", rule("carol.example"), dns=LISTEN, without=without)
    for switch in ("route_localnet", "accept_local"):
        alice.run("sysctl", "-qw", *(f"net.ipv4.conf.{each}.{switch}=1" for each in ("all", "eth0")))
    alice.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0")
    alice.ping(bob)
    question = dns.message.make_query("example.", "SOA").to_wire()
    for source in (bob.v4.packed, bytes((127, 0, 0, 1)), bytes((127, 0, 0, 153))):
        story.relay.inject("alice", frame(alice, bob, source, bytes(map(int, LISTENER.split("."))), question))
    # And who is here is answered.
    assert "NOERROR" in story.program(alice, "kdig", "example", "SOA").stdout
    time.sleep(1)
    story.relay.report()
    show = f"dns.flags.response == 1 && ip.src != {story['dns'].v4}"
    left = [row["ip.dst"] for row in dissect(story.relay.pcap, "ip.dst", show=show)]
    assert left == ([(str(bob.v4),)] if without else [])


def frame(to: Host, by: Host, source: bytes, destination: bytes, question: bytes) -> bytes:
    """A datagram from port 5300 to 53."""
    udp = b"\x14\xb4\x00\x35" + (8 + len(question)).to_bytes(2, "big") + bytes(2) + question
    header = bytearray(b"\x45\x00" + (20 + len(udp)).to_bytes(2, "big") + b"\x00\x01\x00\x00\x40\x11\x00\x00")
    header += source + destination
    total = sum(int.from_bytes(header[at : at + 2], "big") for at in range(0, 20, 2))
    header[10:12] = (~(total % 0xFFFF) & 0xFFFF).to_bytes(2, "big")
    ethernet = bytes.fromhex(to.mac.replace(":", "") + by.mac.replace(":", "")) + b"\x08\x00"
    return ethernet + header + udp


WAYS = ("a literal address", "its own DNS over TCP", "a hosts file")


@pytest.mark.lab
@pytest.mark.parametrize("guard", ["in", "out"])
@pytest.mark.parametrize("way", WAYS)
def test_row_47_a_program_that_does_not_ask_us(story: EvilStory, way: str, guard: str) -> None:
    """A rule about the network catches it.  Without one it is met in clear, and why says so."""
    alice, bob, name_server = story["alice"], story["bob"], story["dns"]
    story.world.publish("bob.example", [bob.v4])
    traps = rule(f"{name_server.v4}/32", "clear") + "".join(map(rule, NETWORKS))
    story.hire("alice", rule("*") + (traps if guard == "in" else ""), dns=LISTEN)
    pages = story.serve_web(bob)
    assert "SERVFAIL" in story.program(alice, "kdig", "+timeout=9", "bob.example", "A").stdout
    address = found(story, way)
    assert address == str(bob.v4)
    fetched, canaries = story.curl(alice, address, pages, limit=5)
    assert fetched is (guard == "out"), story.log()
    assert bool(story.seen(canaries)) is fetched
    (packet,) = why(story, address)["packets"]
    assert (packet["fate"] == "in clear") is fetched, packet


def found(story: EvilStory, way: str) -> str:
    """Bob's address, without a question to hushwire."""
    alice, bob, dns = story["alice"], story["bob"], str(story["dns"].v4)
    if way == "its own DNS over TCP":
        return alice.run("kdig", f"@{dns}", "+tcp", "+short", "bob.example", "A").stdout.strip()
    if way == "a hosts file":
        hosts = story.folder / "hosts"
        hosts.write_text(f"{bob.v4} bob.example\n")
        script = 'mount --bind "$0" /etc/hosts && exec getent -s files ahostsv4 bob.example'
        return alice.run("sh", "-c", script, str(hosts)).stdout.partition(" ")[0]
    return str(bob.v4)


@pytest.mark.lab
def test_a_dead_upstream(story: EvilStory) -> None:
    """New names are an error; what stands goes on for its time; and all is well again without a restart."""
    alice, bob, life = story["alice"], story["bob"], 20
    story.hire("bob", rule("*.example"), dns='ask = ["alice.example"]')
    story.hire("alice", rule("bob.example") + rule("*", "private-or-clear"), dns=LISTEN, start=False)
    story.world.publish("bob.example", [bob.v4], [story.daemons["bob"].key.public], ttl=life)
    story.world.publish("alice.example", [alice.v4], [story.daemons["alice"].key.public], ttl=life)
    for name in ("first.example", "second.example"):
        story.world.publish(name, [bob.v4])
    asked_at = time.monotonic()
    story.start("alice")
    pages = story.serve_web(bob)
    fetched, canaries = story.curl(alice, "bob.example", pages)
    assert fetched, story.log()
    # The control of what follows.
    assert told(story, "first.example") == str(bob.v4), story.log()
    story.world.stop()
    assert "SERVFAIL" in told(story, "second.example")
    while time.monotonic() < asked_at + life - 5:
        fetched, more = story.curl(alice, "bob.example", pages)
        assert fetched, story.log()
        canaries += more
        time.sleep(0.5)
    assert "SERVFAIL" in told(story, "second.example")
    story.world.start()
    assert eventually(lambda: told(story, "second.example") == str(bob.v4), 30, 0.5), story.log()
    assert eventually(lambda: told(story, "bob.example") == str(bob.v4), 30, 0.5), story.log()
    fetched, more = story.curl(alice, "bob.example", pages)
    assert fetched, story.log()
    assert story.seen([*canaries, *more]) == 0


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    # How long an answer lives is nothing to a plane, and that kernel is slow.
    command = (sys.executable, "-m", "pytest", "-q", "-m", "lab", "-k", "row", "-p", "no:cacheprovider", __file__)
    done = uml.run(command, timeout=400, env={**os.environ, "HUSHWIRE_PLANE": "kernel"})
    assert done.returncode == 0


def told(story: EvilStory, name: str) -> str:
    """What a program on alice gets."""
    said = story.program(story["alice"], "kdig", "+timeout=9", "+retry=0", "+short", name, "A").stdout.strip()
    return said or story.program(story["alice"], "kdig", "+timeout=9", "+retry=0", name, "A").stdout
