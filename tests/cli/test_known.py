"""`hushwire known`: what an administrator sees of the memory of peers and does to it, over a control socket."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hushwire.cli import main
from hushwire.daemon.control import Command
from hushwire.events import KnownForget, KnownList, KnownPin, KnownShow, Reply
from hushwire.node import acquaintance
from hushwire.node.known import COUNTED, MOST, KnownPeers
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import HELD_FOR, Known
from hushwire.policy.pad import fingerprint_text
from hushwire.timers import Now

from .conftest import Daemon as ControlDaemon

KEY, OTHER = bytes(range(32)), bytes(range(32, 64))
BEGAN = 1.8e9
"""2027-01-15."""


class Daemon(ControlDaemon):
    """With a memory behind its socket."""

    def __init__(self, path: Path) -> None:
        self.known = KnownPeers(lambda effect: None)
        super().__init__(path, self._of_the_memory)

    def _of_the_memory(self, command: Command) -> Reply:
        assert isinstance(command, KnownForget | KnownList | KnownPin | KnownShow)
        return acquaintance.answer(command, self.known, Now(0.0, BEGAN + 9 * COUNTED))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "control")
    yield made
    made.close()


def run(daemon: Daemon, *words: str) -> Result:
    return CliRunner().invoke(main, ["known", *words, "--control", str(daemon.path)])


def said(daemon: Daemon, *words: str) -> str:
    result = run(daemon, *words)
    assert result.exit_code == 0, result.output
    return result.output


def refused(daemon: Daemon, *words: str) -> str:
    result = run(daemon, *words)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), "an exception escaped"
    return result.stderr


def meet(daemon: Daemon, subject: str, times: int = 1) -> None:
    for each in range(times):
        daemon.known.meet(subject, KEY, Assurance.ENCRYPTED, BEGAN + each * COUNTED)


def test_show(daemon: Daemon) -> None:
    meet(daemon, "bob.example", 3)
    assert said(daemon, "show", "Bob.Example.").splitlines() == [
        "subject      bob.example",
        "fingerprint  SHA256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8",
        "             0001 0203 0405 0607 0809 0a0b 0c0d 0e0f 1011 1213 1415 1617 1819 1a1b 1c1d 1e1f",
        "level        encrypted, the highest that it reached with this key",
        "met          3 times, counted once an hour at most; "
        "first 2027-01-15 08:00 UTC, last counted 2027-01-15 10:00 UTC",
        "held         to that until 2027-02-14 10:00 UTC, and for as long after each time it is seen",
    ]
    assert json.loads(said(daemon, "show", "bob.example", "--json")) == {
        "subject": "bob.example", "fingerprint": fingerprint_text(KEY), "level": "encrypted", "pinned": False,
        "times": 3, "first": BEGAN, "last": BEGAN + 2 * COUNTED, "until": BEGAN + 2 * COUNTED + HELD_FOR,
    }  # fmt: skip


def test_list(daemon: Daemon) -> None:
    assert said(daemon, "list") == ""
    meet(daemon, "bob.example", 3)
    meet(daemon, "2001:db8::1")
    daemon.known.pin("alice.example", OTHER, BEGAN)
    first, second, third = said(daemon, "list").splitlines()
    assert first.split() == ["2001:db8::1", "encrypted", fingerprint_text(KEY), "1x", "since", "2027-01-15"]
    assert second.split() == [
        "alice.example", "clear", fingerprint_text(OTHER), "0x", "since", "2027-01-15", "pinned"
    ]  # fmt: skip
    assert third.split()[3] == "3x"
    listed = json.loads(said(daemon, "list", "--json"))
    assert [each["subject"] for each in listed] == ["2001:db8::1", "alice.example", "bob.example"]
    assert listed[2] == json.loads(said(daemon, "show", "bob.example", "--json"))


@pytest.mark.parametrize("count", [acquaintance.PART - 1, acquaintance.PART, 3 * acquaintance.PART + 1])
def test_a_long_list_comes_whole(count: int, daemon: Daemon) -> None:
    for number in range(count):
        meet(daemon, f"host{number}.example")
    listed = json.loads(said(daemon, "list", "--json"))
    assert [each["subject"] for each in listed] == sorted(f"host{number}.example" for number in range(count))


def test_pin(daemon: Daemon) -> None:
    assert "say which key it has" in refused(daemon, "pin", "bob.example")
    meet(daemon, "bob.example", 2)
    assert said(daemon, "pin", "bob.example").startswith(f"bob.example: pinned to {fingerprint_text(KEY)};")
    assert daemon.known.of("bob.example") == Known(
        "bob.example", KEY, BEGAN, BEGAN + COUNTED, 2, Assurance.ENCRYPTED, True
    )
    told = said(daemon, "pin", "bob.example", fingerprint_text(OTHER))
    assert f"pinned to {fingerprint_text(OTHER)}, in place of {fingerprint_text(KEY)}, met 2 times since 2027-" in told
    assert "never; pinned 2027-01-15" in said(daemon, "show", "bob.example")
    # In hexadecimal, as `hushwire key show` has it; of an address that nobody has met.
    said(daemon, "pin", "192.0.2.1", OTHER.hex(" ", 2))
    known = daemon.known.of("192.0.2.1")
    assert known is not None
    assert (known.fingerprint, known.pinned) == (OTHER, True)


def test_forget(daemon: Daemon) -> None:
    meet(daemon, "2001:db8::1")
    told = said(daemon, "forget", "2001:DB8::1")
    assert told.startswith(f"2001:db8::1: forgotten, {fingerprint_text(KEY)}, met once since 2027-01-15; whatever key")
    assert len(daemon.known) == 0
    assert "nothing to forget" in refused(daemon, "forget", "2001:db8::1")
    assert "is not remembered" in refused(daemon, "show", "2001:db8::1")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("show", "a b"), "is no host name"),
        (("forget", "192.0.2.256"), "is no host name"),
        (("pin", "bob.example", "SHA256:short"), "is no fingerprint"),
        (("pin", "bob.example", "00" * 31), "is no fingerprint"),
    ],
)
def test_what_nobody_can_mean(words: tuple[str, ...], why: str, daemon: Daemon) -> None:
    assert why in refused(daemon, *words)
    assert len(daemon.known) == 0


def test_when_there_is_no_room_a_pin_says_so(daemon: Daemon) -> None:
    daemon.known = KnownPeers(lambda effect: None, most=1)
    daemon.known.pin("alice.example", KEY, BEGAN)
    assert "all 1 places are taken" in refused(daemon, "pin", "bob.example", fingerprint_text(OTHER))


def test_without_a_daemon_it_says_what_to_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["known", "list", "--control", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "start it with `hushwire run`" in result.stderr


def test_a_changed_key_is_told_with_what_to_do() -> None:
    known = KnownPeers(lambda effect: None)
    for each in range(12):
        known.meet("bob.example", KEY, Assurance.ENCRYPTED, BEGAN + each * COUNTED)
    before = known.of("bob.example")
    assert before is not None
    notice = acquaintance.changed(before, OTHER)
    assert (notice.kind, notice.grave) == ("known.changed", True)
    assert dict(notice.fields) == {
        "subject": "bob.example", "proves": fingerprint_text(OTHER), "known": fingerprint_text(KEY),
        "since": "2027-01-15", "times": 12, "pinned": "", "do": "see hushwire known show",
    }  # fmt: skip
    told = acquaintance.refusal(before, OTHER)
    assert f"known by {fingerprint_text(KEY)}, met 12 times since 2027-01-15" in told
    assert f"`hushwire known pin bob.example {fingerprint_text(OTHER)}`" in told


def test_the_longest_part_is_made_quickly_enough() -> None:
    """A list of everybody is made in parts, between which the node does its other work."""
    known = KnownPeers(lambda effect: None)
    known.recall(Known(f"host{n:06}.example", KEY, BEGAN, BEGAN, 2, Assurance.NAMED) for n in range(MOST))
    reply = acquaintance.answer(KnownList(1, "host05"), known, Now(0.0, BEGAN))
    assert len(reply.body) < 400 * acquaintance.PART
    assert json.loads(reply.body)["all"] == MOST
