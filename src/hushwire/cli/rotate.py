"""`hushwire key rotate`: a new identity key, with the timetable of names.rollover, unattended."""

import fcntl
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import click

from hushwire.cli.control import CONTROL
from hushwire.cli.identity import TYPES, fingerprint, generate, read_public, sync, write_new, write_whole
from hushwire.cli.options import FILE, Updates, name, takes_updates
from hushwire.crypto.keys import PrivateKey, PublicKey
from hushwire.daemon.control import ControlError, ask
from hushwire.daemon.keyfile import KeyFileError, read_private
from hushwire.daemon.signatures import resolve_signed
from hushwire.daemon.unbound import UnboundError
from hushwire.daemon.update import Primary, UpdateError, validated
from hushwire.events import Answered, Lookup, Outcome
from hushwire.names.binding import TYPE_NAMES, questions
from hushwire.names.ipseckey import IPSECKEY
from hushwire.names.publish import Own, Plan, Record, Unpublishable, records_of
from hushwire.names.rollover import DEFAULT_MARGIN, MEANING, BadRollover, NotYet, Rollover, Seen, Step
from hushwire.names.tlsa import TLSA

LONGEST_SLEEP = 30.0
"""Seconds: the clock may be set, and a suspended host wakes up late."""


@click.command()
@click.argument("file", type=FILE)
@click.option("--name", "host", type=name, required=True, metavar="NAME", help="The host's name.")
@click.option("--type", "kind", type=click.Choice(TYPES), help="What key to make.  Default: as the old one.")
@click.option("--state", type=FILE, help="Where to note how far it is.  Default: FILE.rotation.")
@click.option("--margin", type=click.IntRange(0, 86400), default=DEFAULT_MARGIN, show_default=True,
              help="Seconds added to each wait, for secondary servers.")  # fmt: skip
@click.option("--give-up", type=click.FloatRange(1), default=86400.0, show_default=True,
              help="Seconds that a step may fail until this command ends; run again, it goes on.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the timetable, and change nothing.")
@CONTROL
@takes_updates
def rotate(
    file: Path, host: str, kind: str | None, state: Path | None, margin: int, give_up: float, dry_run: bool,
    control: Path, updates: Updates,
) -> None:  # fmt: skip
    """Replace the host's key in FILE by a new one, with nobody locked out at any time.

    The new key is published beside the old; when no resolver can still hold the old answer, FILE is replaced (the old
    key stays as FILE.old) and the daemon that runs uses the new one; when that is so for long enough, the old key is
    withdrawn.  Each step is seen by a validator before the next begins.  Interrupted, it goes on when run again.
    """
    primary = updates.primary(host)
    rotation = Rotation(file, state or _beside(file, "rotation"), control, primary)
    with _alone(file):
        rollover = rotation.resume(host)
        if rollover is None:
            new = rotation.new_key(kind)
            rollover = rotation.begin(host, new, margin)
            if not dry_run:
                rotation.note(rollover, new)
        for when, step in rollover.timetable(time.time()):
            click.echo(f"{_utc(when)}  {step.value:9} {MEANING[step]}")
        if dry_run:
            click.echo("no update is sent, no file is written, no daemon is told")
            return
        rotation.run(rollover, give_up)


@dataclass(frozen=True, slots=True)
class Rotation:
    """Performs what names.rollover says, and notes how far it is."""

    file: Path
    """The host's key."""
    state: Path
    control: Path
    """Socket of the daemon."""
    primary: Primary

    @property
    def new(self) -> Path:
        return _beside(self.file, "new")

    @property
    def old(self) -> Path:
        return _beside(self.file, "old")

    def resume(self, name: str) -> Rollover | None:
        """The rotation that was interrupted; None: there is none."""
        try:
            rollover = Rollover.read(self.state.read_text("ascii"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeError, BadRollover) as error:
            raise click.ClickException(f"{self.state}: {error}") from None
        if rollover.name != name:
            raise click.ClickException(f"{self.state}: a rotation of {rollover.name} is under way, not of {name}")
        click.echo(f"{self.state}: a rotation is under way; it goes on")
        return rollover

    def new_key(self, kind: str | None) -> PrivateKey:
        """The key in FILE.new, if it is there from an earlier attempt, or a fresh one, which nobody has yet."""
        if self.new.exists():
            try:
                return read_private(self.new)
            except KeyFileError as error:
                raise click.ClickException(str(error)) from None
        return generate(kind or _type_of(read_public(self.file)))

    def begin(self, name: str, new: PrivateKey, margin: int) -> Rollover:
        """The timetable, if all is as it must be for a rotation; nothing has happened yet."""
        old = read_public(self.file)
        published = self.primary.plan(name, (), Own(frozenset({old.fingerprint})))
        types = {record.rdtype for record in published.gone}
        if not types:
            raise click.ClickException(f"the key in {self.file} is not published at {name}; see `hushwire dns publish`")
        rollover = Rollover(
            name, old.fingerprint.hex(), new.public.fingerprint.hex(),
            max(there.ttl for there in published.prerequisites), IPSECKEY in types, TLSA in types, margin,
        )  # fmt: skip
        # The server was asked without authentication, and a wait must not become shorter by a lie.
        rollover = replace(rollover, ttl=max(rollover.ttl, self._signed_ttl(rollover)))
        # Whether the new key can be published at all is known before anything is written.
        self._wanted(rollover, {old, new.public})
        if rollover.old not in self.seen(rollover).everywhere:
            raise click.ClickException(
                f"a validator does not see the key in {self.file}; see `hushwire dns check {name}`"
            )
        return rollover

    def note(self, rollover: Rollover, new: PrivateKey) -> None:
        """Write the new key and how far the rotation is: from now on it can be interrupted."""
        if not self.new.exists():
            write_new(self.new, new.write_pem().expose())
            # Who could read the old key must be able to read the new: the daemon's user, where that is not root.
            with suppress(OSError):
                status = self.file.stat()
                shutil.chown(self.new, status.st_uid, status.st_gid)
        write_whole(self.state, rollover.write())
        click.echo(f"{self.new}: a new {new.kind} key")
        click.echo(f"fingerprint: {fingerprint(new.public)}")

    def run(self, rollover: Rollover, give_up: float) -> None:
        """Do each step in its time, until the end or until one has failed for `give_up` seconds."""
        first_failure = None
        while rollover.step is not Step.DONE:
            _sleep_until(rollover.not_before)
            step = rollover.step
            try:
                rollover, fault = self._step(rollover), ""
            except (UpdateError, NotYet, SwitchError) as error:
                rollover, fault = rollover.failed(time.time()), str(error)
            write_whole(self.state, rollover.write())
            if not fault:
                first_failure = None
                click.echo(f"{_utc(time.time())}  {step.value:9} done; next: {rollover.step.value}")
                continue
            first_failure = first_failure or time.monotonic()
            if time.monotonic() - first_failure + rollover.not_before - time.time() >= give_up:
                raise click.ClickException(f"{step.value}: {fault}; when that is mended, run this command again")
            click.echo(f"{_utc(time.time())}  {step.value:9} {fault}; again at {_utc(rollover.not_before)}", err=True)
        self.state.unlink()
        click.echo(f"{self.file} is the host's key now; {self.old} is of no use any more and may be deleted")

    def seen(self, rollover: Rollover) -> Seen:
        """Ask the validator which keys are published, and look which is in use.  Not to know is an error."""
        keys: list[frozenset[str]] = []
        for answer in self._ask(rollover):
            records = (Record(answer.name, answer.rdtype, rdata) for rdata in answer.rdata)
            keys.append(frozenset(record.fingerprint.hex() for record in records if record.fingerprint))
        in_use = read_public(self.file).fingerprint.hex()
        return Seen(frozenset.intersection(*keys), frozenset.union(*keys), in_use)

    def _ask(self, rollover: Rollover) -> list[Answered]:
        """The validated answers about the sets that this host publishes keys in."""
        answers = validated(self.primary.configuration, _questions(rollover))
        for answer in answers:
            if answer.outcome not in (Outcome.SECURE, Outcome.DENIED):
                because = f" ({answer.reason})" if answer.reason else ""
                raise UpdateError(f"{TYPE_NAMES[answer.rdtype]} of {answer.name}: {answer.outcome.value}{because}")
        return answers

    def _signed_ttl(self, rollover: Rollover) -> int:
        """Seconds that resolvers may hold those sets, as their signatures have it: what an answer says may be less.

        It is the rest of a forwarder's cache, and our own validator's cache has a limit that others do not have.
        """
        try:
            _, signatures = resolve_signed(self.primary.configuration, _questions(rollover))
        except UnboundError as error:
            raise UpdateError(str(error)) from None
        return max((signature.original_ttl for signature in signatures), default=0)

    def _step(self, rollover: Rollover) -> Rollover:
        """One step, from a reading that allows it to a reading that shows it."""
        before = self.seen(rollover)
        if rollover.step is Step.SWITCH and before.in_use == rollover.old and rollover.new not in before.everywhere:
            click.echo("the new key was published and is not any more: it is published again", err=True)
            return rollover.undone(time.time())
        rollover.check(before)
        match rollover.step:
            case Step.PUBLISH | Step.WITHDRAW:
                self.primary.publish(self._plan(rollover))
            case Step.SWITCH:
                self._switch(rollover)
        return rollover.done(self.seen(rollover), time.time())

    def _plan(self, rollover: Rollover) -> Plan:
        there = {read_public(file) for file in (self.file, self.new, self.old) if file.exists()}
        wanted = self._wanted(rollover, there)
        return self.primary.plan(rollover.name, wanted, Own(frozenset({bytes.fromhex(rollover.old)})))

    def _wanted(self, rollover: Rollover, publics: Collection[PublicKey]) -> tuple[Record, ...]:
        """What is to be published by this step; the key in use is preferred."""
        by_fingerprint = {public.fingerprint.hex(): public for public in publics}
        keys = (rollover.old, rollover.new) if rollover.step is Step.PUBLISH else (rollover.new,)
        try:
            return records_of(
                rollover.name, [by_fingerprint[key] for key in keys],
                whole=rollover.whole, fingerprints=rollover.fingerprints,
            )  # fmt: skip
        except KeyError as lost:
            raise click.ClickException(f"the key {lost} is neither in {self.file} nor in {self.new}") from None
        except Unpublishable as error:
            raise click.ClickException(str(error)) from None

    def _switch(self, rollover: Rollover) -> None:
        """FILE holds the new key, FILE.old the old one, and the daemon knows.  Done twice, it is as done once."""
        try:
            if read_public(self.file).fingerprint.hex() != rollover.new:
                if read_public(self.new).fingerprint.hex() != rollover.new:
                    raise SwitchError(f"{self.new}: not the key that was published")
                # A second name for the old file first, then the new one under its name: FILE is there at every moment.
                part = _beside(self.old, "part")
                part.unlink(missing_ok=True)
                os.link(self.file, part)
                part.replace(self.old)
                # rename(2) leaves both names if they are of one file already, after an interruption.
                part.unlink(missing_ok=True)
                self.new.replace(self.file)
                sync(self.file.parent)
        except OSError as error:
            raise SwitchError(f"{self.file}: {error.strerror}") from None
        try:
            answer = ask(self.control, {"command": "key"})
        except ControlError as error:
            if not isinstance(error.__context__, FileNotFoundError | ConnectionRefusedError):
                raise SwitchError(str(error)) from None
            click.echo(f"{self.control}: no hushwire runs here; the next that starts will use the new key")
            return
        if not answer["ok"]:
            raise SwitchError(f"the daemon does not use the new key: {answer['text']}")


class SwitchError(Exception):
    """This host does not use the new key yet; one clear line."""


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Two rotations at once would each make a new key.  The folder is locked: it is not replaced, as the files are."""
    try:
        descriptor = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(f"{file.parent}: another rotation runs here") from None
        yield
    finally:
        os.close(descriptor)


def _questions(rollover: Rollover) -> list[Lookup]:
    """About the sets that this host publishes keys in."""
    asked = [
        (owner, rdtype)
        for owner, rdtype in questions(rollover.name)
        if (rdtype == IPSECKEY and rollover.whole) or (rdtype == TLSA and rollover.fingerprints)
    ]
    return [Lookup(number, *question) for number, question in enumerate(asked)]


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(f"{file.name}.{suffix}")


def _type_of(public: PublicKey) -> str:
    """What `generate` calls such a key."""
    kind = str(public.kind)
    size = getattr(public.key, "key_size", 3072)
    return f"rsa-{min((2048, 3072, 4096), key=lambda bits: abs(bits - size))}" if kind == "rsa" else kind


def _sleep_until(when: float) -> None:
    while (left := when - time.time()) > 0:
        time.sleep(min(left, LONGEST_SLEEP))


def _utc(when: float) -> str:
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d %H:%M:%S} UTC"
