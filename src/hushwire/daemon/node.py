"""The node's process: a Node between UDP, the keeper, the resolver, the memory, the parent and the control socket.

It parses what strangers send, so it holds nothing: no capability, no key, no file.  It never waits for a process to
take what it has to say: all the others may wait for it (`channel.Channel`).
"""

import itertools
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from hushwire.daemon.channel import Channel, ChannelClosed
from hushwire.daemon.control import Control
from hushwire.daemon.log import Log
from hushwire.daemon.questions import Questions
from hushwire.events import (
    CloseFlows,
    Count,
    CountFlows,
    Datagram,
    DeletePolicy,
    DeleteSA,
    Effect,
    Event,
    Forget,
    InstallPolicy,
    InstallSA,
    Lookup,
    Notice,
    ReadKey,
    ReadTrusted,
    Recalled,
    Release,
    Remember,
    Reply,
    Send,
    Sign,
    Timeout,
)  # fmt: skip
from hushwire.linux.sockets import UdpSocket
from hushwire.node import Node
from hushwire.timers import NEVER, Now
from hushwire.wire.address import Endpoint
from hushwire.wire.udp import KEEPALIVE, NON_ESP_MARKER

COMMANDS_FROM = 1 << 62
"""Numbers of commands begin here, out of the way of the Node's own."""
MOST_UNSENT = 1 << 20
"""Octets of requests that the parent has not taken.  Then no new work is begun until it takes some; none is lost."""
MOST_HELD = 4096
"""Subjects that the memory has not taken; one more is lost, and for it a restart goes back to what was.  And
questions and Releases that the resolver has not taken.  One more is lost, as if it did not answer: the Node asks
again, and a program that hears no Release is told SERVFAIL."""


@dataclass(frozen=True, slots=True)
class Correspondents:
    """Who the node talks to."""

    parent: Channel
    keeper: Channel
    resolver: Channel
    plane: Channel | None
    """The userspace plane's news; the kernel's come by the parent."""
    sockets: Sequence[UdpSocket]
    """Of ports 500 and 4500, IPv4 and IPv6."""
    control: socket.socket
    memory: Channel | None = None
    """None: nothing is remembered over a restart."""
    questions: Questions | None = None
    """Of programs; None: nobody may ask."""


def main(node: Node, others: Correspondents, nat_port: int, log: Log, confine: Callable[[], None]) -> None:
    """Run until a correspondent is gone."""
    worker = Worker(node, others, nat_port, log)
    confine()
    try:
        worker.run()
    except ChannelClosed:
        return


class Worker:
    """One Node and its descriptors."""

    def __init__(self, node: Node, others: Correspondents, nat_port: int, log: Log) -> None:
        self._node = node
        self._others = others
        self._nat_port = nat_port
        self._log = log
        self._control = Control(others.control, itertools.count(COMMANDS_FROM))
        self._by_way = {(sock.version, sock.port): sock for sock in others.sockets}
        self._for_resolver: list[Lookup | Release] = []
        self._for_memory: dict[str, Remember | Forget] = {}
        """By subject, the latest."""
        self._lingering: deque[tuple[float, DeleteSA]] = deque()
        """SAs to be deleted, and when: the soonest first, since all linger for as long."""
        self._poll = select.epoll()
        self._settling = select.epoll()
        """The part of it that brings no new work, but what comes of the old."""
        self._ready: dict[int, Callable[[], None]] = {}
        """By descriptor, what to do when it can be read."""

    def run(self) -> None:
        """Serve; raises ChannelClosed."""
        others = self._others
        for sock in others.sockets:
            self._watch(self._poll, sock.fileno(), partial(self._from_udp, sock))
        for channel in (others.parent, others.keeper, others.resolver, others.plane, others.memory):
            if channel is not None:
                self._watch(self._home(channel), channel.fileno(), partial(self._from_channel, channel))
        self._watch(self._poll, others.control.fileno(), self._from_control)
        if others.questions is not None:
            self._watch(self._poll, others.questions.fileno(), partial(self._from_programs, others.questions))
        self._watch(self._poll, self._settling.fileno(), partial(self._serve, self._settling, 0))
        # Until we know whom we know, everybody would be a stranger.
        while others.memory is not None and not self._recall(others.memory):
            pass
        # The parent's first word is this host's addresses: without them a command would be answered too soon.
        self._step(others.parent.wait())
        while True:
            deadline = self._node.deadline()
            soonest = min(deadline, self._lingering[0][0]) if self._lingering else deadline
            wait = None if soonest == NEVER else max(0.0, soonest - time.monotonic())
            self._serve(self._settling if others.parent.unsent > MOST_UNSENT else self._poll, wait)
            now = time.monotonic()
            if over := self._lingered(now):
                self._post(others.parent, *over)
            if deadline <= now:
                self._step([Timeout()])

    def _lingered(self, now: float) -> list[DeleteSA]:
        """The SAs whose time has come."""
        over = []
        while self._lingering and self._lingering[0][0] <= now:
            over.append(self._lingering.popleft()[1])
        return over

    def _recall(self, memory: Channel) -> bool:
        """Hear the next part of what was remembered; whether that was the last."""
        events = memory.wait()
        self._step(events)
        return any(isinstance(event, Recalled) and event.complete for event in events)

    def _serve(self, poll: select.epoll, wait: float | None) -> None:
        for descriptor, _ in poll.poll(wait):
            self._ready[descriptor]()

    def _watch(self, poll: select.epoll, descriptor: int, action: Callable[[], None]) -> None:
        self._ready[descriptor] = action
        poll.register(descriptor, select.EPOLLIN)

    def _home(self, channel: Channel) -> select.epoll:
        return self._poll if channel is self._others.resolver else self._settling

    def _unwatch(self, connection: socket.socket) -> None:
        self._poll.unregister(connection)
        del self._ready[connection.fileno()]

    def _from_udp(self, sock: UdpSocket) -> None:
        # One at a time: to ask whether there is another costs as much as to be told of it by the poll.
        received = sock.receive()
        if received is None:
            return
        data = received.data
        if sock.port == self._nat_port:
            # RFC 3948 s2.2: what has no marker is ESP or a keepalive, and not for us.
            if not data.startswith(NON_ESP_MARKER):
                return
            data = data[len(NON_ESP_MARKER) :]
        self._step([Datagram(received.local, received.remote, data)])

    def _from_channel(self, channel: Channel) -> None:
        # There is something to read, or room.
        self._post(channel)
        self._step(channel.receive())

    def _from_control(self) -> None:
        def watch(connection: socket.socket) -> None:
            self._watch(self._poll, connection.fileno(), partial(self._from_client, connection.fileno()))

        self._control.accept(watch)

    def _from_client(self, descriptor: int) -> None:
        command = self._control.read(descriptor, self._unwatch)
        if command is not None:
            self._step([command])

    def _from_programs(self, questions: Questions) -> None:
        if (question := questions.serve()) is not None:
            self._step([question])

    def _step(self, events: Sequence[Event]) -> None:
        """Step the Node with each, and perform the effects in order; those for one process go in one packet."""
        now = Now(time.monotonic(), time.time())
        effects: list[Effect] = []
        for event in events:
            effects += self._node.step(now, event)
        for_parent: list[Effect] = []
        for effect in effects:
            match effect:
                case Send(local, remote, data):
                    # What is said may rest on what was installed: in order, the parent first.
                    self._post(self._others.parent, *for_parent)
                    for_parent.clear()
                    self._send(local, remote, data, now.monotonic)
                case DeleteSA(name, linger) if linger:
                    self._lingering.append((now.monotonic + linger, DeleteSA(name)))
                case InstallSA() | DeleteSA() | InstallPolicy() | DeletePolicy() | Count() | ReadKey() | ReadTrusted():
                    for_parent.append(effect)
                case CloseFlows():
                    # Nothing of who was there before is to come after it.
                    for_parent += [*self._lingered(NEVER), effect]
                case CountFlows():
                    for_parent.append(effect)
                case Sign():
                    self._post(self._others.keeper, effect)
                case Lookup() | Release():
                    self._for_resolver.append(effect)
                case Remember(known):
                    self._for_memory[known.subject] = effect
                case Forget(subject):
                    self._for_memory[subject] = effect
                case Notice():
                    self._log.notice(effect, now.monotonic)
                case Reply():
                    self._control.reply(effect)
                    if self._others.questions is not None:
                        self._others.questions.reply(effect)
        self._post(self._others.parent, *for_parent)
        self._tell_resolver(now.monotonic)
        if self._for_memory:
            self._tell_memory(now.monotonic)

    def _tell_resolver(self, now: float) -> None:
        """A program may send at once: what its packets will meet comes first, so all of that is with the parent."""
        if not self._others.parent.unsent and not self._others.resolver.unsent:
            self._post(self._others.resolver, *self._for_resolver)
            self._for_resolver.clear()
        elif lost := self._for_resolver[MOST_HELD:]:
            del self._for_resolver[MOST_HELD:]
            self._log.notice(Notice("resolver.behind", (("lost", len(lost)),)), now)

    def _tell_memory(self, now: float) -> None:
        memory = self._others.memory
        if memory is None:
            self._for_memory.clear()
        elif not memory.unsent:
            self._post(memory, *self._for_memory.values())
            self._for_memory.clear()
        elif lost := list(self._for_memory)[MOST_HELD:]:
            for subject in lost:
                del self._for_memory[subject]
            self._log.notice(Notice("memory.behind", (("lost", len(lost)),), grave=True), now)

    def _post(self, channel: Channel, *values: object) -> None:
        """Say something, and what was not taken before; the poll tells when there is room for the rest."""
        waited = channel.unsent > 0
        channel.post(*values)
        if (waits := channel.unsent > 0) != waited:
            self._home(channel).modify(channel.fileno(), select.EPOLLIN | (select.EPOLLOUT if waits else 0))

    def _send(self, local: Endpoint, remote: Endpoint, data: bytes, now: float) -> None:
        sock = self._by_way.get((local.address.version, local.port))
        if sock is None:
            return
        parts = [NON_ESP_MARKER, data] if local.port == self._nat_port and data != KEEPALIVE else [data]
        try:
            sock.send(local.address, remote, parts)
        except OSError as error:
            # As good as lost on the way: IKE sends it again.
            self._log.notice(Notice("udp.not-sent", (("remote", str(remote)), ("reason", str(error)))), now)
