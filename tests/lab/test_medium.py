"""The wire without I/O: what arrives where and when, and what is reported."""

from collections.abc import Iterable
from random import Random

import pytest

from hushwire.lab.frame import Frame, Kind
from hushwire.lab.medium import MAX_CANARIES, MAX_DELAYED, Delivery, Medium, Rule, Script

ALICE, BOB, DNS = bytes((2, 0, 0, 0, 0, 1)), bytes((2, 0, 0, 0, 0, 2)), bytes((2, 0, 0, 0, 0, 53))
CANARY = b"one of a kind"


def other(destination: bytes, source: bytes, text: bytes = b"") -> bytes:
    return destination + source + b"\x88\xb5" + text


class Wire:
    """A medium whose hosts have spoken once, so that it knows them."""

    def __init__(self, seed: int = 0, script: Script | None = None) -> None:
        self.medium = Medium(("alice", "bob", "dns"), seed, script)
        self.number = 0
        for host, mac in (("alice", ALICE), ("bob", BOB), ("dns", DNS)):
            self.medium._at[mac] = host

    def send(self, text: bytes, now: float = 0.0, offload: bytes = b"") -> None:
        self.number += 1
        self.medium.enter(other(BOB, ALICE, text), "alice", now, self.number, offload)

    def arrived(self, now: float = 0.0) -> list[bytes]:
        return [octets[14:] for host, octets, _ in self.medium.due(now) if host == "bob"]


def test_frames_go_to_whom_they_are_for_once_he_has_spoken() -> None:
    medium = Medium(("alice", "bob", "dns"))
    medium.enter(other(BOB, ALICE), "alice", 0.0, 1)
    assert [host for host, _, _ in medium.due(0.0)] == ["bob", "dns"]
    medium.enter(other(ALICE, BOB), "bob", 0.0, 2)
    assert [host for host, _, _ in medium.due(0.0)] == ["alice"]
    medium.enter(other(BOB, ALICE), "alice", 0.0, 3)
    assert [host for host, _, _ in medium.due(0.0)] == ["bob"]
    medium.enter(other(bytes(6), ALICE), "alice", 0.0, 4)
    assert [host for host, _, _ in medium.due(0.0)] == ["bob", "dns"]


def test_canaries_and_clear_packets_are_told() -> None:
    wire = Wire()
    wire.medium.watch(CANARY)
    wire.send(b"nothing")
    wire.send(b"it is " + CANARY)
    wire.medium.enter(other(BOB, ALICE)[:12] + b"\x08\x00E" + CANARY, "alice", 0.0, 3)
    report = wire.medium.report()
    assert report.seen(CANARY) == 2
    assert [(one.number, one.kind) for one in report.sightings] == [(2, Kind.OTHER), (3, Kind.CLEAR)]
    assert [one.number for one in report.clear] == [3]
    assert (report.frames, report.count(Kind.OTHER), report.count(Kind.CLEAR, "alice")) == (3, 2, 1)
    assert report.count(Kind.CLEAR, "bob") == 0
    assert str(report) == "3 frames (1 clear, 2 other); 2 held a canary"


def test_canaries_are_bounded_and_not_empty() -> None:
    medium = Medium(("alice", "bob"))
    with pytest.raises(ValueError, match="everywhere"):
        medium.watch(b"")
    for number in range(MAX_CANARIES):
        medium.watch(b"%d" % number)
    with pytest.raises(ValueError, match="more than"):
        medium.watch(b"one more")


def test_rules_take_the_frames_they_are_for() -> None:
    wire = Wire()
    wire.medium.add_rule(Rule(source="bob", drop=True))
    wire.medium.add_rule(Rule(kind=Kind.ESP, drop=True))
    wire.medium.add_rule(Rule(response=False, drop=True))
    wire.medium.add_rule(Rule(exchange=35, drop=True))
    wire.medium.add_rule(Rule(skip=1, times=2, drop=True))
    for text in (b"1", b"2", b"3", b"4"):
        wire.send(text)
    assert wire.arrived() == [b"1", b"4"]
    assert wire.medium.report().dropped == 2
    wire.medium.clear_rules()
    wire.send(b"5")
    assert wire.arrived() == [b"5"]


def test_delay_copies_and_changes() -> None:
    wire = Wire()
    wire.medium.add_rule(Rule(times=1, delay=1.0))
    wire.medium.add_rule(Rule(times=1, copies=2))
    wire.medium.add_rule(Rule(replace=(b"old", b"new")))
    for text in (b"late", b"twice", b"an old one"):
        wire.send(text)
    assert wire.medium.deadline() == 0.0
    assert wire.arrived() == [b"twice", b"twice", b"an old one"[:3] + b"new one"]
    assert wire.medium.deadline() == 1.0
    assert wire.arrived(0.9) == []
    assert wire.arrived(1.0) == [b"late"]
    assert wire.medium.deadline() is None
    assert wire.medium.report().changed == 1


def test_jitter_reorders_as_its_seed_says() -> None:
    def order(seed: int) -> list[bytes]:
        wire = Wire(seed)
        wire.medium.add_rule(Rule(chance=0.5, jitter=1.0))
        for number in range(20):
            wire.send(b"%02d" % number, now=number / 100)
        return wire.arrived(10.0)

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == [b"%02d" % number for number in range(20)] != order(1)


def test_a_script_comes_before_the_rules() -> None:
    def script(frame: Frame, dice: Random) -> Iterable[Delivery] | None:
        if frame.octets.endswith(b"back"):
            return [Delivery(frame.octets, to="alice")]
        return [] if frame.octets.endswith(b"away") else None

    wire = Wire(script=script)
    wire.medium.add_rule(Rule(copies=2))
    for text in (b"send it back", b"go away", b"stay"):
        wire.send(text)
    arrived = [(host, octets[14:]) for host, octets, _ in wire.medium.due(0.0)]
    assert arrived == [("alice", b"send it back"), ("bob", b"stay"), ("bob", b"stay")]


def test_notes_on_offloads_stay_with_a_frame_that_is_not_changed() -> None:
    wire = Wire()
    wire.medium.add_rule(Rule(skip=1, replace=(b"old", b"new")))
    wire.send(b"old", offload=b"unsummed")
    wire.send(b"old", offload=b"unsummed")
    assert [offload for _, _, offload in wire.medium.due(0.0)] == [b"unsummed", b""]


def test_what_is_on_its_way_is_bounded() -> None:
    wire = Wire()
    wire.medium.add_rule(Rule(delay=1.0, copies=MAX_DELAYED + 3))
    wire.send(b"flood")
    assert wire.medium.report().lost == 3
    assert len(wire.arrived(1.0)) == MAX_DELAYED
