"""Run by test_libreswan.py where the kernel has ESP: hushwire and libreswan, neither of whom says who he is."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, Self

import pytest

from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.lab.dns import SignedWorld
from hushwire.lab.hushwire import Hushwire, pinned
from hushwire.lab.interop import SIDES, Stage
from hushwire.lab.libreswan import Libreswan
from hushwire.lab.namespaces import Host
from hushwire.lab.peer import DEFAULT, Connection, eventually, introduced

CONFIG = """
[host]
name = "{name}"
key = "{{folder}}/host.key"
control = "{{folder}}/control"
state = "{{folder}}"
plane = "{plane}"

[dns]
trust-anchor = "{world.anchor_path}"
forward = ["{world.forward}"]

[[rule]]
peer = "{peer}"
require = "encrypted"
anonymous = "{anonymous}"
"""


class Anonymous(Hushwire):
    """hushwire with a rule about the other's address, and a name server that knows no key of it."""

    def __init__(self, host: Host, connection: Connection, *, plane: str, more: str, anonymous: str = "both") -> None:
        self._world = SignedWorld("127.0.0.1", 5300, zones=(), prefix=host.prefix)
        self._settings = {"name": connection.local_id, "plane": plane, "peer": connection.remote}
        self._anonymous = anonymous
        super().__init__(host, more, connection.key if isinstance(connection.key, PrivateKey) else None)

    def __enter__(self) -> Self:
        self._world.__enter__()
        text = CONFIG.format(**self._settings, anonymous=self._anonymous, world=self._world)
        self.config.write_text(text.replace("{folder}", str(self.folder)) + self.config.read_text())
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._world.__exit__(None, None, None)

    def initiate(self, connection: int = 0) -> None:
        """By a packet."""
        self.host.run("ping", "-n", "-c", "1", "-W", "10", str(self.peer(connection)["peer"]), check=False)
        if not eventually(self.sas, 5):
            raise RuntimeError(f"no SAs:\n{self.log.read_text()}")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage(partial(introduced, ike=DEFAULT, esp=DEFAULT), Libreswan, loss=1, ours=Anonymous) as stage:
        yield stage


@pytest.mark.parametrize("initiator", SIDES)
def test_the_whole_story(stage: Stage, initiator: str) -> None:
    """Who begins ends it, too: what libreswan was told to begin, it begins again when the other has deleted it."""
    stage.set_up(initiator)
    stage.encrypted()
    for ike in (False, True):
        for who in SIDES:
            stage.replaced(partial(stage.rekey, who, ike=ike), ike=ike)
    stage.encrypted()
    stage.side(initiator).terminate()
    stage.nothing_stands()


def test_what_each_proves(stage: Stage) -> None:
    stage.set_up("hushwire")
    (sa,) = stage.hushwire.peer()["ike"]
    assert (sa["scheme"], sa["level"], sa["key"]) == ("NULL", "encrypted", None)
    assert "authenticated peer using authby=null and ID_NULL" in stage.peer.log.read_text()
    stage.encrypted()
    stage.hushwire.terminate()
    stage.nothing_stands()


def test_ipv6() -> None:
    introduce = partial(introduced, version=6, ike=DEFAULT, esp=DEFAULT)
    with Stage(introduce, Libreswan, version=6, loss=1, ours=Anonymous) as stage:
        for who in SIDES:
            stage.set_up(who)
            stage.encrypted()
            stage.side(who).terminate()
            stage.nothing_stands()


def client(host: Host, connection: Connection, *, plane: str, more: str) -> Hushwire:
    """hushwire that knows the other's key, and does not say who it is itself."""
    made = pinned(host, connection, plane=plane, more=more)
    made.config.write_text(made.config.read_text() + 'anonymous = "us"\n')
    return made


@pytest.mark.parametrize(
    ("ours", "theirs", "schemes"),
    [
        (partial(Anonymous, anonymous="peer"), partial(Libreswan, asks=True), ("NULL", "RSA")),
        (client, partial(Libreswan, signs=True), ("RSA", "authby=null")),
    ],
    ids=["libreswan is anonymous", "hushwire is anonymous"],
)
def test_one_side_is_anonymous(ours: Any, theirs: Any, schemes: tuple[str, str]) -> None:
    introduce = partial(introduced, kind=KeyKind.RSA, ike=DEFAULT, esp=DEFAULT)
    with Stage(introduce, theirs, loss=1, ours=ours) as stage:
        for who in SIDES:
            stage.set_up(who)
            (sa,) = stage.hushwire.peer()["ike"]
            assert sa["scheme"].startswith(schemes[0])
            assert sa["level"] == ("encrypted" if schemes[0] == "NULL" else "trusted")
            assert re.search(f"authenticated peer .*{schemes[1]}", stage.peer.log.read_text())
            stage.encrypted()
            stage.replaced(partial(stage.rekey, "hushwire", ike=True), ike=True)
            stage.side(who).terminate()
            stage.nothing_stands()


def test_off_unless_a_rule_allows_it() -> None:
    """RFC 7619 s2: AUTHENTICATION_FAILED; without `anonymous` libreswan's NULL is nothing to hushwire."""
    introduce = partial(introduced, ike=DEFAULT, esp=DEFAULT)
    with Stage(introduce, Libreswan, ours=partial(Anonymous, anonymous="us")) as stage:
        with pytest.raises(AssertionError, match="AUTHENTICATION_FAILED"):
            stage.set_up("peer")
        assert not stage.hushwire.sas()
