"""`hushwire trust`: the keys that this host trusts, by fingerprint."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from hushwire.cli.control import CONTROL
from hushwire.cli.identity import write_whole
from hushwire.cli.options import FILE
from hushwire.crypto.public import read_public_keys
from hushwire.daemon.control import ControlError, NotRunning, ask
from hushwire.daemon.keyfile import LARGEST_STORE, KeyFileError, read_trusted
from hushwire.policy.pad import fingerprint_text
from hushwire.policy.trust import BadTrust, Trusted, TrustStore, label_of, read_fingerprint

STORE = click.option("--store", type=FILE, default=Path("/etc/hushwire/trusted"), show_default=True,
                     help="The file with the keys, one a line.")  # fmt: skip
PATIENCE = 10.0
"""Seconds that another command may be at the store."""


@click.group()
def trust() -> None:
    """Say whose keys this host trusts, by fingerprint."""


@trust.command()
@click.argument("keys", nargs=-1, required=True, metavar="FILE|FINGERPRINT...")
@click.option("--label", help="What to call it.  Default: what the file says, or the file's name.")
@STORE
@CONTROL
def add(keys: tuple[str, ...], label: str | None, store: Path, control: Path) -> None:
    """Trust the keys of each FILE, or the key of a FINGERPRINT.

    A FILE has public keys in PEM or as OpenSSH writes them (one a line; known_hosts too), or is another host's trust
    store; - is the standard input.  A FINGERPRINT is of the SubjectPublicKeyInfo, as `hushwire key show` tells it:
    `ssh-keygen -l` tells another, of OpenSSH's own form of the key.  Nothing is added when anything is wrong.
    """
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    try:
        offered = [
            replace(key, label=key.label if label is None else label, added=today)
            for text in keys
            for key in _offered(text)
        ]
    except BadTrust as bad:
        raise click.ClickException(str(bad)) from None
    with changing(store, make=True) as there:
        told = [
            f"added: {key}" if there.add(key) else f"there already: {there.get(key.fingerprint)}" for key in offered
        ]
    click.echo("\n".join(told))
    _tell(control)


@trust.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@STORE
def show_all(as_json: bool, store: Path) -> None:
    """Show all keys, as lines of a store."""
    there = _read_store(store)
    if as_json:
        click.echo(json.dumps([_body(key) for key in there], indent=2))
    elif there:
        click.echo("\n".join(str(key) for key in there))


@trust.command()
@click.argument("key", metavar="FINGERPRINT|LABEL")
@STORE
def show(key: str, store: Path) -> None:
    """Show the key of a FINGERPRINT, or all that have a LABEL."""
    for number, found in enumerate(_meant(_read_store(store), key, store)):
        click.echo("\n" * bool(number), nl=False)
        click.echo(f"fingerprint: {fingerprint_text(found.fingerprint)}")
        # As `hushwire key show` has it, to be compared with.
        click.echo(f"in hexadecimal: {found.fingerprint.hex(' ', 2)}")
        click.echo(f"label: {found.label or '-'}")
        click.echo(f"added: {found.added or '-'}")


@trust.command()
@click.argument("key", metavar="FINGERPRINT|LABEL")
@STORE
@CONTROL
def remove(key: str, store: Path, control: Path) -> None:
    """Trust the key of a FINGERPRINT no more, or all that have a LABEL: who is here by it has to prove himself anew."""
    with changing(store) as there:
        gone = [there.remove(found.fingerprint) for found in _meant(there, key, store)]
    click.echo("\n".join(f"removed: {found}" for found in gone))
    _tell(control)


@contextmanager
def changing(file: Path, *, make: bool = False) -> Iterator[TrustStore]:
    """A store to be changed, which nobody else changes meanwhile: written in one step, unless something is wrong."""
    # A link stays a link: what it leads to is replaced.
    file = Path(os.path.realpath(file))
    with _alone(file):
        store = TrustStore() if make and not file.exists() else _read_store(file)
        before = store.to_text()
        yield store
        if (text := store.to_text()) != before:
            write_whole(file, text)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """One at a time.  The lock is a file of its own, for who may read the store could lock that, and keep us out."""
    lock = file.with_name(f".{file.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise click.ClickException(f"{lock}: {error.strerror}") from None
    try:
        until = time.monotonic() + PATIENCE
        while not _locked(descriptor):
            if time.monotonic() > until:
                raise click.ClickException(f"{file}: another command is changing it; try again when that has ended")
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tell(control: Path) -> None:
    """Have a hushwire that runs here read its store again."""
    try:
        answer = ask(control, {"command": "trust"})
    except NotRunning:
        return
    except ControlError as error:
        raise click.ClickException(f"the store is changed; the hushwire that runs has not read it: {error}") from None
    if not answer["ok"]:
        raise click.ClickException(f"the store is changed; the hushwire that runs has not read it: {answer['text']}")
    click.echo(f"the hushwire that runs here has read it: {answer['text']}")


def _read_store(file: Path) -> TrustStore:
    try:
        return read_trusted(file)
    except KeyFileError as error:
        raise click.ClickException(str(error)) from None


def _offered(text: str) -> list[Trusted]:
    """The keys of a file, or the one of a fingerprint.  Raises BadTrust for a broken fingerprint."""
    try:
        return [Trusted(read_fingerprint(text))]
    except BadTrust:
        if text.upper().startswith("SHA256:"):
            raise
    try:
        with click.open_file(text, "rb") as opened:
            octets = opened.read(LARGEST_STORE + 1)
        if len(octets) > LARGEST_STORE:
            raise click.ClickException(f"{text}: more than {LARGEST_STORE} octets")
        content = octets.decode()
        if any(line.startswith("SHA256:") for line in content.splitlines()):
            return list(TrustStore.from_text(content))
        name = "" if text == "-" else Path(text).stem
        return [Trusted(sent.key.fingerprint, label_of(sent.comment or name)) for sent in read_public_keys(content)]
    except OSError as error:
        raise click.ClickException(f"{text}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{text}: not UTF-8 text") from None
    except ValueError as bad:
        raise click.ClickException(f"{text}: {bad}") from None


def _meant(store: TrustStore, text: str, file: Path) -> list[Trusted]:
    """The keys that a fingerprint or a label means; there is one or more."""
    try:
        one = store.get(read_fingerprint(text))
        found = [one] if one else []
    except BadTrust:
        # No label is not a label: `remove ""` would take away all that have none.
        found = store.labelled(text) if text else []
    if not found:
        raise click.ClickException(f"{file}: no key has the fingerprint or label {text!a}; see `hushwire trust list`")
    return found


def _body(key: Trusted) -> dict[str, str]:
    return {"fingerprint": fingerprint_text(key.fingerprint), "label": key.label, "added": key.added}
