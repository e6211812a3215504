"""The demo: told on both planes, and what it does where it cannot be told."""

import json
import subprocess
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from hushwire.cli.lab import lab
from hushwire.lab import demo
from hushwire.lab.demo import Numbers, hexdump, wrongs
from hushwire.lab.hushwire import Hushwire
from hushwire.lab.stage import Stage

GOOD = Numbers(
    esp_packets=60, clear_packets=0, canaries_seen=0, assurance="named", suite="IKE A, ESP B", plane="userspace",
    first_byte_ms=30.5,
)  # fmt: skip


def told(plane: str, folder: Path, *before: str) -> tuple[Numbers, str]:
    """What the demo measured and what it said."""
    output = folder / "demo.json"
    command = (*before, sys.executable, "-m", "hushwire", "lab", "demo", "--plane", plane, "--output", str(output))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(output.read_text())
    assert {name: type(value).__name__ for name, value in said.items()} == {
        field.name: field.type.__name__ for field in fields(Numbers) if isinstance(field.type, type)
    }
    numbers = Numbers(**said)
    assert wrongs(numbers) == []
    assert numbers.plane == plane
    assert 0 < numbers.first_byte_ms < 10_000
    assert "AES_GCM_16-256" in numbers.suite
    return numbers, done.stdout


@pytest.mark.lab
def test_the_story_with_esp_in_userspace(tmp_path: Path) -> None:
    _, text = told("userspace", tmp_path)
    assert text.count("  ok  ") == 11
    assert "HDR, SAi1, KEi, Ni" in text
    assert "HDR, SAr1, KEr, Nr" in text
    assert text.count("no page: nothing leaves") == 2


@pytest.mark.uml
def test_the_story_with_esp_in_the_kernel(tmp_path: Path) -> None:
    _, text = told("kernel", tmp_path)
    assert text.count("  ok  ") == 11


@pytest.mark.lab
def test_without_the_right_to_administer_it_is_told_in_a_user_namespace(tmp_path: Path) -> None:
    # An ordinary user, but for what root needs to map itself, since not everybody may read a checkout of root.
    told("userspace", tmp_path, "setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all")


@pytest.mark.lab
def test_when_what_hushwire_set_up_is_taken_away_the_relay_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def undone(stage: Stage, daemon: Hushwire) -> None:
        await_names(stage, daemon)
        for command in (
            "ip -4 rule delete priority 220", "ip -6 rule delete priority 220", "ip xfrm policy flush",
            "nft flush ruleset",
        ):  # fmt: skip
            daemon.host.run(*command.split())

    await_names = Stage.await_names
    monkeypatch.setattr(Stage, "await_names", undone)
    output = tmp_path / "demo.json"
    assert demo.main(("userspace", str(output))) == 1
    numbers = Numbers(**json.loads(output.read_text()))
    assert numbers.canaries_seen > 10
    assert numbers.clear_packets > 20
    assert len(wrongs(numbers)) == 4
    assert "Not as it should be" in capsys.readouterr().out


def test_where_no_namespace_can_be_made_it_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_succeeds", lambda *command: False)
    done = CliRunner().invoke(lab, ["demo", "--output", str(tmp_path / "demo.json")])
    assert done.exit_code == 1
    assert done.output == "Error: this host lets ordinary users make no network namespaces; run the demo as root\n"


def test_where_no_kernel_can_be_booted_it_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_kernel_has_esp", lambda as_root: False)
    monkeypatch.setattr(demo, "_succeeds", lambda *command: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(lab, ["demo", "--plane", "kernel", "--output", str(tmp_path / "demo.json")])
    assert done.exit_code == 1
    assert done.output.startswith("Error: this kernel has no ESP; install user-mode-linux and kmod")
    assert done.output.count("\n") == 1


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = CliRunner().invoke(lab, ["demo", "--output", str(tmp_path / "file" / "demo.json")])
    assert done.exit_code == 1
    assert done.output.endswith("name another file with --output\n")


def test_an_earlier_result_is_not_left_for_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_succeeds", lambda *command: False)
    output = tmp_path / "demo.json"
    output.write_text(json.dumps(asdict(GOOD)))
    CliRunner().invoke(lab, ["demo", "--output", str(output)])
    assert output.read_text() == ""


def test_numbers_that_are_wrong_are_found() -> None:
    assert wrongs(GOOD) == []
    for wrong in (
        replace(GOOD, esp_packets=0),
        replace(GOOD, clear_packets=1),
        replace(GOOD, canaries_seen=1),
        replace(GOOD, assurance="encrypted"),
    ):
        assert len(wrongs(wrong)) == 1


def test_a_hexdump_has_sixteen_octets_a_line() -> None:
    assert hexdump(bytes(range(0x40, 0x52))).splitlines() == [
        "40 41 42 43 44 45 46 47 48 49 4a 4b 4c 4d 4e 4f  @ABCDEFGHIJKLMNO",
        "50 51                                            PQ",
    ]
