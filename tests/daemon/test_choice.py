"""Which plane a configuration gets, where it needs one in particular."""

import io

import pytest

from hushwire.config import Addressing, Config, PlaneChoice, Rule
from hushwire.config.model import Host
from hushwire.daemon import parent
from hushwire.daemon.log import Log


@pytest.fixture(autouse=True)
def a_kernel_with_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parent, "_may_administer", lambda: True)
    monkeypatch.setattr(parent, "has_esp", lambda: True)
    monkeypatch.setattr(parent, "esp_warning", lambda: None)


def choose(plane: PlaneChoice, addressing: Addressing) -> PlaneChoice:
    config = Config(Host("a.example", plane=plane), rules=(Rule("*.example", addressing=addressing),))
    return parent._choose_plane(config, Log("parent", io.StringIO()))


def test_synthetic_addresses_take_the_userspace_plane() -> None:
    assert choose(PlaneChoice.AUTO, Addressing.SYNTHETIC) is PlaneChoice.USERSPACE
    assert choose(PlaneChoice.AUTO, Addressing.REAL) is PlaneChoice.KERNEL
    assert choose(PlaneChoice.USERSPACE, Addressing.SYNTHETIC) is PlaneChoice.USERSPACE


def test_where_the_kernel_is_asked_for_they_are_refused() -> None:
    assert choose(PlaneChoice.KERNEL, Addressing.REAL) is PlaneChoice.KERNEL
    with pytest.raises(parent.CannotStart, match=r'"synthetic" needs host\.plane = "userspace"'):
        choose(PlaneChoice.KERNEL, Addressing.SYNTHETIC)
