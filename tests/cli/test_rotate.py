"""`hushwire key rotate` with a real Knot and a clock that can be pushed: at each moment the key in use is published."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from hushwire.cli.key import key
from hushwire.cli.rotate import Rotation, _utc
from hushwire.crypto.keys import KeyKind, PrivateKey
from hushwire.daemon import update
from hushwire.daemon.credential import read_tsig
from hushwire.daemon.keyfile import read_public
from hushwire.daemon.unbound import Configuration
from hushwire.daemon.update import Primary, Server
from hushwire.lab.updates import HOST, OTHER, Knot
from hushwire.names.publish import Own, Record, records_of
from hushwire.names.rollover import Rollover

TTL = 300


class Clock:
    """In place of the module `time` in the command: sleeping takes no time, and `at_sleep` is called first."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.at_sleep: Callable[[], None] = lambda: None

    def time(self) -> float:
        return time.time() + self.offset

    def monotonic(self) -> float:
        return time.monotonic() + self.offset

    def sleep(self, seconds: float) -> None:
        self.at_sleep()
        self.offset += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("hushwire.cli.rotate.time", clock)
    return clock


@pytest.fixture(scope="module")
def served() -> Iterator[Knot]:
    with Knot() as served:
        assert isinstance(served, Knot)
        yield served


class Host:
    """A host whose key is published."""

    def __init__(self, served: Knot, folder: Path) -> None:
        self.served, self.file, self.control = served, folder / "host.key", folder / "control"
        configuration = Configuration(str(served.anchor_path), forward=(served.forward,), timeout=3)
        self.primary = Primary(Server.read(served.forward), read_tsig(served.tsig_path), configuration, patience=10)
        private = PrivateKey.generate(KeyKind.ED25519)
        self.file.write_bytes(private.write_pem().expose())
        self.file.chmod(0o600)
        self.first = private.public
        self.publish(records_of(HOST, [self.first], [IPv4Address("192.0.2.1")], fingerprints=True))

    def publish(self, records: tuple[Record, ...], ttl: int = TTL) -> None:
        there = self.primary.plan(HOST, (), Own())
        own = Own(frozenset(record.fingerprint for record in there.kept if record.fingerprint))
        self.primary.publish(self.primary.plan(HOST, records, own, ttl))

    def rotate(self, *arguments: str, tsig: Path | None = None) -> Result:
        command = (
            "rotate", str(self.file), "--name", HOST, "--tsig", str(tsig or self.served.tsig_path),
            "--server", self.served.forward, "--forward", self.served.forward,
            "--anchor", str(self.served.anchor_path), "--control", str(self.control), *arguments,
        )  # fmt: skip
        return CliRunner().invoke(key, command)

    @property
    def in_use(self) -> bytes:
        return read_public(self.file).fingerprint

    @property
    def published(self) -> set[bytes]:
        """By fingerprint; both sets say the same."""
        tlsa = {bytes.fromhex(text.split()[-1]) for text in self.served.ask(f"_500._udp.{HOST}", "TLSA")}
        assert len(self.served.ask(HOST, "IPSECKEY")) == len(tlsa)
        return tlsa

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.file.parent.glob("host.key*"))


@pytest.fixture
def host(served: Knot, tmp_path: Path) -> Host:
    return Host(served, tmp_path)


@contextmanager
def daemon(host: Host, *replies: bool) -> Iterator[list[bytes]]:
    """One that answers commands with these, the last again and again; the key in the file at each of them."""
    told: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(host.control))
        listener.listen(4)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    assert json.loads(connection.recv(4096)) == {"command": "key"}
                    ok = replies[min(len(told), len(replies) - 1)]
                    told.append(host.in_use)
                    connection.send(json.dumps({"ok": ok, "text": "" if ok else "not now", "body": None}).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield told
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            host.control.unlink()


def refused(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), "an exception escaped"
    return result.stderr.splitlines()[-1]


def finished(host: Host, result: Result) -> None:
    assert result.exit_code == 0, result.output
    assert host.in_use != host.first.fingerprint
    assert host.published == {host.in_use}
    assert host.served.ask(HOST, "A") == ["192.0.2.1"]
    assert host.files == ["host.key", "host.key.old"]
    assert read_public(host.file.with_name("host.key.old")) == host.first
    assert (host.file.stat().st_mode & 0o777, host.file.parent.joinpath("host.key.old").stat().st_mode & 0o777) == (
        0o600, 0o600,
    )  # fmt: skip


def test_a_rotation_in_its_time(host: Host, clock: Clock) -> None:
    began, seen = clock.time(), []

    def look() -> None:
        assert host.in_use in host.published
        seen.append((len(host.published), host.in_use == host.first.fingerprint))

    clock.at_sleep = look
    with daemon(host, True) as told:
        result = host.rotate("--margin", "30")
        finished(host, result)
        assert told == [host.in_use]
    # Both keys while the old one is in use, then both while the new one is, each for longer than any cache.
    assert sorted(set(seen), key=seen.index) == [(2, True), (2, False)]
    assert 2 * (TTL + 30) < clock.time() - began < 2 * (TTL + 30 + 60)
    assert "PRIVATE" not in result.output


def test_without_a_daemon(host: Host, clock: Clock) -> None:
    result = host.rotate()
    finished(host, result)
    assert f"{host.control}: no hushwire runs here" in result.output


def test_a_dry_run_says_when_and_does_nothing(host: Host, clock: Clock) -> None:
    before = host.file.read_bytes()
    result = host.rotate("--dry-run", "--margin", "0")
    assert result.exit_code == 0, result.output
    steps = [line.split()[3] for line in result.output.splitlines() if " UTC " in line]
    assert steps == ["publish", "switch", "withdraw"]
    assert _utc(clock.time())[:15] in result.output
    assert (host.file.read_bytes(), host.files) == (before, ["host.key"])
    assert host.published == {host.first.fingerprint}


class Interrupted(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("after", range(4))
def test_interrupted_while_it_waits_it_goes_on(host: Host, clock: Clock, after: int) -> None:
    naps = 0

    def interrupt() -> None:
        nonlocal naps
        naps += 1
        if naps == 1 + 7 * after:
            raise Interrupted

    clock.at_sleep = interrupt
    with pytest.raises(Interrupted):
        host.rotate("--margin", "30")
    assert host.in_use in host.published
    assert Rollover.read(host.file.with_name("host.key.rotation").read_text()).name == HOST
    result = host.rotate()
    assert "it goes on" in result.output
    finished(host, result)


@pytest.mark.parametrize("call", range(8))
def test_interrupted_at_any_rename_it_goes_on(
    host: Host, clock: Clock, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the state, of the old key, of the new key."""
    replace, calls = Path.replace, 0

    def replace_or_die(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == call + 1:
            raise Interrupted
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_or_die)
        try:
            result = host.rotate()
        except Interrupted:
            assert host.in_use in host.published
        else:
            assert calls <= call, "nothing was left to interrupt"
            finished(host, result)
            return
    result = host.rotate()
    finished(host, result)


def test_a_daemon_that_does_not_follow_is_asked_again(host: Host, clock: Clock) -> None:
    with daemon(host, False, False, True) as told:
        result = host.rotate()
        finished(host, result)
        assert len(told) == 3
    assert "does not use the new key: not now; again at" in result.stderr


def test_what_fails_for_long_ends_and_goes_on_later(host: Host, clock: Clock) -> None:
    with daemon(host, False):
        line = refused(host.rotate("--give-up", "100"))
    assert "switch: the daemon does not use the new key" in line
    assert "run this command again" in line
    assert len(host.published) == 2, "the old key is not withdrawn while the daemon may use it"
    finished(host, host.rotate())


def test_a_published_key_that_vanishes_is_published_again(host: Host, clock: Clock) -> None:
    began = clock.time()
    vanished = False

    def vanish() -> None:
        nonlocal vanished
        if not vanished and len(host.published) == 2:
            vanished = True
            host.publish(records_of(HOST, [host.first], [IPv4Address("192.0.2.1")], fingerprints=True))

    clock.at_sleep = vanish
    result = host.rotate()
    finished(host, result)
    assert "published again" in result.stderr
    assert clock.time() - began > 3 * TTL, "and waited for in full again"


def test_an_old_key_that_is_in_use_again_is_not_withdrawn(host: Host, clock: Clock) -> None:
    """Somebody put the old file back while the rotation waited."""
    old = host.file.with_name("host.key.old")

    def put_back() -> None:
        if old.exists():
            host.file.write_bytes(old.read_bytes())

    clock.at_sleep = put_back
    assert "withdraw: the key file does not hold the new key" in refused(host.rotate("--give-up", "100"))
    assert host.in_use == host.first.fingerprint
    assert host.in_use in host.published


def test_an_update_that_is_refused_changes_nothing(host: Host, clock: Clock, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.tsig"
    wrong.write_text(f"hmac-sha256:alice-key:{'A' * 44}")
    wrong.chmod(0o600)
    assert "BADSIG" in refused(host.rotate("--give-up", "1", tsig=wrong))
    wrong.unlink()
    assert (host.in_use, host.published) == (host.first.fingerprint, {host.first.fingerprint})
    finished(host, host.rotate())


def test_a_key_that_is_not_published_is_not_rotated(host: Host, clock: Clock) -> None:
    host.publish(())
    assert "is not published" in refused(host.rotate())
    assert host.files == ["host.key"]


def test_two_at_once(host: Host, clock: Clock) -> None:
    second: list[Result] = []
    clock.at_sleep = lambda: second.append(host.rotate()) if not second else None
    finished(host, host.rotate())
    assert "another rotation runs here" in refused(second[0])


@pytest.mark.parametrize("signed", [True, False])
def test_a_ttl_that_is_lied_about(host: Host, clock: Clock, monkeypatch: pytest.MonkeyPatch, signed: bool) -> None:
    """Who answers in the server's place makes no wait shorter: what was signed counts as well.

    The control believes the answer's TTL, as a cache has it: peers' resolvers hold the old set for a day.
    """
    day = 86400
    host.publish(records_of(HOST, [host.first], fingerprints=True), ttl=day)
    began = clock.time()
    read_sets = update.read_sets
    monkeypatch.setattr(update, "read_sets", lambda *asked: tuple(replace(one, ttl=60) for one in read_sets(*asked)))
    if not signed:
        monkeypatch.setattr(Rotation, "_signed_ttl", lambda self, on: max(one.ttl for one in self._ask(on)))
    assert host.rotate("--margin", "0").exit_code == 0
    waited = clock.time() - began
    assert waited > 2 * day if signed else 2 * 3600 < waited < day


def test_a_rotation_of_another_name(host: Host, clock: Clock) -> None:
    state = Rollover(OTHER, "aa" * 32, "bb" * 32, 1, True, False)
    host.file.with_name("host.key.rotation").write_text(state.write())
    assert "a rotation of bob.example is under way" in refused(host.rotate())


@pytest.mark.parametrize("text", ["", "{}", "\xff"])
def test_a_spoilt_state(host: Host, clock: Clock, text: str) -> None:
    host.file.with_name("host.key.rotation").write_text(text, encoding="latin-1")
    refused(host.rotate())
    assert (host.in_use, host.published) == (host.first.fingerprint, {host.first.fingerprint})


def test_the_new_key_is_of_the_type_asked_for(host: Host, clock: Clock) -> None:
    finished(host, host.rotate("--type", "ecdsa-p256"))
    assert read_public(host.file).kind is KeyKind.ECDSA_P256


def test_the_command_says_what_it_does() -> None:
    with click.Context(key) as context:
        assert "rotate" in key.list_commands(context)
