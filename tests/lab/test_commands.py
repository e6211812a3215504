"""`hushwire connect`, `disconnect`, `rekey` and `status` against a daemon that runs."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from hushwire.lab.frame import Kind
from hushwire.lab.hushwire import Hushwire
from hushwire.lab.peer import eventually
from hushwire.lab.stage import Stage

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """bob knows alice; nobody told alice of bob."""
    with Stage() as stage:
        stage.connect()
        stage.publish("userspace")
        stage.start(stage.at_bob)
        stage.await_names(stage.at_bob)
        without_rules = stage.at_alice.config.read_text().partition("[[rule]]")[0]
        stage.at_alice.config.write_text(without_rules)
        stage.start(stage.at_alice)
        yield stage


def hushwire(daemon: Hushwire, *words: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "hushwire", *words, "--control", str(daemon.control))
    return daemon.host.run(*command, check=False, timeout=60)


def done(daemon: Hushwire, *words: str) -> str:
    result = hushwire(daemon, *words)
    assert (result.returncode, result.stderr) == (0, ""), daemon.log.read_text()
    return result.stdout.strip()


def peer(daemon: Hushwire) -> dict[str, Any]:
    (found,) = json.loads(done(daemon, "status", "--json"))["peers"]
    assert isinstance(found, dict)
    return found


def children(daemon: Hushwire) -> set[str]:
    return {child["spi_in"] for sa in peer(daemon)["ike"] for child in sa["children"]}


def test_from_a_name_to_a_page_of_life(stage: Stage) -> None:
    """One story, in order: connect, what status says, rekey of both kinds, disconnect, and the next packet."""
    alice = stage.at_alice
    assert json.loads(done(alice, "status", "--json"))["peers"] == []

    assert "is named" in done(alice, "connect", "Bob.Example.")
    assert done(alice, "connect", "bob.example") == "bob.example is connected already"
    for version in (4, 6):
        assert stage.ping(version)
    found = peer(alice)
    assert (found["peer"], found["require"], found["below"], found["level"]) == (
        "bob.example", "named", "block", "named",
    )  # fmt: skip
    assert "bob.example" in done(alice, "status")

    before = children(alice)
    assert done(alice, "rekey", "bob.example") == "bob.example: rekeying"
    assert eventually(lambda: (now := children(alice)) and not now & before)
    before = {sa["spi_i"] for sa in peer(alice)["ike"]}
    assert done(alice, "rekey", "bob.example", "--ike") == "bob.example: rekeying"
    assert eventually(lambda: (now := {sa["spi_i"] for sa in peer(alice)["ike"]}) and not now & before)
    for version in (4, 6):
        assert stage.ping(version)

    assert "its policy stays" in done(alice, "disconnect", "bob.example")
    assert eventually(lambda: not peer(alice)["ike"] and not peer(stage.at_bob)["ike"])
    assert hushwire(alice, "disconnect", "bob.example").returncode == 1
    # The policy stays: the next packet makes SAs anew.
    for version in (4, 6):
        assert eventually(lambda version=version: stage.ping(version))  # type: ignore[misc]
    assert stage.seen(stage.hidden) == 0
    assert stage.relay.report().count(Kind.CLEAR, "alice") == 0
