"""The plane as its host sees it: requests and packets in, packets and reports out."""

from dataclasses import replace
from ipaddress import ip_network
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.entropy import SeededEntropy
from hushwire.esp.plane import Bypass, Cause, Deliver, Plane, Transmit
from hushwire.esp.replay import ReplayWindow
from hushwire.events import (
    Acquire,
    CloseFlows,
    Count,
    Counted,
    DeletePolicy,
    DeleteSA,
    Expire,
    Installed,
    InstallPolicy,
    InstallSA,
    Mapping,
    Refused,
)  # fmt: skip
from hushwire.policy.sad import Direction, Lifetime, Mode, SAName
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Action
from hushwire.timers import NEVER, Now

EIGHT = range(8)


def send(kit: SimpleNamespace, plane: Plane, packet: bytes) -> bytes:
    """The one datagram that a packet becomes."""
    (output,) = plane.outbound(packet, kit.NOW)
    assert isinstance(output, Transmit)
    return output.data


def receive(kit: SimpleNamespace, plane: Plane, data: bytes) -> list[object]:
    return plane.inbound(data, kit.end(kit.BOB), kit.end(kit.ALICE), kit.NOW)


@given(st.sampled_from(EIGHT), st.sampled_from(list(Mode)), st.binary(max_size=100), st.booleans())
def test_round_trip(kit: SimpleNamespace, suite: int, mode: Mode, payload: bytes, six: bool) -> None:
    source, destination = (kit.ALICE6, kit.BOB6) if six else (kit.ALICE, kit.BOB)
    sa = kit.make_sa(source, destination, suite=kit.SUITES[suite], mode=mode)
    alice, bob = kit.plane_with(sa), kit.plane_with(kit.received(sa))
    for packet in (kit.udp(source, destination, payload), kit.tcp(source, destination, 1, payload)):
        data = send(kit, alice, packet)
        assert bob.inbound(data, kit.end(destination), kit.end(source), kit.NOW) == [Deliver(packet)]
    assert not alice.counters
    assert not bob.counters


def test_the_outer_ends_are_those_of_the_sa(kit: SimpleNamespace) -> None:
    alice = kit.plane_with(kit.make_sa())
    (output,) = alice.outbound(kit.udp(kit.ALICE, kit.BOB), kit.NOW)
    assert (output.local, output.remote) == (kit.end(kit.ALICE), kit.end(kit.BOB))


def test_policies(kit: SimpleNamespace) -> None:
    """Block, clear, none: each has its own end."""
    sa, packet = kit.make_sa(), kit.udp(kit.ALICE, kit.BOB)
    plane = Plane(SeededEntropy(b""))
    assert plane.outbound(packet, kit.NOW) == []
    for action, output in ((Action.BLOCK, []), (Action.CLEAR, [Bypass(packet)]), (Action.BLOCK, [])):
        assert plane.install(InstallPolicy(1, kit.policy(sa, action)), kit.NOW) == [Installed(1)]
        assert plane.outbound(packet, kit.NOW) == output
    wide = replace(kit.policy(sa, Action.CLEAR), selector=kit.everything(), priority=1)
    plane.install(InstallPolicy(2, wide), kit.NOW)
    assert plane.outbound(packet, kit.NOW) == [Bypass(packet)]
    plane.install(DeletePolicy(wide.selector, Direction.OUT), kit.NOW)
    assert plane.outbound(packet, kit.NOW) == []
    assert plane.outbound(b"\x45", kit.NOW) == []
    assert plane.counters == {Cause.OUT_NO_POLICY: 1, Cause.OUT_BLOCK: 3, Cause.OUT_HEADER: 1}


def test_a_packet_waits_for_its_sa(kit: SimpleNamespace) -> None:
    sa, plane = kit.make_sa(), Plane(SeededEntropy(b""))
    plane.install(InstallPolicy(1, kit.policy(sa)), kit.NOW)
    packets = [kit.udp(kit.ALICE, kit.BOB, bytes([n])) for n in range(20)]
    assert plane.outbound(packets[0], kit.NOW) == [Acquire(Flow(kit.ALICE, kit.BOB, 17, 5, 7), 7, 1)]
    assert [plane.outbound(packet, kit.NOW) for packet in packets[1:]] == [[]] * 19
    assert plane.counters == {Cause.OUT_NO_STATE: 4}
    outputs = plane.install(InstallSA(2, replace(sa, acquire=1)), kit.NOW)
    bob = kit.plane_with(kit.received(sa))
    assert outputs[0] == Installed(2)
    opened = [output for sent in outputs[1:] for output in receive(kit, bob, sent.data)]
    assert opened == [Deliver(packet) for packet in packets[:16]]
    assert plane.deadline() == NEVER


@pytest.mark.parametrize("ended", [True, False])
def test_what_waits_ends_with_its_flow(kit: SimpleNamespace, ended: bool) -> None:
    """RFC 5660 s2: who is there next does not get what was said to another."""
    sa, plane = kit.make_sa(), Plane(SeededEntropy(b""))
    plane.install(InstallPolicy(1, kit.policy(sa)), kit.NOW)
    packet = kit.udp(kit.ALICE, kit.BOB, b"for bob")
    assert plane.outbound(packet, kit.NOW)
    closed = ip_network(f"{kit.BOB if ended else kit.MALLORY}")
    assert plane.install(CloseFlows(2, (closed,)), kit.NOW) == []
    outputs = plane.install(InstallSA(3, replace(sa, acquire=1)), kit.NOW)
    assert outputs[0] == Installed(3)
    assert len(outputs[1:]) == (0 if ended else 1)
    # The next one waits for nothing.
    assert len(plane.outbound(packet, kit.NOW)) == 1


def test_what_waits_is_blocked_or_let_go_when_its_policy_changes(kit: SimpleNamespace) -> None:
    sa, packet = kit.make_sa(), kit.udp(kit.ALICE, kit.BOB)
    for action, ending in ((Action.BLOCK, []), (Action.CLEAR, [Bypass(packet)])):
        plane = Plane(SeededEntropy(b""))
        plane.install(InstallPolicy(1, kit.policy(sa)), kit.NOW)
        plane.outbound(packet, kit.NOW)
        assert plane.install(InstallPolicy(2, kit.policy(sa, action)), kit.NOW) == [Installed(2), *ending]


def test_a_trap_holds_by_pairs_of_hosts(kit: SimpleNamespace) -> None:
    """What comes for one address leaves the packets for others where they are."""
    plane = Plane(SeededEntropy(b"trap"))
    trap = replace(kit.policy(kit.make_sa(selector=kit.everything())), priority=968, reqid=9)
    plane.install(InstallPolicy(1, trap), kit.NOW)
    others = [kit.BOB + number for number in range(3)]
    packets = [kit.udp(kit.ALICE, other) for other in others]
    flows = [(raised.flow.remote, raised.reqid) for packet in packets for raised in plane.outbound(packet, kit.NOW)]
    assert flows == [(other, 9) for other in others]
    sa = kit.make_sa(destination=others[2])

    def narrow(number: int, action: Action) -> list[object]:
        selector = Selector.between(kit.ALICE, others[number])
        narrower = replace(kit.policy(sa, action), selector=selector, priority=936)
        installed, *outputs = plane.install(InstallPolicy(2, narrower), kit.NOW)
        assert installed == Installed(2)
        return outputs

    assert narrow(0, Action.BLOCK) == []
    assert narrow(1, Action.CLEAR) == [Bypass(packets[1])]
    (acquire,) = narrow(2, Action.PROTECT)
    assert (acquire.flow.remote, acquire.reqid) == (others[2], 7)
    _, sent = plane.install(InstallSA(3, replace(sa, acquire=acquire.sequence)), kit.NOW)
    assert isinstance(sent, Transmit)
    assert plane.counters == {Cause.OUT_BLOCK: 1}


def test_a_policy_ends_by_itself(kit: SimpleNamespace) -> None:
    plane, packet = kit.plane_with(), kit.udp(kit.ALICE, kit.BOB)
    sa = kit.make_sa()
    trap = replace(kit.policy(sa), selector=kit.everything(), priority=968)
    clear = replace(kit.policy(sa, Action.CLEAR), lifetime=10)
    plane.install(InstallPolicy(1, trap), kit.NOW)
    assert plane.deadline() == NEVER

    def at(seconds: float) -> Now:
        return Now(kit.NOW.monotonic + seconds, kit.NOW.wall + seconds)

    plane.install(InstallPolicy(2, clear), kit.NOW)
    assert plane.deadline() == at(10).monotonic
    # Once more is to begin anew: the same value, too.
    plane.install(InstallPolicy(3, clear), at(5))
    assert plane.timeout(at(10)) == []
    assert plane.outbound(packet, at(14)) == [Bypass(packet)]
    assert plane.deadline() == at(15).monotonic
    assert plane.timeout(at(15)) == []
    assert [type(output) for output in plane.outbound(packet, at(15))] == [Acquire]
    # What was deleted, or has no end any more, is not ended by an old word.
    plane.install(InstallPolicy(4, clear), at(20))
    plane.install(InstallPolicy(5, replace(clear, lifetime=0)), at(21))
    plane.timeout(at(40))
    assert plane.outbound(packet, at(40)) == [Bypass(packet)]
    plane.install(DeletePolicy(clear.selector, Direction.OUT), at(40))
    assert [type(output) for output in plane.outbound(packet, at(41))] == [Acquire]


def test_packets_are_counted(kit: SimpleNamespace) -> None:
    sa = kit.make_sa()
    alice, bob = kit.plane_with(sa), kit.plane_with(kit.received(sa))
    for _ in range(3):
        receive(kit, bob, send(kit, alice, kit.udp(kit.ALICE, kit.BOB)))
    name = SAName(sa.spi, sa.destination)
    for plane in (alice, bob):
        assert plane.install(Count(4, (name,)), kit.NOW) == [Counted(4, 3)]
        assert plane.install(Count(5, (SAName(sa.spi, kit.ALICE),)), kit.NOW) == [Counted(5, 0)]
    # To count is no change: what was learnt of flows stays.
    alice.outbound(kit.tcp(kit.ALICE, kit.BOB, 1, b""), kit.NOW)
    routes = dict(alice.routes)
    alice.install(Count(6, ()), kit.NOW)
    assert alice.routes == routes
    alice.install(DeleteSA(name), kit.NOW)
    assert alice.install(Count(7, (name,)), kit.NOW) == [Counted(7, 0)]


@pytest.mark.parametrize("soft", [True, False])
def test_a_soft_trap_lets_clear_in_and_a_soft_policy_for_one_host_does_not(kit: SimpleNamespace, soft: bool) -> None:
    bob, packet = kit.plane_with(), kit.udp(kit.ALICE, kit.BOB)
    one = kit.policy(kit.received(kit.make_sa()))
    trap = replace(one, selector=kit.everything(), priority=968, soft=soft)
    bob.install(InstallPolicy(1, trap), kit.NOW)
    assert bob.inbound_clear(packet) == ([Deliver(packet)] if soft else [])
    bob.install(InstallPolicy(2, replace(trap, mode=Mode.TUNNEL)), kit.NOW)
    assert bob.inbound_clear(packet) == []
    bob.install(InstallPolicy(3, trap), kit.NOW)
    bob.install(InstallPolicy(4, replace(one, soft=soft)), kit.NOW)
    assert bob.inbound_clear(packet) == []


def test_waiting_ends(kit: SimpleNamespace) -> None:
    plane = Plane(SeededEntropy(b""))
    plane.install(InstallPolicy(1, kit.policy(kit.make_sa())), kit.NOW)
    packet = kit.udp(kit.ALICE, kit.BOB)
    assert len(plane.outbound(packet, kit.NOW)) == 1
    assert plane.deadline() == kit.NOW.monotonic + 30
    assert plane.timeout(Now(plane.deadline(), 0)) == []
    assert plane.counters == {Cause.ACQUIRE: 1}
    assert [output.sequence for output in plane.outbound(packet, kit.NOW)] == [2]


def test_a_scan_raises_a_bounded_number_of_acquires(kit: SimpleNamespace) -> None:
    plane = Plane(SeededEntropy(b""))
    wide = replace(kit.policy(kit.make_sa()), selector=kit.everything())
    plane.install(InstallPolicy(1, wide), kit.NOW)
    scan = [kit.udp(kit.ALICE, kit.BOB + n) for n in range(400)]
    assert sum(len(plane.outbound(packet, kit.NOW)) for packet in scan) == 256
    assert sum(len(plane.outbound(packet, Now(1001.0, 0))) for packet in scan) == 144


def test_after_a_rekey_the_newest_sends_and_both_receive(kit: SimpleNamespace) -> None:
    old, new = kit.make_sa(), kit.make_sa(spi=0x2000, seed="new")
    alice, bob = kit.plane_with(old), kit.plane_with(kit.received(old), kit.received(new))
    packet = kit.udp(kit.ALICE, kit.BOB)
    first = send(kit, alice, packet)
    alice.install(InstallSA(9, new), kit.NOW)
    second = send(kit, alice, packet)
    assert (first[:4], second[:4]) == (b"\0\0\x10\0", b"\0\0\x20\0")
    assert receive(kit, bob, second) == receive(kit, bob, first) == [Deliver(packet)]
    alice.install(DeleteSA(SAName(0x2000, kit.BOB)), kit.NOW)
    assert send(kit, alice, packet)[:4] == b"\0\0\x10\0"
    bob.install(DeleteSA(SAName(0x1000, kit.BOB)), kit.NOW)
    assert receive(kit, bob, send(kit, alice, packet)) == []


# --- Replay (ATTACKS 58) --------------------------------------------------------------------------------------------


def test_replay(kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    sa = kit.make_sa()
    alice, bob = kit.plane_with(sa), kit.plane_with(kit.received(sa))
    packet = kit.udp(kit.ALICE, kit.BOB)
    data = send(kit, alice, packet)
    assert receive(kit, bob, data) == [Deliver(packet)]
    assert receive(kit, bob, data) == []
    for _ in range(1024):
        newest = send(kit, alice, packet)
    receive(kit, bob, newest)
    assert receive(kit, bob, data) == []
    assert bob.counters == {Cause.IN_SEQUENCE: 2}
    monkeypatch.setattr(ReplayWindow, "check", lambda *_: None)  # Control: without the window it is let in.
    assert receive(kit, bob, data) == [Deliver(packet)]


# --- Sequence numbers end (ATTACKS 59) ------------------------------------------------------------------------------


@pytest.mark.parametrize("esn", [False, True])
def test_the_sequence_number_never_cycles(kit: SimpleNamespace, esn: bool) -> None:
    sa = kit.make_sa(suite=replace(kit.GCM, esn=esn))
    plane, packet = kit.plane_with(sa), kit.udp(kit.ALICE, kit.BOB)
    state = plane._outbound[SAName(sa.spi, kit.BOB)]
    last = 2 ** (64 if esn else 32) - 1
    state.packets = last // 8 * 7
    soft, sent = plane.outbound(packet, kit.NOW)
    assert (soft, type(sent)) == (Expire(state.name, False), Transmit)
    state.packets = last - 1
    assert send(kit, plane, packet)[4:16] == b"\xff" * 4 + last.to_bytes(8, "big")
    hard, acquire = plane.outbound(packet, kit.NOW)
    assert (hard, type(acquire)) == (Expire(state.name, True), Acquire)
    assert plane.counters == {Cause.OUT_SEQUENCE: 1}
    # Control: the SA without its mark sends number 0 under the first nonce's successor.
    if not esn:
        frame = bytearray(state.transform.sealed_length(0))
        state.seal(memoryview(frame), 0, 59)
        assert frame[4:8] == bytes(4)


def test_extended_numbers_cross_the_boundary(kit: SimpleNamespace) -> None:
    sa = kit.make_sa(suite=replace(kit.GCM, esn=True))
    alice, bob = kit.plane_with(sa), kit.plane_with(kit.received(sa))
    alice._outbound[SAName(sa.spi, kit.BOB)].packets = 2**32 - 3
    bob._inbound[sa.spi].window.update(2**32 - 3)
    packet = kit.udp(kit.ALICE, kit.BOB)
    sent = [send(kit, alice, packet) for _ in range(5)]
    for data in (sent[3], sent[0], sent[4], sent[2], sent[1]):
        assert receive(kit, bob, data) == [Deliver(packet)]
    assert [receive(kit, bob, data) for data in sent] == [[]] * 5


# --- Nonces (ATTACKS 60) --------------------------------------------------------------------------------------------


def test_a_key_is_installed_once(kit: SimpleNamespace) -> None:
    sa = kit.make_sa()
    plane, packet = kit.plane_with(sa), kit.udp(kit.ALICE, kit.BOB)
    first = send(kit, plane, packet)
    again = [
        replace(sa, spi=0x2000), kit.received(sa), replace(sa, suite=replace(sa.suite, esn=True)),
    ]  # fmt: skip
    for other in again:
        assert plane.install(InstallSA(5, other), kit.NOW) == [Refused(5, "its key was used before")]
    plane.install(DeleteSA(SAName(sa.spi, kit.BOB)), kit.NOW)
    assert plane.install(InstallSA(5, sa), kit.NOW) == [Refused(5, "its key was used before")]
    # Control: a plane that forgets seals another packet under the same key and nonce.
    plane._keys.clear()
    plane.install(InstallSA(5, sa), kit.NOW)
    assert send(kit, plane, kit.udp(kit.ALICE, kit.BOB, b"another"))[4:16] == first[4:16]


def test_the_same_sa_again_moves_it_and_keeps_its_numbers(kit: SimpleNamespace) -> None:
    """How the Node follows a Mapping: new outer address, no new sequence."""
    sa = kit.make_sa()
    plane, packet = kit.plane_with(sa), kit.udp(kit.ALICE, kit.BOB)
    first = send(kit, plane, packet)
    moved = replace(sa, destination=kit.MALLORY)
    assert plane.install(InstallSA(5, moved), kit.NOW) == [Installed(5)]
    (output,) = plane.outbound(packet, kit.NOW)
    assert output.remote == kit.end(kit.MALLORY)
    assert (first[4:8], output.data[4:8]) == (b"\0\0\0\1", b"\0\0\0\2")
    assert plane.install(DeleteSA(SAName(sa.spi, kit.BOB)), kit.NOW) == []
    assert len(plane.outbound(packet, kit.NOW)) == 1


def test_refusals(kit: SimpleNamespace) -> None:
    sa = kit.make_sa()
    plane = kit.plane_with(kit.received(sa))
    for other, reason in (
        (kit.make_sa(spi=255, seed="a"), "reserved"),
        (replace(kit.make_sa(seed="b"), encapsulation=None), "UDP only"),
        (kit.received(kit.make_sa(seed="c")), "in use"),
        (replace(kit.make_sa(seed="d"), integ_key=sa.encr_key), "AEAD"),
    ):
        (refused,) = plane.install(InstallSA(5, other), kit.NOW)
        assert isinstance(refused, Refused)
        assert reason in refused.reason


# --- A peer's address (ATTACKS 61, 62) ------------------------------------------------------------------------------


def test_only_a_whole_new_packet_says_where_the_peer_is(kit: SimpleNamespace) -> None:
    sa = kit.make_sa()
    back = replace(kit.make_sa(kit.BOB, kit.ALICE, spi=0x3000, seed="back"))
    alice, bob = kit.plane_with(sa), kit.plane_with(kit.received(sa), back)
    packet, answer = kit.udp(kit.ALICE, kit.BOB), kit.udp(kit.BOB, kit.ALICE)
    elsewhere = kit.end(kit.MALLORY, 1234)
    old, data = send(kit, alice, packet), send(kit, alice, packet)
    receive(kit, bob, data)
    bent = send(kit, alice, packet)[:-1] + b"\0"
    assert bob.inbound(bent, kit.end(kit.BOB), elsewhere, kit.NOW) == []  # 61: wrong ICV.
    assert bob.inbound(data, kit.end(kit.BOB), elsewhere, kit.NOW) == []  # 62: right ICV, but replayed.
    # 62: right ICV and never seen, but overtaken: delivered, and no word of where it came from.
    assert bob.inbound(old, kit.end(kit.BOB), elsewhere, kit.NOW) == [Deliver(packet)]
    # Control: the newest says it, once; and still nothing is sent elsewhere before the Node says so.
    for expected in ([Mapping(SAName(sa.spi, kit.BOB), elsewhere)], []):
        new = send(kit, alice, packet)
        assert bob.inbound(new, kit.end(kit.BOB), elsewhere, kit.NOW) == [*expected, Deliver(packet)]
    (output,) = bob.outbound(answer, kit.NOW)
    assert output.remote == kit.end(kit.ALICE)


# --- Unknown SPIs (ATTACKS 63) --------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=80), max_size=20))
def test_any_octets_into_the_plane(kit: SimpleNamespace, datagrams: list[bytes]) -> None:
    """Counted, answered with nothing, remembered nowhere."""
    plane = kit.plane_with(kit.received(kit.make_sa()))
    before = (len(plane._inbound), plane.deadline(), len(plane.admitted), len(plane._keys))
    for data in datagrams:
        assert receive(kit, plane, data) == []
        assert receive(kit, plane, b"\0\0\x10\0" + data) == []
        assert [type(output) for output in plane.outbound(data, kit.NOW)] in ([], [Bypass])
        plane.inbound_clear(data)
    assert before == (len(plane._inbound), plane.deadline(), len(plane.admitted), len(plane._keys))
    assert set(plane.counters) <= set(Cause)


def test_unknown_spi_is_counted(kit: SimpleNamespace) -> None:
    plane = Plane(SeededEntropy(b""))
    for _ in range(1000):
        assert receive(kit, plane, b"\0\0\x99\x99" + bytes(60)) == []
    assert receive(kit, plane, b"\xff") == []  # A NAT keepalive (RFC 3948 s2.3) is nothing.
    assert plane.counters == {Cause.IN_NO_STATE: 1000}


# --- Inner addresses (ATTACKS 64) -----------------------------------------------------------------------------------


def test_an_inner_source_outside_the_selector(kit: SimpleNamespace) -> None:
    sa = kit.make_sa(mode=Mode.TUNNEL)
    # Alice's own plane is bent: it lets her send as Mallory.
    bent = kit.plane_with(replace(sa, selector=kit.everything()))
    packet = kit.udp(kit.MALLORY, kit.BOB)
    data = send(kit, bent, packet)
    bob = kit.plane_with(kit.received(sa))
    assert receive(kit, bob, data) == []
    assert bob.counters == {Cause.IN_MISMATCH: 1}
    # Control: an SA that was negotiated for all lets it in.
    control = kit.plane_with(replace(kit.received(sa), selector=kit.everything()))
    assert receive(kit, control, data) == [Deliver(packet)]


def test_a_wider_sa_does_not_pass_a_policy_of_another(kit: SimpleNamespace) -> None:
    """BTNS next to a named peer: the SA's selector alone would admit it, the policy's reqid does not."""
    sa = kit.make_sa(mode=Mode.TUNNEL, selector=kit.everything())
    alice, bob = kit.plane_with(sa), kit.plane_with(kit.received(sa))
    packet = kit.udp(kit.MALLORY, kit.BOB)
    assert receive(kit, bob, send(kit, alice, packet)) == [Deliver(packet)]
    named = replace(
        kit.policy(kit.received(sa)), selector=Selector.between(kit.BOB, kit.MALLORY), reqid=8, priority=1
    )  # fmt: skip
    bob.install(InstallPolicy(5, named), kit.NOW)
    assert receive(kit, bob, send(kit, alice, packet)) == []
    assert bob.counters == {Cause.IN_TEMPLATE: 1}


def test_clear_that_should_have_been_protected(kit: SimpleNamespace) -> None:
    """ATTACKS 65."""
    inbound = kit.received(kit.make_sa())
    bob, packet = kit.plane_with(inbound), kit.udp(kit.ALICE, kit.BOB)
    assert bob.inbound_clear(packet) == []
    bob.install(InstallPolicy(5, kit.policy(inbound, Action.BLOCK)), kit.NOW)
    assert bob.inbound_clear(packet) == []
    bob.install(InstallPolicy(5, kit.policy(inbound, Action.CLEAR)), kit.NOW)
    assert bob.inbound_clear(packet) == [Deliver(packet)]
    bob.install(DeletePolicy(inbound.selector, Direction.IN), kit.NOW)
    assert bob.inbound_clear(packet) == []
    assert bob.inbound_clear(b"\0") == []
    assert bob.counters == dict.fromkeys((Cause.IN_TEMPLATE, Cause.IN_BLOCK, Cause.IN_NO_POLICY, Cause.IN_HEADER), 1)


# --- Lifetimes ------------------------------------------------------------------------------------------------------


def test_lifetime_in_seconds(kit: SimpleNamespace) -> None:
    sa = kit.make_sa(lifetime=Lifetime(soft_seconds=10, hard_seconds=20))
    plane, name = kit.plane_with(sa), SAName(sa.spi, kit.BOB)
    assert plane.deadline() == 1010
    assert plane.timeout(Now(1009.9, 0)) == []
    assert plane.timeout(Now(1010, 0)) == [Expire(name, False)]
    assert plane.deadline() == 1020
    assert plane.timeout(Now(1020, 0)) == [Expire(name, True)]
    assert plane.deadline() == NEVER
    assert type(plane.outbound(kit.udp(kit.ALICE, kit.BOB), kit.NOW)[0]) is Acquire


@pytest.mark.parametrize(
    "lifetime", [Lifetime(soft_packets=2, hard_packets=4), Lifetime(soft_bytes=30, hard_bytes=60)], ids=str
)
def test_lifetime_in_packets_and_octets(kit: SimpleNamespace, lifetime: Lifetime) -> None:
    """Soft after the second, hard after the fourth, on both sides."""
    sa = kit.make_sa(lifetime=lifetime)
    alice, bob = kit.plane_with(sa), kit.plane_with(kit.received(sa))
    name, packet = SAName(sa.spi, kit.BOB), kit.udp(kit.ALICE, kit.BOB)
    sent = [alice.outbound(packet, kit.NOW) for _ in range(5)]
    assert [output for outputs in sent for output in outputs if type(output) is Expire] == [
        Expire(name, False), Expire(name, True),
    ]  # fmt: skip
    assert [type(outputs[-1]) for outputs in sent] == [Transmit] * 4 + [Acquire]
    control = kit.plane_with(replace(sa, lifetime=Lifetime()))
    datagrams = [send(kit, control, packet) for _ in range(5)]
    arrived = [receive(kit, bob, data) for data in datagrams]
    assert arrived == [
        [Deliver(packet)], [Deliver(packet)], [Expire(name, False), Deliver(packet)], [Deliver(packet)],
        [Expire(name, True)],
    ]  # fmt: skip
    assert alice.counters == {Cause.OUT_EXPIRED: 1}
    assert bob.counters == {Cause.IN_EXPIRED: 1}


# --- Shapes of packets ----------------------------------------------------------------------------------------------


def test_a_nat_is_mended(kit: SimpleNamespace) -> None:
    """RFC 3948 s3.1.2: Alice sums over her private address, Bob sees the NAT's."""
    private = kit.ALICE + 100
    sa = kit.make_sa(private)
    alice = kit.plane_with(sa)
    bob = kit.plane_with(kit.received(kit.make_sa(kit.ALICE, kit.BOB)))
    for make in (kit.udp, lambda *pair: kit.tcp(*pair, 1, b"odd")):
        data = send(kit, alice, make(private, kit.BOB))
        assert receive(kit, bob, data) == [Deliver(make(kit.ALICE, kit.BOB))]


def test_a_dummy_is_dropped_silently(kit: SimpleNamespace) -> None:
    sa = kit.make_sa()
    alice, bob = kit.plane_with(sa), kit.plane_with(kit.received(sa))
    assert receive(kit, bob, send(kit, alice, kit.ip(kit.ALICE, kit.BOB, 59, b""))) == []
    assert not bob.counters


def test_a_tunnel_takes_ip_only(kit: SimpleNamespace) -> None:
    tunnel = kit.make_sa(mode=Mode.TUNNEL)
    bent = kit.plane_with(replace(tunnel, mode=Mode.TRANSPORT))
    bob = kit.plane_with(kit.received(tunnel))
    assert receive(kit, bob, send(kit, bent, kit.udp(kit.ALICE, kit.BOB))) == []
    assert receive(kit, bob, send(kit, bent, kit.ip(kit.ALICE, kit.BOB, 4, b"\x45"))) == []
    assert bob.counters == {Cause.IN_MODE: 1, Cause.IN_HEADER: 1}


def test_ports_of_a_selector(kit: SimpleNamespace) -> None:
    selector = replace(Selector.between(kit.ALICE, kit.BOB), protocol=17, remote_port=7)
    sa = kit.make_sa(selector=selector)
    alice, bob = kit.plane_with(sa), kit.plane_with(kit.received(sa))
    packet = kit.udp(kit.ALICE, kit.BOB)
    assert receive(kit, bob, send(kit, alice, packet)) == [Deliver(packet)]
    assert alice.outbound(kit.udp(kit.ALICE, kit.BOB, ports=(5, 8)), kit.NOW) == []
    assert alice.counters == {Cause.OUT_NO_POLICY: 1}


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x45", b"\x46\0", b"\x60" + bytes(5) + b"\0", b"\x60"]))
def test_any_octets_in_a_tunnel(kit: SimpleNamespace, octets: bytes, start: bytes) -> None:
    """What an authenticated peer seals is as hostile as what a stranger sends."""
    sa = kit.make_sa(mode=Mode.TUNNEL, selector=kit.everything())
    plane = kit.plane_with(kit.received(sa))
    sender = kit.plane_with(sa)._outbound[SAName(sa.spi, kit.BOB)]
    inner = start + octets
    frame = bytearray(sender.transform.sealed_length(len(inner)))
    frame[16 : 16 + len(inner)] = inner
    sender.seal(memoryview(frame), len(inner), 4)
    for output in receive(kit, plane, bytes(frame)):
        assert isinstance(output, Deliver)
        assert inner.startswith(output.packet)
