"""The sandbox: each thing it forbids is tried in a process with it, and in one without it, where it succeeds."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from hushwire.linux import sandbox

pytestmark = pytest.mark.lab

TRY = """
import ctypes, json, os, resource, socket, sys, threading
from pathlib import Path
from hushwire.linux.sandbox import Capability, confine

here, arguments = Path(sys.argv[1]), json.loads(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *values):
    if getattr(libc, name)(*values) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def run_a_program():
    if os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]):
        raise OSError("it failed")

def start_a_thread():
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()

def namespace_by_clone():
    pid = libc.syscall({"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x40000000 | 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    os.waitpid(pid, 0)

tries = {
    "read a file": lambda: (here / "secret").read_text(),
    "read a readable file": lambda: (here / "readable" / "file").read_text(),
    "write a readable file": lambda: (here / "readable" / "file").write_text(""),
    "write a writable file": lambda: (here / "writable" / "file").write_text("x"),
    "run a program": run_a_program,
    "start a thread": start_a_thread,
    "make a namespace": lambda: call("unshare", 0x00020000),
    "make a namespace by clone": namespace_by_clone,
    "mount": lambda: call("mount", b"none", str(here / "mountpoint").encode(), b"tmpfs", 0, None),
    "send on an old socket": lambda: old.send(b"x"),
    "make a TCP listener": lambda: socket.create_server(("127.0.0.1", 0)).close(),
    "make a UDP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
    "use CAP_NET_ADMIN": lambda: old.setsockopt(socket.SOL_SOCKET, 33, 1 << 20),
    "set the time": lambda: call("adjtimex", bytes(512)),
    "become root": lambda: os.setresuid(0, 0, 0),
    "read own memory as another": lambda: open("/proc/self/mem").close(),
}
old, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
result = {}
if arguments is not None:
    arguments["keep"] = [Capability[name] for name in arguments.get("keep", ())]
    for name in ("readable", "writable"):
        arguments[name] = [Path(path) for path in arguments.get(name, ())]
    done = confine(**arguments)
    result |= {"applied": done.applied, "missing": done.missing}
result["could"] = []
for name, attempt in tries.items():
    try:
        attempt()
        result["could"].append(name)
    except OSError:
        pass
result["core"] = resource.getrlimit(resource.RLIMIT_CORE)[0]
result["ids"] = [os.getresuid(), os.getresgid(), os.getgroups()]
result["dumpable"] = libc.prctl(3, 0, 0, 0, 0)
result["no_new_privs"] = libc.prctl(39, 0, 0, 0, 0)
print(json.dumps(result))
"""


def attempt(directory: Path, arguments: dict[str, object] | None, *wrapper: str) -> dict[str, object]:
    """What a child could do after `confine(**arguments)`; None: without it."""
    for name in ("readable", "writable", "mountpoint"):
        (directory / name).mkdir(exist_ok=True)
        (directory / name).chmod(0o777)
    for name in ("secret", "readable/file", "writable/file"):
        (directory / name).write_text("x")
        (directory / name).chmod(0o666)
    for parent in (directory, *directory.parents[:-2]):
        parent.chmod(0o755)
    # A mount namespace of its own, since the attempts that succeed are not to be seen outside.
    command = ["unshare", "--mount", *wrapper, sys.executable, "-c", TRY, str(directory), json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


EVERYTHING = [
    "read a file", "read a readable file", "write a readable file", "write a writable file", "run a program",
    "start a thread", "make a namespace", "make a namespace by clone", "mount", "send on an old socket",
    "make a TCP listener", "make a UDP socket", "use CAP_NET_ADMIN", "set the time", "become root",
    "read own memory as another",
]  # fmt: skip


def landlock_version() -> int:
    try:
        return sandbox._syscall(sandbox.LANDLOCK_CREATE_RULESET, None, 0, sandbox.LANDLOCK_VERSION)
    except OSError:
        return 0


def test_without_it_everything_succeeds(tmp_path: Path) -> None:
    assert attempt(tmp_path, None)["could"] == EVERYTHING


def test_with_all_of_it_only_what_was_left_succeeds(tmp_path: Path) -> None:
    paths = {"readable": [str(tmp_path / "readable")], "writable": [str(tmp_path / "writable")]}
    found = attempt(tmp_path, {"uid": 65534, "gid": 65534, "network": False, **paths})
    could = {"read a readable file", "write a writable file", "start a thread", "send on an old socket"}
    if landlock_version():
        assert found["missing"] == []
    else:
        # Where the kernel has no Landlock, the files' own permissions are what is left: these are open to all.
        assert [reason.partition(":")[0] for reason in found["missing"]] == ["landlock"]  # type: ignore[attr-defined]
        could |= {"read a file", "write a readable file"}
    assert set(found["could"]) == could  # type: ignore[call-overload]
    assert found["ids"] == [[65534] * 3, [65534] * 3, []]
    assert (found["core"], found["dumpable"], found["no_new_privs"]) == (0, 0, 1)


def test_the_parent_keeps_what_it_names(tmp_path: Path) -> None:
    with_it = {"uid": 65534, "gid": 65534, "keep": ["NET_ADMIN"], "files": True, "programs": True}
    found = attempt(tmp_path, with_it)
    assert found["missing"] == []
    assert "capabilities: NET_ADMIN" in found["applied"]  # type: ignore[operator]
    assert {"use CAP_NET_ADMIN", "run a program", "make a UDP socket"} <= set(found["could"])  # type: ignore[call-overload]
    assert not {"become root", "mount", "make a namespace"} & set(found["could"])  # type: ignore[call-overload]
    without = attempt(tmp_path, {**with_it, "keep": []})
    assert "use CAP_NET_ADMIN" not in without["could"]  # type: ignore[operator]


def test_a_user_namespace_with_one_user_is_told_what_cannot_be(tmp_path: Path) -> None:
    found = attempt(tmp_path, {"uid": 65534, "gid": 65534, "files": True}, "unshare", "--user", "--map-root-user")
    refused = {reason.partition(":")[0] for reason in found["missing"]}  # type: ignore[attr-defined]
    assert refused == {"no groups", "group 65534", "user 65534"}
    assert "use CAP_NET_ADMIN" not in found["could"]  # type: ignore[operator]
    assert "run a program" not in found["could"]  # type: ignore[operator]


@pytest.mark.parametrize("machine", sorted({"aarch64", platform.machine()}))
def test_each_denied_call_is_named_as_the_kernel_numbers_it(machine: str) -> None:
    """Against the kernel's own headers, which come with the C library's.  aarch64 has the generic numbers."""
    header = {"x86_64": "x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "asm-generic/unistd.h"}[machine]
    column, _ = sandbox.ARCHITECTURES[machine]
    known = {}
    for line in (Path("/usr/include") / header).read_text().splitlines():
        words = line.split()
        if words[:1] == ["#define"] and words[1].startswith("__NR_") and len(words) == 3 and words[2].isdigit():
            known[words[1].removeprefix("__NR_")] = int(words[2])
    table = sandbox.DENIED | sandbox.SOCKETS | sandbox.PROGRAMS
    assert {name: numbers[column] for name, numbers in table.items()} == {name: known[name] for name in table}
    assert (known["clone"], known["clone3"]) == (sandbox.CLONE[column], sandbox.CLONE3)
