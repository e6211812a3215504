"""The memory's process: what it was told is there after it ended, however it ended, and no file ends it."""

import io
import os
import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hushwire.daemon import memory
from hushwire.daemon.channel import EVENTS, LARGEST, Channel, ChannelClosed, encode, pair
from hushwire.daemon.log import Log
from hushwire.daemon.memory import FILE, PART, SCHEMA, Broken, Memory, Store, prepare
from hushwire.events import Forget, Recalled, Remember
from hushwire.lab.peer import eventually
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import Known

PROGRAM = Path(__file__).parent / "memory_process.py"
BOB = Known("bob.example", b"\x0b" * 32, 1.8e9, 1.8e9 + 0.125, 3, Assurance.NAMED, True)
PLENTY = 1 << 30


def known(number: int) -> Known:
    return Known(f"2001:db8::{number:x}", number.to_bytes(32), 1.8e9, 1.8e9 + number, 1, Assurance.ENCRYPTED)


class Process:
    """memory.main in a process of its own, and the node's end of its channel."""

    def __init__(self, directory: Path, room: int = PLENTY) -> None:
        self._directory = directory
        self._room = room
        self.log = ""
        """What it wrote; to be read when it has ended."""

    def __enter__(self) -> Self:
        near, far = pair()
        with far:
            self._process = subprocess.Popen(
                [sys.executable, PROGRAM, str(far.fileno()), str(self._directory), str(self._room)],
                pass_fds=[far.fileno()], stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        self.node = Channel(near, EVENTS, timeout=20)
        self.recalled: list[Known] = []
        complete = False
        while not complete:
            for event in self.node.wait():
                assert isinstance(event, Recalled)
                self.recalled += event.known
                complete = event.complete
        return self

    def __exit__(self, *_: object) -> None:
        self.node.close()
        self.log += self._process.communicate(timeout=20)[1]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def written(self) -> int:
        """Octets that are in its log of transactions."""
        return (self._directory / f"{FILE}-wal").stat().st_size


def recalled(directory: Path) -> set[Known]:
    """What is in the file, read by a process that comes after."""
    with Process(directory) as process:
        found = process.recalled
    assert process.log == ""
    assert len(found) == len(set(found))
    return set(found)


# --- The process ------------------------------------------------------------------------------------------------------


def test_what_it_was_told_is_there_after_a_restart(tmp_path: Path) -> None:
    many = [known(number) for number in range(3 * PART)]
    with Process(tmp_path) as process:
        assert process.recalled == []
        process.node.send(*map(Remember, many))
        process.node.send(Remember(BOB), Remember(known(9999)), Forget(many[0].subject), Forget("nobody.example"))
        process.node.send(Remember(replace(many[1], times=2)), Forget(known(9999).subject))
    with Process(tmp_path) as process:
        # The longest unseen first, which is how the node knows who is to give way first.
        assert sorted(process.recalled, key=lambda each: each.last) == process.recalled
        assert set(process.recalled) == {BOB, replace(many[1], times=2), *many[2:]}
    assert process.log == ""


def test_a_kill_at_any_moment_costs_what_was_said_last_and_no_more(tmp_path: Path) -> None:
    chance = random.Random(1)
    safe: set[Known] = set()
    number = 0
    for _ in range(5):
        with Process(tmp_path) as process:
            assert set(process.recalled) >= safe
            safe = set(process.recalled)
            before, first = process.written(), [known(number + each) for each in range(40)]
            process.node.send(*map(Remember, first))
            assert eventually(lambda process=process, before=before: process.written() > before, 10)
            safe |= set(first)
            number += 40
            # Killed while it takes more, or writes it.
            for _ in range(chance.randrange(1, 60)):
                process.node.send(*(Remember(known(number + each)) for each in range(50)))
                number += 50
            process.kill()
    last = recalled(tmp_path)
    assert last >= safe
    assert last <= {known(each) for each in range(number)}


def test_a_kill_leaves_a_transaction_whole_or_out(tmp_path: Path) -> None:
    """Those of one packet come together, so that either all or none of them are there."""
    for each in range(4):
        with Process(tmp_path) as process:
            process.node.send(*(Remember(known(number + each * 500)) for number in range(500)))
            eventually(lambda process=process: process.written() > 0, each * 0.1)
            process.kill()
        assert len(recalled(tmp_path)) % 500 == 0


def test_a_file_of_random_octets_is_set_aside(tmp_path: Path) -> None:
    junk = random.Random(2).randbytes(70_000)
    (tmp_path / FILE).write_bytes(junk)
    with Process(tmp_path) as process:
        assert process.recalled == []
        process.node.send(Remember(BOB))
    (aside,) = tmp_path.glob(f"{FILE}.*")
    assert re.fullmatch(rf"{re.escape(FILE)}\.\d{{8}}T\d{{6}}Z", aside.name)
    assert aside.read_bytes() == junk
    (line,) = process.log.splitlines()
    assert line.startswith("hushwire[memory] ! ")
    assert aside.name in line
    assert recalled(tmp_path) == {BOB}


def test_a_full_disk_is_told_once_and_ends_nothing(tmp_path: Path) -> None:
    with Process(tmp_path, room=200_000) as process:
        before = process.written()
        process.node.send(Remember(BOB))
        assert eventually(lambda: process.written() > before, 10)
        for number in range(40):
            process.node.send(*(Remember(known(number * 100 + each)) for each in range(100)))
        assert not eventually(lambda: not process.runs, 1)
    (line,) = process.log.splitlines()
    assert "cannot be written" in line
    # With room again, what was written is all there.
    assert BOB in recalled(tmp_path)


def test_without_its_directory_it_takes_what_it_is_told(tmp_path: Path) -> None:
    with Process(tmp_path / "absent") as process:
        assert process.recalled == []
        process.node.send(Remember(BOB))
        assert not eventually(lambda: not process.runs, 0.3)
    (line,) = process.log.splitlines()
    assert line.startswith("hushwire[memory] ! ")
    assert "a restart forgets all peers" in line


# --- The file ---------------------------------------------------------------------------------------------------------


class Kept:
    """A Memory in this process, and what it wrote to its log."""

    def __init__(self, directory: Path) -> None:
        self.log = io.StringIO()
        self.memory = Memory(directory, Log("memory", self.log))

    def recall(self) -> set[Known]:
        return {each for part in self.memory.recall() for each in part}

    def tell(self, *changes: Remember | Forget) -> None:
        self.memory._take(changes)
        self.memory._write()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """One with BOB and some more."""
    with closing(Kept(tmp_path).memory) as made:
        made._take([Remember(BOB), *(Remember(known(number)) for number in range(200))])
    return tmp_path


def spoil(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.execute("PRAGMA writable_schema = ON")
        database.execute(statement)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[5000:9000] = random.Random(3).randbytes(4000)
    path.write_bytes(octets)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


SPOILED = {
    "half of it": half,
    "overwritten in its middle": overwrite,
    "a directory": replace_by_directory,
    "another table": lambda path: spoil(path, "CREATE TABLE more (x)"),
    "another column": lambda path: spoil(path, "ALTER TABLE known ADD COLUMN more"),
    "a trigger": lambda path: spoil(path, "CREATE TRIGGER x AFTER INSERT ON known BEGIN DELETE FROM known; END"),
    "a short fingerprint": lambda path: spoil(path, "UPDATE known SET fingerprint = x'00'"),
    "a level that is none": lambda path: spoil(path, "UPDATE known SET level = 9 WHERE subject = 'bob.example'"),
    "a time that is none": lambda path: spoil(path, "UPDATE known SET last = 9e999"),
}


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_file_is_set_aside(how: str, directory: Path) -> None:
    # Control: until then it is good.
    Store(directory / FILE).close()
    SPOILED[how](directory / FILE)
    with pytest.raises(Broken):
        Store(directory / FILE)
    kept = Kept(directory)
    with closing(kept.memory):
        assert kept.recall() == set()
        (aside,) = directory.glob(f"{FILE}.*Z")
        assert kept.log.getvalue().count("\n") == 1
        assert aside.name in kept.log.getvalue()
        kept.tell(Remember(BOB))
    again = Kept(directory)
    with closing(again.memory):
        assert (again.recall(), again.log.getvalue()) == ({BOB}, "")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=64)), max_size=5), st.booleans())
def test_no_octets_in_file_or_log_end_it(directory: Path, patches: list[tuple[int, bytes]], in_log: bool) -> None:
    for path in directory.iterdir():
        if path.name != FILE:
            path.unlink()
    (directory / FILE).unlink()
    with closing(Store(directory / FILE)) as store:
        store.write([Remember(BOB), *(Remember(known(number)) for number in range(100))])
        # As after kill -9: what was written is in the log yet.
        files = {name: (directory / name).read_bytes() for name in (FILE, f"{FILE}-wal")}
    for name, octets in files.items():
        spoiled = bytearray(octets)
        for at, patch in patches if in_log == (name != FILE) else ():
            spoiled[at % len(spoiled) : at % len(spoiled) + len(patch)] = patch
        (directory / name).write_bytes(spoiled)
    kept = Kept(directory)
    with closing(kept.memory):
        assert kept.recall() <= {BOB, *(known(number) for number in range(100))} or not in_log
        kept.tell(Remember(BOB))
        assert kept.memory._failing is False


def test_another_hushwires_file_is_left_alone(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "PATIENCE", 0.05)
    first = Kept(directory)
    with closing(first.memory):
        second = Kept(directory)
        with closing(second.memory):
            assert second.recall() == set()
            assert "locked" in second.log.getvalue()
            second.memory._take([Remember(BOB)])
        assert len(first.recall()) == 201
    assert list(directory.glob(f"{FILE}.*")) == []


def test_what_a_full_disk_would_not_take_is_written_when_it_does(directory: Path) -> None:
    kept = Kept(directory)
    with closing(kept.memory):
        database = kept.memory._store._db  # type: ignore[union-attr]
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(3):
            kept.tell(*(Remember(known(1000 * number + each)) for each in range(1000)))
        assert kept.log.getvalue().count("\n") == 1
        assert "full" in kept.log.getvalue()
        database.execute("PRAGMA max_page_count = 100000")
        kept.tell(Forget(BOB.subject))
        assert kept.log.getvalue().endswith("written again\n")
        assert kept.recall() == {known(number) for number in range(3000)}


def test_what_waits_for_a_disk_is_bounded(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MOST_WAITING", 10)
    kept = Kept(directory)
    with closing(kept.memory):
        kept.memory._take([Remember(known(number)) for number in range(100)])
        kept.memory._take([Forget(known(3).subject)])
        assert len(kept.memory._waiting) == 10
        assert kept.memory._waiting[known(3).subject] == Forget(known(3).subject)


def test_each_level_has_a_place() -> None:
    assert f"BETWEEN {min(Assurance).value} AND {max(Assurance).value}" in SCHEMA


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_its_directory_is_its_own(tmp_path: Path) -> None:
    made = prepare(tmp_path / "state", os.getuid(), os.getgid())
    assert (made.stat().st_mode & 0o777, made.parent.stat().st_mode & 0o777) == (0o700, 0o755)
    assert prepare(tmp_path / "state", os.getuid(), os.getgid()) == made


def test_no_link_leads_to_a_directory_that_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owned: list[int] = []
    monkeypatch.setattr(os, "fchown", lambda found, uid, gid: owned.append(uid))
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / memory.DIRECTORY).symlink_to("/etc")
    prepare(tmp_path / "state", 65534, 65534)
    assert owned == []
    # Control.
    prepare(tmp_path / "other", 65534, 65534)
    assert owned == [65534]


def test_it_ends_with_its_node(tmp_path: Path) -> None:
    near, far = pair()
    near.close()
    log = io.StringIO()
    channel = Channel(far)
    memory.main(channel, tmp_path, Log("memory", log), lambda: None)
    with pytest.raises(ChannelClosed):
        channel.receive()
    channel.close()
    assert log.getvalue() == ""


def test_a_part_fits_a_packet() -> None:
    part = tuple(replace(BOB, subject="x" * 255) for _ in range(PART))
    assert len(encode([Recalled(part, complete=False)])) < LARGEST
