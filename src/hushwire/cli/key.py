"""`hushwire key`: a host's identity key, made and shown."""

import os
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hushwire.crypto.keys import KeyKind, PrivateKey, PublicKey
from hushwire.daemon import keyfile

TYPES = ("ed25519", "ed448", "ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "rsa-4096")
"""What IPSECKEY can publish."""


@click.group()
def key() -> None:
    """Make and show a host's identity key."""


@key.command()
@click.option("--type", "kind", type=click.Choice(TYPES), default=TYPES[0], show_default=True, help="What key to make.")
@click.argument("file", type=click.Path(path_type=Path))
def new(kind: str, file: Path) -> None:
    """Make a private key and write it to FILE, for its owner's eyes only."""
    private = generate(kind)
    write_new(file, private.write_pem().expose())
    click.echo(f"{file}: a new {kind} key")
    click.echo(f"fingerprint: {fingerprint(private.public)}")
    click.echo(f"next: publish it with the records of `hushwire dns show NAME --key {file}`")


@key.command()
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> None:
    """Show the public half of the key in FILE, private or public."""
    public = read_public(file)
    pem = public.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    click.echo(f"type: {public.kind}")
    click.echo(f"fingerprint: {fingerprint(public)}")
    click.echo(pem, nl=False)


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


def read_public(file: Path) -> PublicKey:
    """The public key in a file, or the public half of the private key there, or one clear line."""
    try:
        return keyfile.read_public(file)
    except keyfile.KeyFileError as error:
        raise click.ClickException(str(error)) from None
