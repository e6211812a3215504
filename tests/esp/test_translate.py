"""Another address in a packet: every checksum that was right is right, and what was wrong stays wrong."""

import struct
from ipaddress import ip_address
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.esp.translate import Foreign, difference, mend_sealed, translate
from hushwire.wire.cursor import DecodeError

MADE = {4: ip_address("198.18.0.16"), 6: ip_address("fd68:7773:6877:1::10")}
AT = {6: 16, 17: 6, 33: 6, 58: 2, 136: 6}
"""Where the checksum is that covers the addresses."""
versions = st.sampled_from([4, 6])


def ends(kit: SimpleNamespace, version: int) -> tuple[object, object, object]:
    """This host, the peer, and the address that stands for the peer."""
    return (kit.ALICE, kit.BOB, MADE[4]) if version == 4 else (kit.ALICE6, kit.BOB6, MADE[6])


def summed(kit: SimpleNamespace, source: object, destination: object, protocol: int, upper: bytes) -> bytes:
    """A packet whose upper layer's checksum, pseudo-header and all, is right."""
    at = AT.get(protocol)
    if at is not None and len(upper) >= at + 2:
        bare = upper[:at] + b"\0\0" + upper[at + 2 :]
        pseudo = source.packed + destination.packed + struct.pack(">II", len(upper), protocol)
        checksum = kit.ones_sum(pseudo + bare) ^ 0xFFFF
        upper = upper[:at] + struct.pack(">H", checksum or (protocol in (17, 136)) * 0xFFFF) + upper[at + 2 :]
    return kit.ip(source, destination, protocol, upper)


def verify(kit: SimpleNamespace, packet: bytes) -> None:
    """As a receiver does, word by word."""
    if packet[0] >> 4 == 4:
        assert kit.ones_sum(packet[:20]) == 0xFFFF
        addresses, protocol, upper = packet[12:20], packet[9], packet[20:]
    else:
        addresses, protocol, upper = packet[8:40], packet[6], packet[40:]
    if protocol == 1:
        assert kit.ones_sum(upper) == 0xFFFF
    elif protocol in AT and len(upper) >= AT[protocol] + 2:
        assert kit.ones_sum(addresses + struct.pack(">II", len(upper), protocol) + upper) == 0xFFFF


@given(versions, st.sampled_from([6, 17, 33, 58, 132, 136, 47]), st.binary(min_size=20, max_size=80), st.booleans())
def test_there_and_back_is_the_same(
    kit: SimpleNamespace, version: int, protocol: int, upper: bytes, outbound: bool
) -> None:
    near, far, made = ends(kit, version)
    if protocol == 58:
        upper = b"\x80" + upper[1:]
    there = summed(kit, near, far, protocol, upper) if outbound else summed(kit, far, near, protocol, upper)
    told = translate(there, far.packed, made.packed)
    verify(kit, there)
    verify(kit, told)
    expected = (near, made) if outbound else (made, near)
    assert told == summed(kit, *expected, protocol, upper)
    assert translate(told, made.packed, far.packed) == there


@pytest.mark.parametrize("version", [4, 6])
def test_a_wrong_checksum_stays_wrong(kit: SimpleNamespace, version: int) -> None:
    near, far, made = ends(kit, version)
    packet = bytearray(kit.udp(near, far))
    packet[-1] ^= 1
    with pytest.raises(AssertionError):
        verify(kit, translate(packet, far.packed, made.packed))


def test_a_udp_checksum_that_was_not_made_is_not_made(kit: SimpleNamespace) -> None:
    upper = struct.pack(">HHHH", 5, 7, 12, 0) + b"data"
    packet = kit.ip(kit.ALICE, kit.BOB, 17, upper)
    assert translate(packet, kit.BOB.packed, MADE[4].packed) == kit.ip(kit.ALICE, MADE[4], 17, upper)


def test_a_udp_checksum_never_becomes_zero(kit: SimpleNamespace) -> None:
    """Zero would say that there is none, and IPv6 hosts drop that (RFC 8200 s8.1)."""
    for filling in range(1 << 16):
        upper = struct.pack(">HHHHH", 5, 7, 10, 0, filling)
        bare = struct.pack(">II", 10, 17) + MADE[6].packed + kit.ALICE6.packed + upper
        if kit.ones_sum(bare) == 0xFFFF:
            break
    packet = kit.udp(kit.BOB6, kit.ALICE6, struct.pack(">H", filling))
    assert translate(packet, kit.BOB6.packed, MADE[6].packed)[46:48] == b"\xff\xff"


def test_later_fragments_have_no_checksum_of_their_own(kit: SimpleNamespace) -> None:
    payload = bytes(range(64))
    packet = kit.ip(kit.ALICE, kit.BOB, 17, payload, fragment=0x2008)
    assert translate(packet, kit.BOB.packed, MADE[4].packed) == kit.ip(kit.ALICE, MADE[4], 17, payload, fragment=0x2008)


@given(st.sampled_from([6, 17]), st.binary(min_size=18, max_size=60), versions)
def test_a_segment_by_itself(kit: SimpleNamespace, protocol: int, upper: bytes, version: int) -> None:
    near, far, made = ends(kit, version)
    header = 20 if version == 4 else 40
    told = bytearray(summed(kit, near, made, protocol, upper))
    octets = memoryview(told)
    mend_sealed(octets, header, len(told), protocol, difference(made.packed, far.packed))
    assert told[header:] == summed(kit, near, far, protocol, upper)[header:]


# --- ICMP errors ---


def error(kit: SimpleNamespace, source: object, destination: object, about: bytes, kind: int | None = None) -> bytes:
    """Port unreachable, about a packet."""
    if source.version == 6:
        kind = 1 if kind is None else kind
        return summed(kit, source, destination, 58, struct.pack(">BBHI", kind, 4, 0, 0) + about)
    upper = struct.pack(">BBHI", 3 if kind is None else kind, 3, 0, 0) + about
    return kit.ip(source, destination, 1, upper[:2] + struct.pack(">H", kit.ones_sum(upper) ^ 0xFFFF) + upper[4:])


@given(versions, st.booleans(), st.booleans(), st.binary(max_size=40), st.integers(0, 60))
def test_an_error_is_about_what_its_receiver_sent(
    kit: SimpleNamespace, version: int, outbound: bool, tcp: bool, payload: bytes, cut: int
) -> None:
    near, far, made = ends(kit, version)

    def about(source: object, destination: object) -> bytes:
        packet = kit.tcp(source, destination, 1, payload) if tcp else kit.udp(source, destination, payload)
        return packet[: max(28 if version == 4 else 48, len(packet) - cut)]

    if outbound:
        sent, told = error(kit, near, made, about(made, near)), error(kit, near, far, about(far, near))
        translated = translate(sent, made.packed, far.packed)
    else:
        sent, told = error(kit, far, near, about(near, far)), error(kit, made, near, about(near, made))
        translated = translate(sent, far.packed, made.packed)
    verify(kit, sent)
    verify(kit, translated)
    # Half a checksum is left as it is: nobody can tell what it was.
    halved = tcp and len(about(near, far)) == (37 if version == 4 else 57)
    assert halved or translated == told


@pytest.mark.parametrize("version", [4, 6])
def test_an_error_about_others_is_foreign(kit: SimpleNamespace, version: int) -> None:
    near, far, made = ends(kit, version)
    for source, destination in ((near, made), (near, near + 9), (far + 9, far), (near + 9, far)):
        with pytest.raises(Foreign):
            translate(error(kit, far, near, kit.udp(source, destination)), far.packed, made.packed)
    of_the_other_family = kit.udp(*ends(kit, 10 - version)[:2])
    for about in (b"", kit.udp(near, far)[:19], of_the_other_family):
        with pytest.raises(Foreign):
            translate(error(kit, far, near, about), far.packed, made.packed)
    # The control: an echo reply with the same octets is no error.
    kind = 0 if version == 4 else 129
    translate(error(kit, far, near, kit.udp(near, made), kind), far.packed, made.packed)


def test_a_packet_of_others_is_left_alone(kit: SimpleNamespace) -> None:
    for old in (MADE[4].packed, kit.BOB6.packed):
        with pytest.raises(DecodeError):
            translate(kit.udp(kit.ALICE, kit.BOB), old, kit.MALLORY.packed)


@given(st.binary(max_size=120), st.booleans(), st.booleans())
def test_any_octets_give_a_packet_or_an_error(kit: SimpleNamespace, octets: bytes, six: bool, icmp: bool) -> None:
    near, far, made = ends(kit, 6 if six else 4)
    if icmp:
        octets = kit.ip(far, near, 58 if six else 1, octets)
    try:
        told = translate(octets, far.packed, made.packed)
    except DecodeError:
        return
    assert len(told) == len(octets)
