"""The channel carries every value of the vocabularies unharmed, and nothing else."""

import os
import select
import socket
import threading
from contextlib import closing
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import msgspec
import pytest

from hushwire import events
from hushwire.crypto.secret import Secret
from hushwire.daemon import channel
from hushwire.policy.sad import SA, Direction, Encapsulation, EspSuite, Lifetime, Mode, SAName
from hushwire.policy.selector import Flow, Selector
from hushwire.policy.spd import Action, Policy
from hushwire.wire.address import Endpoint
from hushwire.wire.registry import EncrID, IntegID

ALICE, BOB = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::2")
SA_OUT = SA(
    spi=0x1234_5678, direction=Direction.OUT, source=ALICE, destination=IPv4Address("192.0.2.2"), mode=Mode.TRANSPORT,
    suite=EspSuite(EncrID(20), 256, IntegID(1024), True), encr_key=Secret(b"k" * 36), integ_key=Secret(b""),
    selector=Selector.between(ALICE, IPv4Address("192.0.2.2")), reqid=7, lifetime=Lifetime(soft_seconds=3600),
    encapsulation=Encapsulation(4500, 4500),
)  # fmt: skip
VALUES = [
    events.Timeout(),
    events.Datagram(Endpoint(ALICE, 500), Endpoint(BOB, 4500), b"\0\xff" * 700),
    events.Acquire(Flow(ALICE, BOB, 6, 1, 2), 7, 9),
    events.Mapping(SAName(300, ALICE), Endpoint(ALICE, 1)),
    events.Answered(1, "bob.example", 45, events.Outcome.SECURE, (b"\1", b"\2"), 60),
    events.InstallSA(3, SA_OUT),
    events.InstallPolicy(4, Policy(SA_OUT.selector, Direction.IN, Action.BLOCK, 10, tunnel=(ALICE, ALICE))),
    events.Notice("ike.established", (("peer", "bob.example"), ("rtt", 0.5), ("children", 1))),
    events.Reply(5, True, "done", '[{"a": [1, null]}]'),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_round_trip(value: object) -> None:
    near, far = channel.pair()
    with near, far:
        channel.Channel(near).send(value, value)
        assert channel.Channel(far).receive() == [value, value]
        assert channel.Channel(far).receive() == []


def test_a_closed_end_is_said() -> None:
    near, far = channel.pair()
    with far:
        near.close()
        with pytest.raises(channel.ChannelClosed):
            channel.Channel(far).receive()


@pytest.mark.parametrize(
    "packet",
    [
        b"", b"\xc1", b"\x91",
        msgspec.msgpack.encode([("Acquire", {"flow": 1})]),
        msgspec.msgpack.encode([("os.system", {})]),
        msgspec.msgpack.encode([("Datagram", {"local": {"address": b"123", "port": 1}, "remote": {}, "data": b""})]),
        msgspec.msgpack.encode([("Status", {"request": "1"})]),
    ],
)  # fmt: skip
def test_what_does_not_fit_raises(packet: bytes) -> None:
    with pytest.raises(channel.ChannelError):
        channel.decode(packet, channel.EVENTS)


def test_a_vocabulary_is_closed() -> None:
    packet = channel.encode([events.Timeout()])
    assert channel.decode(packet, channel.EVENTS) == [events.Timeout()]
    with pytest.raises(channel.ChannelError, match="Timeout"):
        channel.decode(packet, channel.EFFECTS)


def test_a_long_list_is_split_into_packets() -> None:
    near, far = channel.pair()
    datagram = VALUES[1]
    with near, far:
        channel.Channel(near).send(*[datagram] * 150)
        received = []
        while batch := channel.Channel(far).receive():
            received += batch
        assert received == [datagram] * 150


def test_a_descriptor_goes_with_a_value(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"what only one of the two may open")
    near, far = channel.pair()
    with near, far, (tmp_path / "file").open("rb") as opened:
        channel.Channel(near).send_file(events.ReadKey(3), opened.fileno())
        values, (descriptor,) = channel.Channel(far).receive_files()
        assert values == [events.ReadKey(3)]
        with open(descriptor, "rb") as received:
            assert received.read() == b"what only one of the two may open"


def test_descriptors_of_what_is_no_value_are_closed(tmp_path: Path) -> None:
    near, far = channel.pair()
    with near, far, (tmp_path / "file").open("wb") as opened:
        for _ in range(3):
            before = len(os.listdir("/proc/self/fd"))
            channel.Channel(near).send_file(events.ReadKey(3), opened.fileno())
            with pytest.raises(channel.ChannelError):
                channel.Channel(far, {}).receive_files()
            assert len(os.listdir("/proc/self/fd")) == before


def test_who_takes_no_descriptors_is_as_good_as_gone(tmp_path: Path) -> None:
    near, far = channel.pair()
    with near, far, (tmp_path / "file").open("wb") as opened:
        end = channel.Channel(near, timeout=0.05)

        def fill() -> None:
            for number in range(100_000):
                end.send_file(events.ReadKey(number), opened.fileno())

        with pytest.raises(channel.ChannelClosed):
            fill()


# --- Two that talk to each other at once ----------------------------------------------------------------------------

ROUNDS, ANSWERS = 400, 4
"""What one end says without being asked, and what the other answers to each."""
PATIENCE = 1.0
"""Seconds until an end that waits for room gives up, where the two wait for each other."""


def ends(timeout: float | None) -> tuple[channel.Channel, channel.Channel]:
    """Both of a channel whose buffers hold few packets; the second is the one whose `timeout` it is."""
    pair = channel.pair()
    near, far = channel.Channel(pair[0], timeout=PATIENCE), channel.Channel(pair[1], timeout=timeout)
    for sock in pair:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return near, far


class Asker(threading.Thread):
    """Like the resolver: it sends without looking, waits for room, and reads one packet a turn."""

    def __init__(self, end: channel.Channel) -> None:
        super().__init__()
        self._end = end
        self.heard: list[int] = []
        self.stuck = False

    def run(self) -> None:
        try:
            for number in range(ROUNDS):
                self._end.send(events.Asked(number, "alice.example"))
                if not number % 32 and select.select([self._end], [], [], 0)[0]:
                    self._hear()
            while len(self.heard) < ROUNDS * ANSWERS and select.select([self._end], [], [], 5)[0]:
                self._hear()
        except channel.ChannelClosed:
            self.stuck = True

    def _hear(self) -> None:
        self.heard += [lookup.request for lookup in self._end.receive()]


def answer_all(end: channel.Channel, *, post: bool) -> None:
    """Like the node: each of four answers in a packet of its own.  Raises ChannelClosed where it waited too long."""
    say = end.post if post else end.send
    heard = 0
    while heard < ROUNDS or end.unsent:
        ready = select.select([end], [end] if end.unsent else [], [], 5)
        assert ready[0] or ready[1]
        end.post()
        for asked in end.receive():
            heard += 1
            for number in range(ANSWERS):
                say(events.Lookup(asked.request * ANSWERS + number, asked.name, 1))


def test_who_posts_waits_for_nobody() -> None:
    """All of it arrives, and in order, though neither reads as fast as the other sends."""
    near, far = ends(None)
    asker = Asker(near)
    with closing(near), closing(far):
        asker.start()
        answer_all(far, post=True)
        asker.join(10)
        assert not asker.is_alive()
        assert asker.heard == list(range(ROUNDS * ANSWERS))
        assert far.unsent == 0


def test_control_two_who_wait_for_room_wait_for_ever() -> None:
    near, far = ends(PATIENCE)
    asker = Asker(near)
    with closing(near), closing(far):
        asker.start()
        with pytest.raises(channel.ChannelClosed):
            answer_all(far, post=False)
        asker.join(10)
        assert asker.stuck
        assert len(asker.heard) < ROUNDS * ANSWERS


def test_what_waits_for_room_is_told_of_a_closed_end() -> None:
    near, far = ends(None)
    with closing(far):
        while not far.unsent:
            far.post(VALUES[1])
        near.close()
        with pytest.raises(channel.ChannelClosed):
            far.post()
