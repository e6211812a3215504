"""`hushwire key`: files nobody else can read, and one clear line when something is wrong."""

import hashlib
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from hushwire.cli.key import TYPES, key
from hushwire.daemon.keyfile import LARGEST


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(key, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    """The one line of an error."""
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), "an exception escaped"
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("kind", TYPES)
def test_new_then_show(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "host.key"
    made = run("new", "--type", kind, file)
    assert made.exit_code == 0, made.output
    assert file.stat().st_mode & 0o7777 == 0o600
    private = load_pem_private_key(file.read_bytes(), None)
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(spki).hexdigest()
    shown = run("show", file)
    assert shown.exit_code == 0
    for result in (made, shown):
        (line,) = [line for line in result.output.splitlines() if line.startswith("fingerprint: ")]
        assert line.removeprefix("fingerprint: ").replace(" ", "") == digest
        assert "PRIVATE" not in result.output
    assert f"hushwire dns show NAME --key {file}" in made.output
    pem = tmp_path / "public.pem"
    pem.write_text(shown.output[shown.output.index("-----BEGIN") :])
    pem.chmod(0o644)
    assert run("show", pem).output == shown.output


def test_ed25519_is_the_default(tmp_path: Path) -> None:
    assert "ed25519" in run("new", tmp_path / "host.key").output


def test_rsa_sizes(tmp_path: Path) -> None:
    for bits in (2048, 3072, 4096):
        run("new", "--type", f"rsa-{bits}", tmp_path / str(bits))
        key = load_pem_private_key((tmp_path / str(bits)).read_bytes(), None)
        assert key.key_size == bits  # type: ignore[union-attr]


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "host.key"
    run("new", file)
    before = file.read_bytes()
    assert "never overwritten" in refused(run("new", file))
    assert file.read_bytes() == before


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    assert "never overwritten" in refused(run("new", tmp_path / "link"))
    assert not (tmp_path / "elsewhere").exists()


def test_the_umask_does_not_matter(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        run("new", tmp_path / "host.key")
    finally:
        os.umask(before)
    assert (tmp_path / "host.key").stat().st_mode & 0o7777 == 0o600


def test_nowhere_to_write(tmp_path: Path) -> None:
    assert "No such file" in refused(run("new", tmp_path / "none" / "host.key"))


def test_a_full_disk_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in refused(run("new", tmp_path / "host.key"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_can_read(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "host.key"
    run("new", file)
    file.chmod(mode)
    line = refused(run("show", file))
    assert str(file) in line
    assert f"{mode:04o}" in line
    assert "0600" in line


def test_a_public_key_beside_it_does_not_hide_a_private_key(tmp_path: Path) -> None:
    file = tmp_path / "host.key"
    run("new", file)
    public = run("show", file).output
    file.write_text(public[public.index("-----BEGIN") :] + file.read_text())
    file.chmod(0o644)
    assert "0644" in refused(run("show", file))


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_control_modes_that_are_right(mode: int, tmp_path: Path) -> None:
    file = tmp_path / "host.key"
    run("new", file)
    file.chmod(mode)
    assert run("show", file).exit_code == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no private key"),
        (b"junk", "no private key"),
        (b"\xff" * 100, "no private key"),
        (b"-----BEGIN PUBLIC KEY-----\njunk\n-----END PUBLIC KEY-----\n", "no public key"),
        (b"x" * (LARGEST + 1), "too long"),
    ],
)
def test_what_is_no_key(content: bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "host.key"
    file.write_bytes(content)
    file.chmod(0o600)
    assert reason in refused(run("show", file))


def test_a_public_key_of_a_kind_that_is_not_used(tmp_path: Path) -> None:
    public = x25519.X25519PrivateKey.generate().public_key()
    (tmp_path / "public.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert "not used" in refused(run("show", tmp_path / "public.pem"))


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in refused(run("show", tmp_path / "fifo"))
    assert "irectory" in refused(run("show", tmp_path)) or "regular" in refused(run("show", tmp_path))
    assert "No such file" in refused(run("show", tmp_path / "none"))
