"""The channel carries every value of the vocabularies unharmed, and nothing else."""

import os
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
