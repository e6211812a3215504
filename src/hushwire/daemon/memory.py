"""The memory's process: what is remembered of peers, in a file that outlives the daemon and is never half written.

No network, no capabilities, no file but those of one directory.  Nothing that becomes of the file ends hushwire: what
cannot be read is set aside, what cannot be written is told once, kept, and tried again.
"""

import os
import select
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

from hushwire.daemon.channel import Channel, ChannelClosed
from hushwire.daemon.log import Log
from hushwire.events import Forget, Recalled, Remember
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import Known

DIRECTORY = "known"
"""Of `host.state`: it is the process's own, and the only one that it sees."""
FILE = "known.sqlite"
GATHER = 0.2
"""Seconds for which changes are gathered into one transaction: as much as a crash may cost."""
AGAIN = 30.0
"""Seconds until what could not be written is tried again."""
MOST_WAITING = 1 << 16
"""Subjects whose changes wait for a disk that takes none; of more, nothing is written."""
PART = 256
"""Records in one Recalled: as many as fit a packet of the channel, however long their names."""
PATIENCE = 5.0
"""Seconds to wait for another process that has the file."""

SCHEMA = """\
CREATE TABLE known (
  subject TEXT PRIMARY KEY CHECK (length(subject) BETWEEN 1 AND 255),
  fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
  first REAL NOT NULL CHECK (first BETWEEN 0 AND 253402300799),
  last REAL NOT NULL CHECK (last BETWEEN 0 AND 253402300799),
  times INTEGER NOT NULL CHECK (times >= 0),
  level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 4),
  pinned INTEGER NOT NULL CHECK (pinned IN (0, 1))
) STRICT, WITHOUT ROWID"""
"""The whole of it: a file with any other is not ours."""


class Broken(Exception):
    """There is a file, and it is no memory of ours; one line says why."""


def prepare(state: Path, uid: int, gid: int) -> Path:
    """The process's directory, made its own, by who may do so.  Where it cannot be had, the process will say so."""
    directory = state / DIRECTORY
    with suppress(OSError):
        state.mkdir(mode=0o755, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        # Whoever may write in `state` could lead us elsewhere by a link.
        found = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(found, uid, gid)
        finally:
            os.close(found)
    return directory


def main(node: Channel, directory: Path, log: Log, confine: Callable[[], None]) -> None:
    """Tell the node what is remembered, and have what it says remembered, until it is gone."""
    confine()
    memory = Memory(directory, log)
    with closing(memory), suppress(ChannelClosed):
        for part in memory.recall():
            node.send(Recalled(part, complete=False))
        node.send(Recalled((), complete=True))
        memory.serve(node)


class Memory:
    """The file, and what waits to be written to it."""

    def __init__(self, directory: Path, log: Log) -> None:
        self._path = directory / FILE
        self._log = log
        self._store = self._open()
        self._waiting: dict[str, Remember | Forget] = {}
        """By subject, the latest."""
        self._write_at = 0.0
        """When, if something waits."""
        self._failing = False

    def recall(self) -> Iterator[tuple[Known, ...]]:
        """What is in the file, in parts."""
        try:
            yield from self._store.parts() if self._store is not None else ()
        except sqlite3.Error as error:
            self._tell(f"cannot be read to its end: {error}; some who come next will be taken for new")

    def serve(self, node: Channel) -> None:
        """Write what the node says; raises ChannelClosed."""
        poll = select.poll()
        poll.register(node.fileno(), select.POLLIN)
        while True:
            wait = max(0.0, self._write_at - time.monotonic()) * 1000 if self._waiting else None
            for _ in poll.poll(wait):
                self._take(node.receive())
            if self._waiting and self._write_at <= time.monotonic():
                self._write()

    def close(self) -> None:
        """Write what waits, and have no file any more."""
        if self._waiting:
            self._write()
        if self._store is not None:
            with suppress(sqlite3.Error):
                self._store.close()

    def _take(self, changes: Sequence[Remember | Forget]) -> None:
        if self._store is None:
            return
        if changes and not self._waiting:
            self._write_at = time.monotonic() + GATHER
        for change in changes:
            subject = change.known.subject if isinstance(change, Remember) else change.subject
            if subject in self._waiting or len(self._waiting) < MOST_WAITING:
                self._waiting[subject] = change

    def _write(self) -> None:
        assert self._store is not None
        try:
            self._store.write(self._waiting.values())
        except sqlite3.Error as error:
            if not self._failing:
                self._tell(
                    f"cannot be written: {error}; it is tried again, and until then a restart forgets what is new"
                )
            self._failing = True
            self._write_at = time.monotonic() + AGAIN
            return
        self._waiting.clear()
        if self._failing:
            self._log.line(f"{self._path}: written again")
        self._failing = False

    def _open(self) -> "Store | None":
        try:
            try:
                return Store(self._path)
            except Broken as error:
                aside = _set_aside(self._path)
                self._tell(f"{error}; it is now {aside.name}, and the memory begins empty: who comes next is new")
                return Store(self._path)
        except (Broken, sqlite3.Error, OSError) as error:
            said = error.strerror if isinstance(error, OSError) else str(error)
            self._tell(f"cannot be used: {said}; hushwire runs on, and a restart forgets all peers")
        return None

    def _tell(self, what: str) -> None:
        # SQLite quotes from a file that anything may be in.
        self._log.line(f"! {self._path}: {''.join(c if c.isprintable() else '?' for c in what)}")


class Store:
    """An SQLite file.  Its transactions are whole or not there, whoever is killed and whenever."""

    def __init__(self, path: Path) -> None:
        """Open it, or make it.  Raises Broken, or sqlite3.Error where that says nothing of the file."""
        try:
            self._db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise Broken(f"cannot be opened: {error}") from None
        try:
            self._begin()
        except Broken:
            self._db.close()
            raise
        except sqlite3.Error as error:
            self._db.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in SAYS_NOTHING:
                raise
            raise Broken(str(error)) from None

    def _begin(self) -> None:
        # Alone, it needs no shared memory beside its log, and a second hushwire is noticed.
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA trusted_schema = OFF")
        self._db.execute("PRAGMA temp_store = MEMORY")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        found = self._db.execute("SELECT sql FROM sqlite_schema").fetchall()
        if not found:
            self._db.execute(SCHEMA)
        elif found != [(SCHEMA,)]:
            raise Broken("it holds something else")
        # The constraints of SCHEMA are checked as well, so what is read from it is what can be written to it.
        if self._db.execute("PRAGMA integrity_check(1)").fetchall() != [("ok",)]:
            raise Broken("it is damaged")

    def parts(self) -> Iterator[tuple[Known, ...]]:
        """All records, the longest unseen first."""
        rows = self._db.execute(
            "SELECT subject, fingerprint, first, last, times, level, pinned FROM known ORDER BY last"
        )
        while part := rows.fetchmany(PART):
            yield tuple(
                Known(subject, fingerprint, first, last, times, Assurance(level), bool(pinned))
                for subject, fingerprint, first, last, times, level, pinned in part
            )

    def write(self, changes: Iterable[Remember | Forget]) -> None:
        """All of them, or none: then it raises sqlite3.Error."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for change in changes:
                match change:
                    case Remember(known):
                        row = (known.subject, known.fingerprint, known.first, known.last)
                        more = (known.times, int(known.level), int(known.pinned))
                        self._db.execute("INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, *more))
                    case Forget(subject):
                        self._db.execute("DELETE FROM known WHERE subject = ?", (subject,))
            self._db.execute("COMMIT")
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        self._db.close()


SAYS_NOTHING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM)
"""Errors that are no reason to set a file aside: somebody else has it, or there is no room."""


def _set_aside(path: Path) -> Path:
    """Out of the way, with the date, and with its log.  Raises OSError."""
    aside = path.with_name(f"{path.name}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    path.rename(aside)
    for end in ("-wal", "-shm", "-journal"):
        with suppress(OSError):
            path.with_name(path.name + end).rename(aside.with_name(aside.name + end))
    return aside
