"""The control socket: commands in, one reply each, whatever a client sends."""

import itertools
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.daemon.control import LARGEST, MOST, Command, Control, ControlError, SocketInUse, ask, listen
from hushwire.events import Capture, Connect, Disconnect, Rekey, Reply, Status, SwitchKey, TrustChanged, Why


class Daemon:
    """The node's side of a control socket, driven by hand."""

    def __init__(self, path: Path) -> None:
        self.control = Control(listen(path), itertools.count(7))
        self.path = path
        self.watched: list[socket.socket] = []

    def client(self, octets: bytes | None = None) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.settimeout(5)
        made.connect(str(self.path))
        self.control.accept(self.watched.append)
        if octets is not None:
            made.send(octets)
        return made

    def read(self) -> Command | None:
        return self.control.read(self.watched[-1].fileno(), self.watched.remove)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "run" / "control")
    yield made
    for each in (made.control.listener, *made.watched, *made.control._asked.values()):
        each.close()


@pytest.mark.parametrize(
    ("asked", "command"),
    [
        ({"command": "status"}, Status(7)),
        ({"command": "connect", "name": "Bob.Example."}, Connect(7, "bob.example")),
        ({"command": "connect", "name": "192.0.2.2"}, Connect(7, "192.0.2.2")),
        ({"command": "connect", "name": "2001:DB8:0::2"}, Connect(7, "2001:db8::2")),
        ({"command": "disconnect", "name": "192.0.2.2"}, Disconnect(7, "192.0.2.2")),
        ({"command": "rekey", "name": "bob.example", "ike": True}, Rekey(7, "bob.example", True)),
        ({"command": "why", "subject": "192.0.2.2"}, Why(7, "192.0.2.2")),
        ({"command": "capture", "name": "Bob.Example."}, Capture(7, "bob.example")),
        ({"command": "key"}, SwitchKey(7)),
        ({"command": "trust"}, TrustChanged(7)),
    ],
)
def test_commands(daemon: Daemon, asked: dict[str, Any], command: Command) -> None:
    with daemon.client(json.dumps(asked).encode()) as client:
        assert daemon.read() == command
        assert not daemon.watched
        daemon.control.reply(Reply(7, True, "done", '{"a": 1}'))
        assert json.loads(client.recv(LARGEST)) == {"ok": True, "text": "done", "body": {"a": 1}}
        assert client.recv(LARGEST) == b""
        # A second reply, or one to nobody, is none.
        daemon.control.reply(Reply(7, True))
        daemon.control.reply(Reply(99, True))


@pytest.mark.parametrize(
    "octets",
    [
        b"{", b"null", b"[]", b'"status"', b"\xff\xfe", b'{"command": "reboot"}', b'{"command": "connect"}',
        b'{"command": "why"}', b'{"command": "why", "subject": 1}', b'{"command": "capture", "name": "a b"}',
        b'{"command": "connect", "name": 5}', b'{"command": "connect", "name": "a b"}',
        b'{"command": "connect", "name": "192.0.2.0/24"}', b'{"command": "connect", "name": "192.0.2.256"}',
        b'{"command": "rekey", "name": "x", "ike": "yes"}', b"[" * LARGEST, b"1" * LARGEST,
    ],
)  # fmt: skip
def test_what_is_no_command_is_answered_so(daemon: Daemon, octets: bytes) -> None:
    with daemon.client(octets) as client:
        assert daemon.read() is None
        answer = json.loads(client.recv(LARGEST))
        assert answer["ok"] is False
        assert answer["text"]


@given(st.binary(min_size=1, max_size=200) | st.recursive(
    st.none() | st.booleans() | st.text(max_size=20) | st.sampled_from(["status", "connect", "rekey"]),
    lambda inner: st.dictionaries(st.sampled_from(["command", "name", "ike", "x"]), inner, max_size=4),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_comes_has_a_typed_result(octets: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        control = Control(ours, itertools.count(1))
        control._open[ours.fileno()] = ours
        theirs.send(octets)
        assert isinstance(control.read(ours.fileno(), lambda _: None), Command | None)


def test_a_client_that_leaves(daemon: Daemon) -> None:
    daemon.client().close()
    assert daemon.read() is None
    with daemon.client(b'{"command": "status"}'):
        assert daemon.read() == Status(7)
    daemon.control.reply(Reply(7, True))


def test_clients_are_bounded(daemon: Daemon) -> None:
    clients = [daemon.client() for _ in range(MOST)]
    with daemon.client() as late:
        assert late.recv(1) == b""
    assert len(daemon.watched) == MOST
    for client in clients:
        client.close()


def test_a_status_of_many_peers_arrives_whole(daemon: Daemon) -> None:
    body = {"peers": ["x" * 100] * 20_000}
    answer: dict[str, Any] = {}
    client = threading.Thread(target=lambda: answer.update(ask(daemon.path, {"command": "status"}, 10)))
    client.start()
    daemon.control.listener.setblocking(True)
    daemon.control.accept(daemon.watched.append)
    daemon.watched[-1].setblocking(True)
    assert daemon.read() == Status(7)
    daemon.control.reply(Reply(7, True, body=json.dumps(body)))
    client.join(10)
    assert answer == {"ok": True, "text": "", "body": body}


def test_a_client_that_does_not_read_is_left(daemon: Daemon) -> None:
    with daemon.client(b'{"command": "status"}'):
        assert daemon.read() == Status(7)
        daemon.control.reply(Reply(7, True, body=json.dumps("x" * 10_000_000)))


# --- The socket itself ------------------------------------------------------------------------------------------------


def test_only_its_owner_may_connect(daemon: Daemon) -> None:
    assert daemon.path.stat().st_mode & 0o777 == 0o600


def test_one_that_answers_is_left_alone(daemon: Daemon) -> None:
    with pytest.raises(SocketInUse, match="runs already"):
        listen(daemon.path)
    assert daemon.path.is_socket()


def test_one_that_an_earlier_run_left_is_taken(tmp_path: Path) -> None:
    listen(tmp_path / "control").close()
    with listen(tmp_path / "control"):
        assert (tmp_path / "control").is_socket()


def test_a_daemon_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with pytest.raises(ControlError, match="no hushwire runs here; start it"):
        ask(path, {"command": "status"})
    listen(path).close()
    with pytest.raises(ControlError, match="hushwire has stopped"):
        ask(path, {"command": "status"})
    with listen(path), pytest.raises(ControlError, match="no answer within"):
        ask(path, {"command": "status"}, 0.05)
    with pytest.raises(ControlError, match="too long"):
        ask(tmp_path / ("x" * 200), {"command": "status"})


def test_a_daemon_that_ends_meanwhile(daemon: Daemon) -> None:
    said: list[str] = []

    def client() -> None:
        with pytest.raises(ControlError) as caught:
            ask(daemon.path, {"command": "status"}, 5)
        said.append(str(caught.value))

    thread = threading.Thread(target=client)
    thread.start()
    daemon.control.listener.setblocking(True)
    connection, _ = daemon.control.listener.accept()
    connection.recv(100)
    connection.close()
    thread.join(5)
    assert said == [f"{daemon.path}: hushwire closed the connection"]
