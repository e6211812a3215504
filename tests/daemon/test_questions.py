"""The socket for every program's question: his own connections only, in bounds, whatever a client sends."""

import json
import os
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.daemon import questions as module
from hushwire.daemon.control import listen
from hushwire.daemon.questions import (
    CREDENTIALS,
    LARGEST,
    LONGEST,
    MODE,
    MOST,
    MOST_OF_USER,
    SILENCE,
    Questions,
    read_question,
)
from hushwire.events import Reply, Whois
from hushwire.linux.diag import Connection, SockDiag
from hushwire.linux.netlink import NetlinkError
from hushwire.policy.assurance import Assurance
from hushwire.policy.selector import Flow

FLOW = Flow(ip_address("192.0.2.1"), ip_address("192.0.2.2"), 6, 40_000, 25)
ASKED: dict[str, Any] = {
    "command": "whois", "protocol": "tcp", "local": ["192.0.2.1", 40_000], "remote": ["192.0.2.2", 25],
}  # fmt: skip
OURS, ANOTHERS = 4711, 4712


class Node:
    """The node's side, driven by hand; whose a flow is, is what the test says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner: int | None = OURS
        self.clients: list[socket.socket] = []
        self.listener = listen(path, MODE)
        self.questions = Questions(self.listener, self.find)

    def close(self) -> None:
        self.questions.close()
        for each in (self.listener, *self.clients):
            each.close()

    def find(self, flow: Flow, device: int) -> Connection | None:
        return Connection(flow, self.owner, socket.AF_INET, True, b"") if self.owner is not None else None

    def serve(self) -> list[Whois]:
        """Until nothing is left to be done."""
        found = [self.questions.serve() for _ in range(2 * MOST)]
        return [question for question in found if question is not None]

    def client(self, asked: object = None) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.clients.append(made)
        made.settimeout(5)
        made.connect(str(self.path))
        if asked is not None:
            made.send(asked if isinstance(asked, bytes) else json.dumps(asked).encode())
        return made


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    made = Node(tmp_path / "peer.sock")
    runs_as(monkeypatch, OURS)
    yield made
    made.close()


def runs_as(monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    """Whoever connects from now on does so as that user, as far as the socket says."""

    class Credentials:
        size = module.Struct("3i").size

        def unpack(self, octets: bytes) -> tuple[int, int, int]:
            pid, _, gid = module.Struct("3i").unpack(octets)
            return pid, uid, gid

    monkeypatch.setattr(module, "CREDENTIALS", Credentials())


def heard(client: socket.socket) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(client.recv(1 << 16))
    assert client.recv(1) == b""
    return answer


def is_shut_out(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        # What he said was not even read.
        return True


# --- Questions and answers --------------------------------------------------------------------------------------------


def test_a_question_and_its_answer(node: Node) -> None:
    client = node.client({**ASKED, "require": "continuous", "timeout": 2.5})
    (question,) = node.serve()
    assert question == Whois(question.request, FLOW, Assurance.CONTINUOUS, 2.5)
    node.questions.reply(Reply(question.request, True, "named: as it should be", '{"level": "named"}'))
    assert heard(client) == {"ok": True, "text": "named: as it should be", "body": {"level": "named"}}
    # A second reply, or one to nobody, is none.
    node.questions.reply(Reply(question.request, True))
    node.questions.reply(Reply(99, True))


def test_everybody_may_ask(node: Node) -> None:
    assert node.path.stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize(
    ("more", "question"),
    [
        ({}, Whois(1, FLOW)),
        ({"protocol": "udp"}, Whois(1, replace(FLOW, protocol=17))),
        ({"local": ["::ffff:192.0.2.1", 40_000], "remote": ["::ffff:192.0.2.2", 25]}, Whois(1, FLOW)),
        ({"local": ["2001:db8::1", 1], "remote": ["2001:db8::2", 65535]},
         Whois(1, Flow(ip_address("2001:db8::1"), ip_address("2001:db8::2"), 6, 1, 65535))),
        ({"timeout": 1e5}, Whois(1, FLOW, Assurance.CLEAR, LONGEST)),
        *(({"require": str(level)}, Whois(1, FLOW, level)) for level in Assurance),
        ({"something": "new"}, Whois(1, FLOW)),
    ],
)  # fmt: skip
def test_what_is_read(more: dict[str, Any], question: Whois) -> None:
    assert read_question({**ASKED, **more}, 1) == question


@pytest.mark.parametrize(
    "more",
    [
        {"command": "status"}, {"command": None}, {"protocol": "sctp"}, {"protocol": 6}, {"protocol": None},
        {"local": ["192.0.2.1"]}, {"local": "192.0.2.1:40000"}, {"local": ["alice.example", 40_000]},
        {"local": ["192.0.2.1", 0]}, {"local": ["192.0.2.1", 65536]}, {"local": ["192.0.2.1", -1]},
        {"local": ["192.0.2.1", "25"]}, {"local": ["192.0.2.1", 25.0]}, {"local": [3221225985, 25]},
        {"remote": ["2001:db8::2", 25]}, {"remote": ["192.0.2.0/24", 25]}, {"remote": ["", 25]},
        {"require": "certain"}, {"require": 3}, {"require": ["named"]}, {"require": None},
        {"device": -1}, {"device": "lo"}, {"device": 1 << 31}, {"device": None}, {"device": 1.0},
        {"timeout": -1}, {"timeout": "1"}, {"timeout": True}, {"timeout": float("nan")}, {"timeout": float("inf")},
    ],
)  # fmt: skip
def test_what_is_no_question_is_answered_so(node: Node, more: dict[str, Any]) -> None:
    client = node.client({**ASKED, **more})
    assert node.serve() == []
    answer = heard(client)
    assert (answer["ok"], answer["body"]) == (False, None)
    assert answer["text"]
    assert "\n" not in answer["text"]


@pytest.mark.parametrize(
    "octets", [b"{", b"null", b"[]", b"\xff\xfe", b"[" * LARGEST, b"1" * 900, b"{" * (4 * LARGEST)]
)
def test_what_is_no_json_is_answered_so(node: Node, octets: bytes) -> None:
    client = node.client(octets)
    assert node.serve() == []
    assert heard(client)["ok"] is False


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["whois", "tcp", "192.0.2.1", "::1", "named"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["command", "protocol", "local", "remote", "require", "timeout"]), inner, max_size=6
    ),
))  # fmt: skip
def test_whatever_comes_has_a_typed_result(asked: Any) -> None:
    with suppress(ValueError):
        assert isinstance(read_question({**ASKED, **asked} if isinstance(asked, dict) else asked, 1), Whois)


def test_no_command_is_taken_here(node: Node) -> None:
    """What the control socket does is its owner's."""
    commands = (
        {"command": "status"}, {"command": "disconnect", "name": "bob.example"}, {"command": "key"},
        {"command": "known-forget", "subject": "192.0.2.2"}, {"command": "why", "subject": "192.0.2.2"},
    )  # fmt: skip
    clients = [node.client(command) for command in commands]
    assert node.serve() == []
    assert ["no such question" in heard(client)["text"] for client in clients] == [True] * len(commands)


# --- Whose connection it is -------------------------------------------------------------------------------------------


def test_of_anothers_connection_nothing_is_told(node: Node) -> None:
    """Not even whether it is there."""
    node.owner = ANOTHERS
    mine, none = node.client(ASKED), node.client(ASKED)
    assert node.serve() == []
    said = heard(mine)
    node.owner = None
    assert node.serve() == []
    assert heard(none) == said == {"ok": False, "text": "you have no connection with 192.0.2.2", "body": None}


def test_root_may_ask_about_all_that_are_there(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    runs_as(monkeypatch, 0)
    node.owner = ANOTHERS
    node.client(ASKED)
    assert [question.flow for question in node.serve()] == [FLOW]
    node.owner = None
    node.client(ASKED)
    assert node.serve() == []


def test_whose_it_is_the_kernel_says(tmp_path: Path) -> None:
    """Nobody's word counts: a real connection, and the user that really connects."""
    node = Node(tmp_path / "peer.sock")
    with (
        closing(node), SockDiag() as diag,
        socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as mine,
    ):  # fmt: skip
        node.questions._find = diag.find
        asked = {**ASKED, "local": mine.getsockname(), "remote": mine.getpeername()}
        node.client(asked)
        wrong = node.client({**asked, "protocol": "udp"})
        assert [question.flow.remote_port for question in node.serve()] == [server.getsockname()[1]]
        assert heard(wrong)["ok"] is False


def test_a_socket_that_is_bound_to_a_device(tmp_path: Path) -> None:
    """The kernel knows it only with that."""
    node = Node(tmp_path / "peer.sock")
    with (
        closing(node), SockDiag() as diag, socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as mine,
    ):  # fmt: skip
        node.questions._find = diag.find
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        mine.connect(server.getsockname())
        asked = {**ASKED, "local": mine.getsockname(), "remote": mine.getpeername()}
        node.client({**asked, "device": socket.if_nametoindex("lo")})
        assert len(node.serve()) == 1
        without = node.client(asked)
        assert node.serve() == []
        assert heard(without)["ok"] is False


def test_a_user_may_have_any_number() -> None:
    """Up to 2 to the power of 32, as sock_diag tells them, too."""
    assert CREDENTIALS.unpack(struct.pack("=iII", 1, 1 << 31, 1 << 31)) == (1, 1 << 31, 1 << 31)


@pytest.mark.parametrize("error", [NetlinkError(1, "look for a connection"), PermissionError(1, "not permitted")])
def test_where_the_kernel_does_not_tell(node: Node, error: Exception) -> None:
    def find(flow: Flow, device: int) -> Connection | None:
        raise error

    node.questions._find = find
    client = node.client(ASKED)
    assert node.serve() == []
    assert "ot permitted" in heard(client)["text"]


# --- Bounds -----------------------------------------------------------------------------------------------------------


def test_one_users_connections_are_bounded_and_another_is_served(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = []
    for _ in range(MOST_OF_USER + 5):
        clients.append(node.client())
        node.serve()
    assert all(map(is_shut_out, clients[MOST_OF_USER:]))
    runs_as(monkeypatch, ANOTHERS)
    node.owner = ANOTHERS
    node.client(ASKED)
    assert len(node.serve()) == 1
    for client in clients:
        client.close()
    node.serve()
    # When they have gone there is room again.
    runs_as(monkeypatch, OURS)
    node.owner = OURS
    node.client(ASKED)
    assert len(node.serve()) == 1


def test_all_connections_are_bounded(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    clients = []
    for uid in range(1, 6):
        runs_as(monkeypatch, uid)
        clients.append(node.client())
        node.serve()
    assert all(map(is_shut_out, clients[3:]))
    # Root has a place whatever the others do.
    runs_as(monkeypatch, 0)
    node.client(ASKED)
    assert len(node.serve()) == 1


@pytest.mark.parametrize("guard", ["in", "out"])
def test_who_is_many_users_leaves_room_for_others(node: Node, guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """He has a range of them (subuid(5)), and takes all that he can have."""
    monkeypatch.setattr(module, "MOST", 6)
    if guard == "out":
        monkeypatch.setattr(module, "ONE_BY_ONE", 1 << 32)
    shut_out = []
    for uid in (*range(100_000, 100_010), 1000, 1001, 101, 1002):
        runs_as(monkeypatch, uid)
        client = node.client()
        node.serve()
        client.setblocking(False)
        try:
            shut_out += [uid] if client.recv(1) == b"" else []
        except BlockingIOError:
            continue
    served = {100_000, 100_001, 100_002, *((1000, 1001, 101) if guard == "in" else (100_003, 100_004, 100_005))}
    assert set(shut_out) == {*range(100_000, 100_010), 1000, 1001, 101, 1002} - served


def test_who_waits_for_an_answer_counts_even_when_he_has_left(node: Node) -> None:
    """Else whoever asks and leaves would have the node wait for as many peers as he likes."""
    for _ in range(MOST_OF_USER):
        node.client(ASKED).close()
        assert len(node.serve()) == 1
    late = node.client(ASKED)
    assert node.serve() == []
    assert is_shut_out(late)


def test_who_is_silent_gives_up_his_place(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = [node.client() for _ in range(MOST_OF_USER)]
    node.serve()
    late = node.client(ASKED)
    node.serve()
    assert is_shut_out(late)
    now = module.time.monotonic()
    monkeypatch.setattr(module.time, "monotonic", lambda: now + SILENCE)
    node.client(ASKED)
    assert len(node.serve()) == 1
    assert all(map(is_shut_out, silent))


def test_a_slow_reader_delays_nobody(node: Node) -> None:
    """He has his answer without reading it, or none."""
    for octets in (100_000, 10_000_000):
        client = node.client(ASKED)
        (question,) = node.serve()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        node.questions.reply(Reply(question.request, True, "x" * octets, "null"))
    # And nothing is kept of anybody who is gone.
    assert not node.questions._of_user


def test_without_a_descriptor_to_spare_who_comes_waits(node: Node) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    client = node.client(ASKED)
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, limits[1]))
    try:
        assert node.serve() == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(node.serve()) == 1


def test_each_turn_does_one_thing(node: Node) -> None:
    """So a flood of questions has no more of the node than one packet has."""
    for _ in range(20):
        node.client(ASKED)
    turns = 0
    found = 0
    while found < 20:
        found += node.questions.serve() is not None
        turns += 1
    assert turns == 40


def test_without_the_kernels_word_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: SockDiag) -> None:
        raise OSError(93, os.strerror(93))

    monkeypatch.setattr(SockDiag, "__init__", fail)
    node = Node(tmp_path / "peer.sock")
    with closing(node):
        node.questions.close()
        node.questions = Questions.at(node.listener)
        client = node.client(ASKED)
        assert node.serve() == []
        assert "cannot be known here" in heard(client)["text"]
