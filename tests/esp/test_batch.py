"""Bursts do what single packets do, in fewer calls."""

import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.esp import batch
from hushwire.esp.batch import Opener, Sealer
from hushwire.esp.plane import CACHED_FLOWS, Cause, Deliver, Plane
from hushwire.events import Acquire, InstallPolicy, Mapping
from hushwire.policy.sad import Lifetime, Mode, SAName
from hushwire.policy.spd import Action

OPTIONS = b"\1\1\x08\x0a" + bytes(8)


class Tun:
    """Packets to read and packets written, with their virtio-net headers."""

    def __init__(self, *packets: bytes, vnet: bytes = bytes(10)) -> None:
        self.waiting = [vnet + packet for packet in packets]
        self.written: list[bytes] = []

    def read(self, buffers: list[memoryview]) -> int:
        if not self.waiting:
            raise BlockingIOError
        packet = rest = self.waiting.pop(0)
        for buffer in buffers:
            part = rest[: len(buffer)]
            buffer[: len(part)] = part
            rest = rest[len(part) :]
        assert not rest
        return len(packet)

    def write(self, buffers: list[bytes]) -> None:
        self.written.append(b"".join(buffers))


class Wire:
    """What was sent, and each datagram of it."""

    def __init__(self) -> None:
        self.bursts: list[tuple[bytearray, int]] = []

    def send(self, local: object, remote: object, octets: bytes, stride: int) -> None:
        assert len(octets) <= batch.DATAGRAM
        assert len(octets) <= batch.SEGMENTS * stride
        self.bursts.append((bytearray(octets), stride))

    def datagrams(self) -> list[bytes]:
        return [bytes(octets[at : at + n]) for octets, n in self.bursts for at in range(0, len(octets), n)]


def seal(kit: SimpleNamespace, plane: Plane, packets: list[bytes], sealer: Sealer | None = None) -> Wire:
    wire = Wire()
    assert (sealer or Sealer()).drain(Tun(*packets).read, wire.send, plane, kit.NOW) == []
    return wire


def open_all(kit: SimpleNamespace, plane: Plane, wire: Wire) -> list[bytes]:
    tun, opener = Tun(), Opener()
    (remote,) = {sa.near for sa in plane._inbound.values()}
    for octets, stride in wire.bursts:
        assert opener.open(memoryview(octets), stride, remote, plane, kit.NOW, tun.write) == []
    opener.flush(tun.write)
    return tun.written


def segments(kit: SimpleNamespace, written: bytes) -> list[bytes]:
    """What the kernel makes of one write: cut and summed, as the virtio-net header asks."""
    flags, gso, header_length, size, start, offset = struct.unpack("=BBHHHH", written[:10])
    packet = written[10:]
    if not flags:
        return [packet]
    assert (flags, start) == (1, 40 if packet[0] >> 4 == 6 else 20)
    six = start == 40
    source, destination = (packet[8:24], packet[24:40]) if six else (packet[12:16], packet[16:20])
    protocol = packet[6] if six else packet[9]
    upper = packet[start:]
    pseudo = source + destination + struct.pack(">II", len(upper), protocol)
    assert upper[offset : offset + 2] == struct.pack(">H", kit.ones_sum(pseudo))
    assert gso in (0, 4 if six else 1)
    source, destination = (kit.ip_address(octets) for octets in (source, destination))
    if protocol == 17:
        return [kit.udp(source, destination, upper[8:], struct.unpack(">HH", upper[:4]))]
    _, _, sequence, ack, offset, flags = struct.unpack_from(">HHIIBB", upper)
    options, data = upper[20 : offset >> 2], upper[offset >> 2 :]
    if gso:
        assert header_length == start + (offset >> 2)
        assert len(data) > size
    cuts = range(0, len(data), size) if gso else [0]
    last = cuts[-1]
    return [
        kit.tcp(
            source, destination, sequence + at & 0xFFFF_FFFF, data[at : at + (size or len(data))],
            flags if at == last else flags & ~8, ack, options,
        )
        for at in cuts
    ]  # fmt: skip


def stream(kit: SimpleNamespace, count: int, size: int = 1400, six: bool = False, push: int = -1) -> list[bytes]:
    pair = (kit.ALICE6, kit.BOB6) if six else (kit.ALICE, kit.BOB)
    return [
        kit.tcp(*pair, (2**32 - 5000 + n * size) % 2**32, bytes([n]) * size, 0x18 if n == push else 0x10, 9, OPTIONS)
        for n in range(count)
    ]


@pytest.mark.parametrize("suite", range(8))
@pytest.mark.parametrize("six", [False, True])
def test_a_stream_is_one_send_and_one_write(kit: SimpleNamespace, suite: int, six: bool) -> None:
    source, destination = (kit.ALICE6, kit.BOB6) if six else (kit.ALICE, kit.BOB)
    sa = kit.make_sa(source, destination, suite=kit.SUITES[suite])
    alice, bob, sealer = kit.plane_with(sa), kit.plane_with(kit.received(sa)), Sealer()
    opened = stream(kit, 41, six=six)
    seal(kit, alice, [kit.udp(source, destination)], sealer)  # The first packet of a flow aims the sealer.
    seal(kit, alice, opened[:1], sealer)
    wire = seal(kit, alice, opened[1:], sealer)
    assert len(wire.bursts) == 1
    assert len({len(datagram) for datagram in wire.datagrams()}) == 1
    written = open_all(kit, bob, wire)
    assert len(written) == 1
    assert segments(kit, written[0]) == opened[1:]
    assert not alice.counters
    assert not bob.counters


def test_datagrams_are_those_of_single_packets(kit: SimpleNamespace) -> None:
    """The same SA state makes the same octets either way."""
    for mode in Mode:
        sa = kit.make_sa(mode=mode)
        packets = [*stream(kit, 50), kit.udp(kit.ALICE, kit.BOB), *stream(kit, 3, 700), *stream(kit, 2), b"", b"\x45"]
        wire = seal(kit, kit.plane_with(sa), packets)
        single = kit.plane_with(sa)
        assert wire.datagrams() == [out.data for packet in packets for out in single.outbound(packet, kit.NOW)]


sizes = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 1400), st.booleans()), max_size=80)


@given(sizes, st.sampled_from(list(Mode)), st.sampled_from([1, 7, 64]))
def test_any_mixture_arrives_in_order(kit: SimpleNamespace, shapes: list, mode: Mode, reads: int) -> None:
    sa = kit.make_sa(mode=mode)
    alice, bob, sealer, packets, at = kit.plane_with(sa), kit.plane_with(kit.received(sa)), Sealer(), [], 0
    for kind, size, push in shapes:
        if kind == 0:
            packets.append(kit.udp(kit.ALICE, kit.BOB, bytes(size)))
        elif kind == 1:
            packets.append(kit.ip(kit.ALICE, kit.BOB, 1, bytes(7 + size)))
        else:
            length = size if kind == 2 else 1000
            packets.append(kit.tcp(kit.ALICE, kit.BOB, at, bytes(length), 0x18 if push else 0x10))
            at += length
    wire = Wire()
    for begin in range(0, len(packets), reads):
        wire.bursts += seal(kit, alice, packets[begin : begin + reads], sealer).bursts
    arrived = [packet for written in open_all(kit, bob, wire) for packet in segments(kit, written)]
    assert arrived == packets


@pytest.mark.parametrize(
    "change",
    [
        {"ack": 10}, {"flags": 0x11}, {"flags": 0x14}, {"flags": 0x12}, {"flags": 0x30}, {"flags": 0x90},
        {"options": OPTIONS[:-1] + b"\1"}, {"options": b""}, {"sequence": 2**32 - 5000 + 1399},
        {"sequence": 2**32 - 5000 + 1401}, {"payload": bytes(1401)}, {"payload": b""},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_the_same_is_not_coalesced(kit: SimpleNamespace, change: dict) -> None:
    sa = kit.make_sa()
    second = {"sequence": 2**32 - 5000 + 1400, "payload": bytes(1400), "options": OPTIONS, "ack": 9, "flags": 0x10}
    for expected, changes in ((1, {}), (2, change)):  # The first is the control.
        packets = [*stream(kit, 1), kit.tcp(kit.ALICE, kit.BOB, **{**second, **changes})]
        written = open_all(kit, kit.plane_with(kit.received(sa)), seal(kit, kit.plane_with(sa), packets))
        assert len(written) == expected
        assert [packet for one in written for packet in segments(kit, one)] == packets


def test_a_push_ends_a_run(kit: SimpleNamespace) -> None:
    sa, packets = kit.make_sa(), stream(kit, 6, push=2)
    written = open_all(kit, kit.plane_with(kit.received(sa)), seal(kit, kit.plane_with(sa), packets))
    assert [segments(kit, one) for one in written] == [packets[:3], packets[3:]]


def test_a_bent_frame_in_a_burst_harms_no_other(kit: SimpleNamespace) -> None:
    sa, packets = kit.make_sa(), stream(kit, 9)
    bob, wire = kit.plane_with(kit.received(sa)), seal(kit, kit.plane_with(sa), packets)
    octets, stride = wire.bursts[-1]
    octets[3 * stride + 40] ^= 1
    again = Wire()
    again.bursts = [(bytearray(octets), stride) for octets, stride in wire.bursts]
    arrived = [packet for one in open_all(kit, bob, wire) for packet in segments(kit, one)]
    assert arrived == [packet for packet in packets if packet != packets[4]]
    assert open_all(kit, bob, again) == []
    assert bob.counters == {Cause.IN_PROTO: 2, Cause.IN_SEQUENCE: 8}


def test_a_nat_is_mended(kit: SimpleNamespace) -> None:
    alice = kit.plane_with(kit.make_sa(kit.ALICE + 100))
    bob = kit.plane_with(kit.received(kit.make_sa()))
    packets = [kit.tcp(kit.ALICE + 100, kit.BOB, 1, b"x" * 99), kit.udp(kit.ALICE + 100, kit.BOB)]
    arrived = [packet for one in open_all(kit, bob, seal(kit, alice, packets)) for packet in segments(kit, one)]
    assert arrived == [kit.tcp(kit.ALICE, kit.BOB, 1, b"x" * 99), kit.udp(kit.ALICE, kit.BOB)]


def test_the_inner_checks_hold_in_a_burst(kit: SimpleNamespace) -> None:
    """ATTACKS 64 through the fast path: ports outside the SA's selector, also after an admitted packet."""
    for mode in Mode:
        sa = kit.make_sa(mode=mode)
        inbound = kit.received(sa)
        bob = kit.plane_with(replace(inbound, selector=replace(inbound.selector, protocol=6, local_port=80)))
        bad = kit.tcp(kit.ALICE, kit.BOB, 1, b"x", ports=(40000, 22))
        good = kit.tcp(kit.ALICE, kit.BOB, 1, b"x")
        wire = seal(kit, kit.plane_with(sa), [good, bad, good, bad, kit.udp(kit.ALICE, kit.BOB, ports=(40000, 80))])
        assert [p for one in open_all(kit, bob, wire) for p in segments(kit, one)] == [good, good]
        assert bob.counters == {Cause.IN_MISMATCH: 3}


def test_reports_come_back(kit: SimpleNamespace) -> None:
    sa = kit.make_sa(lifetime=Lifetime(hard_packets=4))
    alice, bob = kit.plane_with(sa), kit.plane_with(kit.received(kit.make_sa()))
    wire, sealer = Wire(), Sealer()
    reports = sealer.drain(Tun(*stream(kit, 6)).read, wire.send, alice, kit.NOW)
    assert len(wire.datagrams()) == 4
    assert [type(report).__name__ for report in reports] == ["Expire", "Acquire"]
    elsewhere = kit.end(kit.MALLORY)
    octets, stride = wire.bursts[0]
    outputs = Opener().open(memoryview(octets), stride, elsewhere, bob, kit.NOW, Tun().write)
    assert outputs == [Mapping(SAName(sa.spi, kit.BOB), elsewhere)]
    assert isinstance(reports[1], Acquire)


def test_work_that_was_not_asked_for_is_refused(kit: SimpleNamespace) -> None:
    """A packet whose checksum or cutting was left to us: never sealed as it is."""
    alice, sealer = kit.plane_with(kit.make_sa()), Sealer()
    seal(kit, alice, stream(kit, 2), sealer)
    for vnet in (b"\1\0", b"\0\1"):
        wire = Wire()
        assert sealer.drain(Tun(*stream(kit, 1), vnet=vnet + bytes(8)).read, wire.send, alice, kit.NOW) == []
        assert wire.bursts == []
    assert alice.counters == {Cause.OUT_HEADER: 2}


def test_delivered_as_a_single_packet_would_be(kit: SimpleNamespace) -> None:
    sa, packets = kit.make_sa(), [*stream(kit, 5), kit.udp(kit.ALICE, kit.BOB)]
    wire = seal(kit, kit.plane_with(sa), packets)
    single, ends = kit.plane_with(kit.received(sa)), (kit.end(kit.BOB), kit.end(kit.ALICE))
    outputs = [output for data in wire.datagrams() for output in single.inbound(data, *ends, kit.NOW)]
    assert outputs == [Deliver(packet) for packet in packets]


def test_a_peer_does_not_fill_the_cache(kit: SimpleNamespace) -> None:
    """The ports are his to choose; the control shows that they are remembered."""
    sa = kit.make_sa()
    alice, bob, sealer = kit.plane_with(sa), kit.plane_with(kit.received(sa)), Sealer()
    for first in range(0, 20_000, 100):
        packets = [kit.udp(kit.ALICE, kit.BOB, b"", (port, 7)) for port in range(first, first + 100)]
        open_all(kit, bob, seal(kit, alice, packets, sealer))
        assert len(bob.admitted) == min(first + 100, (first + 100 - 1) % CACHED_FLOWS + 1)
        assert len(alice.routes) <= CACHED_FLOWS


def test_what_was_admitted_is_looked_at_again_after_a_change(kit: SimpleNamespace) -> None:
    sa, packets = kit.make_sa(), stream(kit, 3)
    alice, bob = kit.plane_with(sa), kit.plane_with(kit.received(sa))
    assert len(open_all(kit, bob, seal(kit, alice, packets))) == 1
    bob.install(InstallPolicy(5, kit.policy(kit.received(sa), Action.BLOCK)), kit.NOW)
    assert open_all(kit, bob, seal(kit, alice, packets)) == []
    assert bob.counters == {Cause.IN_BLOCK: 3}


def test_padding_behind_a_tunnelled_packet(kit: SimpleNamespace) -> None:
    """RFC 4303 s2.7: it is cut off; a length that lies is counted, also in a flow that was admitted."""
    sa = kit.make_sa(mode=Mode.TUNNEL)
    bob, sender = kit.plane_with(kit.received(sa)), kit.plane_with(sa)._outbound[SAName(sa.spi, kit.BOB)]
    packet = kit.udp(kit.ALICE, kit.BOB)
    written: list[bytes] = []
    for inner in (packet, packet + bytes(50), packet[:-1]):
        frame = bytearray(sender.transform.sealed_length(len(inner)))
        frame[16 : 16 + len(inner)] = inner
        sender.seal(memoryview(frame), len(inner), 4)
        tun = Tun()
        Opener().open(memoryview(frame), len(frame), sender.near, bob, kit.NOW, tun.write)
        written += tun.written
    assert written == [bytes(10) + packet] * 2
    assert bob.counters == {Cause.IN_HEADER: 1}
