"""The control socket: `hushwire` commands to the daemon, one JSON object a connection each way.

The parent makes the socket, for its own user only (mode 0600); the node, without privileges, reads it.
"""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from hushwire.daemon.questions import read_question
from hushwire.events import (
    Capture,
    Connect,
    Disconnect,
    KnownForget,
    KnownList,
    KnownPin,
    KnownShow,
    Rekey,
    Reply,
    Status,
    SwitchKey,
    TrustChanged,
    Whois,
    Why,
)  # fmt: skip
from hushwire.names.name import BadName, host_name
from hushwire.node.known import subject_of
from hushwire.policy.trust import read_fingerprint

LARGEST = 4096
"""Octets of a command, and of a packet of the answer."""
PATIENCE = 0.5
"""Seconds for a client to take a packet."""
MOST = 64
"""Commands under way."""

Command = (
    Connect
    | Disconnect
    | Rekey
    | Status
    | Why
    | Whois
    | Capture
    | SwitchKey
    | TrustChanged
    | KnownList
    | KnownShow
    | KnownPin
    | KnownForget
)


class ControlError(Exception):
    """The daemon cannot be asked; one line says why and what to do."""


class NotRunning(ControlError):
    """There is no daemon."""


class SocketInUse(Exception):
    """Somebody answers at the socket's path."""


def listen(path: Path, mode: int = 0o600) -> socket.socket:
    """The socket at `path`, in place of what an earlier run left there.  Raises OSError, SocketInUse."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other, suppress(OSError):
        other.connect(str(path))
        raise SocketInUse(f"{path} is in use: hushwire runs already")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(str(path))
        path.chmod(mode)
        listener.listen(64)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class Control:
    """The daemon's side: connections, each with one command and one reply."""

    def __init__(self, listener: socket.socket, numbers: Iterator[int]) -> None:
        self.listener = listener
        self._numbers = numbers
        self._open: dict[int, socket.socket] = {}
        """Connections whose command has not come, by descriptor."""
        self._asked: dict[int, socket.socket] = {}
        """Connections that wait for a reply, by the command's number."""

    def accept(self, watch: Callable[[socket.socket], None]) -> None:
        """A new connection; `watch` is to have read() called when it can be read."""
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        if len(self._open) + len(self._asked) >= MOST:
            connection.close()
            return
        connection.setblocking(False)
        self._open[connection.fileno()] = connection
        watch(connection)

    def read(self, descriptor: int, unwatch: Callable[[socket.socket], None]) -> Command | None:
        """The command that came; None if it was none, which its sender is told."""
        connection = self._open.pop(descriptor)
        unwatch(connection)
        try:
            octets = connection.recv(LARGEST)
        except OSError:
            octets = b""
        if not octets:
            connection.close()
            return None
        number = next(self._numbers)
        try:
            command = _read(octets, number)
        except (ValueError, RecursionError, BadName) as error:
            self._asked[number] = connection
            self.reply(Reply(number, False, str(error)))
            return None
        self._asked[number] = connection
        return command

    def reply(self, reply: Reply) -> None:
        connection = self._asked.pop(reply.request, None)
        if connection is None:
            return
        text = json.dumps({"ok": reply.ok, "text": reply.text, "body": json.loads(reply.body or "null")}).encode()
        with connection, suppress(OSError):
            # A status of many peers does not fit one packet.  Who commands us reads, or is left.
            connection.settimeout(PATIENCE)
            for start in range(0, len(text), LARGEST):
                connection.sendall(text[start : start + LARGEST])


def _read(octets: bytes, number: int) -> Command:
    asked = json.loads(octets)
    match asked:
        case {"command": "status"}:
            return Status(number)
        case {"command": "connect", "name": str(name)}:
            return Connect(number, subject_of(name))
        case {"command": "disconnect", "name": str(name)}:
            return Disconnect(number, name)
        case {"command": "rekey", "name": str(name), "ike": bool(ike)}:
            return Rekey(number, name, ike)
        case {"command": "whois"}:
            return read_question(asked, number)
        case {"command": "why", "subject": str(subject)}:
            return Why(number, subject)
        case {"command": "capture", "name": str(name)}:
            return Capture(number, host_name(name))
        case {"command": "key"}:
            return SwitchKey(number)
        case {"command": "trust"}:
            return TrustChanged(number)
        case {"command": "known-list", "after": str(after)}:
            return KnownList(number, after)
        case {"command": "known-show", "subject": str(subject)}:
            return KnownShow(number, subject_of(subject))
        case {"command": "known-pin", "subject": str(subject), "fingerprint": str(fingerprint)}:
            return KnownPin(number, subject_of(subject), read_fingerprint(fingerprint) if fingerprint else b"")
        case {"command": "known-forget", "subject": str(subject)}:
            return KnownForget(number, subject_of(subject))
    raise ValueError("no such command")


def ask(path: Path, command: dict[str, object], timeout: float = 60.0) -> dict[str, object]:
    """The daemon's answer to a command: ok, text, body.  Raises ControlError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(timeout)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps(command).encode())
            octets = b"".join(iter(lambda: connection.recv(LARGEST), b""))
        except FileNotFoundError:
            raise NotRunning(f"{path}: no hushwire runs here; start it with `hushwire run`") from None
        except ConnectionRefusedError:
            raise NotRunning(f"{path}: hushwire has stopped; start it with `hushwire run`") from None
        except PermissionError:
            raise ControlError(f"{path}: only the user that runs hushwire may command it") from None
        except TimeoutError:
            raise ControlError(f"{path}: no answer within {timeout:g} s") from None
        except OSError as error:
            raise ControlError(f"{path}: {error.strerror or error}") from None
    if not octets:
        raise ControlError(f"{path}: hushwire closed the connection")
    answer = json.loads(octets)
    assert isinstance(answer, dict)
    return answer
