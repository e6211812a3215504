"""Bad input on hosts of the lab: one clear line, a status that is not 0, and what runs goes on running."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hushwire.lab.hushwire import Hushwire
from hushwire.lab.namespaces import Host
from hushwire.lab.stage import Stage

pytestmark = pytest.mark.lab


HOLD_PORT = """
import socket, time
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.bind(("", 500))
print("held", flush=True)
time.sleep(30)
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """hushwire runs on alice and bob, and nothing here may disturb them."""
    with Stage() as stage:
        stage.connect()
        stage.publish("userspace")
        for daemon in (stage.at_bob, stage.at_alice):
            stage.start(daemon)
        for daemon in (stage.at_bob, stage.at_alice):
            stage.await_names(daemon)
        yield stage


@pytest.fixture(autouse=True)
def undisturbed(stage: Stage) -> Iterator[None]:
    """The two who run, before and after."""
    for version in (4, 6):
        assert stage.ping(version)
    before = children(stage), stage.at_alice.sas()
    yield
    assert (children(stage), stage.at_alice.sas()) == before
    for version in (4, 6):
        assert stage.ping(version)
    assert stage.seen(stage.hidden) == 0
    assert not re.search("Traceback|Error:|! a process ended", stage.at_alice.log.read_text())


def children(stage: Stage) -> str:
    pid = stage.at_alice.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()


def hushwire(host: Host, *words: object, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The command line, in a host."""
    return host.run(*prefix, sys.executable, "-m", "hushwire", *map(str, words), check=False, timeout=60)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that it says instead."""
    lines = [line for line in done.stderr.splitlines() if not re.match(r"hushwire\[\w+\] plane: ", line)]
    assert (done.returncode, done.stdout, len(lines)) == (1, "", 1), done
    return lines[0].removeprefix("Error: ")


def like_alice(stage: Stage, host: Host | None = None, **changes: str) -> Hushwire:
    """Another hushwire with alice's configuration; `changes` are settings that are there, with hyphens as _.

    Beside dns it protects nothing, since bob needs his answers.
    """
    text = stage.at_alice.config.read_text().replace(str(stage.at_alice.folder), "{folder}")
    if host is None:
        text = text.replace("bob.example", "nobody.example")
    for key, value in changes.items():
        text, count = re.subn(rf"(?m)^{key.replace('_', '-')} = .*$", f"{key.replace('_', '-')} = {value}", text)
        assert count == 1
    return Hushwire(host or stage.dns, text)


# --- Names, on a daemon that runs -------------------------------------------------------------------------------------


def connect(stage: Stage, name: str) -> str:
    return refused(hushwire(stage.alice, "connect", name, "--control", stage.at_alice.control))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody.example", "no IPSECKEY record and no TLSA, and that is signed"),
        ("unsigned.example", "not signed"),
        ("bogus.example", "no answer"),
        ("expired.example", "no answer"),
    ],
)
def test_a_name_that_proves_nothing(stage: Stage, name: str, said: str) -> None:
    line = connect(stage, name)
    assert line.startswith(f"{name}: ")
    assert said in line


@pytest.mark.parametrize("name", ["", "bob..example", "a b", "x" * 64 + ".example", "../../etc/passwd", "-h.example\n"])
def test_what_is_no_name(stage: Stage, name: str) -> None:
    done = hushwire(stage.alice, "connect", "--control", stage.at_alice.control, "--", name)
    refused(done)


def test_the_alice_that_runs_knows_nobody_else_of_that_name(stage: Stage) -> None:
    for command in ("disconnect", "rekey"):
        line = refused(hushwire(stage.alice, command, "carol.example", "--control", stage.at_alice.control))
        assert line == "carol.example is not connected"


def test_a_resolver_that_is_dead(stage: Stage) -> None:
    """Nobody answers at 192.0.2.99."""
    with like_alice(stage, forward='["192.0.2.99"]') as daemon:
        line = refused(hushwire(stage.dns, "connect", "carol.example", "--control", daemon.control))
        assert line.startswith("carol.example: ")
        assert "no answer" in line


# --- Starting ---------------------------------------------------------------------------------------------------------


def run(daemon: Hushwire, prefix: tuple[str, ...] = ()) -> str:
    return refused(hushwire(daemon.host, "run", daemon.config, prefix=prefix))


def test_without_privileges(stage: Stage) -> None:
    daemon = like_alice(stage)
    daemon.folder.chmod(0o755)
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    assert run(daemon, nobody) == "hushwire needs CAP_NET_ADMIN to protect packets; run it as root"


def test_a_port_in_use(stage: Stage) -> None:
    holder = stage.dns.start(sys.executable, "-c", HOLD_PORT, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    daemon = like_alice(stage)
    before = stage.dns.run("ip", "xfrm", "policy").stdout
    try:
        assert run(daemon) == "udp port 500 on 0.0.0.0 is in use: another IKE daemon may be running"
        assert not daemon.control.exists()
        assert stage.dns.run("ip", "xfrm", "policy").stdout == before
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"control": '"{}"'},
        {"name": '"alice.example"\nport = 501\nnat-port = 4501'},
        {"name": '"alice.example"\nport = 501', "control": '"{}"'},
        {"name": '"alice.example"\nport = 501\nnat-port = 4501', "control": '"{}"'},
    ],
    ids=["other socket", "all the same", "other ports", "other port of IKE, same socket", "other ports, same socket"],
)
def test_a_second_daemon_leaves_the_first_alone(stage: Stage, changes: dict[str, str]) -> None:
    filled = {key: value.replace("{}", str(stage.at_alice.control)) for key, value in changes.items()}
    line = run(like_alice(stage, stage.alice, **filled))
    assert re.search("in use|runs already", line)
    assert stage.at_alice.control.is_socket()


def test_the_socket_that_an_earlier_run_left_is_taken(stage: Stage) -> None:
    daemon = like_alice(stage)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(daemon.control))
    with daemon:
        assert daemon.status()["name"] == "alice.example"


@pytest.mark.parametrize(
    ("content", "mode", "said"),
    [
        (None, 0, "host.key: No such file or directory"),
        (b"", 0o644, "host.key: mode 0644 gives others a private key; it must be 0600 or 0400"),
        (b"garbage", 0o600, "host.key: "),
    ],
)
def test_a_key_file_that_is_not_as_it_must_be(stage: Stage, content: bytes | None, mode: int, said: str) -> None:
    daemon = like_alice(stage)
    key = daemon.folder / "host.key"
    if content is None:
        key.unlink()
    else:
        key.write_bytes(content or key.read_bytes())
        key.chmod(mode)
    for line in (run(daemon), refused(hushwire(stage.dns, "check", daemon.config))):
        assert said in line
        assert line.startswith(str(daemon.folder))
    assert not daemon.control.exists()


@pytest.mark.parametrize("anchor", ['"/nowhere/root.key"', '"{folder}/hushwire.toml"'])
def test_a_trust_anchor_that_is_none(stage: Stage, anchor: str) -> None:
    daemon = like_alice(stage, trust_anchor=anchor)
    for line in (run(daemon), refused(hushwire(stage.dns, "check", daemon.config))):
        assert "trust anchor" in line
    assert not daemon.control.exists()


def test_a_user_that_is_not_there(stage: Stage) -> None:
    daemon = like_alice(stage, name='"alice.example"\nuser = "nobody-here"')
    line = 'host.user: there is no user "nobody-here" on this machine; make one or name another'
    assert run(daemon) == line
    assert line in refused(hushwire(stage.dns, "check", daemon.config))


# --- A daemon that does not run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("status",), ("connect", "bob.example"), ("disconnect", "x"), ("rekey", "x")])
def test_no_daemon(stage: Stage, command: tuple[str, ...], tmp_path: Path) -> None:
    absent = tmp_path / "control"
    said = "no hushwire runs here; start it with `hushwire run`"
    assert refused(hushwire(stage.dns, *command, "--control", absent)) == f"{absent}: {said}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(absent))
    said = "hushwire has stopped; start it with `hushwire run`"
    assert refused(hushwire(stage.dns, *command, "--control", absent)) == f"{absent}: {said}"


def test_another_user_may_not_command_it(stage: Stage) -> None:
    folder = stage.at_alice.folder
    mode = folder.stat().st_mode
    folder.chmod(0o755)
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    try:
        line = refused(hushwire(stage.alice, "status", "--control", stage.at_alice.control, prefix=nobody))
    finally:
        os.chmod(folder, mode)
    assert line == f"{stage.at_alice.control}: only the user that runs hushwire may command it"
