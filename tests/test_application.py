"""`hushwire.peer` and `hushwire.require`: what a program asks, hears, and is told where nobody can say."""

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

import hushwire
from hushwire import Insufficient, Peer, Unavailable
from hushwire.application import GRACE, LEVELS
from hushwire.daemon.control import listen
from hushwire.daemon.questions import MODE, read_question
from hushwire.events import Whois
from hushwire.linux.diag import TCP, UDP
from hushwire.policy.assurance import Assurance

BODY = {
    "level": "continuous", "how": "the same key since 2027-01-15, met 3 times", "peer": "192.0.2.2",
    "identity": "SHA256:AAAA", "key": "SHA256:AAAA", "since": 1.8e9, "met": 3, "established": 5.25,
    "ike_suite": "IKE", "esp_suite": "ESP", "mode": "transport", "binding": "00ff" * 16,
}  # fmt: skip
PEER = Peer(
    "continuous", "the same key since 2027-01-15, met 3 times", "192.0.2.2", "SHA256:AAAA", "SHA256:AAAA", 1.8e9, 3,
    5.25, "IKE", "ESP", "transport", b"\x00\xff" * 16,
)  # fmt: skip


class Daemon:
    """Its end of the socket: `answer` makes octets of a question; None: it closes."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.asked: list[Whois] = []
        self.devices: list[int] = []
        """That their sockets are bound to."""
        self.answer: Callable[[Whois], bytes | None] = lambda asked: self.says(True, "as it should be", BODY)
        self._listener = listen(path, MODE)
        self._listener.setblocking(True)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def says(self, ok: bool, text: str, body: dict[str, Any] | None) -> bytes:
        return json.dumps({"ok": ok, "text": text, "body": body}).encode()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                asked = json.loads(connection.recv(1024))
                self.devices.append(asked["device"])
                question = read_question(asked, 1)
                self.asked.append(question)
                if (answer := self.answer(question)) is not None:
                    connection.send(answer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._listener.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with closing(Daemon(tmp_path / "peer.sock")) as made:
        yield made


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        served, _ = server.accept()
        with served:
            yield client, served


def test_who_is_there(daemon: Daemon, pair: tuple[socket.socket, socket.socket]) -> None:
    """At both ends of a TCP connection."""
    for sock in pair:
        assert hushwire.peer(sock, socket_path=daemon.path) == PEER
    forth, back = daemon.asked
    assert (forth.flow.local_port, forth.flow.remote_port) == (back.flow.remote_port, back.flow.local_port)
    assert forth.flow.local_port == pair[0].getsockname()[1]
    assert (forth.flow.protocol, forth.require) == (TCP, Assurance.CLEAR)


@pytest.mark.parametrize(
    ("listens", "connects", "address"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("::1", "::1", "::1"),
        ("::", "::ffff:127.0.0.1", "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_all_kinds_of_sockets(daemon: Daemon, listens: str, connects: str, address: str, kind: int) -> None:
    """IPv4, IPv6, and IPv4 through a socket of IPv6; TCP, and UDP that is connected."""
    family = socket.AF_INET6 if ":" in listens else socket.AF_INET
    with socket.socket(family, kind) as server, socket.socket(family, kind) as client:
        if listens == "::":
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((listens, 0))
        if kind == socket.SOCK_STREAM:
            server.listen()
        client.connect((connects, server.getsockname()[1]))
        assert hushwire.peer(client, socket_path=daemon.path) == PEER
        (asked,) = daemon.asked
        assert (str(asked.flow.local), str(asked.flow.remote)) == (address, address)
        assert asked.flow.protocol == (TCP if kind == socket.SOCK_STREAM else UDP)


def test_a_socket_that_is_bound_to_a_device(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as bound, socket.socket() as free:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        for sock in (bound, free):
            sock.connect(server.getsockname())
            assert hushwire.peer(sock, socket_path=daemon.path) == PEER
    assert daemon.devices == [socket.if_nametoindex("lo"), 0]


def test_a_link_s_addresses_are_told_without_the_link(daemon: Daemon) -> None:
    """RFC 4007 s11: a zone is nothing but this host's own word for it."""

    class Neighbours(socket.socket):
        def getsockname(self) -> tuple[str, int, int, int]:
            return "fe80::1%eth0", 40_000, 0, 2

        def getpeername(self) -> tuple[str, int, int, int]:
            return "fe80::2%eth0", 25, 0, 2

    with Neighbours(socket.AF_INET6) as sock:
        hushwire.peer(sock, socket_path=daemon.path)
    (asked,) = daemon.asked
    assert (str(asked.flow.local), str(asked.flow.remote)) == ("fe80::1", "fe80::2")


def test_what_is_not_told_is_none(daemon: Daemon, pair: tuple[socket.socket, socket.socket]) -> None:
    nothing = dict.fromkeys(BODY) | {"level": None, "how": "nothing is proved yet", "met": 0}
    daemon.answer = lambda asked: daemon.says(True, "", nothing)
    found = hushwire.peer(pair[0], socket_path=daemon.path)
    assert (found.level, found.binding, found.how, found.met) == (None, None, "nothing is proved yet", 0)


def test_what_a_later_daemon_says_besides_is_left_out(
    daemon: Daemon, pair: tuple[socket.socket, socket.socket]
) -> None:
    daemon.answer = lambda asked: daemon.says(True, "", BODY | {"weather": "fine"})
    assert hushwire.peer(pair[0], socket_path=daemon.path) == PEER


@pytest.mark.parametrize("level", LEVELS)
def test_required(daemon: Daemon, pair: tuple[socket.socket, socket.socket], level: Any) -> None:
    assert hushwire.require(pair[0], level, 7.5, socket_path=daemon.path) == PEER
    assert [(asked.require, asked.patience) for asked in daemon.asked] == [(Assurance[level.upper()], 7.5)]


def test_not_sure_enough(daemon: Daemon, pair: tuple[socket.socket, socket.socket]) -> None:
    why = "continuous, and named is required: the same key since 2027-01-15"
    daemon.answer = lambda asked: daemon.says(False, why, BODY)
    with pytest.raises(Insufficient, match=why) as raised:
        hushwire.require(pair[0], "named", socket_path=daemon.path)
    assert raised.value.peer == PEER


def test_no_such_level(daemon: Daemon, pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(ValueError, match="'certain' is no level; there are clear, encrypted, "):
        hushwire.require(pair[0], "certain", socket_path=daemon.path)  # type: ignore[arg-type]
    assert daemon.asked == []


def test_a_socket_without_another_end(daemon: Daemon) -> None:
    """One clear error for each, and nobody is asked."""
    ours, theirs = socket.socketpair()
    with (
        ours, theirs, socket.socket() as fresh, socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loose,
    ):  # fmt: skip
        loose.bind(("127.0.0.1", 0))
        for sock in (fresh, server, loose):
            with pytest.raises(ValueError, match="not connected: there is nobody at its other end"):
                hushwire.peer(sock, socket_path=daemon.path)
            with pytest.raises(ValueError, match="not connected"):
                hushwire.require(sock, "named", socket_path=daemon.path)
        with pytest.raises(ValueError, match="only TCP and UDP"):
            hushwire.peer(ours, socket_path=daemon.path)
    assert daemon.asked == []


# --- Nobody can say ---------------------------------------------------------------------------------------------------


def test_nobody_is_there(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(Unavailable, match=r"peer\.sock: no hushwire runs here"):
        hushwire.peer(pair[0], socket_path=str(tmp_path / "peer.sock"))
    daemon = Daemon(tmp_path / "peer.sock")
    daemon.close()
    with pytest.raises(Unavailable, match="no hushwire runs here"):
        hushwire.require(pair[0], "encrypted", socket_path=daemon.path)


def test_it_is_refused(daemon: Daemon, pair: tuple[socket.socket, socket.socket]) -> None:
    daemon.answer = lambda asked: daemon.says(False, "you have no connection with 127.0.0.1", None)
    with pytest.raises(Unavailable, match=r"you have no connection with 127\.0\.0\.1"):
        hushwire.require(pair[0], "encrypted", socket_path=daemon.path)


def test_it_is_shut_out(daemon: Daemon, pair: tuple[socket.socket, socket.socket]) -> None:
    daemon.answer = lambda asked: None
    with pytest.raises(Unavailable, match="too many ask at once"):
        hushwire.peer(pair[0], socket_path=daemon.path)


@pytest.mark.parametrize("when", ["before", "after"])
def test_it_is_shut_out_at_any_moment(
    tmp_path: Path, pair: tuple[socket.socket, socket.socket], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it has asked; or when it has, and nobody has read it."""
    path = str(tmp_path / "peer.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, ExitStack() as stack:
        listener.bind(path)
        listener.listen()

        def shut_out(question: object, write: Callable[[object], str] = json.dumps) -> str:
            accepted, _ = listener.accept()
            if when == "after":
                closing_late = threading.Thread(target=lambda: (select.select([accepted], (), ()), accepted.close()))
                closing_late.start()
                stack.callback(closing_late.join)
            else:
                accepted.close()
            return write(question)

        monkeypatch.setattr(json, "dumps", shut_out)
        with pytest.raises(Unavailable, match="too many ask at once"):
            hushwire.peer(pair[0], socket_path=path)


def test_nobody_takes_the_connection(tmp_path: Path, pair: tuple[socket.socket, socket.socket]) -> None:
    """As many wait already as the daemon lets."""
    path = str(tmp_path / "peer.sock")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        listener.bind(path)
        listener.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)).connect(path)
        with pytest.raises(Unavailable, match=r"no answer within 0\.2 s"):
            hushwire.peer(pair[0], socket_path=path, timeout=0.2)


def test_an_answer_of_the_last_moment(daemon: Daemon, pair: tuple[socket.socket, socket.socket]) -> None:
    """The daemon waits as long as it was asked to, and its answer takes a moment to arrive."""

    def at_last(asked: Whois) -> bytes:
        time.sleep(asked.patience + GRACE / 8)
        return daemon.says(False, "nothing stands yet", BODY)

    daemon.answer = at_last
    with pytest.raises(Insufficient):
        hushwire.require(pair[0], "named", 0.2, socket_path=daemon.path)


def test_no_answer_comes(daemon: Daemon, pair: tuple[socket.socket, socket.socket]) -> None:
    asked, over = threading.Event(), threading.Event()

    def hang(question: Whois) -> None:
        asked.set()
        over.wait(20)

    daemon.answer = hang
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"no answer within 0\.2 s"):
        hushwire.peer(pair[0], socket_path=daemon.path, timeout=0.2)
    assert time.monotonic() - began >= 0.2
    assert asked.is_set()
    over.set()


# --- What it costs ----------------------------------------------------------------------------------------------------

LOADED = """
import sys, json, socket, dataclasses, struct, typing
before = set(sys.modules)
import hushwire
assert not any(name.startswith("hushwire.") for name in sys.modules), "loaded before it was asked for"
hushwire.require
print(sorted(set(sys.modules) - before))
"""


def test_a_program_loads_nothing_of_the_daemon() -> None:
    found = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True).stdout
    assert found == "['hushwire', 'hushwire.application']\n"


def test_what_is_not_there_is_told_as_of_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'hushwire' has no attribute 'friend'"):
        hushwire.friend  # type: ignore[attr-defined]  # noqa: B018
    assert {"peer", "require", "Peer", "Insufficient", "Unavailable"} == set(hushwire.__all__)


def test_another_user_may_reach_the_socket(daemon: Daemon) -> None:
    """What it is told is for the daemon to say."""
    assert os.stat(daemon.path).st_mode & 0o777 == MODE
