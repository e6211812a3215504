"""`hushwire run` and `hushwire check`: the daemon, started or only thought through."""

from pathlib import Path

import click

from hushwire.config import Config, ConfigError, parse
from hushwire.daemon import keyfile
from hushwire.daemon.log import Log
from hushwire.daemon.parent import Parent
from hushwire.daemon.start import CannotStart, user_of
from hushwire.daemon.unbound import UnboundError, read_anchors

DEFAULT = Path("/etc/hushwire/hushwire.toml")

FILE = click.argument("file", type=click.Path(path_type=Path, readable=False), default=DEFAULT, metavar="[FILE]")


@click.command()
@FILE
def run(file: Path) -> None:
    """Protect this host's packets, as FILE says (/etc/hushwire/hushwire.toml), until stopped.

    Policies stay when it stops: what must not go in clear still does not.
    """
    config = _read(file)
    try:
        Parent(config, Log("parent")).run()
    except CannotStart as error:
        raise click.ClickException(str(error)) from None


@click.command()
@FILE
def check(file: Path) -> None:
    """Say whether FILE would do, and every mistake in it, without starting."""
    config = _read(file)
    try:
        if config.host.key:
            keyfile.read_private(Path(config.host.key))
        for rule in config.rules:
            if rule.key:
                keyfile.read_public(Path(rule.key))
            if rule.psk:
                keyfile.read_shared(Path(rule.psk))
        user_of(config.host.user)
        if not read_anchors(config.dns.trust_anchor):
            raise click.ClickException(f"trust anchor {config.dns.trust_anchor}: no DS or DNSKEY record in it")
    except (keyfile.KeyFileError, CannotStart, UnboundError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{file}: good; {config.host.name} with {len(config.rules)} rules")


def _read(file: Path) -> Config:
    try:
        return parse(file.read_text(), str(file))
    except UnicodeDecodeError:
        raise click.ClickException(f"{file}: not UTF-8 text; a configuration is TOML") from None
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from None
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
