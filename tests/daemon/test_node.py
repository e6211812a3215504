"""The node's process: what it has to say waits for nobody, in its order, and nothing that must not be lost is."""

import io
import itertools
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, cast

import pytest

from hushwire.daemon import node
from hushwire.daemon.channel import Channel, ChannelClosed, pair
from hushwire.daemon.log import MOST_OF_A_KIND, Log
from hushwire.daemon.node import Correspondents, Worker
from hushwire.events import (
    AddressesChanged,
    Asked,
    CloseFlows,
    Datagram,
    DeletePolicy,
    DeleteSA,
    Effect,
    Event,
    FlowsFound,
    Lookup,
    Notice,
    Release,
    Send,
    Status,
    Verdict,
)  # fmt: skip
from hushwire.lab.peer import eventually
from hushwire.linux.sockets import Received, UdpSocket
from hushwire.node import Node
from hushwire.policy.sad import Direction, SAName
from hushwire.policy.selector import Selector
from hushwire.timers import NEVER, Now
from hushwire.wire.address import Endpoint

ALICE, BOB = ip_address("192.0.2.1"), ip_address("192.0.2.2")
BETWEEN = Selector.between(ALICE, BOB)
LOOKUPS = 4
"""Questions about each name."""
NAMES = 600
"""That programs ask for at once."""
LINGER = 0.3
"""Seconds for which an SA that was replaced stays."""
PATIENCE = 1.0
"""Seconds until a process that waits for room gives up, where all wait for each other."""


class Mind:
    """A stand-in for a Node: for each Asked a request to the parent, and then what the resolver is to hear."""

    def __init__(self) -> None:
        self.heard = 0

    def deadline(self) -> float:
        return NEVER

    def step(self, now: Now, event: Event) -> list[Effect]:
        match event:
            case Asked(number, name):
                self.heard += 1
                lookups = [Lookup(number * LOOKUPS + each, name, 1) for each in range(LOOKUPS)]
                return [*lookups, DeletePolicy(BETWEEN, Direction.OUT), Release(number, Verdict.PASS)]
            case Status(number):
                return [DeleteSA(SAName(number, ALICE), LINGER), DeleteSA(SAName(number, BOB))]
            case FlowsFound(number):
                return [CloseFlows(number, (BETWEEN.remote,))]
            case Datagram(local, remote, data):
                # As the Node does: what is no message is a line, and some of it has an answer.
                return [Notice("ike.malformed")] if len(data) < 2 else [Send(local, remote, data)]
        return []


@dataclass
class Process:
    """The node's process as a thread, with its correspondents' ends."""

    mind: Mind
    parent: Channel
    resolver: Channel
    worker: Worker
    log: io.StringIO
    ended: list[BaseException] = field(default_factory=list)


@contextmanager
def running(
    *sockets: UdpSocket, log: Callable[[io.StringIO], Log] = lambda stream: Log("node", stream)
) -> Iterator[Process]:
    """Buffers hold few packets.  All waiting for room is bounded by PATIENCE."""
    pairs = [pair() for _ in range(3)]
    ours = [Channel(near, timeout=PATIENCE) for near, _ in pairs]
    theirs = [Channel(far) for _, far in pairs]
    for near, far in pairs:
        for sock in (near, far):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
    mind, stream = Mind(), io.StringIO()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.bind("")
        control.listen()
        others = Correspondents(theirs[0], theirs[1], theirs[2], None, sockets, control)
        worker = Worker(cast(Node, mind), others, 4500, log(stream))
        process = Process(mind, ours[0], ours[2], worker, stream)

        def serve() -> None:
            try:
                worker.run()
            except ChannelClosed as closed:
                process.ended.append(closed)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            process.parent.send(AddressesChanged((ALICE,)))
            yield process
        finally:
            for near, _ in pairs:
                near.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            assert not thread.is_alive()
            for near, far in pairs:
                near.close()
                far.close()


def take(channel: Channel, count: int, patience: float = 2) -> list[Any]:
    """So many values; fewer if nothing comes for so many seconds."""
    taken: list[Any] = []
    while len(taken) < count and select.select([channel], [], [], patience)[0]:
        taken += channel.receive()
    return taken


def flood(process: Process, each: int = NAMES) -> None:
    """Names, without hearing what the node has to say about them."""
    for number in range(each):
        process.resolver.send(Asked(number, f"{'n' * 60}{number}.example"))


def blocking(channel: Channel, *values: object) -> None:
    """What post() is not."""
    channel._put(values)
    channel._sock.settimeout(PATIENCE)
    channel._push(0)


@pytest.mark.parametrize("guard", ["in", "out"])
def test_it_waits_for_nobody(monkeypatch: pytest.MonkeyPatch, guard: str) -> None:
    """Neither parent nor resolver hears what it says, and both go on talking.  The control: if it waits, all do."""
    if guard == "out":
        monkeypatch.setattr(Channel, "post", blocking)
    with running() as it:
        if guard == "out":
            with pytest.raises(ChannelClosed):
                flood(it, 100 * NAMES)
            return
        flood(it)
        assert eventually(lambda: it.mind.heard == NAMES)
        assert it.worker._others.parent.unsent > 0
        assert select.select([it.resolver], [], [], 0)[0]
        requests = take(it.parent, NAMES)
        assert len(requests) == NAMES
        told = take(it.resolver, NAMES * (LOOKUPS + 1))
        assert [each.request for each in told if isinstance(each, Lookup)] == list(range(NAMES * LOOKUPS))
        assert [each.request for each in told if isinstance(each, Release)] == list(range(NAMES))
        assert not it.ended


@pytest.mark.parametrize("guard", ["in", "out"])
def test_what_packets_will_meet_comes_first(monkeypatch: pytest.MonkeyPatch, guard: str) -> None:
    """No Release is out while the parent has not got all that was asked of it before.  The control: told at once."""
    if guard == "out":
        monkeypatch.setattr(Worker, "_tell_resolver", tell_at_once)
    with running() as it:
        flood(it)
        assert eventually(lambda: it.mind.heard == NAMES)
        told = take(it.resolver, NAMES * (LOOKUPS + 1), 0.2)
        released = len([each for each in told if isinstance(each, Release)])
        # A name's request is a packet.
        asked_for = NAMES - len(it.worker._others.parent._packets)
        assert 0 < asked_for < NAMES
        assert released <= asked_for if guard == "in" else released == NAMES


def tell_at_once(worker: Worker, now: float) -> None:
    worker._post(worker._others.resolver, *worker._for_resolver)
    worker._for_resolver.clear()


def test_of_what_the_resolver_does_not_hear_the_newest_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never what the parent is asked for: while he takes nothing, no new work is begun."""
    monkeypatch.setattr(node, "MOST_HELD", 100)
    monkeypatch.setattr(node, "MOST_UNSENT", 4000)
    with running() as it:
        with pytest.raises(ChannelClosed):
            flood(it, 100 * NAMES)
        heard = it.mind.heard
        assert it.worker._others.parent.unsent < 4000 + 1000
        assert len(it.worker._for_resolver) == 100
        assert "resolver.behind lost=" in it.log.getvalue()
        # Who has left off goes on when there is room.
        assert len(take(it.parent, heard)) >= heard
        told = take(it.resolver, 1)
        assert told[0] == Lookup(0, f"{'n' * 60}0.example", 1)


class Unsendable:
    """A socket of port 500 with a stranger's datagrams: every second one, from port 0, cannot be answered."""

    version, port = 4, 500

    def __init__(self, count: int) -> None:
        self._near, self._far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._data = itertools.cycle((b"major version 3", b"x"))
        self.left = count
        self._far.send(b"!")

    def fileno(self) -> int:
        return self._near.fileno()

    def receive(self) -> Received | None:
        self.left -= 1
        if not self.left:
            self._near.recv(1)
        return Received(Endpoint(ALICE, 500), Endpoint(BOB, 0), next(self._data))

    def send(self, *_: object) -> None:
        raise OSError(22, "Invalid argument")

    def close(self) -> None:
        self._near.close()
        self._far.close()


class WithoutTime(Log):
    """The control: told of no time where a datagram was not sent, and each other time is a new second."""

    def notice(self, notice: Notice, now: float) -> None:
        now = 0.0 if notice.kind == "udp.not-sent" else now
        self._second = -1 if int(now) < self._second else self._second
        super().notice(notice, now)


@pytest.mark.parametrize("guard", ["in", "out"])
def test_a_stranger_does_not_fill_the_log(guard: str) -> None:
    """Row 28."""
    sock = Unsendable(1000)
    with running(
        cast(UdpSocket, sock), log=lambda stream: Log("node", stream) if guard == "in" else WithoutTime("node", stream)
    ) as it:
        assert eventually(lambda: sock.left <= 0)
        seconds = 1 + len(it.log.getvalue().split("more in one second"))
    lines = len(it.log.getvalue().splitlines())
    assert lines <= seconds * 2 * (MOST_OF_A_KIND + 1) if guard == "in" else lines >= 1000
    sock.close()


def test_what_was_replaced_goes_later() -> None:
    with running() as it:
        it.parent.send(Status(1))
        it.parent.send(Status(2))
        gone = [DeleteSA(SAName(number, BOB)) for number in (1, 2)]
        late = [DeleteSA(SAName(number, ALICE)) for number in (1, 2)]
        assert take(it.parent, 2, LINGER / 3) == gone
        assert take(it.parent, 2) == late


def test_what_was_replaced_is_gone_before_flows_are_closed() -> None:
    """Nothing of who was there before is to reach what begins after it (RFC 5660)."""
    with running() as it:
        it.parent.send(Status(1), FlowsFound(2, 0))
        assert take(it.parent, 3) == [
            DeleteSA(SAName(1, BOB)), DeleteSA(SAName(1, ALICE)), CloseFlows(2, (BETWEEN.remote,)),
        ]  # fmt: skip
