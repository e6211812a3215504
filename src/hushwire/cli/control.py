"""`hushwire status`, `connect`, `disconnect` and `rekey`: commands to the daemon that runs."""

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from hushwire.config import Host
from hushwire.daemon.control import ControlError, ask

CONTROL = click.option(
    "--control", type=click.Path(path_type=Path, readable=False), default=Path(Host("localhost.localdomain").control),
    show_default=True, help="Socket of the daemon.",
)  # fmt: skip


@click.command()
@CONTROL
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(control: Path, as_json: bool) -> None:
    """Show who is there and how sure that is."""
    body = command_to(control, {"command": "status"})["body"]
    if as_json:
        click.echo(json.dumps(body, indent=2))
    else:
        console = Console()
        console.print(f"{body['name']}, {body['plane']} plane, {', '.join(body['addresses'])}", highlight=False)
        console.print(status_table(body))


@click.command()
@click.argument("name")
@CONTROL
def connect(name: str, control: Path) -> None:
    """Look NAME up, or an address that a rule protects, set its policy, and make an SA now."""
    click.echo(command_to(control, {"command": "connect", "name": name})["text"])


@click.command()
@click.argument("name")
@CONTROL
def disconnect(name: str, control: Path) -> None:
    """Delete the SAs with NAME; its policy stays."""
    click.echo(command_to(control, {"command": "disconnect", "name": name})["text"])


@click.command()
@click.argument("name")
@click.option("--ike", is_flag=True, help="The IKE SA, rather than its Child SAs.")
@CONTROL
def rekey(name: str, ike: bool, control: Path) -> None:
    """Replace the keys with NAME now."""
    click.echo(command_to(control, {"command": "rekey", "name": name, "ike": ike})["text"])


def status_table(body: dict[str, Any]) -> Table:
    """The status as a person reads it: a row a peer and address.  The rest is in --json."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("peer", "required", "reached", "address", "ESP", "trouble"):
        table.add_column(column, overflow="fold")
    for peer in body["peers"]:
        trouble = peer["last_failure"] or peer["unbound"] or ""
        fixed = (peer["peer"], f"{peer['require']}, else {peer['below']}")
        if not peer["ike"]:
            table.add_row(*fixed, peer["level"] or "-", "\n".join(peer["addresses"]) or "?", "-", trouble)
        for sa in peer["ike"]:
            esp = (f"{child['suite']}{' in UDP' if child['udp'] else ''}" for child in sa["children"])
            address = sa["remote"].rpartition(":")[0].strip("[]")
            table.add_row(*fixed, sa["level"], address, "\n".join(esp) or "-", trouble)
    return table


def command_to(control: Path, command: dict[str, object]) -> dict[str, Any]:
    """The daemon's answer; click.ClickException where there is none, or it is no."""
    try:
        answer = ask(control, command)
    except ControlError as error:
        raise click.ClickException(str(error)) from None
    if not answer["ok"]:
        raise click.ClickException(str(answer["text"]))
    return answer
