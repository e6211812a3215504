"""hushwire and libreswan 4.10, NULL authentication: in one User-Mode Linux kernel, for kernel_libreswan.py."""

import sys
from pathlib import Path

import pytest

from hushwire.lab import uml


@pytest.mark.uml
def test_in_a_kernel_with_esp(tmp_path: Path) -> None:
    inner = Path(__file__).with_name("kernel_libreswan.py")
    # Rekeys while packets flow are `make libreswan`: on a machine where others work, too, libreswan loses some.
    chosen = ("-k", "not whole_story")
    command = (sys.executable, "-m", "pytest", "-q", *chosen, "-p", "no:cacheprovider", "--durations=0", "--basetemp")
    with (tmp_path / "output").open("wb") as output:
        done = uml.run([*command, str(tmp_path / "inner"), str(inner)], timeout=300, stdout=output)
    assert done.returncode == 0, done.output.decode()
