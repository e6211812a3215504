"""The peers against each other with the kernel's ESP: boots one User-Mode Linux kernel, for kernel_peers.py."""

import sys
from pathlib import Path

import pytest

from hushwire.lab import uml


@pytest.mark.uml
def test_in_a_kernel_with_esp(tmp_path: Path) -> None:
    inner = Path(__file__).with_name("kernel_peers.py")
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "inner"))
    with (tmp_path / "output").open("wb") as output:
        done = uml.run([*command, str(inner)], timeout=180, stdout=output)
    assert done.returncode == 0, done.output.decode()
