"""A program's question: who is at the other end of this socket, and how sure is that (docs/strangers.md)?

    import hushwire

    peer = hushwire.require(sock, "continuous")     # before the first octet
    print(peer.identity, peer.how)

It imports nothing else of hushwire: a program pays for its question and no more.
"""

import json
import socket
from dataclasses import dataclass
from struct import Struct
from typing import Any, Literal, get_args

SOCKET = "/run/hushwire/peer.sock"
"""Where the daemon answers; `peer-socket` in its configuration."""

Level = Literal["clear", "encrypted", "continuous", "trusted", "named"]
"""How sure it is who is there, in rising order."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection."""

    level: Level | None
    """None: nothing is known yet, and packets are held until there is."""
    how: str
    """In one line: how it is known, or why it is not."""
    name: str | None
    """What the configuration calls it; None: no rule is about it."""
    identity: str | None
    """Who it proved to be: a name, an address, the fingerprint of a stranger's key, or "anonymous"."""
    key: str | None
    """The fingerprint of the key that it proved, as `hushwire trust` writes it; None: a shared key, or none at all."""
    since: float | None
    """When that key was first met here, in seconds since 1970, as far as that is remembered."""
    met: int
    """How often it was met, counted once an hour at most."""
    established: float | None
    """Seconds since it last proved itself, or its keys were last replaced."""
    ike_suite: str | None
    """Algorithms of the IKE SA."""
    esp_suite: str | None
    """Of what carries the packets."""
    mode: str | None
    """"transport" or "tunnel"."""
    binding: bytes | None
    """Channel binding data (RFC 5056): the same at both ends, and not if somebody stands between; None: there is none,
    since one end has proved no key."""


class Unavailable(Exception):
    """Nobody can say: hushwire does not run, or the connection is not this user's; one line says which."""


class Insufficient(Exception):
    """It is not as sure as was required who is there; one line says why."""

    def __init__(self, text: str, peer: Peer) -> None:
        super().__init__(text)
        self.peer = peer
        """Who is there, as far as is known."""


def peer(sock: socket.socket, *, socket_path: str = SOCKET, timeout: float = 5.0) -> Peer:
    """Who is at the other end of a connected TCP or UDP socket, now.

    Raises ValueError if it has no other end, and Unavailable if nobody answers within `timeout` seconds.
    """
    return _asked(_question(sock), socket_path, timeout)


def require(sock: socket.socket, level: Level, timeout: float = 10.0, *, socket_path: str = SOCKET) -> Peer:
    """The same, if it is at least so sure who is there; where that can be had it is waited for, `timeout` seconds.

    From then on the connection is protected, and with nobody else: sooner it ends (RFC 5660).
    Raises Insufficient, Unavailable, and ValueError if the socket has no other end.
    """
    if level not in LEVELS:
        raise ValueError(f"{level!a} is no level; there are {', '.join(LEVELS)}")
    return _asked({**_question(sock), "require": level, "timeout": timeout}, socket_path, timeout + GRACE)


def _question(sock: socket.socket) -> dict[str, Any]:
    protocol = PROTOCOLS.get((sock.type, sock.proto)) if sock.family in (socket.AF_INET, socket.AF_INET6) else None
    if protocol is None:
        raise ValueError("only TCP and UDP sockets have a peer that hushwire knows of")
    try:
        remote = sock.getpeername()
    except OSError:
        raise ValueError("the socket is not connected: there is nobody at its other end") from None
    ends = {"local": sock.getsockname(), "remote": remote}
    told = {name: [end[0].partition("%")[0], end[1]] for name, end in ends.items()}
    device = sock.getsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX)
    return {"command": "whois", "protocol": protocol, "device": device, **told}


def _asked(question: dict[str, Any], path: str, timeout: float) -> Peer:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        # Unlike a socket with a time-out of Python's, this one waits for its turn where many ask at once.
        seconds, rest = divmod(max(timeout, 0.001), 1)
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, TIMEVAL.pack(int(seconds), int(rest * 1e6)))
        try:
            connection.connect(path)
            connection.send(json.dumps(question).encode())
            octets = connection.recv(LARGEST)
        except (ConnectionResetError, BrokenPipeError):
            octets = b""
        except (FileNotFoundError, ConnectionRefusedError):
            raise Unavailable(f"{path}: no hushwire runs here") from None
        except BlockingIOError:
            raise Unavailable(f"{path}: no answer within {timeout:g} s") from None
        except OSError as error:
            raise Unavailable(f"{path}: {error.strerror or error}") from None
    if not octets:
        raise Unavailable(f"{path}: too many ask at once")
    answer = json.loads(octets)
    if answer["body"] is None:
        raise Unavailable(answer["text"])
    found = _peer(answer["body"])
    if not answer["ok"]:
        raise Insufficient(answer["text"], found)
    return found


def _peer(told: dict[str, Any]) -> Peer:
    plain = ("level", "how", "identity", "key", "since", "met", "established", "ike_suite", "esp_suite", "mode")
    binding = bytes.fromhex(told["binding"]) if told["binding"] is not None else None
    return Peer(**{each: told[each] for each in plain}, name=told["peer"], binding=binding)


LEVELS: tuple[str, ...] = get_args(Level)
GRACE = 2.0
"""Seconds for an answer to arrive that the daemon gives at the last moment."""
SO_BINDTOIFINDEX = 62
"""The interface that a socket is bound to, by index (asm-generic/socket.h)."""
TIMEVAL = Struct("@l l")
"""struct timeval: seconds and microseconds."""
LARGEST = 1 << 16
"""Octets of an answer, which is one packet."""
PROTOCOLS = {
    (socket.SOCK_STREAM, 0): "tcp", (socket.SOCK_STREAM, socket.IPPROTO_TCP): "tcp",
    (socket.SOCK_DGRAM, 0): "udp", (socket.SOCK_DGRAM, socket.IPPROTO_UDP): "udp",
}  # fmt: skip
"""By type and protocol, as a socket has them."""
