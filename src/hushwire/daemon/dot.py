"""An upstream reached by TLS (RFC 7858), for a library that has none: it asks by UDP on loopback, and we pass it on.

Debian builds libunbound without TLS.  All questions share one connection, in any order (RFC 7766 s6.2.1.1); what it
does not carry is lost, as a datagram may be, and the library asks again.  Whose certificate it is is checked here; what
the answers say is validated by the library like anything else.
"""

import itertools
import select
import socket
import ssl
from contextlib import suppress

MAX_UNDER_WAY = 4096
"""Questions without an answer; the oldest is forgotten for one more."""
MAX_UNSENT = 1 << 20
"""Octets of questions that the connection does not take; then it is given up."""
BURST = 64
"""Datagrams that are read before others have their turn."""
PAUSE = 0.5
"""Seconds from a failed connection to the next."""
HANDSHAKE = 5.0
"""Seconds until a connection must stand."""


def trusting(bundle: str) -> ssl.SSLContext:
    """Whoever those certificates vouch for.  It reads the file, so it comes before the sandbox.  Raises OSError."""
    context = ssl.create_default_context(cafile=bundle)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class TlsUpstream:
    """Poll it for reading, and call serve()."""

    def __init__(self, server: str, context: ssl.SSLContext) -> None:
        """`server`: address@port#name."""
        where, _, self.name = server.partition("#")
        address, _, port = where.partition("@")
        self._server = (address, int(port or 853))
        self._context = context
        self._poll = select.epoll()
        self._local = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._local.setblocking(False)
        self._local.bind(("127.0.0.1", 0))
        self._poll.register(self._local, select.EPOLLIN)
        self._connection: _Connection | None = None
        self._not_before = 0.0
        self._numbers = itertools.cycle(range(1 << 16))
        self._asked: dict[int, tuple[bytes, tuple[str, int]]] = {}
        """By the message ID that the server knows: the library's, and its socket."""
        self.failure = ""
        """Why the last connection failed; empty: it did not."""

    @property
    def forward(self) -> str:
        """Where the library asks."""
        return f"127.0.0.1@{self._local.getsockname()[1]}"

    def fileno(self) -> int:
        return self._poll.fileno()

    def serve(self, now: float) -> None:
        """Pass on what has come, either way."""
        questions = self._questions()
        try:
            if self._connection is None:
                if not questions or now < self._not_before:
                    return
                # Where there is no IPv6, not even the socket can be had.
                self._connection = _Connection(self._server, self.name, self._context, now + HANDSHAKE)
                self._poll.register(self._connection.sock, select.EPOLLIN)
            for answer in self._connection.exchange(questions, now):
                self._answer(answer)
        except OSError as error:
            standing = self._connection is not None and self._connection.standing
            failure = getattr(error, "verify_message", "") or error.strerror or str(error)
            self.failure = "" if standing else failure
            self._not_before = now + PAUSE if self.failure else now
            if self._connection is not None:
                # Closed, it leaves the poll by itself.
                self._connection.sock.close()
                self._connection = None
            return
        self.failure = "" if self._connection.standing else self.failure
        self._poll.modify(self._connection.sock, self._connection.awaited)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.sock.close()
        self._local.close()
        self._poll.close()

    def _questions(self) -> list[bytes]:
        taken: list[bytes] = []
        with suppress(OSError):
            while len(taken) < BURST:
                octets, asker = self._local.recvfrom(65535)
                if len(octets) < 12 or asker[0] != "127.0.0.1":
                    continue
                number = next(self._numbers)
                self._asked.pop(number, None)
                if len(self._asked) >= MAX_UNDER_WAY:
                    del self._asked[next(iter(self._asked))]
                self._asked[number] = (octets[:2], asker)
                taken.append(number.to_bytes(2, "big") + octets[2:])
        return taken

    def _answer(self, octets: bytes) -> None:
        number, asker = self._asked.pop(int.from_bytes(octets[:2], "big"), (b"", None))
        if asker is not None:
            with suppress(OSError):
                self._local.sendto(number + octets[2:], asker)


class _Connection:
    """Length and message, length and message, within TLS."""

    def __init__(self, server: tuple[str, int], name: str, context: ssl.SSLContext, until: float) -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.connect_ex(server)
        self.standing = False
        """The other end has shown its certificate."""
        self._until = until
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._asking = bytearray()
        """Not encrypted yet."""
        self._unsent = bytearray()
        self._unread = bytearray()

    @property
    def awaited(self) -> int:
        return select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0)

    def exchange(self, questions: list[bytes], now: float) -> list[bytes]:
        """Send what can be sent; answer what has come.  Raises OSError when that is over."""
        self._asking += b"".join(len(each).to_bytes(2, "big") + each for each in questions)
        if (not self.standing and now > self._until) or len(self._asking) + len(self._unsent) > MAX_UNSENT:
            raise TimeoutError("no answer to TLS in time")
        with suppress(BlockingIOError):
            octets = self.sock.recv(1 << 16)
            if not octets:
                raise ConnectionResetError("closed by the server")
            self._incoming.write(octets)
        with suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
            self.standing = True
            if self._asking:
                self._tls.write(self._asking)
                self._asking.clear()
            while octets := self._tls.read(1 << 16):
                self._unread += octets
            raise ConnectionResetError("closed by the server")
        self._unsent += self._outgoing.read()
        with suppress(BlockingIOError):
            del self._unsent[: self.sock.send(self._unsent)]
        return self._messages()

    def _messages(self) -> list[bytes]:
        whole: list[bytes] = []
        while len(self._unread) >= 2 and len(self._unread) >= 2 + (length := int.from_bytes(self._unread[:2], "big")):
            whole.append(bytes(self._unread[2 : 2 + length]))
            del self._unread[: 2 + length]
        return whole
