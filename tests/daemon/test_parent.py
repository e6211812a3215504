"""The processes as they run: what each may and holds, and what an intruder in the node can do with it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hushwire.daemon import parent
from hushwire.lab.hushwire import Hushwire
from hushwire.lab.namespaces import Host, end
from hushwire.lab.peer import eventually
from hushwire.lab.stage import Stage

pytestmark = pytest.mark.lab

CHILDREN = {"hushwire:keeper", "hushwire:resolv", "hushwire:memory", "hushwire:node", "hushwire:plane"}
"""The kernel keeps fifteen letters of a name."""
INTRUDER = Path(__file__).parent / "intruder.py"


def children(parent: int) -> dict[str, int]:
    """Process ids by name."""
    pids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {Path(f"/proc/{pid}/comm").read_text().strip(): int(pid) for pid in pids}


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def sockets(pid: int) -> set[str]:
    """The families of its sockets, and what else it has open."""
    families = {}
    for table in ("netlink", "udp", "udp6", "tcp", "tcp6", "raw", "raw6", "packet", "unix"):
        _head, *rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()
        column = {"netlink": 9, "packet": 8, "unix": 6}.get(table, 9)
        families |= {row.split()[column]: table for row in rows}
    found = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(each)
        inode = re.fullmatch(r"socket:\[(\d+)\]", target)
        found.add(families.get(inode[1], "socket") if inode else target.split(":")[0])
    return found


def holds(pid: int, octets: bytes) -> bool:
    """Whether these octets are anywhere in a process's memory."""
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            first, last = (int(end, 16) for end in line.split()[0].split("-"))
            if line.split()[1][0] != "r" or "[v" in line:
                continue
            memory.seek(first)
            if octets in memory.read(last - first):
                return True
    return False


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("seed 00112233\n! forged"), "ValueError at test_parent.py:"),
        (OSError("seed 00112233"), "OSError at test_parent.py:"),
        (PermissionError(1, "Operation not permitted", "/x\n! forged"),
         "PermissionError: Operation not permitted at test_parent.py:"),
    ],
)  # fmt: skip
def test_a_process_that_fails_says_where_and_not_with_what(error: Exception, said: str) -> None:
    with pytest.raises(type(error)) as caught:
        raise error
    line, _, number = parent._fault(caught.value).rpartition(":")
    assert (f"{line}:", number.isdigit()) == (said, True)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        stage.connect()
        stage.publish("userspace")
        for daemon in (stage.at_bob, stage.at_alice):
            stage.start(daemon)
        for daemon in (stage.at_bob, stage.at_alice):
            stage.await_names(daemon)
        for version in (4, 6):
            assert stage.ping(version)
        yield stage


def test_there_are_five_processes_and_the_parent(stage: Stage) -> None:
    assert children(stage.at_alice.pid).keys() == CHILDREN


def test_children_may_nothing(stage: Stage) -> None:
    for pid in children(stage.at_alice.pid).values():
        of = status(pid)
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(of[kind], 16) == 0, kind
        assert "0" not in of["Uid"].split() + of["Gid"].split()
        assert of["Groups"] == ""
        assert (of["NoNewPrivs"], of["Seccomp"]) == ("1", "2")


def test_the_parent_keeps_what_it_needs(stage: Stage) -> None:
    of = status(stage.at_alice.pid)
    # KILL, SETGID, SETUID, NET_ADMIN.
    assert int(of["CapEff"], 16) == int(of["CapPrm"], 16) == 1 << 5 | 1 << 6 | 1 << 7 | 1 << 12
    assert (int(of["CapBnd"], 16), of["NoNewPrivs"], of["Seccomp"]) == (0, "1", "2")


def test_each_holds_what_is_its_own(stage: Stage) -> None:
    pids = children(stage.at_alice.pid)
    plain = {"/dev/null", str(stage.at_alice.log), "unix", "anon_inode"}
    assert sockets(pids["hushwire:keeper"]) <= plain
    known = stage.at_alice.folder / "known"
    files = {str(known / name) for name in ("known.sqlite", "known.sqlite-wal")}
    assert sockets(pids["hushwire:memory"]) - plain == files
    # By netlink it looks whose a connection is, and no more: to end one takes a capability (tests/linux/test_diag.py).
    assert sockets(pids["hushwire:node"]) - plain == {"netlink", "udp", "udp6"}
    assert sockets(pids["hushwire:plane"]) - plain == {"udp", "udp6", "raw", "raw6", "/dev/net/tun"}
    assert not sockets(pids["hushwire:resolv"]) & {"netlink", "packet", "raw", "raw6", "/dev/net/tun"}
    # Control: who holds it all is seen to.
    assert {"netlink", "udp", "udp6", "/dev/net/tun"} <= sockets(stage.at_alice.pid)


def test_the_private_key_is_in_the_keeper_only(stage: Stage) -> None:
    private = load_pem_private_key((stage.at_alice.folder / "host.key").read_bytes(), None)
    seed = private.private_bytes_raw()  # type: ignore[union-attr]
    pids = children(stage.at_alice.pid)
    assert {name for name, pid in pids.items() if holds(pid, seed)} == {"hushwire:keeper"}
    assert not holds(stage.at_alice.pid, seed)


# --- An intruder ------------------------------------------------------------------------------------------------------


def like_alice(stage: Stage) -> Hushwire:
    """Another hushwire with alice's configuration, in the namespace of dns, who is nobody's peer."""
    text = stage.at_alice.config.read_text()
    return Hushwire(stage.dns, text.replace(str(stage.at_alice.folder), "{folder}"))


@contextmanager
def intruded(stage: Stage, how: str) -> Iterator[Path]:
    """One with an intruder in its node."""
    daemon = like_alice(stage)
    stage.dns.run("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    with daemon.log.open("w") as log:
        process = stage.dns.start(sys.executable, str(INTRUDER), str(daemon.config), how, stdout=log, stderr=log)
    try:
        assert eventually(lambda: "intruder {" in daemon.log.read_text(), 10), daemon.log.read_text()
        yield daemon.log
        assert process.poll() is None, daemon.log.read_text()
    finally:
        end(process)
        stage.dns.run("ip", "address", "delete", "192.0.2.1/32", "dev", "lo")
        stage.dns.run("ip", "xfrm", "policy", "flush")
        stage.dns.run("nft", "flush", "ruleset")


def told(log: Path) -> dict[str, str]:
    (line,) = re.findall(r"intruder (\{.*\})", log.read_text())[:1]
    found: dict[str, str] = json.loads(line)
    return found


def test_an_intruder_in_the_node_can_do_nothing(stage: Stage) -> None:
    with intruded(stage, "wait") as log:
        assert {name for name, came in told(log).items() if came == "done"} == set()


def test_control_what_the_intruder_tries_would_be_done(stage: Stage) -> None:
    with intruded(stage, "free") as log:
        assert {name for name, came in told(log).items() if came != "done"} == set()


def test_what_the_intruder_asks_is_refused_and_the_policy_stands(stage: Stage) -> None:
    with intruded(stage, "wait") as log:
        assert eventually(lambda: log.read_text().count("guard.refused") == 2), log.read_text()
        assert "guard.refused request=InstallPolicy" in log.read_text()
        assert "guard.refused request=DeletePolicy" in log.read_text()
        found = stage.dns.run("ip", "xfrm", "policy").stdout
        (policy,) = re.findall(r"src 192.0.2.1/32 dst 192.0.2.2/32.*\n\s+dir out (.*)", found)
        assert "action block" in policy


@pytest.mark.parametrize("how", ["words", "garbage"])
def test_what_is_no_request_starts_the_children_anew(stage: Stage, how: str) -> None:
    with intruded(stage, how) as log:
        assert eventually(lambda: log.read_text().count("intruder {") == 2, 10), log.read_text()
        assert "no word for" in log.read_text()
        assert "Traceback" not in log.read_text()


# --- Ends and starts --------------------------------------------------------------------------------------------------


def test_sigint_to_all_ends_all(stage: Stage) -> None:
    """As a terminal's Ctrl-C does."""
    daemon = like_alice(stage)
    daemon.config.write_text(daemon.config.read_text().replace("bob.example", "nobody.example"))
    with daemon:
        pids = children(daemon.pid)
        for pid in (*pids.values(), daemon.pid):
            os.kill(pid, signal.SIGINT)
        assert eventually(lambda: status(daemon.pid)["State"].startswith("Z"), 5)
        assert not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]
    assert "Traceback" not in daemon.log.read_text()
    assert not daemon.control.exists()


SQUATTER = """
import os, socket, sys, time
uid, how = int(sys.argv[1]), sys.argv[2]
os.setgroups([]); os.setgid(uid); os.setuid(uid)
holder = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
holder.bind("\\0hushwire")
callers = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
if how != "bound":
    holder.listen(0)
for caller in callers if how == "full" else ():
    caller.setblocking(False)
    caller.connect_ex("\\0hushwire")
print("there", flush=True)
time.sleep(60)
"""
"""A process with the name that says that hushwire runs."""

ALONE = """
import signal, socket
from hushwire.daemon.start import CannotStart, be_alone
signal.alarm(10)
try:
    be_alone()
    print("starts")
except CannotStart as error:
    print(error)
if {control}:
    signal.alarm(2)
    lock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lock.connect("\\0hushwire")
"""


@contextmanager
def squatting(host: Host, uid: int, how: str) -> Iterator[None]:
    process = host.start(sys.executable, "-c", SQUATTER, str(uid), how, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield
    finally:
        end(process)


@pytest.mark.parametrize("how", ["bound", "listening", "full"])
def test_no_user_keeps_hushwire_from_starting(stage: Stage, how: str) -> None:
    """By its abstract name, which anybody may take.  The control asks the squatter and waits for an answer."""
    with squatting(stage.dns, 65534, how):
        done = stage.dns.run(sys.executable, "-c", ALONE.format(control=how != "listening"), check=False)
        assert done.stdout == "starts\n"
        assert done.returncode == {"bound": 1, "listening": 0, "full": -signal.SIGALRM}[how], done.stderr
        assert ("ConnectionRefusedError" in done.stderr) is (how == "bound")


def test_a_second_hushwire_is_told_so(stage: Stage) -> None:
    """Control: whom the same user runs is no squatter; in another network namespace it is nobody's business."""
    said = "hushwire runs already on this host; stop it first, or see `hushwire status`\n"
    assert stage.alice.run(sys.executable, "-c", ALONE.format(control=False)).stdout == said
    with squatting(stage.dns, 0, "listening"):
        assert stage.dns.run(sys.executable, "-c", ALONE.format(control=False)).stdout == said
    assert stage.dns.run(sys.executable, "-c", ALONE.format(control=False)).stdout == "starts\n"


def test_hushwire_starts_beside_a_squatter(stage: Stage) -> None:
    daemon = like_alice(stage)
    daemon.config.write_text(daemon.config.read_text().replace("bob.example", "nobody.example"))
    with squatting(stage.dns, 65534, "bound"), daemon:
        # Each gives itself its name.
        assert eventually(lambda: children(daemon.pid).keys() == CHILDREN)
