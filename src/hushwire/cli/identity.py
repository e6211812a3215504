"""A host's identity key, as commands make, read and name it."""

import os
from contextlib import suppress
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from hushwire.crypto.keys import KeyKind, PrivateKey, PublicKey
from hushwire.daemon import keyfile

TYPES = ("ed25519", "ed448", "ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "rsa-4096")
"""What IPSECKEY can publish."""


def fingerprint(public: PublicKey) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, in groups that can be read out over a telephone."""
    return public.fingerprint.hex(" ", 2)


def generate(kind: str) -> PrivateKey:
    """A fresh key of one of TYPES."""
    if kind.startswith("rsa-"):
        return PrivateKey(generate_private_key(65537, int(kind.removeprefix("rsa-"))))
    return PrivateKey.generate(KeyKind(kind))


def write_new(file: Path, pem: bytes) -> None:
    """Write a file that was not there, whole or not at all, with mode 0600 from the first moment."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise click.ClickException(f"{file}: is there already; a key is never overwritten") from None
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    try:
        with open(descriptor, "wb") as opened:
            opened.write(pem)
            opened.flush()
            os.fsync(descriptor)
    except OSError as error:
        file.unlink()
        raise click.ClickException(f"{file}: {error.strerror}") from None


def write_whole(file: Path, text: str) -> None:
    """A file's text, replaced in one step; whose it was and who may read it stays so."""
    part = file.with_name(f"{file.name}.part")
    try:
        # What an interrupted attempt left is written over; a link is not followed.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        with open(descriptor, "w", encoding="utf-8", newline="") as opened:
            with suppress(FileNotFoundError, PermissionError):
                status = file.stat()
                os.fchown(descriptor, status.st_uid, status.st_gid)
                os.fchmod(descriptor, status.st_mode & 0o7777)
            opened.write(text)
            opened.flush()
            os.fsync(descriptor)
        part.replace(file)
        sync(file.parent)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None


def sync(folder: Path) -> None:
    """Renames are on the disk before anybody is told of them."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_public(file: Path) -> PublicKey:
    """The public key in a file, or the public half of the private key there, or one clear line."""
    try:
        return keyfile.read_public(file)
    except keyfile.KeyFileError as error:
        raise click.ClickException(str(error)) from None
