"""The benchmarks' machinery, for a moment each."""

import os
import time

import pytest

from hushwire.lab.bench_esp import PAIRS, Throughput, measure
from hushwire.lab.bench_handshake import Comparison, Cost, cost, cpu_seconds, hushwire


def test_a_result_says_the_median_and_the_range() -> None:
    assert str(Throughput("x", (1.0, 3.0, 2.0))).split(maxsplit=1)[1] == "2.00 Gbit/s (1.00 to 3.00)"
    comparison = Comparison((Cost(7, {"a": 1.0, "b": 0.5}, 5.0),), (Cost(7, {"c": 0.5}, 4.0),))
    assert "hushwire     1.50 ms" in str(comparison)
    assert "ratio        3.00 (3.00 to 3.00), 1 rounds" in str(comparison)


def test_cpu_time_is_counted() -> None:
    before = cpu_seconds(os.getpid())
    end_at = time.process_time() + 0.1
    while time.process_time() < end_at:
        pass
    assert 0.05 < cpu_seconds(os.getpid()) - before < 0.5


@pytest.mark.lab
@pytest.mark.parametrize("name", PAIRS)
def test_throughput(name: str) -> None:
    assert all(0.001 < rate < 1000 for rate in measure(name, PAIRS[name], rounds=2, seconds=1).rounds)


@pytest.mark.lab
def test_handshakes() -> None:
    found = cost(hushwire, 5)
    assert len(found.cpu) >= 1
    assert 0 < found.total < 1000
