"""What several commands take: names, addresses, the validator, and the server that a zone is changed at."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from hushwire.config import value
from hushwire.daemon.credential import Credential, read_sig0, read_tsig
from hushwire.daemon.keyfile import KeyFileError
from hushwire.daemon.unbound import DEFAULT_ANCHOR, Configuration
from hushwire.daemon.update import Primary, Server, UpdateError, find_primary
from hushwire.names.binding import why_not_a_peer
from hushwire.names.name import BadName, host_name
from hushwire.wire.address import IPAddress

Command = Callable[..., Any]


def name(text: str) -> str:
    """A host name in its canonical form."""
    try:
        return host_name(text)
    except BadName as bad:
        raise click.BadParameter(str(bad)) from None


def address(text: str) -> IPAddress:
    """An address that other hosts may use."""
    try:
        address = ip_address(text)
    except ValueError:
        raise click.BadParameter(f"{text!a} is no address") from None
    if reason := why_not_a_peer(address):
        raise click.BadParameter(f"{address} is {reason}: no other host would use it")
    return address


def server(text: str) -> Server:
    """ADDRESS or ADDRESS@PORT."""
    try:
        return Server.read(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def forward(text: str) -> str:
    """As [dns] forward has it: ADDRESS, ADDRESS@PORT, and #NAME after it for TLS."""
    try:
        found = value.server(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return f"{found.address}@{found.port}{'#' if found.tls else ''}{found.tls}"


FILE = click.Path(path_type=Path)
ADDRESS = click.option("--address", "addresses", type=address, multiple=True, metavar="ADDRESS",
                       help="An address of the host.")  # fmt: skip
ANCHOR = click.option(
    "--anchor", default=DEFAULT_ANCHOR, show_default=True, help="File of trusted DS or DNSKEY records."
)
FORWARD = click.option("--forward", type=forward, multiple=True, metavar="ADDRESS[@PORT][#NAME]",
                       help="A resolver to ask, in place of recursion; with #NAME by TLS.")  # fmt: skip
TIMEOUT = click.option("--timeout", type=click.FloatRange(0.1, 60), default=5.0, show_default=True, help="Seconds.")

UPDATES = (
    click.option("--tsig", type=FILE, help="Sign with this TSIG key: BIND's form, or ALGORITHM:NAME:SECRET."),
    click.option("--sig0", type=FILE, help="Sign with this SIG(0) key: BIND's K*.private, or PEM."),
    click.option("--sig0-name", metavar="NAME", help="The SIG(0) key's KEY record, if the file's name does not tell."),
    click.option("--server", type=server, metavar="ADDRESS[@PORT]",
                 help="The zone's primary server.  Default: as its SOA record says."),
    click.option("--zone", type=name, help="The zone of NAME.  Default: as the server says."),
    click.option("--udp", is_flag=True, help="Send the update over UDP, not TCP."),
    ANCHOR, FORWARD, TIMEOUT,
    click.option("--wait", type=click.FloatRange(1, 86400), default=60.0, show_default=True,
                 help="Seconds until what was published must be seen."),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Updates:
    """What UPDATES say, read."""

    server: Server | None
    credential: Credential | None
    configuration: Configuration
    zone: str | None
    timeout: float
    patience: float
    udp: bool

    def primary(self, name: str) -> Primary:
        """Where `name` is changed.  Raises UpdateError."""
        return Primary(
            self.server or find_primary(name, self.configuration),
            self.credential, self.configuration, self.zone, self.timeout, self.patience, self.udp,
        )  # fmt: skip


def takes_updates(command: Command) -> Command:
    """UPDATES for a command, which gets them as `updates`; what is wrong with an update is one line."""

    @wraps(command)
    def wrapped(
        *,
        tsig: Path | None, sig0: Path | None, sig0_name: str | None, server: Server | None, zone: str | None, udp: bool,
        anchor: str, forward: tuple[str, ...], timeout: float, wait: float, **others: Any,
    ) -> None:  # fmt: skip
        if tsig and sig0:
            raise click.ClickException("--tsig and --sig0: one signature is enough")
        if not (tsig or sig0 or others.get("dry_run")):
            raise click.ClickException("say what to sign the update with: --tsig FILE or --sig0 FILE")
        try:
            credential = read_tsig(tsig) if tsig else read_sig0(sig0, sig0_name) if sig0 else None
            configuration = Configuration(anchor, forward=forward, timeout=timeout)
            command(updates=Updates(server, credential, configuration, zone, timeout, wait, udp), **others)
        except (KeyFileError, UpdateError) as error:
            raise click.ClickException(str(error)) from None

    for option in reversed(UPDATES):
        wrapped = option(wrapped)
    return wrapped
