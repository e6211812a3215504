"""Giving up what a process does not need: identity, capabilities, files, system calls (DESIGN.md section 3)."""

import ctypes
import os
import platform
import resource
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from struct import Struct


class Capability(IntEnum):
    """Those that a hushwire process may want to keep (capabilities(7))."""

    KILL = 5
    SETGID = 6
    SETUID = 7
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13


@dataclass(frozen=True, slots=True)
class Confinement:
    """What became of each measure."""

    applied: tuple[str, ...]
    missing: tuple[str, ...]
    """Those that this kernel or this user namespace would not have, each with the reason."""


def confine(
    *,
    uid: int | None = None,
    gid: int | None = None,
    keep: Collection[Capability] = (),
    readable: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    files: bool = False,
    network: bool = True,
    programs: bool = False,
) -> Confinement:
    """Confine this process for good.  Call it before there are threads: most of it is each thread's own.

    `keep`: capabilities that survive.  Files: only what lies under `readable` and `writable`, and what is open
    already; with `files`, all.  Without `network` no new socket is made, though inherited ones work.  With
    `programs`, other programs may be run: confined as we are, and with the system calls that we may use.

    It goes on where a measure cannot be had (in a user namespace with one user, or an older kernel) and says so: the
    caller judges what is not enough.
    """
    measures: list[tuple[str, Callable[[], object]]] = [
        ("no core dumps", lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))),
        ("no new privileges", partial(_prctl, PR_SET_NO_NEW_PRIVS, 1)),
        ("empty bounding set", _empty_bounding_set),
        ("capabilities over setuid", partial(_prctl, PR_SET_KEEPCAPS, 1)),
    ]
    if gid is not None:
        measures += [("no groups", lambda: os.setgroups([])), (f"group {gid}", lambda: os.setresgid(gid, gid, gid))]
    if uid is not None:
        measures += [(f"user {uid}", lambda: os.setresuid(uid, uid, uid))]
    measures += [
        ("no ambient capabilities", partial(_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)),
        (f"capabilities: {' '.join(each.name for each in sorted(keep)) or 'none'}", partial(_set_capabilities, keep)),
        # To change the user sets what it may be by sysctl; so this comes after.
        ("not traceable", partial(_prctl, PR_SET_DUMPABLE, 0)),
    ]
    if not files:
        measures += [("landlock", partial(_landlock, readable, writable, network))]
    measures += [("seccomp", partial(_seccomp, network, programs))]

    applied, missing = [], []
    for name, measure in measures:
        try:
            measure()
        except OSError as refused:
            missing.append(f"{name}: {refused.strerror}")
        else:
            applied.append(name)
    return Confinement(tuple(applied), tuple(missing))


# --- Capabilities -----------------------------------------------------------------------------------------------------


def _empty_bounding_set() -> None:
    """So that no program we run, set-user-ID or not, can have any."""
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        if _prctl(PR_CAPBSET_READ, capability):
            _prctl(PR_CAPBSET_DROP, capability)


def _set_capabilities(keep: Collection[Capability]) -> None:
    """Effective and permitted; inheritable none."""
    kept = sum(1 << each for each in keep)
    low = CAP_DATA.pack(kept, kept, 0)
    _call("capset", CAP_HEADER.pack(CAPABILITY_VERSION_3, 0), low + bytes(CAP_DATA.size))


# --- Landlock ---------------------------------------------------------------------------------------------------------


def _landlock(readable: Sequence[Path], writable: Sequence[Path], network: bool) -> None:
    """No file but these, no TCP without `network`, no signal to those outside: as much as this version of it knows."""
    version = _syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION)
    every = (1 << next(bits for since, bits in LANDLOCK_FILE_BITS if version >= since)) - 1
    tcp = LANDLOCK_TCP if version >= 4 and not network else 0
    scope = LANDLOCK_SCOPE if version >= 6 else 0
    # An older kernel refuses an attribute that is longer than its own, unless the rest is zero.
    ruleset = _syscall(LANDLOCK_CREATE_RULESET, RULESET.pack(every, tcp, scope), RULESET.size, 0)
    try:
        for paths, allowed in ((readable, LANDLOCK_READ), (writable, every & ~LANDLOCK_EXECUTE)):
            for path in paths:
                where = os.open(path, os.O_PATH | os.O_CLOEXEC)
                try:
                    mask = every if path.is_dir() else LANDLOCK_FILE
                    _syscall(
                        LANDLOCK_ADD_RULE, ruleset, LANDLOCK_PATH_BENEATH, PATH_BENEATH.pack(allowed & mask, where), 0
                    )
                finally:
                    os.close(where)
        _syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


# --- Seccomp ----------------------------------------------------------------------------------------------------------


def _seccomp(network: bool, programs: bool) -> None:
    """A list of system calls that fail with EPERM; they are those that an intruder would want next."""
    try:
        column, architecture = ARCHITECTURES[platform.machine()]
    except KeyError:
        raise OSError(0, f"no table of system calls for {platform.machine()}") from None
    denied = DENIED | ({} if network else SOCKETS) | ({} if programs else PROGRAMS)
    program = [
        (BPF_LOAD, 0, 0, 4),
        (BPF_EQUAL, 1, 0, architecture),
        (BPF_RETURN, 0, 0, KILL_PROCESS),
        (BPF_LOAD, 0, 0, 0),
    ]
    # The x32 numbers of x86-64 are other names of the same calls.
    program += [(BPF_AT_LEAST, 0, 1, X32), (BPF_RETURN, 0, 0, FAIL_EPERM)]
    for numbers in denied.values():
        program += [(BPF_EQUAL, 0, 1, numbers[column]), (BPF_RETURN, 0, 0, FAIL_EPERM)]
    # The flags of clone3 lie in memory, out of a filter's sight: libc falls back to clone when there is no clone3.
    program += [(BPF_EQUAL, 0, 1, CLONE3), (BPF_RETURN, 0, 0, FAIL_ENOSYS)]
    program += [(BPF_EQUAL, 0, 3, CLONE[column]), (BPF_LOAD, 0, 0, 16), (BPF_ANY_BIT, 0, 1, CLONE_NEW_NAMESPACES)]
    program += [(BPF_RETURN, 0, 0, FAIL_EPERM), (BPF_RETURN, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(BPF_INSTRUCTION.pack(*each) for each in program))
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, SOCK_FPROG.pack(len(program), ctypes.addressof(code)))


# --- Calls ------------------------------------------------------------------------------------------------------------

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, *arguments: int | bytes) -> int:
    return _call("prctl", option, *arguments, *(0,) * (4 - len(arguments)))


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    return _call("syscall", number, *arguments)


def _call(name: str, *arguments: int | bytes | None) -> int:
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    function = getattr(_libc, name)
    function.restype = ctypes.c_long if name == "syscall" else ctypes.c_int
    result: int = function(*wide)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_SECCOMP, PR_CAPBSET_READ, PR_CAPBSET_DROP = 4, 8, 22, 23, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4

CAP_HEADER = Struct("=I i")
"""struct __user_cap_header_struct: version, process (0: this)."""
CAP_DATA = Struct("=I I I")
"""struct __user_cap_data_struct, twice (low and high 32): effective, permitted, inheritable."""
CAPABILITY_VERSION_3 = 0x20080522

RULESET = Struct("=Q Q Q")
"""struct landlock_ruleset_attr: file accesses, TCP accesses and scopes that it denies."""
PATH_BENEATH = Struct("=Q i")
"""struct landlock_path_beneath_attr: accesses allowed, directory or file."""
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_VERSION = 1
LANDLOCK_PATH_BENEATH = 1
LANDLOCK_FILE_BITS = ((5, 16), (3, 15), (2, 14), (1, 13))
"""From which version on, how many kinds of file access there are."""
LANDLOCK_EXECUTE, LANDLOCK_READ = 0x0001, 0x000C
"""Read: of files and of directories.  A shared library is read and mapped, not executed."""
LANDLOCK_FILE = 0xC007
"""Those that mean something for a file rather than a directory."""
LANDLOCK_TCP, LANDLOCK_SCOPE = 0x3, 0x3
"""To bind and to connect; abstract Unix sockets and signals."""

SECCOMP_MODE_FILTER = 2
BPF_INSTRUCTION = Struct("=H B B I")
"""struct sock_filter: code, jumps if true and if false, operand."""
SOCK_FPROG = Struct("@H P")
BPF_LOAD, BPF_EQUAL, BPF_AT_LEAST, BPF_ANY_BIT, BPF_RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, FAIL_EPERM, FAIL_ENOSYS, KILL_PROCESS = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
X32 = 0x40000000
CLONE, CLONE3 = (56, 220), 435
CLONE_NEW_NAMESPACES = 0x7E020000
"""Mount, cgroup, UTS, IPC, user, PID and network."""

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Column of the tables below, and AUDIT_ARCH."""
PROGRAMS = {"execve": (59, 221), "execveat": (322, 281)}
SOCKETS = {"socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201)}
DENIED = {
    # Other processes.
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "kcmp": (312, 272), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "personality": (135, 92),
    # The kernel.
    "bpf": (321, 280), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    # Keys.
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    # Files and namespaces.
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "open_by_handle_at": (304, 265),
    "unshare": (272, 97), "setns": (308, 268), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    # Time, by which DNSSEC signatures expire.
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
}  # fmt: skip
"""System calls by name: their numbers on x86-64 and on aarch64."""
