"""`hushwire why NAME|ADDRESS`: everything that decides what becomes of packets to it, for people or as JSON."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from hushwire.cli.control import CONTROL, command_to


@click.command()
@click.argument("subject", metavar="NAME|ADDRESS")
@CONTROL
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def why(subject: str, control: Path, as_json: bool) -> None:
    """Explain what becomes of packets to NAME or ADDRESS: the rule, the DNS and its chain, the keys, the SA."""
    told = command_to(control, {"command": "why", "subject": subject})["body"]
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for line in lines(told):
        click.echo(line)


def lines(told: dict[str, Any]) -> Iterator[str]:
    """The explanation as a person reads it, what matters most first."""
    for packet in told["packets"]:
        made = packet["synthetic"]
        stands = f" (synthetic: {made['name']} at {made['address']})" if made else ""
        yield f"A packet to {packet['to']}{stands} is {packet['fate']}: {packet['because']}."
    if not told["packets"]:
        yield f"No packet is known to go to {told['subject']}."
    if told["programs"]:
        yield f"A program that asks for it gets {told['programs']}."
    yield ""
    yield f"rule     {_rule(told['rule'])}"
    if told["pinned"]:
        yield f"key      {told['pinned']}, by the configuration, whatever the DNS says"
    else:
        yield from _bound(told["bound"])
    yield from _peer(told["peer"])
    yield ""
    for answer in told["dns"]:
        found = ", ".join(answer["records"]) or answer["reason"] or ""
        alias = f" (leads to {answer['canonical']})" if answer["canonical"] else ""
        yield f"dns      {answer['name']} {answer['type']}: {answer['outcome']}{alias} {found}".rstrip()
    for link in filter(lambda link: link["decides"], told["chain"]):
        yield f"chain    {link['zone']}: {link['outcome']}, {link['meaning']}"


def _rule(rule: dict[str, Any] | None) -> str:
    if rule is None:
        return "none speaks of it"
    group = f", {rule['group']}" if rule["group"] else ""
    number = rule["number"] or "an alias's"
    return f"{number}: {rule['require']}, else {rule['below']}{group}; {'; '.join(rule['parts'])}"


def _bound(bound: dict[str, Any]) -> Iterator[str]:
    if "reason" in bound:
        yield f"key      none to be had: {bound['outcome']}, {bound['reason']}"
        return
    for key in bound["keys"]:
        yield f"key      {key['kind']} {key['fingerprint']}, by DNSSEC for {bound['canonical']}"
    for fingerprint in bound["fingerprints"]:
        yield f"key      one with the fingerprint {fingerprint}, by DNSSEC"
    for reason in bound["ignored"]:
        yield f"ignored  {reason}"


def _peer(peer: dict[str, Any] | None) -> Iterator[str]:
    if peer is None:
        return
    for sa in peer["ike"]:
        proof = sa["key"] or "a shared key"
        yield f"sa       {sa['level']} with {sa['remote']}, {sa['age']:.0f} s old, proved by {proof}"
    if peer["last_failure"]:
        yield f"failed   {peer['last_failure']}"
