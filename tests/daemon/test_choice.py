"""Which plane a configuration gets, where it needs what not every kernel has."""

import io

import pytest

from hushwire.config import Addressing, Config, PlaneChoice, Rule
from hushwire.config.model import Host
from hushwire.daemon import start
from hushwire.daemon.log import Log
from hushwire.linux.kernel import EspSupport


@pytest.fixture(autouse=True)
def a_kernel_with_esp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_may_administer", lambda: True)
    monkeypatch.setattr(start, "has_esp", lambda: EspSupport(""))
    monkeypatch.setattr(start, "esp_warning", lambda: None)
    monkeypatch.setattr(start, "why_not", lambda: "")


def choose(plane: PlaneChoice, addressing: Addressing) -> tuple[PlaneChoice, str]:
    config = Config(Host("a.example", plane=plane), rules=(Rule("*.example", addressing=addressing),))
    log = io.StringIO()
    return start.choose_plane(config, Log("parent", log)), log.getvalue()


@pytest.mark.parametrize("addressing", list(Addressing))
def test_a_kernel_that_can_is_taken(addressing: Addressing) -> None:
    assert choose(PlaneChoice.AUTO, addressing)[0] is PlaneChoice.KERNEL
    assert choose(PlaneChoice.KERNEL, addressing)[0] is PlaneChoice.KERNEL
    assert choose(PlaneChoice.USERSPACE, addressing)[0] is PlaneChoice.USERSPACE


def test_without_a_packet_filter_synthetic_addresses_take_the_userspace_plane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "why_not", lambda: "no packet filter")
    chosen, said = choose(PlaneChoice.AUTO, Addressing.SYNTHETIC)
    assert chosen is PlaneChoice.USERSPACE
    assert "userspace, since it cannot have synthetic addresses here: no packet filter" in said
    assert choose(PlaneChoice.AUTO, Addressing.REAL)[0] is PlaneChoice.KERNEL
    with pytest.raises(start.CannotStart, match="synthetic addresses here: no packet filter; take"):
        choose(PlaneChoice.KERNEL, Addressing.SYNTHETIC)
