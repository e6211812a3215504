"""`hushwire dns`: a host's records (RFC 4025, RFC 7671) shown and published, and what a validator says of them."""

import base64
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import IPv6Address
from pathlib import Path

import click

from hushwire.cli.identity import fingerprint, read_public
from hushwire.cli.options import ADDRESS, ANCHOR, FILE, FORWARD, TIMEOUT, name
from hushwire.cli.publish import publish, withdraw
from hushwire.crypto.keys import PublicKey
from hushwire.daemon.signatures import DS, Signature, read_signed
from hushwire.daemon.unbound import Configuration, UnboundError
from hushwire.events import Answered, Lookup, Outcome
from hushwire.names.binding import TYPE_NAMES, Binding, Unbound, bind, questions
from hushwire.names.ipseckey import IPSECKEY, BadKeyRecord, KeyRecord, generic, read_records, write_record
from hushwire.names.publish import Record
from hushwire.names.tlsa import TLSA, read_fingerprints
from hushwire.wire.address import IPAddress, address_from_octets


@click.group()
def dns() -> None:
    """Publish a host's records, and check what is published."""


@dns.command()
@click.argument("name", type=name, metavar="NAME")
@click.option("--key", "files", type=click.Path(path_type=Path), multiple=True, required=True,
              help="The host's key, private or public; more than one for a rollover, preferred first.")  # fmt: skip
@ADDRESS
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
    click.echo(f"; next: publish them, or let `hushwire dns publish` do it, then `hushwire dns check {name}`")


@dns.command()
@click.argument("name", type=name, metavar="NAME")
@click.option("--key", "files", type=FILE, multiple=True, help="The host's key: the keys published must be these.")
@ADDRESS
@click.option(
    "--alarm-days",
    type=click.FloatRange(0, 3650),
    default=3.0,
    show_default=True,
    help="Fail when a signature ends sooner.",
)
@ANCHOR
@FORWARD
@TIMEOUT
def check(
    name: str, files: tuple[Path, ...], addresses: tuple[IPAddress, ...], alarm_days: float,
    anchor: str, forward: tuple[str, ...], timeout: float,
) -> None:  # fmt: skip
    """Ask for the addresses and keys of NAME, validate, and say whether they bind, and for how long.

    Exit status 0: a peer can be sure of NAME by DNSSEC, no signature over it ends within --alarm-days, and published
    are just the keys and addresses given, if any are.  Meant to be run every hour by something that tells of failures.
    """
    expected = [read_public(file) for file in files]
    asked = [Lookup(0, owner, rdtype) for owner, rdtype in questions(name)]
    try:
        reading = read_signed(Configuration(anchor, forward=forward, timeout=timeout), asked)
    except UnboundError as error:
        raise click.ClickException(str(error)) from None
    answers = reading.answers
    a, aaaa, keys = answers[:3]
    tlsa = answers[3] if len(answers) > 3 else None
    for answer in answers:
        for line in _lines(answer):
            click.echo(f"{TYPE_NAMES[answer.rdtype]:8}  {answer.outcome.value:8}  {line}".rstrip())
    try:
        binding = bind(name, a, aaaa, keys, tlsa)
    except Unbound as unbound:
        raise click.ClickException(f"{unbound}; {MEANING[unbound.outcome]}") from None
    for reason in binding.ignored:
        click.echo(f"ignored: {reason}")
    click.echo(f"{name} is bound: {_count(binding.addresses, 'address')}, {_count(binding.keys, 'key')}")
    alarms = [
        *_strangers(name, answers, expected),
        *_elsewhere(binding, addresses),
        *_unread(reading.chain),
        *_ending(reading.signatures, alarm_days),
    ]
    for alarm in alarms[:-1]:
        click.echo(f"alarm: {alarm}", err=True)
    if alarms:
        raise click.ClickException(alarms[-1])


def _strangers(name: str, answers: list[Answered], expected: list[PublicKey]) -> Iterator[str]:
    """What is published besides the keys expected, and which of them are not."""
    if not expected:
        return
    ours = {public.fingerprint: public for public in expected}
    published: set[bytes] = set()
    for answer in answers:
        for rdata in answer.rdata if answer.rdtype in (IPSECKEY, TLSA) else ():
            record = Record(answer.name, answer.rdtype, rdata)
            if record.fingerprint in ours:
                published.add(record.fingerprint)
            else:
                yield f"{record} is no key of this host: whoever has that key is {name} for every peer"
    for missing in ours.keys() - published:
        yield f"{ours[missing].kind} {fingerprint(ours[missing])} is not published: peers will refuse this host"


def _elsewhere(binding: Binding, expected: tuple[IPAddress, ...]) -> Iterator[str]:
    if not expected:
        return
    for address in sorted(set(binding.addresses) ^ set(expected), key=str):
        if address in expected:
            yield f"{address} is not published"
        else:
            yield f"{address} is published and is no address of this host: peers will look for it there"


def _unread(chain: list[Answered]) -> Iterator[str]:
    """What a validator needs in order to believe the zone, and did not get now."""
    for answer in chain:
        if answer.outcome is not Outcome.SECURE:
            because = f" ({answer.reason})" if answer.reason else ""
            yield f"{'DS' if answer.rdtype == DS else 'DNSKEY'} of {answer.name}: {answer.outcome.value}{because}"


def _ending(signatures: tuple[Signature, ...], days: float) -> Iterator[str]:
    """Says when the first signature ends, and cries when that is soon."""
    if not signatures:
        yield "no signature came with the answers: how long they will be believed is not known"
        return
    first, left = signatures[0], (signatures[0].expires - time.time()) / 86400
    when = f"{datetime.fromtimestamp(first.expires, UTC):%Y-%m-%d %H:%M} UTC, in {left:.1f} days"
    click.echo(f"signatures are good until {when} ({first})")
    if left < days:
        yield f"the signature over {first} ends {when}; see why {first.signer} is not signed anew"


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

dns.add_command(publish)
dns.add_command(withdraw)
