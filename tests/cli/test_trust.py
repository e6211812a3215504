"""`hushwire trust`: what is added is there, whoever else adds; what is wrong is one line, and nothing is lost."""

import fcntl
import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import hushwire.cli.trust
from hushwire.cli import main
from hushwire.cli.trust import changing
from hushwire.crypto.keys import KeyKind, PrivateKey, PublicKey
from hushwire.crypto.secret import Secret
from hushwire.daemon.control import Command
from hushwire.daemon.keyfile import LARGEST_STORE
from hushwire.events import Reply, TrustChanged
from hushwire.policy.pad import fingerprint_text
from hushwire.policy.trust import Trusted, TrustStore

from .conftest import Daemon

BOB = PrivateKey.from_seed(Secret(b"bob".ljust(32))).public
CAROL = PublicKey.of(ec.derive_private_key(7, ec.SECP384R1()).public_key())
"""The same in each process of a test run: names of tests have them."""
FILE = f"# ours\n{fingerprint_text(BOB.fingerprint)}  bob  # by telephone\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with bob's key."""
    file = tmp_path / "trusted"
    file.write_text(FILE)
    file.chmod(0o644)
    return file


def run(store: Path, *arguments: str | Path, input: str | None = None) -> Result:
    """No hushwire runs here, unless one answers beside the store."""
    words = ["trust", *map(str, arguments), "--store", str(store)]
    if arguments[0] in ("add", "remove"):
        words += ["--control", str(store.with_name("control"))]
    return CliRunner().invoke(main, words, input=input)


def done(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout.splitlines()


def refused(result: Result) -> str:
    """The one line of an error."""
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), "an exception escaped"
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def openssh(public: PublicKey) -> str:
    return public.key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def line_of(public: PublicKey, label: str) -> str:
    return str(Trusted(public.fingerprint, label, f"{datetime.now(UTC):%Y-%m-%d}"))


def test_add_list_show_remove(tmp_path: Path) -> None:
    """The whole way, as an administrator goes it, with the file that `hushwire key new` and `show` make."""
    store, key = tmp_path / "trusted", tmp_path / "carol.key"
    CliRunner().invoke(main, ["key", "new", str(key)])
    shown = CliRunner().invoke(main, ["key", "show", str(key)]).output
    (tmp_path / "carol.pem").write_text(shown)
    (added,) = done(run(store, "add", tmp_path / "carol.pem"))
    (listed,) = done(run(store, "list"))
    assert added == f"added: {listed}"
    assert listed.endswith(f" {datetime.now(UTC):%Y-%m-%d} carol")
    assert store.read_text() == f"{listed}\n"
    assert store.stat().st_mode & 0o7777 == 0o644
    hexadecimal = shown.splitlines()[1].removeprefix("fingerprint: ")
    for meant in ("carol", hexadecimal, listed.split()[0]):
        assert done(run(store, "show", meant))[:3] == [
            f"fingerprint: {listed.split()[0]}", f"in hexadecimal: {hexadecimal}", "label: carol",
        ]  # fmt: skip
    assert done(run(store, "remove", hexadecimal)) == [f"removed: {listed}"]
    assert done(run(store, "list")) == []
    assert json.loads(run(store, "list", "--json").stdout) == []


def test_what_stands_in_the_file_stays(store: Path) -> None:
    done(run(store, "add", fingerprint_text(CAROL.fingerprint), "--label", "carol"))
    assert store.read_text() == f"{FILE}{line_of(CAROL, 'carol')}\n"
    done(run(store, "remove", "carol"))
    assert store.read_text() == FILE


def test_a_key_that_is_there(store: Path) -> None:
    there = f"there already: {fingerprint_text(BOB.fingerprint)} bob"
    before = store.stat()
    assert done(run(store, "add", BOB.fingerprint.hex(), "--label", "robert")) == [there]
    assert os.path.samestat(store.stat(), before), "the file was written anew"
    told = done(run(store, "add", "-", input=f"{openssh(CAROL)} carol\n{openssh(BOB)} bob\n{openssh(CAROL)} again\n"))
    assert told == [f"added: {line_of(CAROL, 'carol')}", there, f"there already: {line_of(CAROL, 'carol')}"]


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (openssh(CAROL), "laptop"),
        (f"{openssh(CAROL)} carol@example", "carol@example"),
        (f"carol.example,192.0.2.3 {openssh(CAROL)}", "carol.example,192.0.2.3"),
        (CAROL.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(), "laptop"),
        (f"{openssh(CAROL)} a \x1b[31m # 2026", "a [31m 2026"),
        (f"{openssh(CAROL)} {CAROL.fingerprint.hex()}", ""),
        (f"# of graz\n{fingerprint_text(CAROL.fingerprint)} 2020-02-02 carol  # hers\n", "carol"),
    ],
)
def test_files_and_their_labels(content: str, label: str, store: Path, tmp_path: Path) -> None:
    """The label is what the file says of the key, made harmless; else the file's name."""
    file = tmp_path / "laptop.pub"
    file.write_text(content)
    assert done(run(store, "add", file)) == [f"added: {line_of(CAROL, label)}"]
    assert TrustStore.from_text(store.read_text()).get(CAROL.fingerprint) is not None


def test_the_keys_of_one_host_have_one_label(store: Path, tmp_path: Path) -> None:
    files = [tmp_path / kind.value for kind in (KeyKind.ED25519, KeyKind.ECDSA_P256)]
    for file in files:
        file.write_text(openssh(PrivateKey.generate(KeyKind(file.name)).public))
    assert len(done(run(store, "add", *files, "--label", "dave's hosts"))) == 2
    told = [line for line in done(run(store, "show", "dave's hosts")) if line.startswith("fingerprint: ")]
    assert len(told) == 2
    assert len(done(run(store, "remove", "dave's hosts"))) == 2
    assert store.read_text() == FILE


def test_keys_of_other_programs(store: Path, tmp_path: Path) -> None:
    """ssh-keygen's and openssl's key, by file and by pipe; `ssh-keygen -l` tells a fingerprint of another form."""
    key, pem = tmp_path / "key", tmp_path / "router.pem"
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-C", "root@router", "-f", key], check=True, timeout=60)
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed448", "-out", pem], check=True, timeout=60)
    public = subprocess.run(["openssl", "pkey", "-in", pem, "-pubout"], check=True, capture_output=True, timeout=60)
    (first,) = done(run(store, "add", key.with_suffix(".pub")))
    (second,) = done(run(store, "add", "-", "--label", "router", input=public.stdout.decode()))
    assert first.endswith("root@router")
    assert second.endswith("router")
    command = ["ssh-keygen", "-l", "-f", str(key)]
    other = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout.decode().split()[1]
    assert "no key has the fingerprint" in refused(run(store, "show", other))
    assert "`ssh-keygen -l` tells another" in " ".join(run(store, "add", "--help").output.split())


def test_json(store: Path) -> None:
    done(run(store, "add", CAROL.fingerprint.hex()))
    assert json.loads(run(store, "list", "--json").stdout) == [
        {"fingerprint": fingerprint_text(BOB.fingerprint), "label": "bob", "added": ""},
        {
            "fingerprint": fingerprint_text(CAROL.fingerprint), "label": "",
            "added": f"{datetime.now(UTC):%Y-%m-%d}",
        },
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "/nonexistent"), "/nonexistent: No such file or directory"),
        (("add", "/"), "/: Is a directory"),
        (("add", "SHA256:bad"), "'SHA256:bad' is no fingerprint; write SHA256: and 43 characters of base64"),
        (("add", CAROL.fingerprint.hex(), "--label", "a\nb"), "label 'a\\nb': write words with one space"),
        (("add", CAROL.fingerprint.hex(), "/nonexistent"), "/nonexistent: No such file or directory"),
        (("show", "nobody"), "no key has the fingerprint or label 'nobody'"),
        (("show", CAROL.fingerprint.hex()), "no key has the fingerprint or label"),
        (("remove", "nobody"), "no key has the fingerprint or label 'nobody'"),
        (("remove", "bo"), "no key has the fingerprint or label 'bo'"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], said: str, store: Path) -> None:
    assert said in refused(run(store, *arguments))
    assert store.read_text() == FILE


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "offered: no public key in it"),
        (b"\xff\xfes\x00s\x00h\x00", "offered: not UTF-8 text"),
        (f"{openssh(CAROL)}\nssh-dss AAAA\n".encode(), "offered: line 2: keys of type 'ssh-dss' are not used"),
        (f"{fingerprint_text(CAROL.fingerprint)}\nSHA256:bad\n".encode(), "offered: line 2: 'SHA256:bad' is no"),
        (PrivateKey.generate(KeyKind.ED25519).write_pem().expose(), "offered: line 1: a private key"),
        (b"#" * (LARGEST_STORE + 1), f"offered: more than {LARGEST_STORE} octets"),
    ],
    ids=["empty", "octets", "key", "fingerprint", "private", "long"],
)
def test_a_file_that_is_refused(content: bytes, said: str, store: Path, tmp_path: Path) -> None:
    """Nothing is added when anything is wrong, and nothing is lost."""
    file = tmp_path / "offered"
    file.write_bytes(content)
    assert said in refused(run(store, "add", fingerprint_text(CAROL.fingerprint), file))
    assert store.read_text() == FILE


@pytest.mark.parametrize("command", [["add", CAROL.fingerprint.hex()], ["list"], ["show", "bob"], ["remove", "bob"]])
def test_a_store_that_is_not_as_it_must_be(command: list[str], store: Path) -> None:
    bad = f"{FILE}SHA256:bad\n"
    store.write_text(bad)
    assert f"{store}: line 3: 'SHA256:bad' is no fingerprint" in refused(run(store, *command))
    assert store.read_text() == bad
    store.write_text(FILE)
    store.chmod(0o664)
    assert f"{store}: mode 0664 lets others add keys; it must be 0644" in refused(run(store, *command))
    store.chmod(0o640)
    done(run(store, *command))


def test_a_label_that_is_none(store: Path) -> None:
    done(run(store, "add", CAROL.fingerprint.hex(), "--label", ""))
    before = store.read_text()
    assert "no key has the fingerprint or label ''" in refused(run(store, "remove", ""))
    assert store.read_text() == before


def test_no_store(tmp_path: Path) -> None:
    for command in (["list"], ["show", "bob"], ["remove", "bob"]):
        assert refused(run(tmp_path / "none", *command)) == f"Error: {tmp_path}/none: No such file or directory"
    assert "No such file or directory" in refused(run(tmp_path / "no" / "folder", "add", CAROL.fingerprint.hex()))


def test_mode_and_links_stay(store: Path, tmp_path: Path) -> None:
    store.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(store)
    done(run(link, "add", CAROL.fingerprint.hex(), "--label", "carol"))
    assert link.is_symlink()
    assert store.read_text() == f"{FILE}{line_of(CAROL, 'carol')}\n"
    assert store.stat().st_mode & 0o7777 == 0o640


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace")])
def test_a_full_disk_loses_nothing(owner: object, call: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(owner, call, full)
        assert "No space left" in refused(run(store, "add", CAROL.fingerprint.hex()))
    assert store.read_text() == FILE
    # What the attempt left behind does not stand in the way of the next.
    done(run(store, "add", CAROL.fingerprint.hex()))


def test_who_reads_meanwhile_has_all_of_it(store: Path) -> None:
    """The file is replaced and not written into: who has opened the old one reads that to its end."""
    with store.open() as opened:
        done(run(store, "add", CAROL.fingerprint.hex()))
        assert opened.read() == FILE


def add_two(store: Path) -> list[str]:
    """The labels in a store to which two have added a key, the second of whom came while the first was at it."""

    def add(label: str) -> None:
        with changing(store) as there:
            there.add(Trusted(sha256(label.encode()).digest(), label))

    second = threading.Thread(target=add, args=["dave"])
    with changing(store) as there:
        there.add(Trusted(CAROL.fingerprint, "carol"))
        second.start()
        second.join(0.2)
    second.join(10)
    assert not second.is_alive()
    return [key.label for key in TrustStore.from_text(store.read_text())]


def test_two_at_once(store: Path) -> None:
    assert add_two(store) == ["bob", "carol", "dave"]


def test_control_two_at_once_without_the_lock(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert add_two(store) == ["bob", "carol"]


def test_many_processes_at_once(store: Path) -> None:
    fingerprints = [sha256(bytes([number])).digest() for number in range(6)]
    adding = [
        subprocess.Popen(
            [sys.executable, "-m", "hushwire", "trust", "add", fingerprint.hex(), "--store", store],
            stdout=subprocess.PIPE,
        )
        for fingerprint in fingerprints
    ]
    for process in adding:
        assert process.communicate(timeout=60)[0].startswith(b"added: ")
        assert process.returncode == 0
    assert {key.fingerprint for key in TrustStore.from_text(store.read_text())} == {BOB.fingerprint, *fingerprints}


def test_patience_ends(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has stopped in the middle: we say so, and wait no longer.  When his process is gone, so is his lock."""
    monkeypatch.setattr(hushwire.cli.trust, "PATIENCE", 0.05)
    with changing(store):
        line = refused(run(store, "add", CAROL.fingerprint.hex()))
    assert line == f"Error: {store}: another command is changing it; try again when that has ended"
    done(run(store, "add", CAROL.fingerprint.hex()))


def test_who_may_only_read_cannot_keep_us_out(store: Path) -> None:
    """Whoever can read the store could lock it for ever; the lock is where only its owner can."""
    with store.open() as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        done(run(store, "add", CAROL.fingerprint.hex()))
    assert store.with_name(".trusted.lock").stat().st_mode & 0o077 == 0


def test_ten_thousand(store: Path, tmp_path: Path) -> None:
    file = tmp_path / "others"
    digests = (sha256(number.to_bytes(2, "big")).digest() for number in range(10_000))
    file.write_text(TrustStore(Trusted(digest, f"host{at}") for at, digest in enumerate(digests)).to_text())
    assert len(done(run(store, "add", file))) == 10_000
    assert len(done(run(store, "list"))) == 10_001
    assert done(run(store, "show", "host9999"))[2] == "label: host9999"
    assert len(done(run(store, "remove", "host9999"))) == 1
    assert len(json.loads(run(store, "list", "--json").stdout)) == 10_000


@pytest.mark.parametrize("command", [["add", CAROL.fingerprint.hex()], ["remove", "bob"]], ids=["add", "remove"])
@pytest.mark.parametrize("heard", [True, False])
def test_a_hushwire_that_runs_reads_it_again(store: Path, command: list[str], heard: bool) -> None:
    asked: list[object] = []

    def answer(command: Command) -> Reply:
        asked.append(command)
        return Reply(command.request, heard, "1 keys are trusted now" if heard else "trusted: mode 0666")

    daemon = Daemon(store.with_name("control"), answer)
    try:
        result = run(store, *command)
    finally:
        daemon.close()
    assert asked == [TrustChanged(asked[0].request)]  # type: ignore[attr-defined]
    if heard:
        assert done(result)[-1] == "the hushwire that runs here has read it: 1 keys are trusted now"
    else:
        assert result.exit_code == 1
        assert result.stderr == (
            "Error: the store is changed; the hushwire that runs has not read it: trusted: mode 0666\n"
        )
    assert store.read_text() != FILE
