"""The node's process and the memory's: what was remembered is heard before anything else, and changes are passed on."""

import io
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from hushwire.daemon import node
from hushwire.daemon.channel import Channel, ChannelClosed, pair
from hushwire.daemon.log import Log
from hushwire.daemon.node import Correspondents, Worker
from hushwire.events import AddressesChanged, Asked, Effect, Event, Forget, Recalled, Remember
from hushwire.lab.peer import eventually
from hushwire.node import Node
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import Known
from hushwire.timers import NEVER, Now

PATIENCE = 10.0
ADDRESSES = AddressesChanged((IPv4Address("192.0.2.1"),))
CHANGES = 500
"""That come of one step."""


def known(subject: str) -> Known:
    return Known(subject, bytes(32), 1.8e9, 1.8e9, 1, Assurance.ENCRYPTED)


@dataclass
class Mind:
    """In a Node's place: it meets who is asked for, and forgets who was met before that."""

    heard: list[Event] = field(default_factory=list)

    def deadline(self) -> float:
        return NEVER

    def step(self, now: Now, event: Event) -> list[Effect]:
        self.heard.append(event)
        if not isinstance(event, Asked):
            return []
        names = [f"{event.name}.{number}.example" for number in range(CHANGES)]
        return [*(Remember(known(name)) for name in names), Forget(names[0])]


@dataclass
class Process:
    """The node's process as a thread, with the others' ends."""

    mind: Mind
    parent: Channel
    resolver: Channel
    memory: Channel
    worker: Worker
    log: io.StringIO


@contextmanager
def running() -> Iterator[Process]:
    pairs = [pair() for _ in range(4)]
    ours = [Channel(near, timeout=PATIENCE) for near, _ in pairs]
    theirs = [Channel(far) for _, far in pairs]
    pairs[3][1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
    mind, stream = Mind(), io.StringIO()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        control.bind("")
        control.listen()
        others = Correspondents(theirs[0], theirs[1], theirs[2], None, (), control, theirs[3])
        worker = Worker(cast(Node, mind), others, 4500, Log("node", stream))

        def serve() -> None:
            with pytest.raises(ChannelClosed):
                worker.run()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Process(mind, ours[0], ours[2], ours[3], worker, stream)
        finally:
            for near, _ in pairs:
                near.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
            assert not thread.is_alive()
            for near, far in pairs:
                near.close()
                far.close()


def test_what_was_remembered_is_heard_before_anything_else() -> None:
    parts = [Recalled((known("a.example"),), False), Recalled((known("b.example"),), False), Recalled((), True)]
    with running() as process:
        process.parent.send(ADDRESSES)
        process.resolver.send(Asked(1, "c"))
        process.memory.send(parts[0], parts[1])
        assert not eventually(lambda: len(process.mind.heard) > 2, 0.3)
        process.memory.send(parts[2])
        assert eventually(lambda: len(process.mind.heard) == 5, PATIENCE)
        assert process.mind.heard == [*parts, ADDRESSES, Asked(1, "c")]


def test_a_change_is_passed_on_and_of_two_the_later() -> None:
    with running() as process:
        process.memory.send(Recalled((), True))
        process.parent.send(ADDRESSES)
        process.resolver.send(Asked(1, "a"))
        taken: list[Any] = []
        while len(taken) < CHANGES:
            taken += process.memory.wait()
        assert set(taken) == {
            Forget("a.0.example"), *(Remember(known(f"a.{number}.example")) for number in range(1, CHANGES))
        }  # fmt: skip


def test_what_a_stalled_memory_does_not_take_is_bounded_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "MOST_HELD", 2 * CHANGES)
    rounds = 50
    with running() as process:
        process.memory.send(Recalled((), True))
        process.parent.send(ADDRESSES)
        for number in range(rounds):
            process.resolver.send(Asked(number, f"{number}{'x' * 60}"))
        # It serves all the others as ever.
        assert eventually(lambda: len(process.mind.heard) == 2 + rounds, PATIENCE)
        assert len(process.worker._for_memory) <= 2 * CHANGES
        assert "! memory.behind lost=" in process.log.getvalue()
        # When it takes some again, what was held goes on its way.
        taken: list[Any] = []
        while process.worker._for_memory or process.memory.unsent or not taken:
            taken += process.memory.wait()
        assert all(isinstance(each, Remember | Forget) for each in taken)
