"""Run by test_strongswan.py where the kernel has ESP: hushwire and strongSwan, both with the kernel's."""

from collections.abc import Iterator
from functools import partial

import pytest

from hushwire.crypto.keys import KeyKind
from hushwire.lab.interop import SIDES, Stage
from hushwire.lab.peer import DEFAULT, introduced
from hushwire.lab.strongswan import StrongSwan


@pytest.fixture(scope="module", params=[KeyKind.ED25519, KeyKind.ECDSA_P256, KeyKind.RSA, None], ids=str)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with Stage(partial(introduced, kind=request.param, ike=DEFAULT, esp=DEFAULT), StrongSwan) as stage:
        yield stage


@pytest.mark.parametrize("initiator", SIDES)
def test_the_whole_story(stage: Stage, initiator: str) -> None:
    stage.tell(initiator)
