"""hushwire and strongSwan 5.9.8: userspace ESP at both ends on this kernel, kernel ESP in User-Mode Linux."""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from hushwire.crypto.keys import KeyKind
from hushwire.lab import uml
from hushwire.lab.interop import SIDES, Stage
from hushwire.lab.peer import DEFAULT, Mode, Proposal, introduced
from hushwire.lab.strongswan import Esp, StrongSwan

KINDS = [KeyKind.ED25519, KeyKind.ECDSA_P256, KeyKind.RSA, None]


def stage_of(kind: KeyKind | None = KeyKind.ED25519, *, ours: Proposal = DEFAULT, version: int = 4) -> Stage:
    """Both ends in userspace, with proposals of their own choice unless `ours` says otherwise."""
    introduce = partial(introduced, kind=kind, version=version, mode=Mode.TUNNEL, ike=DEFAULT, esp=ours)
    return Stage(introduce, partial(StrongSwan, esp=Esp.USERSPACE), "userspace", version=version)


@pytest.fixture(scope="module", params=KINDS, ids=str)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with stage_of(request.param) as stage:
        yield stage


@pytest.mark.lab
@pytest.mark.parametrize("initiator", SIDES)
def test_the_whole_story_in_userspace(stage: Stage, initiator: str) -> None:
    stage.tell(initiator)


@pytest.mark.uml
def test_in_a_kernel_with_esp(tmp_path: Path) -> None:
    inner = Path(__file__).with_name("kernel_strongswan.py")
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=0", "--basetemp")
    with (tmp_path / "output").open("wb") as output:
        done = uml.run([*command, str(tmp_path / "inner"), str(inner)], timeout=300, stdout=output)
    assert done.returncode == 0, done.output.decode()
