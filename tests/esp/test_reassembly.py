"""What the host cut is whole again before any policy sees it."""

import struct
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.entropy import SeededEntropy
from hushwire.esp.packet import read_packet
from hushwire.esp.plane import Bypass, Cause, Plane, Transmit
from hushwire.esp.reassembly import AT_ONCE, Lost, Reassembly
from hushwire.events import InstallPolicy
from hushwire.policy.spd import Action


def cut(kit: SimpleNamespace, packet: bytes, size: int, identification: int = 5) -> list[bytes]:
    """Fragments of `size` octets, a multiple of eight."""
    six = packet[0] >> 4 == 6
    upper, pieces = packet[40 if six else 20 :], []
    source, destination = (kit.ALICE6, kit.BOB6) if six else (kit.ALICE, kit.BOB)
    for at in range(0, len(upper), size):
        piece, more = upper[at : at + size], at + size < len(upper)
        if six:
            header = struct.pack(">BBHI", packet[6], 0, at | more, identification)
            pieces.append(kit.ip(source, destination, 44, header + piece))
        else:
            whole = bytearray(kit.ip(source, destination, packet[9], piece, at // 8 | more << 13))
            whole[4:6] = struct.pack(">H", identification)
            pieces.append(bytes(whole))
    return pieces


def whole(reassembly: Reassembly, pieces: list[bytes]) -> list[bytes | None]:
    return [reassembly.add(piece, read_packet(piece)) for piece in pieces]


@given(st.integers(0, 9000), st.integers(1, 200), st.booleans())
def test_in_order(kit: SimpleNamespace, length: int, eighths: int, six: bool) -> None:
    packet = kit.udp(*((kit.ALICE6, kit.BOB6) if six else (kit.ALICE, kit.BOB)), bytes(length))
    pieces = cut(kit, packet, eighths * 8)
    assert whole(Reassembly(), pieces) == [None] * (len(pieces) - 1) + [packet]


def test_a_gap_loses_the_rest(kit: SimpleNamespace) -> None:
    reassembly, pieces = Reassembly(), cut(kit, kit.udp(kit.ALICE, kit.BOB, bytes(999)), 256)
    whole(reassembly, pieces[:2])
    for piece in (pieces[3], pieces[2], pieces[3]):
        with pytest.raises(Lost):
            whole(reassembly, [piece])
    assert whole(reassembly, pieces)[-1] is not None  # Control: sent again, it is whole.


def test_no_more_than_a_packet_and_no_more_than_some(kit: SimpleNamespace) -> None:
    reassembly = Reassembly()
    huge = cut(kit, kit.ip(kit.ALICE, kit.BOB, 17, bytes(65000)), 1024)
    whole(reassembly, huge[:-1])
    beyond = bytearray(kit.ip(kit.ALICE, kit.BOB, 17, bytes(1024), 64512 // 8))
    beyond[4:6] = huge[0][4:6]
    with pytest.raises(Lost):
        whole(reassembly, [bytes(beyond)])
    packet = kit.udp(kit.ALICE, kit.BOB, bytes(99))
    firsts = [cut(kit, packet, 64, number) for number in range(AT_ONCE + 1)]
    for pieces in firsts:
        whole(reassembly, pieces[:1])
    assert whole(reassembly, firsts[1][1:]) == [packet]
    with pytest.raises(Lost):
        whole(reassembly, firsts[0][1:])


def test_a_later_fragment_does_not_slip_past_its_policy(kit: SimpleNamespace) -> None:
    """Without ports it would match the wide CLEAR policy; the packet it belongs to must be protected."""
    sa = kit.make_sa()
    plane = Plane(SeededEntropy(b""))
    ports = replace(sa.selector, protocol=17, remote_port=7)
    clear = replace(kit.policy(sa, Action.CLEAR), priority=200)
    plane.install(InstallPolicy(1, replace(kit.policy(sa, Action.BLOCK), selector=ports)), kit.NOW)
    plane.install(InstallPolicy(2, replace(clear, selector=kit.everything())), kit.NOW)
    pieces = cut(kit, kit.udp(kit.ALICE, kit.BOB, bytes(999)), 256)
    assert [plane.outbound(piece, kit.NOW) for piece in pieces] == [[]] * 4
    assert plane.counters == {Cause.OUT_BLOCK: 1}
    assert plane.outbound(pieces[2], kit.NOW) == []
    assert plane.counters == {Cause.OUT_BLOCK: 1, Cause.OUT_FRAGMENT: 1}
    # Control: the wide policy does let pass what has other ports.
    other = kit.udp(kit.ALICE, kit.BOB, bytes(999), (5, 8))
    assert [plane.outbound(piece, kit.NOW) for piece in cut(kit, other, 256)][-1] == [Bypass(other)]


def test_it_travels_whole(kit: SimpleNamespace) -> None:
    sa, packet = kit.make_sa(), kit.udp(kit.ALICE, kit.BOB, bytes(4000))
    alice, bob = kit.plane_with(sa), kit.plane_with(kit.received(sa))
    sent = [output for piece in cut(kit, packet, 1376) for output in alice.outbound(piece, kit.NOW)]
    assert [type(output) for output in sent] == [Transmit]
    (delivered,) = bob.inbound(sent[0].data, kit.end(kit.BOB), kit.end(kit.ALICE), kit.NOW)
    assert delivered.packet == packet


def test_a_fragment_of_a_fragment_is_lost(kit: SimpleNamespace) -> None:
    """Nested a thousand deep it would be a thousand calls deep."""
    nest = struct.pack(">BBHI", 44, 0, 0, 5) * 1000
    plane = kit.plane_with(kit.make_sa(kit.ALICE6, kit.BOB6))
    assert plane.outbound(kit.ip(kit.ALICE6, kit.BOB6, 44, nest + struct.pack(">BBHI", 59, 0, 0, 5)), kit.NOW) == []
    assert sum(plane.counters.values()) == 1
    single = kit.ip(kit.ALICE6, kit.BOB6, 44, struct.pack(">BBHI", 59, 0, 0, 5))
    assert [type(output) for output in plane.outbound(single, kit.NOW)] == [Transmit]  # Control.
