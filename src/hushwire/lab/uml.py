"""A kernel with ESP in two seconds: run a command in User-Mode Linux, over the host's own file system.

    python -m hushwire.lab.uml [--mem 1G] [--timeout 120] [--modules a,b] -- COMMAND...

User-Mode Linux is a Linux kernel that runs as a process; no privilege and no virtualisation are needed to boot it.
It wants Debian's packages `user-mode-linux` and `kmod`.  Inside, COMMAND is root in the caller's directory.  All the
host's files are there under the same paths and what is written is written on the host, with the caller's rights; /run
alone is private and empty.  There is no network but what COMMAND makes itself.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

KERNEL = "linux.uml"
MODULES = (
    "esp4", "esp6", "xfrm_user", "af_key",
    "gcm", "ghash-generic", "seqiv", "chacha20poly1305", "chacha_generic", "poly1305_generic",
    "authenc", "authencesn", "echainiv", "cbc", "ctr", "hmac", "sha512_generic", "cmac", "ccm",
    "veth", "tun", "dummy", "bridge", "sch_netem", "unix_diag", "udp_diag",
)  # fmt: skip
"""Loaded before COMMAND runs, with what they need.  The kernel asks for others by itself."""


@dataclass(frozen=True, slots=True)
class CompletedUml:
    """What became of the command."""

    returncode: int
    """Of COMMAND, as a shell tells it: 128 + N for signal N."""
    output: bytes
    """Everything COMMAND wrote to its standard output and error."""


class UmlFailed(Exception):
    """The kernel ended, and left no exit status of the command."""


def run(
    command: Sequence[str],
    *,
    timeout: float = 120,
    env: Mapping[str, str] | None = None,
    stdout: BinaryIO | None = None,
    mem: str = "1G",
    modules: Sequence[str] = MODULES,
) -> CompletedUml:
    """Boot, run `command` in the present directory, power off.

    `env` is the command's whole environment (None: this process's own).  Output is written to `stdout` (None:
    sys.stdout) as it comes.  Raises TimeoutError when `timeout` seconds were not enough, the boot included, and
    UmlFailed when the kernel died.  Neither leaves a process behind.
    """
    sink = stdout or sys.stdout.buffer
    with tempfile.TemporaryDirectory(prefix="hushwire-uml-") as name:
        directory = Path(name)
        init = directory / "init"
        init.write_text(_init(command, os.environ if env is None else env, modules, directory, timeout))
        init.chmod(0o700)
        output, late = _boot(directory, init, mem, timeout, sink)
        with suppress(FileNotFoundError, ValueError):
            return CompletedUml(int((directory / "status").read_text()), output)
        if late:
            raise TimeoutError(f"{shlex.join(command)}: not done after {timeout:g} s in {KERNEL}")
        console = (directory / "console").read_text(errors="replace")
    raise UmlFailed(f"{shlex.join(command)}: {KERNEL} left no exit status; its last words:\n{console[-2000:]}")


def lab_tests(
    file: str, keyword: str = "", *, timeout: float = 400, env: Mapping[str, str] = {"HUSHWIRE_PLANE": "kernel"}
) -> CompletedUml:
    """Run a file's tests marked `lab` again, in a kernel that has ESP.

    `keyword`: only those whose name matches, as `pytest -k` has it; `env` is added to this process's own environment.
    """
    chosen = ("-k", keyword) if keyword else ()
    command = (sys.executable, "-m", "pytest", "-q", "-m", "lab", *chosen, "-p", "no:cacheprovider", file)
    return run(command, timeout=timeout, env={**os.environ, **env})


def _boot(directory: Path, init: Path, mem: str, timeout: float, sink: BinaryIO) -> tuple[bytes, bool]:
    """Let the kernel run to its end, or to ours.  What it said, and whether it was too late."""
    arguments = (
        f"mem={mem}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", f"init={init}",
        "con=null", "con0=null,fd:1", "con1=null,fd:2", "console=tty1", "selinux=0",
        f"uml_dir={directory}", f"umid={directory.name}",
    )  # fmt: skip
    output = bytearray()
    late = threading.Event()
    # The kernel gets a pipe of its own, since it sets flags on its console that would outlive it on ours, and a
    # session of its own, since it is a whole group of processes that must end together.
    with (
        (directory / "console").open("wb") as console,
        subprocess.Popen(
            (KERNEL, *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=console,
            start_new_session=True,
        ) as kernel,
    ):

        def kill() -> None:
            with suppress(ProcessLookupError):
                os.killpg(kernel.pid, signal.SIGKILL)

        def give_up() -> None:
            late.set()
            kill()

        watchdog = threading.Timer(timeout, give_up)
        watchdog.start()
        try:
            assert kernel.stdout is not None
            while chunk := os.read(kernel.stdout.fileno(), 65536):
                output += chunk
                sink.write(chunk)
                sink.flush()
        finally:
            watchdog.cancel()
            kill()
    return bytes(output), late.is_set()


def _init(
    command: Sequence[str], env: Mapping[str, str], modules: Sequence[str], directory: Path, timeout: float
) -> str:
    """The script that is process 1 inside."""
    environment = [f"{key}={value}" for key, value in env.items()]
    return f"""#!/bin/sh
exec >/dev/tty0 2>&1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
stty -F /dev/tty0 -opost
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /dev/pts /dev/shm /run/lock
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
mkdir -p /lib/modules
mount --bind /usr/lib/uml/modules /lib/modules
modprobe -a {shlex.join(modules)}
ip link set lo up

# The command writes to a pipe, for it is to see no terminal; and no longer than its caller would wait.
mkfifo /run/output
cat /run/output &
reader=$!
cd {shlex.quote(os.getcwd())}
timeout -s KILL {timeout:g} env -i {shlex.join(environment)} \\
    {shlex.join(command)} </dev/null >/run/output 2>&1
echo $? >{shlex.quote(str(directory / "status"))}
sync
timeout 1 tail -f -s 0.05 --pid=$reader /dev/null

echo o >/proc/sysrq-trigger
sleep 10
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.  Its exit status is COMMAND's; 124: out of time; 125: the kernel died."""
    parser = argparse.ArgumentParser(prog="hushwire.lab.uml", description="Run a command in a kernel that has ESP.")
    parser.add_argument("--mem", default="1G", help="memory of the kernel (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=120, help="seconds, boot included (default: %(default)g)")
    parser.add_argument("--modules", default="", help="more modules to load, separated by commas")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    options = parser.parse_args(arguments)
    modules = (*MODULES, *filter(None, options.modules.split(",")))
    # A polite end of this process must be the kernel's end too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        return run(options.command, timeout=options.timeout, mem=options.mem, modules=modules).returncode
    except TimeoutError as late:
        print(late, file=sys.stderr)
        return 124
    except UmlFailed as failed:
        print(failed, file=sys.stderr)
        return 125


if __name__ == "__main__":
    sys.exit(main())
