"""`hushwire dns`: the records to publish for a host (RFC 4025), and what a validator says of them."""

import base64
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import click

from hushwire.cli.key import fingerprint, read_public
from hushwire.daemon.resolver import resolve
from hushwire.daemon.unbound import DEFAULT_ANCHOR, Configuration, UnboundError
from hushwire.events import Answered, Lookup, Outcome
from hushwire.names.binding import TYPE_NAMES, Unbound, bind, questions, why_not_a_peer
from hushwire.names.ipseckey import IPSECKEY, BadKeyRecord, KeyRecord, generic, read_records, write_record
from hushwire.names.name import BadName, host_name
from hushwire.names.tlsa import TLSA, read_fingerprints
from hushwire.wire.address import IPAddress, address_from_octets


def _name(text: str) -> str:
    try:
        return host_name(text)
    except BadName as bad:
        raise click.BadParameter(str(bad)) from None


def _address(text: str) -> IPAddress:
    try:
        address = ip_address(text)
    except ValueError:
        raise click.BadParameter(f"{text!a} is no address") from None
    if reason := why_not_a_peer(address):
        raise click.BadParameter(f"{address} is {reason}: no other host would use it")
    return address


@click.group()
def dns() -> None:
    """Show the records to publish for a host, and check what is published."""


@dns.command()
@click.argument("name", type=_name, metavar="NAME")
@click.option("--key", "files", type=click.Path(path_type=Path), multiple=True, required=True,
              help="The host's key, private or public; more than one for a rollover, preferred first.")  # fmt: skip
@click.option("--address", "addresses", type=_address, multiple=True, metavar="ADDRESS", help="An address of the host.")
@click.option("--ttl", type=click.IntRange(0, 2**31 - 1), default=3600, show_default=True, help="Seconds.")
def show(name: str, files: tuple[Path, ...], addresses: tuple[IPAddress, ...], ttl: int) -> None:
    """Show the records to put into the zone of NAME, as a zone file has them.

    The zone must be signed.  For servers that do not know IPSECKEY the same records follow in generic form, as
    comments.
    """
    owner = f"{name}. {ttl} IN"
    for number, file in enumerate(files, 1):
        public = read_public(file)
        try:
            rdata = write_record(KeyRecord(10 * number, None, public))
        except BadKeyRecord as bad:
            raise click.ClickException(f"{file}: {bad}") from None
        click.echo(f"; {public.kind} {fingerprint(public)}")
        # RFC 4025 s3.1: precedence, gateway type, algorithm, no gateway, the key.
        click.echo(f"{owner} IPSECKEY {rdata[0]} {rdata[1]} {rdata[2]} . {base64.b64encode(rdata[3:]).decode()}")
        click.echo(f"; {owner} TYPE{IPSECKEY} {generic(rdata)}")
    for address in addresses:
        click.echo(f"{owner} {'AAAA' if isinstance(address, IPv6Address) else 'A'} {address}")
    click.echo(f"; next: publish them, then `hushwire dns check {name}`")


@dns.command()
@click.argument("name", type=_name, metavar="NAME")
@click.option("--anchor", default=DEFAULT_ANCHOR, show_default=True, help="File of trusted DS or DNSKEY records.")
@click.option("--forward", multiple=True, metavar="ADDRESS@PORT", help="A resolver to ask, in place of recursion.")
@click.option("--timeout", type=click.FloatRange(0.1, 60), default=5.0, show_default=True, help="Seconds.")
def check(name: str, anchor: str, forward: tuple[str, ...], timeout: float) -> None:
    """Ask for the addresses and keys of NAME, validate, and say whether they bind.

    Exit status 0: a peer can be sure of NAME by DNSSEC.
    """
    lookups = [Lookup(number, owner, rdtype) for number, (owner, rdtype) in enumerate(questions(name))]
    try:
        answers = resolve(Configuration(anchor, forward=forward, timeout=timeout), lookups)
    except UnboundError as error:
        raise click.ClickException(str(error)) from None
    for answer in answers:
        for line in _lines(answer):
            click.echo(f"{TYPE_NAMES[answer.rdtype]:8}  {answer.outcome.value:8}  {line}".rstrip())
    try:
        a, aaaa, ipseckey, *tlsa = answers
        binding = bind(name, a, aaaa, ipseckey, tlsa[0] if tlsa else None)
    except Unbound as unbound:
        raise click.ClickException(f"{unbound}; {MEANING[unbound.outcome]}") from None
    for reason in binding.ignored:
        click.echo(f"ignored: {reason}")
    if binding.canonical != name:
        click.echo(f"alias of {binding.canonical}")
    found = [_count(binding.addresses, "address"), _count(binding.keys, "key")]
    if binding.fingerprints:
        found.append(_count(binding.fingerprints, "fingerprint"))
    click.echo(f"{name} is bound: {', '.join(found)}")


def _lines(answer: Answered) -> list[str]:
    """What there is to tell of an answer; at least one line."""
    skipped: tuple[str, ...] = ()
    if answer.rdtype == IPSECKEY:
        records, skipped = read_records(answer.rdata)
        found = [f"{record.precedence} {record.key.kind} {fingerprint(record.key)}" for record in records]
    elif answer.rdtype == TLSA:
        fingerprints, skipped = read_fingerprints(answer.rdata)
        found = [octets.hex(" ", 2) for octets in sorted(fingerprints)]
    else:
        found = [str(address_from_octets(rdata)) for rdata in sorted(answer.rdata) if len(rdata) in (4, 16)]
    return [*found, *(f"skipped: {reason}" for reason in skipped)] or [answer.reason]


def _count(things: tuple[object, ...], what: str) -> str:
    return f"{len(things)} {what}" + ("" if len(things) == 1 else "es" if what.endswith("s") else "s")


MEANING = {
    Outcome.SECURE: "its owner published what no peer can use",
    Outcome.DENIED: "peers will take the host for one that does not do IPsec",
    Outcome.INSECURE: "sign its zone, and have the parent publish its DS",
    Outcome.ERROR: "peers will not speak with it",
}
