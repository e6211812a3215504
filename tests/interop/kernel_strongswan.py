"""Run by test_strongswan.py where the kernel has ESP: hushwire and strongSwan, both with the kernel's."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from hushwire.crypto.keys import KeyKind
from hushwire.lab.frame import Kind
from hushwire.lab.interop import SIDES, Stage
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import DEFAULT, Connection, Mode, Proposal, introduced
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


def test_a_tunnel_between_networks() -> None:
    near, far = "10.1.0.0/24", "10.2.0.0/24"

    def introduce(alice: Host, bob: Host) -> tuple[Connection, Connection]:
        for host, own, other, gateway in ((alice, "10.1.0.1", far, bob), (bob, "10.2.0.1", near, alice)):
            host.run("ip", "address", "add", f"{own}/24", "dev", "lo")
            host.run("ip", "route", "add", other, "via", str(gateway.v4), "src", own)
        ours, theirs = introduced(alice, bob, mode=Mode.TUNNEL, ike=DEFAULT, esp=DEFAULT)
        return (
            replace(ours, local_traffic=near, remote_traffic=far),
            replace(theirs, local_traffic=far, remote_traffic=near),
        )

    with Stage(introduce, StrongSwan) as stage:
        for who in SIDES:
            stage.set_up(who)
            canary, before = stage.relay.canary(), stage.relay.report().count(Kind.ESP)
            ping = ("ping", "-n", "-c", "3", "-i", "0.2", "-W", "5", "-p", canary.hex())
            stage.alice.run(*ping, "-I", "10.1.0.1", "10.2.0.1")
            assert stage.relay.report().count(Kind.ESP) - before == 6
            assert stage.relay.report().seen(canary) == 0
            stage.nothing_clear()
            stage.rekey(who, ike=False)
            stage.alice.run(*ping, "-I", "10.1.0.1", "10.2.0.1")
            stage.side(who).terminate()
            stage.nothing_stands()
