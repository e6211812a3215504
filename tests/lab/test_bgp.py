"""BGP between two routers (BIRD) that were never introduced, for which BTNS was first wished for (RFC 5387 s2.2.1).

One rule about their network is all that either is told.
"""

import os
import signal
import struct
import sys
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from random import randrange
from typing import Any

import pytest

from hushwire.lab import uml
from hushwire.lab.bird import AS, Bird, Session
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import eventually
from hushwire.lab.story import Story
from hushwire.lab.tcp import Flag, Position, position, sniffed
from hushwire.wire.address import IPAddress

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
MULTIHOP = PLANE == "userspace"
"""Through a TUN go only sockets that name no interface."""
VERSIONS = (4, 6)
NETWORKS = ("192.0.2.0/24", "2001:db8::/64")
ALICES = {4: "198.51.100.0/25", 6: "2001:db8:a::/48"}
BOBS = {4: "203.0.113.0/25", 6: "2001:db8:b::/48"}
LATER = {4: "203.0.113.128/25", 6: "2001:db8:b2::/48"}
STOLEN = IPv4Network("198.51.100.128/25")
"""What mallory says, over IPv4, that bob has.  Over IPv6 he says that bob has his own no more."""


class Routers(Story):
    """Alice and bob, and the BGP sessions between them."""

    alice: Bird
    bob: Bird

    def open(self, below: str | None) -> None:
        """Wait until each has learnt the other's routes.  `below`: of the rule; None: without hushwire."""
        if below is not None:
            for name in ("alice", "bob"):
                self.hire(name, rules(self, below), publish=False)
        self.alice = self._stack.enter_context(Bird(self["alice"], self["bob"], *ALICES.values(), multihop=MULTIHOP))
        self.bob = self._stack.enter_context(Bird(self["bob"], self["alice"], *BOBS.values(), multihop=MULTIHOP))
        assert eventually(self._learnt, 30), self.log() + self.alice.log.read_text()
        overheard = [heard(self, *self.addresses(version)) for version in VERSIONS]
        assert (overheard == [None, None]) is (below is not None)

    def _learnt(self) -> bool:
        return all(
            (self.alice.routes(version), self.bob.routes(version)) == ({BOBS[version]}, {ALICES[version]})
            for version in VERSIONS
        )

    def sessions(self) -> list[Session]:
        """As either sees them."""
        return [router.session(version) for router in (self.alice, self.bob) for version in VERSIONS]

    def addresses(self, version: int) -> tuple[IPAddress, IPAddress]:
        """Alice's and bob's."""
        alice, bob = self["alice"], self["bob"]
        return (alice.v4, bob.v4) if version == 4 else (alice.v6, bob.v6)


def rules(story: Story, below: str) -> str:
    said = "".join(f'[[rule]]\npeer = "{at}"\ngroup = "clear"\n' for at in (story["dns"].v4, story["dns"].v6))
    return said + "".join(f'[[rule]]\npeer = "{net}"\nrequire = "encrypted"\nbelow = "{below}"\n' for net in NETWORKS)


@pytest.fixture
def routers() -> Iterator[Routers]:
    with Routers("alice", "bob", plane=PLANE) as story:
        yield story


@pytest.mark.lab
def test_a_session_outlives_its_keys(routers: Routers) -> None:
    routers.open("block")
    before = routers.sessions()
    for version in VERSIONS:
        peer = str(routers.addresses(version)[1])
        rekey(routers, peer)
        rekey(routers, peer, "--ike")
    assert_unharmed(routers, before)


@pytest.mark.lab
def test_a_session_outlives_a_process(routers: Routers) -> None:
    """Alice's node is killed; she is the next who has something to say."""
    routers.open("block")
    before = routers.sessions()
    daemon = routers.daemons["alice"]
    os.kill(node(daemon.pid), signal.SIGKILL)
    # What she says before all have started again may go the old way.
    assert eventually(lambda: daemon.log.read_text().count("alice.example runs") == 2, 20), routers.log()
    routers.alice.announce(*ALICES.values(), *LATER.values())
    assert eventually(lambda: all(LATER[version] in routers.bob.routes(version) for version in VERSIONS), 30), (
        routers.log()
    )
    assert_unharmed(routers, before)


@pytest.mark.lab
@pytest.mark.parametrize("below", ["block", "clear", None], ids=["in, block", "in, clear permitted", "out: control"])
def test_a_forged_update_and_a_reset(routers: Routers, below: str | None) -> None:
    """RFC 4272 s3: mallory is on the path, hears all, and sends what he likes to either router.

    Where the guard is in he hears no numbers, and is told them all the same.
    """
    routers.open(below)
    before = routers.sessions()
    for version, update in ((4, announcement(routers["bob"])), (6, withdrawal())):
        if below is None:
            assert_attacked(routers, version, update)
        else:
            attack_as_he_can(routers, version, update)
    if below is not None:
        assert_unharmed(routers, before)


def assert_attacked(routers: Routers, version: int, update: bytes) -> None:
    """Who hears the session says in it what he likes, and ends it."""
    alice_at, bob_at = routers.addresses(version)
    before = routers.alice.session(version)
    assert eventually(lambda: heard(routers, bob_at, alice_at) == position(routers.alice.pid, bob_at, alice_at))
    told = heard(routers, bob_at, alice_at)
    assert told is not None
    inject(routers, "alice", told, Flag.PSH | Flag.ACK, update)
    believed = {BOBS[4], str(STOLEN)} if version == 4 else set()
    assert eventually(lambda: routers.alice.routes(version) == believed)
    assert routers.alice.session(version).goes_on(before)
    inject(routers, "alice", told.moved(len(update)), Flag.RST)
    assert eventually(lambda: not routers.alice.session(version).goes_on(before))


def attack_as_he_can(routers: Routers, version: int, update: bytes) -> None:
    """The same to both ends, and more, with numbers that are right, nearly right and guessed."""
    alice_at, bob_at = routers.addresses(version)
    for router, source, destination in ((routers.alice, bob_at, alice_at), (routers.bob, alice_at, bob_at)):
        right = position(router.pid, source, destination)
        for tried in (right, *map(right.moved, (-1, 1, len(update), randrange(1 << 32)))):
            inject(routers, router.host.name, tried, Flag.PSH | Flag.ACK, update)
            for flags in (Flag.RST, Flag.RST | Flag.ACK, Flag.SYN):
                inject(routers, router.host.name, tried, flags)


def assert_unharmed(routers: Routers, before: list[Session]) -> None:
    """The sessions are those from before, alice knows bob's routes as he has them, and hears of new ones."""
    assert all(routers.alice.routes(version) == {BOBS[version]} for version in VERSIONS)
    routers.bob.announce(*BOBS.values(), *LATER.values())
    after = {version: {BOBS[version], LATER[version]} for version in VERSIONS}
    assert eventually(lambda: all(routers.alice.routes(version) == after[version] for version in VERSIONS), 30), (
        routers.log()
    )
    for now, then in zip(routers.sessions(), before, strict=True):
        assert now.goes_on(then), routers.alice.log.read_text() + routers.bob.log.read_text()


def rekey(routers: Routers, peer: str, *words: str) -> None:
    """As an administrator of alice's does, and wait until all SAs with the peer are others."""
    old = spis(routers, peer, *words)
    control = str(routers.daemons["alice"].control)
    routers["alice"].run(sys.executable, "-m", "hushwire", "rekey", peer, *words, "--control", control)
    assert eventually(lambda: (now := spis(routers, peer, *words)) and now.isdisjoint(old)), routers.log()


def spis(routers: Routers, peer: str, *words: str) -> set[str]:
    """Of alice's Child SAs or IKE SAs with a peer."""
    ike: Any = routers.peer("alice", peer)["ike"]
    return {sa["spi_i"] for sa in ike} if words else {child["spi_in"] for sa in ike for child in sa["children"]}


def node(parent: int) -> int:
    """The process id of a daemon's node."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    (found,) = (pid for pid in children if Path(f"/proc/{pid}/comm").read_text() == "hushwire:node\n")
    return int(found)


# --- mallory ---


def heard(routers: Routers, source: IPAddress, destination: IPAddress) -> Position | None:
    """What he knows of the session."""
    routers.relay.report()
    return sniffed(routers.relay.pcap, source, destination)


def inject(routers: Routers, name: str, at: Position, flags: Flag, data: bytes = b"") -> None:
    other = routers["bob" if name == "alice" else "alice"]
    routers.relay.inject(name, at.forge(other, routers[name], flags, data))


def announcement(bob: Host) -> bytes:
    """A BGP UPDATE (RFC 4271 s4.3): STOLEN is reached through bob.  ORIGIN, AS_PATH (RFC 6793), NEXT_HOP."""
    path = struct.pack("!BBI", 2, 1, AS(bob))
    attributes = b"\x40\x01\x01\x00" + b"\x40\x02" + bytes((len(path),)) + path + b"\x40\x03\x04" + bob.v4.packed
    return message(attributes, prefix(STOLEN))


def withdrawal() -> bytes:
    """And one without bob's IPv6 route: MP_UNREACH_NLRI (RFC 4760 s4), of AFI 2 and SAFI 1."""
    gone = b"\x00\x02\x01" + prefix(IPv6Network(BOBS[6]))
    return message(b"\x80\x0f" + bytes((len(gone),)) + gone)


def message(attributes: bytes, reachable: bytes = b"") -> bytes:
    body = b"\x02" + bytes(2) + len(attributes).to_bytes(2, "big") + attributes + reachable
    return b"\xff" * 16 + (18 + len(body)).to_bytes(2, "big") + body


def prefix(network: IPv4Network | IPv6Network) -> bytes:
    return bytes((network.prefixlen,)) + network.network_address.packed[: -(-network.prefixlen // 8)]


@pytest.mark.uml
def test_with_the_kernel_plane() -> None:
    # What is done to a session in clear needs no other plane, and that kernel is slow.
    assert uml.lab_tests(__file__, "keys or a_process").returncode == 0
