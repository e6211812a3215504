"""Run by test_strongswan.py where the kernel has ESP: hushwire and strongSwan, both with the kernel's."""

from collections.abc import Iterator
from functools import partial

import pytest

from hushwire.crypto.keys import KeyKind
from hushwire.lab.interop import SIDES, Stage
from hushwire.lab.peer import DEFAULT, Mode, Proposal, introduced
from hushwire.lab.strongswan import StrongSwan


@pytest.fixture(scope="module", params=[KeyKind.ED25519, KeyKind.ECDSA_P256, KeyKind.RSA, None], ids=str)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with Stage(partial(introduced, kind=request.param, ike=DEFAULT, esp=DEFAULT), StrongSwan) as stage:
        yield stage


@pytest.mark.parametrize("initiator", SIDES)
def test_the_whole_story(stage: Stage, initiator: str) -> None:
    stage.tell(initiator)


@pytest.mark.parametrize(
    ("version", "mode", "esp"),
    [
        (4, Mode.TUNNEL, Proposal("aes256gcm16", esn=True)),
        (6, Mode.TRANSPORT, Proposal("aes256", "sha256", esn=True)),
        (6, Mode.TUNNEL, Proposal("chacha20poly1305")),
    ],
    ids=["tunnel-esn", "v6-cbc-esn", "v6-tunnel-chacha"],
)
def test_modes_and_suites_and_the_first_packet(version: int, mode: Mode, esp: Proposal) -> None:
    introduce = partial(introduced, version=version, mode=mode, ike=DEFAULT, esp=esp)
    with Stage(introduce, StrongSwan, version=version) as stage:
        # The first packet starts IKE, and is not lost.
        assert stage.alice.ping(stage.bob, version=version, timeout=15), stage.logs()
        ours, _ = stage.agreed()
        assert ours.initiator
        stage.encrypted()
        for who in SIDES:
            stage.replaced(partial(stage.rekey, who, ike=False), ike=False)
        stage.hushwire.terminate()
        stage.nothing_stands()
