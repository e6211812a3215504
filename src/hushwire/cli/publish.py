"""`hushwire dns publish` and `withdraw`: a host's records put into the DNS and taken out (RFC 2136)."""

from pathlib import Path

import click

from hushwire.cli.identity import read_public, write_whole
from hushwire.cli.options import ADDRESS, FILE, Updates, name, takes_updates
from hushwire.daemon.update import Primary
from hushwire.names.binding import AAAA, TYPE_NAMES, A
from hushwire.names.publish import Own, Plan, Record, Unpublishable, read_published, records_of, write_published
from hushwire.wire.address import IPAddress

OLD = click.option("--old-key", "old", type=FILE, multiple=True, help="An earlier key of this host, to be replaced.")
REPLACE = click.option(
    "--replace", multiple=True, metavar="'TYPE RDATA'", help="A record of this host, to be replaced."
)
STATE = click.option("--state", type=FILE, help="Where to note what was published, so that it is replaced next time.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Show the update, and send nothing.")


@click.command()
@click.argument("name", type=name, metavar="NAME")
@click.option(
    "--key", "keys", type=FILE, multiple=True, help="The host's key; more than one for a rollover, preferred first."
)
@ADDRESS
@OLD
@REPLACE
@STATE
@click.option("--tlsa", is_flag=True, help="Publish the keys' fingerprints too: TLSA 3 1 1 at _500._udp.NAME.")
@click.option("--no-ipseckey", is_flag=True, help="With --tlsa: only the fingerprints, for keys too big for DNS.")
@click.option(
    "--ttl", type=click.IntRange(0, 2**31 - 1), help="Seconds.  Default: as the records there have it, or 3600."
)
@DRY_RUN
@takes_updates
def publish(
    name: str, keys: tuple[Path, ...], addresses: tuple[IPAddress, ...], old: tuple[Path, ...],
    replace: tuple[str, ...], state: Path | None, tlsa: bool, no_ipseckey: bool, ttl: int | None,
    dry_run: bool, updates: Updates,
) -> None:  # fmt: skip
    """Publish keys and addresses of NAME by DNS Update, and see that a validator finds them.

    Replaced are this host's own records only: those of the keys given with --key and --old-key, those given with
    --replace, and those noted in --state.  Without --key no key is touched, without --address no address.
    """
    if not keys and not addresses:
        raise click.ClickException("say what to publish: --key FILE, --address ADDRESS, or both")
    if no_ipseckey and not tlsa:
        raise click.ClickException("--no-ipseckey without --tlsa would publish no key")
    public = [read_public(file) for file in keys]
    try:
        wanted = records_of(name, public, addresses, whole=not no_ipseckey, fingerprints=tlsa)
        noted = _noted(name, state, replace)
    except Unpublishable as error:
        raise click.ClickException(str(error)) from None
    own = Own(
        frozenset(read_public(file).fingerprint for file in old),
        frozenset(record for record in noted if (addresses if record.rdtype in (A, AAAA) else keys)),
    )
    primary = updates.primary(name)
    plan = primary.plan(name, wanted, own, ttl)
    for record in plan.kept if keys else ():
        click.echo(f"kept: {_short(record)}: not known as this host's; if it is, say so with --old-key or --replace")
    _carry_out(primary, plan, dry_run, state, noted - own.records)


@click.command()
@click.argument("name", type=name, metavar="NAME")
@click.option("--key", "keys", type=FILE, multiple=True, help="A key of this host.")
@ADDRESS
@REPLACE
@STATE
@DRY_RUN
@takes_updates
def withdraw(
    name: str, keys: tuple[Path, ...], addresses: tuple[IPAddress, ...], replace: tuple[str, ...], state: Path | None,
    dry_run: bool, updates: Updates,
) -> None:  # fmt: skip
    """Take keys and addresses of NAME out of the DNS: those given, and those noted in --state; no others."""
    try:
        noted = _noted(name, state, replace) | set(records_of(name, addresses=addresses))
    except Unpublishable as error:
        raise click.ClickException(str(error)) from None
    own = Own(frozenset(read_public(file).fingerprint for file in keys), frozenset(noted))
    if not own.keys and not own.records:
        raise click.ClickException("say what to withdraw: --key, --address, --replace or --state")
    primary = updates.primary(name)
    _carry_out(primary, primary.plan(name, (), own), dry_run, state, set())


def _carry_out(primary: Primary, plan: Plan, dry_run: bool, state: Path | None, others: set[Record]) -> None:
    if dry_run:
        click.echo(plan.message().to_text() if plan.changes else "nothing to change")
        return
    if state is not None:
        # Noted before it is sent: of what may be there after an interruption, we know that it is ours.
        _note(state, {*others, *plan.wanted, *plan.gone})
    primary.publish(plan)
    if state is not None:
        _note(state, {*others, *plan.wanted})
    for record in plan.deletions:
        click.echo(f"- {_short(record)}")
    for record, ttl in plan.additions:
        click.echo(f"+ {_short(record)} (TTL {ttl})")
    if not plan.changes:
        click.echo("nothing to change")
    click.echo("seen by a validator: secure")


def _short(record: Record) -> str:
    """A record in a line: a key by its fingerprint, as `hushwire key show` has it."""
    if record.fingerprint is None:
        return str(record)
    return f"{record.owner}. {TYPE_NAMES[record.rdtype]} {record.fingerprint.hex(' ', 2)}"


def _noted(name: str, state: Path | None, replace: tuple[str, ...]) -> set[Record]:
    """What is known as ours from earlier."""
    noted: set[Record] = set()
    for text in replace:
        noted |= read_published(f"{name}. {text}")
    if state is not None:
        try:
            noted |= read_published(state.read_text("ascii"))
        except FileNotFoundError:
            pass
        except (OSError, UnicodeError, Unpublishable) as error:
            raise Unpublishable(f"{state}: {error}") from None
    return noted


def _note(state: Path, records: set[Record]) -> None:
    """Written whole or not at all."""
    write_whole(state, write_published(records))
