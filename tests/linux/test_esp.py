"""Runs esp_cases.py in a kernel that has ESP."""

import sys
from pathlib import Path

import pytest

from hushwire.lab.uml import run


@pytest.mark.uml
def test_the_kernel_plane_on_a_kernel_with_esp() -> None:
    cases = Path(__file__).with_name("esp_cases.py")
    done = run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)], timeout=300)
    assert done.returncode == 0
    assert b" passed" in done.output
