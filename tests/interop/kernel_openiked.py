"""Run by test_openiked.py where the kernel has ESP and PF_KEY: hushwire and OpenIKED, both with the kernel's."""

from collections.abc import Iterator
from functools import partial

import pytest

from hushwire.crypto.keys import KeyKind
from hushwire.lab.interop import SIDES, Stage
from hushwire.lab.openiked import OpenIked
from hushwire.lab.peer import DEFAULT, Mode, Proposal, introduced

CBC = Proposal("aes256", "sha384", ke="ecp256")
"""Of ESP: Linux's PF_KEY takes no AEAD, which iked likes best."""
LIFETIME = 6
"""Seconds after which iked rekeys a Child SA of its own beginning."""


@pytest.fixture(scope="module", params=[KeyKind.ECDSA_P256, KeyKind.RSA, None], ids=str)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with Stage(partial(introduced, kind=request.param, ike=DEFAULT, esp=CBC), OpenIked, loss=1) as stage:
        yield stage


@pytest.mark.parametrize("initiator", SIDES)
def test_sas_traffic_rekeys_and_deletion(stage: Stage, initiator: str) -> None:
    stage.set_up(initiator)
    stage.encrypted()
    for ike in (False, True):
        stage.replaced(partial(stage.rekey, "hushwire", ike=ike), ike=ike)
    stage.encrypted()
    stage.side(SIDES[initiator == "hushwire"]).terminate()
    stage.nothing_stands()


@pytest.mark.parametrize("ike", [False, True], ids=["child", "ike"])
def test_openiked_rekeys_when_a_lifetime_ends(ike: bool) -> None:
    lifetimes = {"ike_lifetime": LIFETIME} if ike else {"lifetime": LIFETIME}
    introduce = partial(introduced, kind=KeyKind.ECDSA_P256, ike=DEFAULT, esp=CBC)
    with Stage(introduce, partial(OpenIked, **lifetimes), loss=1) as stage:
        stage.set_up("peer")
        stage.replaced(lambda: None, ike=ike)
        stage.encrypted()


def test_tunnel_mode() -> None:
    introduce = partial(introduced, kind=KeyKind.ECDSA_P256, mode=Mode.TUNNEL, ike=DEFAULT, esp=CBC)
    with Stage(introduce, OpenIked) as stage:
        stage.set_up("hushwire")
        stage.encrypted()
