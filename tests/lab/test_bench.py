"""The benchmarks' machinery, for a moment each."""

import os
import time

import pytest

from hushwire.lab import bench_latency, bench_lookups, bench_strangers
from hushwire.lab.bench_esp import PAIRS, Throughput, measure
from hushwire.lab.bench_handshake import Comparison, Cost, cost, cpu_seconds, hushwire


def test_a_result_says_the_median_and_the_range() -> None:
    assert str(Throughput("x", (1.0, 3.0, 2.0))).split(maxsplit=1)[1] == "2.00 Gbit/s (1.00 to 3.00)"
    comparison = Comparison((Cost(7, {"a": 1.0, "b": 0.5}, 5.0),), (Cost(7, {"c": 0.5}, 4.0),))
    assert "hushwire     1.50 ms" in str(comparison)
    assert "ratio        3.00 (3.00 to 3.00), 1 rounds" in str(comparison)

    once, twice = bench_lookups.Rate(10.0, 0), bench_lookups.Rate(20.0, 1)
    lines = str(bench_lookups.Comparison("names", (once, once), (twice, once))).splitlines()
    assert lines[0] == "names"
    assert [line.split()[1] for line in lines[1:]] == ["10", "15", "0.75"]
    assert lines[2].endswith("(10 to 20), 1 lost")


@pytest.mark.parametrize(
    ("distance", "cold", "warm", "verdicts"),
    [
        (20.0, 119.0, 21.0, ("holds", "none seen")),
        (20.0, 121.0, 23.0, ("exceeded by 1.0", "seen")),
        (0.0, 121.0, 21.0, ("41.0 of computing", "none seen")),
    ],
)
def test_a_wait_says_whether_its_bound_holds(
    distance: float, cold: float, warm: float, verdicts: tuple[str, str]
) -> None:
    """Two round trips and a look-up of 30 ms over plain's 50."""
    wait = bench_latency.Wait(distance, (50.0, 20.0), (cold, warm), 2.0)
    assert wait.verdicts == verdicts
    assert all(verdict in str(wait) for verdict in verdicts)


def test_what_grows_can_be_seen() -> None:
    row = bench_strangers.Row
    figure = bench_strangers.Figure("a look", "dict", (row("1", (1.0, 3.0, 2.0), (1.0,)), row("9", (8.0,), (2.0,))))
    assert [line.split()[-1] for line in str(figure).splitlines()] == ["grown", "1.00", "2.00"]
    assert str(figure).splitlines()[1].split()[1:6] == ["2", "(1", "to", "3)", "1"]
    assert str(figure).splitlines()[2].split()[3:] == ["4.00", "4.00", "/", "2.00"]


def test_strangers() -> None:
    """Every figure has a row for each size; that it is flat is for a quiet machine to say."""
    told: list[object] = []
    figures = bench_strangers.measure(1, told.append, (20, 200), (3, 30), (2, 4))
    assert told == figures
    assert all(len(figure.rows) >= 2 and all(min(row.ours) > 0 for row in figure.rows) for figure in figures)
    assert len({figure.what for figure in figures}) == len(figures) == 11


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


@pytest.mark.lab
def test_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_lookups, "FRESH", 20)
    told: list[str] = []
    report = bench_lookups.compare(1, 100, told.append)
    figures = report.comparisons
    assert len(figures) == len(told) == len({figure.what for figure in figures}) == 4
    for figure in figures:
        assert all(rate.lookups > 0 and not rate.lost for rate in (*figure.ours, *figure.theirs))
        assert str(figure) in str(report)


@pytest.mark.lab
def test_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_latency, "WARM", 2)
    told: list[object] = []
    (wait,) = bench_latency.measure(1, "auto", told.append, (0.01,))
    assert told == [bench_latency.HEAD, wait, bench_latency.FOOT]
    # Nothing can have come sooner than the wire lets it.
    assert wait.distance == 10 < min(*wait.plain, *wait.hushwire)
