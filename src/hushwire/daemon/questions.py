"""The questions of this host's programs: who is at the other end of their connections (`hushwire.application`).

The parent makes the socket, for everybody (mode 0666); the node, without privileges, reads it.  One packet with a JSON
object goes each way.  Whoever asks is told of his own connections and no others, is one of so many, and is served when
nothing else is to be done: none of them delays the node, nor a user's many those of another.
"""

import json
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import count
from struct import Struct
from typing import Any, Self

from hushwire.events import Reply, Whois
from hushwire.linux.diag import TCP, UDP, Connection, SockDiag
from hushwire.linux.netlink import NetlinkError
from hushwire.policy.assurance import Assurance
from hushwire.policy.selector import Flow
from hushwire.wire.address import IPAddress

MODE = 0o666
"""Of the socket: who may see it may ask."""
MOST, MOST_OF_USER = 512, 64
"""Connections at once: in all, root's apart, and of one user."""
ONE_BY_ONE = 1 << 16
"""Users beyond are given away in ranges (subuid(5), containers), so that many may be one: half of MOST is theirs."""
SILENCE = 3.0
"""Seconds that a program has for its question, before its place is another's."""
LARGEST = 1024
"""Octets of a question."""
LONGEST = 60.0
"""Seconds that anybody may wait for more than there is."""
FROM = 1 << 61
"""Numbers of questions begin here, out of the way of the Node's own and of commands."""


@dataclass(frozen=True, slots=True)
class Asker:
    """A program that asks."""

    connection: socket.socket
    uid: int
    """Of the user it ran as when it connected."""
    since: float
    """Monotonic time of that."""


class Questions:
    """Connections, each with one question and one answer."""

    def __init__(self, listener: socket.socket, find: Callable[[Flow, int], Connection | None]) -> None:
        """`find`: the connection at this host's end of a flow, and of a device (`linux.diag`)."""
        self._listener = listener
        self._find = find
        self._numbers = count(FROM)
        self._poll = select.epoll()
        self._poll.register(listener, select.EPOLLIN)
        self._silent: dict[int, Asker] = {}
        """Whose question has not come, by descriptor, who has waited longest first."""
        self._asked: dict[int, Asker] = {}
        """Who waits for an answer, by its number."""
        self._of_user: Counter[int] = Counter()

    @classmethod
    def at(cls, listener: socket.socket) -> Self:
        """Of this network namespace.  It has to be made before this process is confined."""
        try:
            find = SockDiag().find
        except OSError as error:
            # Its kernel tells nobody of connections (CONFIG_INET_DIAG): then so do we.
            why = f"whose a connection is cannot be known here: {error.strerror}"

            def find(flow: Flow, device: int = 0) -> Connection | None:
                raise ValueError(why)

        return cls(listener, find)

    def fileno(self) -> int:
        """Readable when there is something to serve()."""
        return self._poll.fileno()

    def close(self) -> None:
        self._poll.close()
        for asker in (*self._silent.values(), *self._asked.values()):
            asker.connection.close()

    def serve(self) -> Whois | None:
        """Take one connection or one question; the rest has its turn after everything else that the node has to do."""
        for descriptor, _ in self._poll.poll(0, 1):
            if descriptor == self._listener.fileno():
                self._accept(time.monotonic())
            else:
                return self._read(descriptor)
        return None

    def reply(self, reply: Reply) -> None:
        """One packet, to who takes it at once: the answer fits what a socket holds for its reader."""
        asker = self._asked.pop(reply.request, None)
        if asker is None:
            return
        body = json.loads(reply.body or "null")
        with suppress(OSError):
            asker.connection.send(json.dumps({"ok": reply.ok, "text": reply.text, "body": body}).encode())
        self._leave(asker)

    def _accept(self, now: float) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            _, uid, _ = CREDENTIALS.unpack(
                connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            )
            for descriptor, asker in list(self._silent.items()):
                if now < asker.since + SILENCE:
                    break
                self._forget(descriptor)
                self._leave(asker)
            room = MOST if uid < ONE_BY_ONE else MOST // 2
            if (self._of_user.total() >= room and uid != ROOT) or self._of_user[uid] >= MOST_OF_USER:
                connection.close()
                return
            self._of_user[uid] += 1
            self._silent[connection.fileno()] = Asker(connection, uid, now)
            self._poll.register(connection, select.EPOLLIN)

    def _read(self, descriptor: int) -> Whois | None:
        asker = self._forget(descriptor)
        try:
            octets = asker.connection.recv(LARGEST)
        except OSError:
            octets = b""
        if not octets:
            self._leave(asker)
            return None
        number = next(self._numbers)
        self._asked[number] = asker
        try:
            asked = json.loads(octets)
            question = read_question(asked, number)
            found = self._find(question.flow, _device(asked))
        except (ValueError, RecursionError, OSError, NetlinkError) as error:
            self.reply(Reply(number, False, str(error)))
            return None
        # Of others' connections nothing is told, not even whether they are there.
        if found is None or asker.uid not in (ROOT, found.uid):
            self.reply(Reply(number, False, f"you have no connection with {question.flow.remote}"))
            return None
        return question

    def _forget(self, descriptor: int) -> Asker:
        self._poll.unregister(descriptor)
        return self._silent.pop(descriptor)

    def _leave(self, asker: Asker) -> None:
        asker.connection.close()
        self._of_user[asker.uid] -= 1
        if not self._of_user[asker.uid]:
            del self._of_user[asker.uid]


def read_question(asked: Any, number: int) -> Whois:
    """A question as it is written.  Raises ValueError."""
    match asked:
        case {"command": "whois", "protocol": str(protocol), "local": [str(local), int(local_port)],
              "remote": [str(remote), int(remote_port)]} if protocol in PROTOCOLS:  # fmt: skip
            for port in (local_port, remote_port):
                if not 0 < port < 1 << 16:
                    raise ValueError(f"{port} is no port")
            flow = Flow(_address(local), _address(remote), PROTOCOLS[protocol], local_port, remote_port)
            if flow.local.version != flow.remote.version:
                raise ValueError("the two addresses are of two IP versions")
            return Whois(number, flow, _require(asked), _patience(asked))
    raise ValueError(
        'no such question; say {"command": "whois", "protocol": "tcp" or "udp", "local": [ADDRESS, PORT], '
        '"remote": [ADDRESS, PORT]}, and perhaps "require": LEVEL and "timeout": SECONDS'
    )


def _address(text: str) -> IPAddress:
    """IPv4's may be written as an IPv6 socket has them (RFC 4291 s2.5.5.2)."""
    address = ip_address(text)
    return (address.ipv4_mapped or address) if address.version == 6 else address


def _device(asked: Mapping[str, object]) -> int:
    """The index of the interface that the program's socket is bound to; 0: of none."""
    index = asked.get("device", 0)
    if not isinstance(index, int) or not 0 <= index < 1 << 31:
        raise ValueError(f"{index!a:.40} is no index of an interface")
    return index


def _require(asked: Mapping[str, object]) -> Assurance:
    level = asked.get("require", "clear")
    levels = {str(each): each for each in Assurance}
    if not isinstance(level, str) or level not in levels:
        raise ValueError(f"{level!a:.40} is no level; there are {', '.join(levels)}")
    return levels[level]


def _patience(asked: Mapping[str, object]) -> float:
    seconds = asked.get("timeout", 0.0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e6:
        raise ValueError(f"{seconds!a:.40} is no number of seconds")
    return min(float(seconds), LONGEST)


PROTOCOLS = {"tcp": TCP, "udp": UDP}
ROOT = 0
CREDENTIALS = Struct("iII")
"""struct ucred: process, user, group."""
