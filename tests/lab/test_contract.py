"""The contract test: contract_steps.py with userspace ESP on this kernel, and with kernel ESP in User-Mode Linux."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hushwire.lab import uml

STEPS = (
    sys.executable,
    "-m",
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    str(Path(__file__).with_name("contract_steps.py")),
)


@pytest.mark.lab
def test_the_userspace_plane(tmp_path: Path) -> None:
    environment = {**os.environ, "HUSHWIRE_PLANE": "userspace"}
    command = (*STEPS, "--basetemp", str(tmp_path / "inner"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout


@pytest.mark.uml
def test_the_kernel_plane(tmp_path: Path) -> None:
    environment = {**os.environ, "HUSHWIRE_PLANE": "kernel"}
    with (tmp_path / "output").open("wb") as output:
        command = (*STEPS, "--basetemp", str(tmp_path / "inner"))
        done = uml.run(command, env=environment, timeout=700, stdout=output)
    assert done.returncode == 0, done.output.decode()
