"""Where this host's programs ask for names: DNS over UDP and TCP on loopback (RFC 1035 s4.2, RFC 7766).

The sockets were opened by the parent.  All of it is bounded: who asks is any local user.
"""

import select
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from ipaddress import ip_address

from hushwire.daemon.front import Front
from hushwire.wire.address import Endpoint

MAX_CONNECTIONS = 64
"""TCP connections at once.  One more is closed."""
IDLE = 10.0
"""Seconds without a question or an answer until a connection is closed."""
MAX_PIPELINED = 64
"""Questions under way on one connection.  No more is read from it before some are answered."""
MAX_QUERY = 16 * 1024
"""Octets of a question over TCP; those of a datagram are fewer."""
MAX_UNSENT = 256 * 1024
"""Octets of answers that a connection does not take.  Then it is closed."""
BURST = 64
"""Datagrams that are read before others have their turn."""
BACKLOG = 64
RECEIVE_BUFFER = 1 << 20
"""Octets of questions that come in one burst."""


def open_sockets(endpoints: Iterable[Endpoint]) -> list[socket.socket]:
    """Both sockets of each end point.  Raises OSError, which says of which."""
    opened: list[socket.socket] = []
    for endpoint in endpoints:
        family = socket.AF_INET if endpoint.address.version == 4 else socket.AF_INET6
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sock = socket.socket(family, kind)
            opened.append(sock)
            sock.setblocking(False)
            try:
                if kind == socket.SOCK_STREAM:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                else:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
                sock.bind((str(endpoint.address), endpoint.port))
                if kind == socket.SOCK_STREAM:
                    sock.listen(BACKLOG)
            except OSError as error:
                for each in opened:
                    each.close()
                raise OSError(error.errno, f"dns.listen: {endpoint}: {error.strerror}") from None
    return opened


class Listener:
    """Poll it for reading until deadline(), then call serve()."""

    def __init__(self, sockets: Sequence[socket.socket], front: Front) -> None:
        self.front = front
        self._poll = select.epoll()
        self._sockets = {sock.fileno(): sock for sock in sockets}
        self._connections: dict[int, _Connection] = {}
        """Those least lately used first."""
        self._answered: set[_Connection] = set()
        """Those that had an answer: they are not idle, and may have questions not taken for too many under way."""
        for sock in sockets:
            # Nothing is lost where a listening connection is not taken up at once: its questions wait in the kernel.
            self._poll.register(sock, select.EPOLLIN)

    def fileno(self) -> int:
        return self._poll.fileno()

    def deadline(self) -> float | None:
        """Monotonic time at which serve() has something to do even if nothing arrives; None: never."""
        if self._answered:
            return 0.0
        ends = [end for end in (self.front.deadline(), self._idle_end()) if end is not None]
        return min(ends, default=None)

    def serve(self, now: float) -> None:
        """Read what has come; end what has waited too long."""
        for descriptor, happened in self._poll.poll(0):
            if (connection := self._connections.get(descriptor)) is not None:
                self._converse(connection, happened, now)
            elif self._sockets[descriptor].type == socket.SOCK_DGRAM:
                self._datagrams(self._sockets[descriptor], now)
            else:
                self._accept(self._sockets[descriptor], now)
        self.front.expire(now)
        answered, self._answered = self._answered, set()
        for connection in answered:
            if not connection.closed:
                self._converse(connection, 0, now)
        while (end := self._idle_end()) is not None and end <= now:
            self._close(next(iter(self._connections.values())))

    def close(self) -> None:
        for connection in list(self._connections.values()):
            self._close(connection)
        self._poll.close()

    # --- UDP ---

    def _datagrams(self, sock: socket.socket, now: float) -> None:
        for _ in range(BURST):
            try:
                octets, sender = sock.recvfrom(4096)
            except OSError:
                # None is left; or an earlier answer met a closed port.
                return
            if _is_local(sender):
                self.front.ask(octets, True, partial(_send, sock, sender), now)

    # --- TCP ---

    def _accept(self, sock: socket.socket, now: float) -> None:
        with suppress(OSError):
            accepted, sender = sock.accept()
            if len(self._connections) >= MAX_CONNECTIONS or not _is_local(sender):
                accepted.close()
                return
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections[accepted.fileno()] = _Connection(accepted, now)
            self._poll.register(accepted, select.EPOLLIN)

    def _converse(self, connection: "_Connection", happened: int, now: float) -> None:
        try:
            if happened & select.EPOLLOUT:
                connection.write()
            if happened & ~select.EPOLLOUT:
                connection.read(ended=bool(happened & (select.EPOLLHUP | select.EPOLLERR)))
            while connection.asking < MAX_PIPELINED and (octets := connection.question()) is not None:
                connection.asking += 1
                self.front.ask(octets, False, partial(self._answer, connection), now)
                if octets[2:3] >= b"\x80" or len(octets) < 12:
                    # The front says nothing to what is no question; and who talks like that is not listened to.
                    raise ConnectionResetError
        except OSError:
            self._close(connection)
        if not connection.closed:
            # It is the one most lately used.
            connection.used = now
            self._connections[connection.sock.fileno()] = self._connections.pop(connection.sock.fileno())
            self._watch(connection)

    def _answer(self, connection: "_Connection", octets: bytes) -> None:
        connection.asking -= 1
        if connection.closed:
            return
        self._answered.add(connection)
        try:
            connection.unsent += len(octets).to_bytes(2, "big") + octets
            connection.write()
        except OSError:
            self._close(connection)
            return
        self._watch(connection)

    def _watch(self, connection: "_Connection") -> None:
        if connection.over:
            self._close(connection)
            return
        wanted = select.EPOLLIN if connection.asking < MAX_PIPELINED and not connection.ended else 0
        wanted |= select.EPOLLOUT if connection.unsent else 0
        self._poll.modify(connection.sock, wanted)

    def _idle_end(self) -> float | None:
        oldest = next(iter(self._connections.values()), None)
        return oldest.used + IDLE if oldest is not None else None

    def _close(self, connection: "_Connection") -> None:
        if not connection.closed:
            del self._connections[connection.sock.fileno()]
            # Closed, it leaves the poll by itself.
            connection.sock.close()


class _Connection:
    def __init__(self, sock: socket.socket, now: float) -> None:
        self.sock = sock
        self.used = now
        self.asking = 0
        """Questions under way."""
        self.unsent = bytearray()
        self.ended = False
        """The other end asks no more, and may wait for answers still."""
        self._unread = bytearray()

    @property
    def closed(self) -> bool:
        return self.sock.fileno() < 0

    @property
    def over(self) -> bool:
        """Nothing more will be said by either."""
        return self.ended and not self.asking and not self.unsent and not self._whole

    @property
    def _whole(self) -> bool:
        """There is a question to be taken."""
        return len(self._unread) >= 2 and len(self._unread) >= 2 + int.from_bytes(self._unread[:2], "big")

    def read(self, ended: bool) -> None:
        """`ended`: in both directions.  Raises OSError when the other end is gone."""
        with suppress(BlockingIOError):
            octets = self.sock.recv(2 + MAX_QUERY)
            self._unread += octets
            self.ended = not octets
            if ended and not octets:
                raise ConnectionResetError

    def question(self) -> bytes | None:
        """The next whole one.  Raises OSError if it is too long."""
        length = int.from_bytes(self._unread[:2], "big") if len(self._unread) >= 2 else 0
        if length > MAX_QUERY:
            raise ConnectionResetError
        if not self._whole:
            return None
        octets = bytes(self._unread[2 : 2 + length])
        del self._unread[: 2 + length]
        return octets

    def write(self) -> None:
        """Raises OSError if the other end takes too little."""
        with suppress(BlockingIOError):
            del self.unsent[: self.sock.send(self.unsent)]
        if len(self.unsent) > MAX_UNSENT:
            raise ConnectionResetError


def _send(sock: socket.socket, receiver: tuple[object, ...], octets: bytes) -> None:
    # A full buffer loses a datagram, as any network may, and the program asks again.
    with suppress(OSError):
        sock.sendto(octets, receiver)


def _is_local(sender: tuple[str, int]) -> bool:
    """ATTACKS row 46: an answer to any other source would leave this host, for somebody who did not ask."""
    return sender[0] == "127.0.0.1" or ip_address(sender[0].partition("%")[0]).is_loopback
