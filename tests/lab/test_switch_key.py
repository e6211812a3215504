"""Alice's key is switched while she and Bob talk, both keys being in the DNS: nothing is lost, and nothing in clear."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.daemon.control import ask
from hushwire.lab.hushwire import Hushwire
from hushwire.lab.medium import Rule
from hushwire.lab.peer import eventually
from hushwire.lab.stage import Stage

pytestmark = pytest.mark.lab

PLANE = os.environ.get("HUSHWIRE_PLANE", "userspace")
PINGS, EVERY = 500, 0.02
"""Over each IP version, and seconds between them."""
DELAY = 0.03
"""Seconds, each way."""


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        stage.connect()
        stage.publish(PLANE)
        for daemon in reversed(stage.daemons):
            stage.start(daemon)
            stage.await_names(daemon)
        assert eventually(lambda: all(stage.alice.ping(stage.bob, version=v, timeout=1) for v in (4, 6)), 20)
        # On a wire without length nothing is ever under way.
        stage.relay.add(Rule(delay=DELAY))
        yield stage


def publish(stage: Stage, *keys: PrivateKey) -> None:
    """Let alice have these keys, and wait until bob knows."""
    alice, log = stage.alice, stage.at_bob.log
    known = ", ".join(key.public.fingerprint.hex()[:16] for key in keys)
    stage.world.publish("alice.example", [alice.v4, alice.v6], [key.public for key in keys])

    def knows() -> bool:
        bound = [line for line in log.read_text().splitlines() if "name.bound" in line]
        return all(key.public.fingerprint.hex()[:16] in bound[-1] for key in keys) and len(bound) > 1

    assert eventually(knows, 30), (known, log.read_text())


def put(daemon: Hushwire, key: PrivateKey) -> None:
    """Into the key file, all at once."""
    fresh = daemon.folder / "host.key.new"
    fresh.touch(0o600)
    fresh.write_bytes(key.write_pem().expose())
    fresh.rename(daemon.folder / "host.key")


def switch(daemon: Hushwire, key: PrivateKey) -> dict[str, object]:
    put(daemon, key)
    return ask(daemon.control, {"command": "key"}, 10)


def known_by(daemon: Hushwire) -> set[str]:
    """The fingerprints of the keys that its peer proved."""
    return {sa["key"] for sa in daemon.peer()["ike"]}


@contextmanager
def pinging(stage: Stage) -> Iterator[Callable[[], int]]:
    """Pings over both IP versions; afterwards, how many were not answered."""
    canary = stage.relay.canary()
    stage.hidden.append(canary)
    command = ("ping", "-n", "-q", "-c", str(PINGS), "-i", str(EVERY), "-W", "3", "-p", canary.hex())
    running = [
        stage.alice.start(*command, str(address), stdout=subprocess.PIPE) for address in (stage.bob.v4, stage.bob.v6)
    ]

    def lost() -> int:
        told = [ping.communicate(timeout=60)[0] for ping in running]
        return sum(PINGS - int(re.search(r"(\d+) received", str(each))[1]) for each in told)  # type: ignore[index]

    yield lost


def told(stage: Stage) -> str:
    return stage.at_alice.log.read_text() + "\n--- bob\n" + stage.at_bob.log.read_text()


def test_no_packet_is_lost(stage: Stage) -> None:
    old, new = stage.at_alice.key, PrivateKey.generate(KeyKind.ECDSA_P256)
    publish(stage, old, new)
    assert known_by(stage.at_bob) == {old.public.fingerprint.hex()}
    before = {sa["spi_i"] for sa in stage.at_alice.peer()["ike"]}
    with pinging(stage) as lost:
        sleep(2)
        answer = switch(stage.at_alice, new)
        assert answer["ok"], answer
        assert new.public.fingerprint.hex() in str(answer["text"])
        assert eventually(lambda: known_by(stage.at_bob) == {new.public.fingerprint.hex()}, 6), told(stage)
        # Whoever still believes in the old key has no use for it.
        stage.world.publish("alice.example", [stage.alice.v4, stage.alice.v6], [new.public])
        assert lost() == 0, told(stage)
    assert not before & {sa["spi_i"] for sa in stage.at_alice.peer()["ike"]}
    assert len(stage.at_alice.peer()["ike"]) == len(stage.at_bob.peer()["ike"]) == 2
    assert stage.seen(stage.hidden) == 0
    assert "Traceback" not in told(stage)


def test_control_what_is_lost_when_the_old_ones_are_deleted_first(stage: Stage) -> None:
    old, new = stage.at_alice.key, PrivateKey.generate(KeyKind.ECDSA_P256)
    publish(stage, old, new)
    with pinging(stage) as lost:
        sleep(2)
        assert ask(stage.at_alice.control, {"command": "disconnect", "name": "bob.example"}, 10)["ok"]
        assert switch(stage.at_alice, new)["ok"]
        assert lost() > 0
    assert known_by(stage.at_bob) == {new.public.fingerprint.hex()}
    assert stage.seen(stage.hidden) == 0


def test_a_key_file_that_is_no_key_is_refused_and_nothing_changes(stage: Stage) -> None:
    old = stage.at_alice.key.public.fingerprint.hex()
    file = stage.at_alice.folder / "host.key"
    before = stage.at_alice.sas()
    file.write_bytes(b"no key")
    assert not ask(stage.at_alice.control, {"command": "key"}, 10)["ok"]
    put(stage.at_alice, PrivateKey.generate(KeyKind.ED25519))
    file.chmod(0o644)
    answer = ask(stage.at_alice.control, {"command": "key"}, 10)
    assert not answer["ok"]
    assert "mode 0644" in str(answer["text"])
    file.unlink()
    assert not ask(stage.at_alice.control, {"command": "key"}, 10)["ok"]
    assert known_by(stage.at_bob) == {old}
    assert stage.at_alice.sas() == before
