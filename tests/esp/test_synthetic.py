"""Two names at one address: each has its SA, its reqid and its synthetic address, and they share nothing."""

import struct
from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from hushwire.entropy import SeededEntropy
from hushwire.esp import plane as module
from hushwire.esp.batch import Opener, Sealer
from hushwire.esp.plane import Cause, Deliver, Plane, Transmit
from hushwire.events import Acquire, DeletePolicy, DeleteSA, Installed, InstallPolicy, InstallSA, Refused
from hushwire.policy.sad import SA, Direction, Mode, SAName
from hushwire.policy.selector import Selector
from hushwire.policy.spd import Action, Policy

MADE = {4: (ip_address("198.18.0.16"), ip_address("198.18.0.17")),
        6: (ip_address("fd68:7773:6877:1::10"), ip_address("fd68:7773:6877:1::11"))}  # fmt: skip


class TwoNames:
    """alice, and two hosts behind bob's address, each with what makes it a host of its own."""

    def __init__(self, kit: SimpleNamespace, version: int) -> None:
        self.kit = kit
        self.near, self.far = (kit.ALICE, kit.BOB) if version == 4 else (kit.ALICE6, kit.BOB6)
        self.made = MADE[version]
        self.alice = Plane(SeededEntropy(b"alice"))
        self.hosts = []
        self.sas: list[tuple[SA, SA]] = []
        for number in range(2):
            there = replace(kit.make_sa(self.near, self.far, 0x1000 + number, seed=f"there {number}"), reqid=7 + number)
            back = replace(kit.make_sa(self.far, self.near, 0x2000 + number, seed=f"back {number}"), reqid=7 + number)
            self.sas.append((there, back))
            for direction in Direction:
                self.tell(InstallPolicy(1, self.policy(number, direction)))
            self.hosts.append(kit.plane_with(kit.received(there), back))
        for there, back in self.sas:
            self.tell(InstallSA(2, kit.received(back)))
            self.tell(InstallSA(2, there))

    def policy(self, number: int, direction: Direction, **more: object) -> Policy:
        selector = Selector.between(self.near, self.made[number])
        policy = Policy(selector, direction, Action.PROTECT, 100, 7 + number, real=self.far)
        return replace(policy, **more)

    def tell(self, request: object) -> list[object]:
        return self.alice.install(request, self.kit.NOW)

    def to(self, number: int, packet: bytes) -> list[object]:
        """What one of the hosts gets of what alice sends; nothing, if it is not for it."""
        got = []
        for sent in self.alice.outbound(packet, self.kit.NOW):
            assert isinstance(sent, Transmit)
            assert sent.remote == self.kit.end(self.far)
            near, far = self.kit.end(self.near), self.kit.end(self.far)
            got += self.hosts[number].inbound(sent.data, far, near, self.kit.NOW)
        return got

    def sent_by(self, number: int, packet: bytes) -> list[object]:
        """What comes in at alice of what one of the hosts sends."""
        (sent,) = self.hosts[number].outbound(packet, self.kit.NOW)
        return self.alice.inbound(sent.data, self.kit.end(self.near), self.kit.end(self.far), self.kit.NOW)


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def world(request: pytest.FixtureRequest, kit: SimpleNamespace) -> TwoNames:
    return TwoNames(kit, request.param)


def echo(kit: SimpleNamespace, source: object, destination: object) -> bytes:
    """An ICMP message whose checksum is right."""
    upper = struct.pack(">BBHI", 128 if source.version == 6 else 8, 0, 0, 1) + b"echo"
    if source.version == 6:
        return kit.ip(source, destination, 58, kit.summed(source, destination, 58, upper, 2))
    return kit.ip(source, destination, 1, upper[:2] + struct.pack(">H", kit.ones_sum(upper) ^ 0xFFFF) + upper[4:])


def packets(kit: SimpleNamespace, source: object, destination: object) -> list[bytes]:
    return [
        kit.udp(source, destination), kit.tcp(source, destination, 1, b"hello"), echo(kit, source, destination)
    ]  # fmt: skip


def test_what_goes_to_a_synthetic_address_goes_to_its_name(kit: SimpleNamespace, world: TwoNames) -> None:
    """Twice: by what was learnt of a flow, too."""
    for number, made in enumerate(world.made):
        for told, real in zip(packets(kit, world.near, made), packets(kit, world.near, world.far), strict=True):
            assert [world.to(number, told) for _ in range(2)] == [[Deliver(real)]] * 2
            assert world.to(1 - number, told) == []
    assert not world.alice.counters
    assert [host.counters for host in world.hosts] == [{Cause.IN_NO_STATE: 3}] * 2


def test_what_a_name_says_comes_from_its_synthetic_address(kit: SimpleNamespace, world: TwoNames) -> None:
    for number, made in enumerate(world.made):
        for real, told in zip(packets(kit, world.far, world.near), packets(kit, made, world.near), strict=True):
            assert world.sent_by(number, real) == [Deliver(told)]
    assert not world.alice.counters


def test_with_one_reqid_they_cross(kit: SimpleNamespace, world: TwoNames) -> None:
    """The control: what keeps them apart is that each policy asks for its own name's SA."""
    world.tell(InstallPolicy(1, world.policy(1, Direction.OUT, reqid=7)))
    assert world.to(0, kit.udp(world.near, world.made[1])) == [Deliver(kit.udp(world.near, world.far))]


def drained(kit: SimpleNamespace, plane: Plane, packets: list[bytes]) -> list[bytes]:
    """The datagrams that come of packets read in one go."""
    datagrams: list[bytes] = []

    def read(buffers: list[memoryview]) -> int:
        if not packets:
            raise BlockingIOError
        rest = bytes(10) + packets.pop(0)
        size = len(rest)
        for buffer in buffers:
            buffer[: len(rest[: len(buffer)])] = rest[: len(buffer)]
            rest = rest[len(buffer) :]
        return size

    def send(near: object, far: object, octets: bytes, stride: int) -> None:
        datagrams.extend(bytes(octets[at : at + stride]) for at in range(0, len(octets), stride))

    assert Sealer().drain(read, send, plane, kit.NOW) == []
    return datagrams


@pytest.mark.parametrize("number", [0, 1])
def test_bursts_out(kit: SimpleNamespace, world: TwoNames, number: int) -> None:
    """What is sealed side by side, by what was learnt of a flow, is what single packets are."""

    def some(far: object) -> list[bytes]:
        segments = [kit.tcp(world.near, far, sequence, bytes(100)) for sequence in range(0, 500, 100)]
        return segments + [kit.udp(world.near, far, b"more"), echo(kit, world.near, far)] * 2

    datagrams = drained(kit, world.alice, some(world.made[number]))
    size = 20 if world.near.version == 4 else 40
    # As it was sealed: a receiver would make the checksums anew.
    frames = [memoryview(bytearray(each)) for each in datagrams]
    got = [world.hosts[number].open(frame, kit.end(world.near), kit.NOW, []) for frame in frames]
    assert sorted(bytes(payload) for _, _, payload in got) == sorted(packet[size:] for packet in some(world.far))
    assert len(world.alice.routes) == 2


@pytest.mark.parametrize("number", [0, 1])
def test_bursts_in(kit: SimpleNamespace, world: TwoNames, number: int) -> None:
    """ICMP comes with its checksum; the kernel makes the rest of UDP's from the sum of the pseudo-header."""
    written: list[bytes] = []
    for packet in (echo(kit, world.far, world.near), kit.udp(world.far, world.near)):
        (sent,) = world.hosts[number].outbound(packet, kit.NOW)
        octets, opener = memoryview(bytearray(sent.data)), Opener()
        write = lambda each: written.append(b"".join(each))  # noqa: E731
        opener.open(octets, len(octets), kit.end(world.far), world.alice, kit.NOW, write)
        opener.flush(write)
    made, size = world.made[number], 20 if world.near.version == 4 else 40
    assert written[0][10:][size:] == echo(kit, made, world.near)[size:]
    assert [each[10:][:size] for each in written] == [
        packet[:size] for packet in (echo(kit, made, world.near), kit.udp(made, world.near))
    ]
    pseudo = made.packed + world.near.packed + struct.pack(">II", 15, 17)
    assert written[1][16 + size : 18 + size] == struct.pack(">H", kit.ones_sum(pseudo))


def unreachable(kit: SimpleNamespace, source: object, destination: object, about: bytes) -> bytes:
    if source.version == 6:
        upper = struct.pack(">BBHI", 1, 4, 0, 0) + about
        return kit.ip(source, destination, 58, kit.summed(source, destination, 58, upper, 2))
    upper = struct.pack(">BBHI", 3, 3, 0, 0) + about
    return kit.ip(source, destination, 1, upper[:2] + struct.pack(">H", kit.ones_sum(upper) ^ 0xFFFF) + upper[4:])


def test_errors_reach_the_connection_of_their_name_and_no_other(kit: SimpleNamespace, world: TwoNames) -> None:
    for number, made in enumerate(world.made):
        sent = unreachable(kit, world.far, world.near, kit.udp(world.near, world.far))
        told = unreachable(kit, made, world.near, kit.udp(world.near, made))
        assert world.sent_by(number, sent) == [Deliver(told)]
        meddling = unreachable(kit, world.far, world.near, kit.udp(world.near, world.made[1 - number]))
        assert world.sent_by(number, meddling) == []
    assert world.alice.counters == {Cause.IN_MISMATCH: 2}


def test_errors_of_others_reach_no_name(kit: SimpleNamespace, world: TwoNames, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a peer at an address of its own; the control is the same without the check."""
    mallory = world.far + 7
    there, back = kit.make_sa(world.near, mallory, 0x7700, seed="a"), kit.make_sa(mallory, world.near, 0x7800, seed="b")
    for sa in (replace(there, reqid=99), replace(kit.received(back), reqid=99)):
        world.tell(InstallPolicy(1, kit.policy(sa)))
        world.tell(InstallSA(1, sa))
    at_mallory = kit.plane_with(back)
    meddling = unreachable(kit, mallory, world.near, kit.udp(world.near, world.made[0]))

    def comes() -> list[object]:
        (sent,) = at_mallory.outbound(meddling, kit.NOW)
        return world.alice.inbound(sent.data, kit.end(world.near), kit.end(mallory), kit.NOW)

    assert comes() == []
    monkeypatch.setattr(module, "quoted", lambda packet: None)
    assert comes() == [Deliver(meddling)]


def test_what_has_no_name_is_nobodys(kit: SimpleNamespace, world: TwoNames) -> None:
    """The real address has no policy; and a name whose policy went is heard no more."""
    assert world.alice.outbound(kit.udp(world.near, world.far), kit.NOW) == []
    world.tell(DeletePolicy(world.policy(0, Direction.IN).selector, Direction.IN))
    assert world.sent_by(0, kit.udp(world.far, world.near)) == []
    assert world.sent_by(1, kit.udp(world.far, world.near)) == [Deliver(kit.udp(world.made[1], world.near))]
    world.tell(InstallPolicy(3, world.policy(0, Direction.IN)))
    assert world.sent_by(0, kit.udp(world.far, world.near)) == [Deliver(kit.udp(world.made[0], world.near))]
    assert world.alice.counters == {Cause.OUT_NO_POLICY: 1, Cause.IN_NO_POLICY: 1}


def test_a_rekeyed_sa_is_bound_as_the_old_one(kit: SimpleNamespace, world: TwoNames) -> None:
    new = replace(kit.make_sa(world.far, world.near, 0x3000, seed="new"), reqid=8)
    world.tell(InstallSA(4, kit.received(new)))
    world.hosts[1].install(InstallSA(5, new), kit.NOW)
    assert world.sent_by(1, kit.udp(world.far, world.near)) == [Deliver(kit.udp(world.made[1], world.near))]


def test_a_packet_waits_for_the_sa_of_its_name(kit: SimpleNamespace, world: TwoNames) -> None:
    for there, _ in world.sas:
        world.tell(DeleteSA(SAName(there.spi, there.destination)))
    packet = kit.udp(world.near, world.made[1])
    (acquire,) = world.alice.outbound(packet, kit.NOW)
    assert isinstance(acquire, Acquire)
    assert (acquire.flow.remote, acquire.reqid) == (world.made[1], 8)
    fresh = [replace(kit.make_sa(world.near, world.far, 0x4000 + n, seed=f"new {n}"), reqid=7 + n) for n in range(2)]
    assert world.tell(InstallSA(6, fresh[0])) == [Installed(6)]
    installed, sent = world.tell(InstallSA(7, fresh[1]))
    assert installed == Installed(7)
    world.hosts[1].install(InstallSA(8, kit.received(fresh[1])), kit.NOW)
    got = world.hosts[1].inbound(sent.data, kit.end(world.far), kit.end(world.near), kit.NOW)
    assert got == [Deliver(kit.udp(world.near, world.far))]


def test_tunnels_have_none(kit: SimpleNamespace, world: TwoNames) -> None:
    ends = (world.near, world.far)
    (refused,) = world.tell(InstallPolicy(9, world.policy(0, Direction.OUT, mode=Mode.TUNNEL, tunnel=ends)))
    assert isinstance(refused, Refused)
