"""What it costs to remember peers, to trust keys and to have peers at work, and whether that grows with their number.

Each size beside the plainest thing that does the same (a dict, SQLite by itself, grep), in turn in one run, and beside
itself at a hundredth of the size.
"""

import gc
import multiprocessing
import random
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address
from itertools import chain
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from hushwire.daemon import channel, memory
from hushwire.daemon.log import Log
from hushwire.events import Forget, Recalled, Remember
from hushwire.lab.crowd import EVENTS, Busy
from hushwire.node.known import COUNTED, MOST, KnownPeers
from hushwire.policy.assurance import Assurance
from hushwire.policy.known import Known
from hushwire.policy.pad import fingerprint_text
from hushwire.policy.trust import Trusted, TrustStore

PEERS = (1_000, 10_000, 100_000)
KEYS = (100, 1_000, 10_000)
AT_WORK = (100, 1_000, 10_000)
ASKED = 2_000
"""Look-ups of one measurement, each of another subject."""
BATCH = 1_000
"""Changes of one transaction: what a host with 5,000 contacts a second would gather."""
WALL = 1.8e9


@dataclass(frozen=True, slots=True)
class Row:
    """One figure at one size."""

    size: str
    ours: tuple[float, ...]
    """One for each round."""
    plain: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that is measured."""

    what: str
    """With its unit."""
    plain: str
    """What is beside it."""
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        lines = [f"{self.what:56}{'hushwire':>26}{self.plain:>28}{'ratio':>8}{'grown':>15}"]
        for row in self.rows:
            ratio = f"{median(row.ours) / median(row.plain):.2f}" if row.plain else ""
            lines.append(
                f"  {row.size:54}{_range(row.ours):>26}{_range(row.plain):>28}{ratio:>8}{self._grown(row):>15}"
            )
        return "\n".join(lines)

    def _grown(self, row: Row) -> str:
        """Both, to the first."""
        first = self.rows[0]
        pairs = (row.ours, first.ours), (row.plain, first.plain)
        return " / ".join(f"{median(now) / median(then):.2f}" for now, then in pairs if now)


def measure(
    rounds: int, tell: Callable[[object], None], peers: Sequence[int] = PEERS, keys: Sequence[int] = KEYS,
    at_work: Sequence[int] = AT_WORK,
) -> list[Figure]:  # fmt: skip
    """All figures, each told when it is there."""
    figures: list[Figure] = []
    for figure in chain(_remembered(rounds, peers), _stored(rounds, peers), _trusted(rounds, keys), _busy(at_work)):
        tell(figure)
        figures.append(figure)
    return figures


# --- what is remembered ---


def acquaintances(count: int, friends: int) -> Iterator[Known]:
    """So many peers by address, of whom the first `friends` came twice, and the others once."""
    for number in range(count):
        times = 2 if number < friends else 1
        yield Known(_address(number), _fingerprint(number), WALL, WALL + number, times, Assurance.CONTINUOUS)


def _remembered(rounds: int, sizes: Sequence[int]) -> Iterator[Figure]:
    worlds = {f"{size:,} peers": _recall(size) for size in sizes}
    worlds[f"{MOST:,} peers, while strangers flood"] = flooded = _recalled(acquaintances(MOST, sizes[-1]))
    yield _look_ups(rounds, worlds, flooded)
    yield _meetings(rounds, worlds, flooded)
    rows = [Row(f"{size:,} peers", (_octets(_recall, size),), (_octets(_plain_dict, size),)) for size in sizes]
    yield Figure("memory, octets for each peer", "dict of keys", tuple(rows))


def _look_ups(rounds: int, worlds: dict[str, KnownPeers], flooded: KnownPeers) -> Figure:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in worlds}
    for number in range(rounds):
        for name, known in worlds.items():
            subjects = _some(number, _staying(known, flooded))
            plain = dict.fromkeys((each.subject for each in known.after("", len(known))), b"")
            if known is flooded:
                _flood(known, ASKED, number)
            found[name].append((_each(known.of, subjects), _each(plain.get, subjects)))
    return _figure("look-up of whom we know, microseconds", "dict", found)


def _meetings(rounds: int, worlds: dict[str, KnownPeers], flooded: KnownPeers) -> Figure:
    """The same key, each time counted, and so told to the disk's process: the dearest there is."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in worlds}
    for number in range(rounds):
        wall = WALL + MOST + COUNTED * (2 + number)
        for name, known in worlds.items():
            pairs = [(subject, _key_of(known, subject)) for subject in _some(number, _staying(known, flooded))]
            plain = {subject: (key, wall, 1) for subject, key in pairs}

            def meet(pair: tuple[str, bytes], known: KnownPeers = known, wall: float = wall) -> None:
                known.meet(*pair, Assurance.CONTINUOUS, wall)

            def note(pair: tuple[str, bytes], plain: dict[str, tuple[bytes, float, int]] = plain) -> None:
                key, last, times = plain[pair[0]]
                plain[pair[0]] = (key, last, times + 1) if key == pair[1] else (pair[1], last, 1)

            if known is flooded:
                _flood(known, ASKED, number + rounds)
            found[name].append((_each(meet, pairs), _each(note, pairs)))
    return _figure("meeting with the same key, microseconds", "dict of tuples", found)


def _flood(known: KnownPeers, count: int, number: int) -> None:
    """Strangers whom nobody knows take each other's place, and nobody's who came twice."""
    friends, flood = len(known._friends), [f"flood-{number}-{each}.example" for each in range(count)]
    for subject in flood:
        known.meet(subject, bytes(32), Assurance.ENCRYPTED, WALL)
    if len(known) != MOST or len(known._friends) != friends or not all(map(known.of, flood)):
        raise RuntimeError(f"{len(known):,} peers, {len(known._friends):,} of them friends, after a flood")


def _staying(known: KnownPeers, flooded: KnownPeers) -> int:
    """How many, from the first, are there whoever comes."""
    return len(known._friends) if known is flooded else len(known)


def _stored(rounds: int, sizes: Sequence[int]) -> Iterator[Figure]:
    loads: dict[str, list[tuple[float, float]]] = {f"{size:,} peers": [] for size in sizes}
    writes: dict[str, list[tuple[float, float]]] = {f"{size:,} peers": [] for size in sizes}
    with TemporaryDirectory(prefix="hushwire-bench-") as directory:
        for size in sizes:
            place = Path(directory) / str(size)
            place.mkdir()
            with closing(memory.Store(place / memory.FILE)) as store:
                store.write(map(Remember, acquaintances(size, size // 2)))
            for number in range(rounds):
                loads[f"{size:,} peers"].append((_load(place, size), _load_plain(place / memory.FILE)))
                writes[f"{size:,} peers"].append(_write(place / memory.FILE, _some(number, size)))
    yield _figure("at start, from the disk to the node, milliseconds", "SQLite alone", loads)
    yield _figure(f"written in transactions of {BATCH:,}, microseconds each", "SQLite alone", writes)


def _load(directory: Path, size: int) -> float:
    """The memory's process begins, checks its file, and tells the node in parts."""
    ours, theirs = channel.pair()

    def main() -> None:
        ours.close()
        memory.main(channel.Channel(theirs, channel.EFFECTS), directory, Log("memory"), lambda: None)

    process = multiprocessing.get_context("fork").Process(target=main)
    known = KnownPeers(lambda _: None)
    began = time.perf_counter()
    process.start()
    theirs.close()
    complete = False
    with closing(channel.Channel(ours, channel.EVENTS)) as told:
        while not complete:
            for part in told.wait():
                assert isinstance(part, Recalled)
                known.recall(part.known)
                complete = part.complete
        took = time.perf_counter() - began
    process.join()
    if len(known) != size or process.exitcode:
        raise RuntimeError(f"{len(known):,} of {size:,} peers were recalled")
    return took * 1e3


def _load_plain(file: Path) -> float:
    began = time.perf_counter()
    with closing(sqlite3.connect(file)) as plain:
        dict((subject, rest) for subject, *rest in plain.execute("SELECT * FROM known ORDER BY last"))  # noqa: C402
    return (time.perf_counter() - began) * 1e3


def _write(file: Path, subjects: Sequence[str]) -> tuple[float, float]:
    changed = [Known(subject, bytes(32), WALL, WALL, 2, Assurance.CONTINUOUS) for subject in subjects[:BATCH]]
    rows = [(known.subject, known.fingerprint, WALL, WALL, 2, 2, 0) for known in changed]
    with closing(memory.Store(file)) as store:
        began = time.perf_counter()
        store.write(map(Remember, changed))
        ours = time.perf_counter() - began
    with closing(sqlite3.connect(file)) as plain:
        plain.execute("PRAGMA synchronous = FULL")
        began = time.perf_counter()
        plain.executemany("INSERT OR REPLACE INTO known VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        plain.commit()
        theirs = time.perf_counter() - began
    return ours / len(rows) * 1e6, theirs / len(rows) * 1e6


# --- whom an administrator trusts ---


def _trusted(rounds: int, sizes: Sequence[int]) -> Iterator[Figure]:
    stores = {f"{size:,} keys": TrustStore(_keys(size)) for size in sizes}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in stores}
    commands: dict[str, list[tuple[float, float]]] = {name: [] for name in stores}
    with TemporaryDirectory(prefix="hushwire-bench-") as directory:
        for number in range(rounds):
            for name, store in stores.items():
                asked = random.Random(number).choices([key.fingerprint for key in store], k=ASKED)
                plain = {key.fingerprint: key for key in store}
                found[name].append((_each(store.get, asked), _each(plain.get, asked)))
                file = Path(directory) / name.replace(" ", "-")
                file.write_text(store.to_text())
                words = ("trust", "show", fingerprint_text(asked[0]), "--store", str(file))
                ours = _run(sys.executable, "-m", "hushwire", *words)
                commands[name].append((ours, _run("grep", "-F", fingerprint_text(asked[0]), str(file))))
    yield _figure("look-up of a trusted key, microseconds", "dict", found)
    yield _figure("hushwire trust show FINGERPRINT, milliseconds", "grep", commands)
    rows = [Row(f"{size:,} keys", (_octets(_trust, size),), (_octets(_plain_dict, size),)) for size in sizes]
    yield Figure("memory, octets for each trusted key", "dict of keys", tuple(rows))


def _keys(count: int) -> Iterator[Trusted]:
    return (Trusted(_fingerprint(number), f"key {number}", "2026-11-24") for number in range(count))


def _run(*words: str) -> float:
    began = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    return (time.perf_counter() - began) * 1e3


# --- who is at work ---


def _busy(sizes: Sequence[int]) -> Iterator[Figure]:
    """Of one host, with more and more strangers; what a step takes of its processor."""
    host = Busy()
    found: dict[str, dict[str, tuple[float, ...]]] = {what: {} for what in EVENTS}
    for size in sizes:
        host.grow(size)
        for what, took in host.sample().items():
            found[what][f"{size:,} at work"] = took
    for what, rows in found.items():
        yield Figure(f"{what}, microseconds", "", tuple(Row(size, took) for size, took in rows.items()))


# --- measuring ---


def _each(call: Callable[[object], object] | Callable[..., object], arguments: Sequence[object]) -> float:
    """Microseconds of one call."""
    gc.collect()
    began = time.perf_counter()
    for argument in arguments:
        call(argument)
    return (time.perf_counter() - began) / len(arguments) * 1e6


def _octets(make: Callable[[int], object], count: int) -> float:
    """What each of so many takes, the texts included."""
    gc.collect()
    tracemalloc.start()
    try:
        made = make(count)
        return tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
        del made


def _recall(count: int) -> KnownPeers:
    return _recalled(acquaintances(count, count // 2))


def _trust(count: int) -> TrustStore:
    return TrustStore.from_text("".join(f"{key}\n" for key in _keys(count)))


def _plain_dict(count: int) -> dict[str, bytes]:
    return {_address(number): _fingerprint(number) for number in range(count)}


def _recalled(known: Iterable[Known]) -> KnownPeers:
    peers = KnownPeers(_nothing)
    peers.recall(known)
    return peers


def _nothing(_: Remember | Forget) -> None:
    """To the disk's process."""


def _key_of(known: KnownPeers, subject: str) -> bytes:
    found = known.of(subject)
    assert found is not None
    return found.fingerprint


def _some(seed: int, count: int) -> list[str]:
    """Subjects at random, among the first so many."""
    return [_address(number) for number in random.Random(seed).choices(range(count), k=ASKED)]


def _address(number: int) -> str:
    return str(IPv4Address(0x0A000000 + number))


def _fingerprint(number: int) -> bytes:
    return sha256(str(number).encode()).digest()


def _figure(what: str, plain: str, found: dict[str, list[tuple[float, float]]]) -> Figure:
    rows = [Row(size, *map(tuple, zip(*pairs, strict=True))) for size, pairs in found.items()]
    return Figure(what, plain, tuple(rows))


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    low, middle, high = (_three(value) for value in (min(values), median(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def _three(value: float) -> str:
    """With three digits that count, or so."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
