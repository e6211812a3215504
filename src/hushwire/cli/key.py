"""`hushwire key`: a host's identity key, made, shown and rotated."""

from pathlib import Path

import click
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hushwire.cli.identity import TYPES, fingerprint, generate, read_public, write_new
from hushwire.cli.rotate import rotate


@click.group()
def key() -> None:
    """Make, show and rotate a host's identity key."""


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


key.add_command(rotate)
