"""`hushwire whois`: which connections it is about, and how the answer is told, over a control socket."""

import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hushwire.cli import main
from hushwire.cli import whois as module
from hushwire.daemon.control import Command
from hushwire.events import Reply, Whois
from hushwire.linux.diag import SockDiag

from .conftest import Daemon as ControlDaemon

TOLD = {
    "level": "continuous", "how": "the same key since 2027-01-15, met 3 times", "peer": "127.0.0.1",
    "identity": "SHA256:AAAA", "key": "SHA256:AAAA", "since": 1.8e9, "met": 3, "established": 65.25,
    "ike_suite": "IKE", "esp_suite": "ESP", "mode": "transport", "binding": "00ff",
}  # fmt: skip
NOTHING = dict.fromkeys(TOLD) | {"how": "nothing is proved yet", "met": 0}


class Daemon(ControlDaemon):
    """With a node behind its socket that says `told` of everything."""

    def __init__(self, path: Path) -> None:
        self.told: dict[str, Any] = TOLD
        self.asked: list[Whois] = []
        super().__init__(path, self._of_the_node)

    def _of_the_node(self, command: Command) -> Reply:
        assert isinstance(command, Whois)
        self.asked.append(command)
        return Reply(command.request, True, "", json.dumps(self.told))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with closing(Daemon(tmp_path / "control")) as made:
        yield made


def whois(daemon: Daemon, remote: str, *more: str) -> Result:
    return CliRunner().invoke(main, ["whois", remote, "--control", str(daemon.path), *more])


@pytest.mark.parametrize(("address", "written"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_one_connection(daemon: Daemon, address: str, written: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.create_server((address, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as client,
    ):
        port, ours = server.getsockname()[1], client.getsockname()[1]
        done = whois(daemon, f"{written}:{port}")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        f"tcp {written}:{ours} with {written}:{port}: continuous",
        "how          the same key since 2027-01-15, met 3 times",
        "peer         127.0.0.1, as SHA256:AAAA",
        "key          SHA256:AAAA",
        "met          3 times, first 2027-01-15 08:00 UTC",
        "esp          ESP, transport mode",
        "ike          IKE, 65 s old",
        "binding      00ff",
    ]
    (asked,) = daemon.asked
    assert (str(asked.flow.remote), asked.flow.remote_port, asked.flow.local_port) == (address, port, ours)
    assert (asked.patience, str(asked.require)) == (0, "clear")


def test_who_was_met_once(daemon: Daemon) -> None:
    daemon.told = TOLD | {"met": 1}
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        done = whois(daemon, f"127.0.0.1:{server.getsockname()[1]}")
    assert "met          once, first 2027-01-15 08:00 UTC" in done.output.splitlines()


def test_several_are_told_one_after_another(daemon: Daemon) -> None:
    """TCP and UDP with one port, and through a socket of IPv6."""
    daemon.told = NOTHING
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server,
        socket.create_connection(("127.0.0.1", server.getsockname()[1])),
        socket.create_connection(("::ffff:127.0.0.1", server.getsockname()[1])),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        port = server.getsockname()[1]
        udp.connect(("127.0.0.1", port))
        done = whois(daemon, f"127.0.0.1:{port}")
        told = json.loads(whois(daemon, f"127.0.0.1:{port}", "--json").output)
    parts = done.output.rstrip("\n").split("\n\n")
    assert [part.split()[0] for part in parts] == ["tcp", "tcp", "udp"]
    assert all(part.endswith(": held, nothing is proved\nhow          nothing is proved yet") for part in parts)
    assert [each["protocol"] for each in told] == ["tcp", "tcp", "udp"]
    assert all(each["remote"] == ["127.0.0.1", port] for each in told)
    assert all(each.items() >= NOTHING.items() for each in told)


def test_no_connection(daemon: Daemon) -> None:
    """A socket that listens is none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = whois(daemon, f"127.0.0.1:{port}")
    assert done.exit_code == 1
    assert done.output == f"Error: no program of this host has a connection with 127.0.0.1:{port}\n"
    assert daemon.asked == []


@pytest.mark.parametrize(
    "written",
    ["127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:smtp", "bob.example:25", "::1:25", ":25",
     "[127.0.0.1]:25", "[::1]", "[::1:25", "192.0.2.0/24:25", ""],
)  # fmt: skip
def test_what_is_no_end_of_a_connection(daemon: Daemon, written: str) -> None:
    done = whois(daemon, written)
    assert done.exit_code == 2
    assert "is not ADDRESS:PORT, such as 192.0.2.2:25 or [2001:db8::2]:25" in " ".join(done.output.split())


def test_without_a_daemon(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        remote = f"127.0.0.1:{server.getsockname()[1]}"
        done = CliRunner().invoke(main, ["whois", remote, "--control", str(tmp_path / "control")])
    assert done.exit_code == 1
    assert "no hushwire runs here" in done.output


def test_where_the_kernel_does_not_tell(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: SockDiag) -> None:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(module.SockDiag, "__init__", fail)
    done = whois(daemon, "127.0.0.1:25")
    assert done.exit_code == 1
    assert done.output.startswith("Error: the kernel does not tell of connections: ")
