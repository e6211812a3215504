"""Runs esp_cases.py in a kernel that has ESP, and with it what an older kernel might do otherwise."""

import sys
from pathlib import Path

import pytest

from hushwire.lab.uml import run

INSIDE = ("esp_cases.py", "test_kernel.py", "test_netlink.py", "test_sandbox.py", "test_tun.py")


@pytest.mark.uml
def test_the_kernel_plane_on_a_kernel_with_esp() -> None:
    here = Path(__file__).parent
    files = [str(here / name) for name in INSIDE]
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files], timeout=300)
    assert done.returncode == 0
    assert b" passed" in done.output
