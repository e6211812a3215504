"""hushwire and strongSwan 5.9.8: userspace ESP at both ends on this kernel, kernel ESP in User-Mode Linux."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab import uml
from hushwire.lab.frame import Kind
from hushwire.lab.interop import SIDES, Stage
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import DEFAULT, Connection, Mode, Proposal, introduced
from hushwire.lab.strongswan import Esp, StrongSwan


def userspace(
    kind: KeyKind | None = KeyKind.ED25519,
    ours: dict[str, Any] | None = None,
    theirs: dict[str, Any] | None = None,
    version: int = 4,
    settings: str = "",
) -> Stage:
    """Both ends in userspace, with proposals of their own choice but for changes to what each is told."""

    def introduce(alice: Host, bob: Host) -> tuple[Connection, Connection]:
        one, two = introduced(alice, bob, kind, version=version, mode=Mode.TUNNEL, ike=DEFAULT, esp=DEFAULT)
        return replace(one, **(ours or {})), replace(two, **(theirs or {}))

    return Stage(introduce, partial(StrongSwan, esp=Esp.USERSPACE, settings=settings), "userspace", version=version)


@pytest.fixture(scope="module", params=[KeyKind.ED25519, KeyKind.ECDSA_P256, KeyKind.RSA, None], ids=str)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with userspace(request.param) as stage:
        yield stage


@pytest.mark.lab
@pytest.mark.parametrize("initiator", SIDES)
def test_the_whole_story_in_userspace(stage: Stage, initiator: str) -> None:
    stage.tell(initiator)


@pytest.mark.lab
@pytest.mark.parametrize(
    ("ike", "esp"),
    [
        (Proposal("aes256", "sha256", ke="modp3072"), Proposal("aes128", "sha256", ke="modp3072")),
        (Proposal("chacha20poly1305", ke="ecp384"), Proposal("chacha20poly1305", ke="ecp384")),
        (Proposal("aes128gcm16", prf="sha512", ke="x448"), Proposal("aes256", "sha512", ke="modp2048")),
        (Proposal("aes256", "sha512", "sha384", "ecp521"), Proposal("aes128gcm16", ke="ecp521")),
    ],
    ids=lambda proposal: "-".join(filter(None, (proposal.encr, proposal.integ, proposal.ke))),
)
def test_suites_and_groups(ike: Proposal, esp: Proposal) -> None:
    told = {"ike": ike, "esp": esp}
    with userspace(ours=told, theirs=told) as stage:
        for who in SIDES:
            stage.set_up(who)
            stage.encrypted()
            stage.replaced(partial(stage.rekey, who, ike=False), ike=False)
            stage.replaced(partial(stage.rekey, who, ike=True), ike=True)
            stage.side(who).terminate()
            stage.nothing_stands()


@pytest.mark.lab
@pytest.mark.parametrize("initiator", SIDES)
def test_the_other_group_is_asked_for(initiator: str) -> None:
    """INVALID_KE_PAYLOAD, in IKE_SA_INIT and when a Child SA is rekeyed."""
    likes = {"ike": Proposal(ke="x25519-ecp384"), "esp": Proposal(ke="modp2048-ecp256")}
    insists = {"ike": Proposal(ke="ecp384"), "esp": Proposal(ke="ecp256")}
    ours, theirs = (likes, insists) if initiator == "hushwire" else (insists, likes)
    with userspace(ours=ours, theirs=theirs) as stage:
        stage.set_up(initiator)
        assert stage.relay.report().count(Kind.IKE) == 6
        stage.encrypted()
        stage.replaced(partial(stage.rekey, initiator, ike=False), ike=False)
        stage.replaced(partial(stage.rekey, initiator, ike=True), ike=True)


@pytest.mark.lab
@pytest.mark.parametrize("initiator", SIDES)
def test_ipv6(initiator: str) -> None:
    with userspace(version=6) as stage:
        stage.tell(initiator)


@pytest.mark.lab
@pytest.mark.parametrize("initiator", SIDES)
def test_a_peer_without_rfc_7427(initiator: str) -> None:
    with userspace(KeyKind.ECDSA_P256, settings="signature_authentication = no") as stage:
        stage.set_up(initiator)
        assert stage.hushwire.peer()["ike"][0]["scheme"] == "ECDSA_256"
        stage.encrypted()


@pytest.mark.lab
def test_a_signature_with_sha1_is_refused() -> None:
    """Method 1, as strongSwan makes it (RFC 8247 s4.2)."""
    with userspace(KeyKind.RSA, settings="signature_authentication = no") as stage:
        with pytest.raises(AssertionError, match=r"the signature is wrong|AUTH_FAILED"):
            stage.set_up("peer")
        stage.nothing_stands()


@pytest.mark.lab
def test_the_first_packet_starts_ike_and_is_not_lost() -> None:
    with userspace() as stage:
        assert stage.alice.ping(stage.bob, timeout=5)
        ours, _ = stage.agreed()
        assert ours.initiator
        stage.encrypted()


@pytest.mark.lab
@pytest.mark.parametrize("initiator", SIDES)
def test_a_strange_key_is_refused_at_once(initiator: str) -> None:
    with userspace(theirs={"key": PrivateKey.generate(KeyKind.ED25519)}) as stage:
        began = monotonic()
        with pytest.raises(AssertionError, match=r"AUTHENTICATION_FAILED|AUTH_FAILED"):
            stage.set_up(initiator)
        assert monotonic() - began < 3
        stage.nothing_stands()


@pytest.mark.uml
def test_in_a_kernel_with_esp(tmp_path: Path) -> None:
    inner = Path(__file__).with_name("kernel_strongswan.py")
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=0", "--basetemp")
    with (tmp_path / "output").open("wb") as output:
        done = uml.run([*command, str(tmp_path / "inner"), str(inner)], timeout=300, stdout=output)
    assert done.returncode == 0, done.output.decode()
