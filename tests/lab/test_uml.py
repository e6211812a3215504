"""The User-Mode Linux runner: what a command sees inside, and how every run ends."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hushwire.lab.uml import CompletedUml, UmlFailed, run

pytestmark = pytest.mark.uml


def living_in(directory: Path) -> list[int]:
    """Processes, zombies apart, whose command line names a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if str(directory).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def test_the_command_is_root_here_and_its_status_output_and_files_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = """
        id -u; pwd; env | sort; test -t 1 || echo no terminal; echo to stderr >&2
        echo written > result; ls /run; grep -c . /proc/net/if_inet6
        ip xfrm state add src ::1 dst ::1 proto esp spi 0x1000 mode transport aead 'rfc4106(gcm(aes))' 0x%040x 128
        ip xfrm state count; test -c /dev/net/tun && exit 37
    """
    sink = io.BytesIO()
    done = run(["sh", "-c", script % 1], timeout=60, env={"PATH": os.environ["PATH"], "WORD": "a 'b' $c"}, stdout=sink)
    lines = done.output.decode().splitlines()
    assert done.returncode == 37
    assert sink.getvalue() == done.output
    assert lines[:2] == ["0", str(tmp_path)]
    assert "WORD=a 'b' $c" in lines
    assert not any(line.startswith(("HOME=", "TERM=")) for line in lines)
    assert "no terminal" in lines
    assert "to stderr" in lines
    assert "lock" in lines
    assert "\t SAD count 1" in lines
    assert (tmp_path / "result").read_text() == "written\n"


def test_two_at_once_from_the_command_line_one_of_them_too_slow(tmp_path: Path) -> None:
    def start(timeout: float, *command: str) -> subprocess.Popen[bytes]:
        options = ["--mem", "256M", "--timeout", str(timeout), "--"]
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        return subprocess.Popen(
            [sys.executable, "-m", "hushwire.lab.uml", *options, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )

    started = time.monotonic()
    with start(8, "sh", "-c", "echo slow; sleep 60") as slow, start(60, "echo", "quick") as quick:
        assert quick.communicate() == (b"quick\n", b"")
        assert quick.returncode == 0
        output, errors = slow.communicate()
    assert time.monotonic() - started < 15
    assert output == b"slow\n"
    assert b"not done after 8 s" in errors
    assert slow.returncode == 124
    assert living_in(tmp_path) == []


def test_a_dead_kernel_is_told_from_a_failed_command(tmp_path: Path) -> None:
    with pytest.raises(UmlFailed, match="Too few physical memory"):
        run(["true"], timeout=20, mem="4M")
    assert run(["false"], timeout=60) == CompletedUml(1, b"")
