"""What all IKE SAs of a host share: nothing of those that are closed stays (ATTACKS row 55)."""

from typing import Any

import pytest

from hushwire.ike import host


@pytest.mark.parametrize("guard", ["in", "out"])
def test_who_is_closed_is_not_kept(pair: Any, guard: str, monkeypatch: Any) -> None:
    """The last alarm of each is hours away."""
    if guard == "out":
        monkeypatch.setattr(host, "LEAST", 1 << 20)
    for _ in range(50):
        pair.initiate()
        pair.deliver()
        pair.alice.endpoint.delete(pair.alice.sa, pair.now)
        pair.deliver()
    assert not pair.bob.sas
    kept = {sa for _, _, sa in pair.bob.endpoint._host.alarms}
    assert (len(kept) < 20) if guard == "in" else (len(kept) == 50)


def test_who_stands_is_looked_at_in_time(pair: Any, monkeypatch: Any) -> None:
    """However many alarms were thrown away meanwhile, it is asked whether it lives, and replaced."""
    monkeypatch.setattr(host, "STALE", 0)
    monkeypatch.setattr(host, "LEAST", 1)
    pair.initiate()
    pair.deliver()
    first = pair.bob.sa
    for _ in range(400):
        pair.wait(50)
    assert pair.bob.sa is not first
    assert pair.bob.sa.spi_i != first.spi_i
