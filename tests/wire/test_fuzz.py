"""The fuzz harness itself: a short run finds nothing, reaches what it should, and would find something."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from struct import error as StructError  # noqa: N812
from types import ModuleType

import pytest

from hushwire.wire.cursor import Cursor, DecodeError
from hushwire.wire.message import read_message, read_payloads


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    spec = spec_from_file_location("fuzz_wire", Path(__file__).parents[2] / "fuzz" / "wire.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_short_run_finds_nothing(harness: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    harness.main(["--runs", "3000", "--seed", "7"])
    assert "nothing found" in capsys.readouterr().out


def test_runs_repeat(harness: ModuleType) -> None:
    assert list(harness.mutations(7, 50)) == list(harness.mutations(7, 50)) != list(harness.mutations(8, 50))


def test_the_corpus_is_read_and_its_mutations_are_read_in_part(harness: ModuleType) -> None:
    messages = harness.corpus()[:4]
    assert all(read_message(octets).payloads for octets in messages)
    assert read_payloads(33, harness.corpus()[4])
    read = 0
    for octets in harness.mutations(7, 2000):
        try:
            read_message(octets)
        except DecodeError:
            continue
        read += 1
    assert 100 < read < 1900


def test_an_unguarded_cursor_is_found_out(
    harness: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unguarded(cursor: Cursor, length: int) -> int:
        cursor.at += length
        return cursor.at - length

    monkeypatch.setattr(Cursor, "_advance", unguarded)
    with pytest.raises((AssertionError, IndexError, StructError)):
        harness.main(["--runs", "3000"])
    assert "seed 1, run" in capsys.readouterr().err
