"""`hushwire known`: the keys that peers have proved and are remembered by, as ssh's known_hosts are."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from hushwire.cli.control import CONTROL, command_to
from hushwire.policy.trust import read_fingerprint

SUBJECT = click.argument("subject", metavar="NAME|ADDRESS")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.group()
def known() -> None:
    """Look at the keys that peers are remembered by, pin them, and forget them.

    Whoever proves a key here for the first time is remembered by it, and from then on known again.  Who then proves
    another key is told of in the log: `show` says what is known of him.
    """


@known.command("list")
@AS_JSON
@CONTROL
def show_all(as_json: bool, control: Path) -> None:
    """Show everyone who is remembered, in the order of their names."""
    if as_json:
        click.echo(json.dumps(list(_all(control)), indent=2))
        return
    for each in _all(control):
        pinned = "  pinned" if each["pinned"] else ""
        times = f"{each['times']}x since {_time(each['first'])[:10]}"
        click.echo(f"{each['subject']:<40} {each['level']:<10} {each['fingerprint']}  {times}{pinned}")


@known.command()
@SUBJECT
@AS_JSON
@CONTROL
def show(subject: str, as_json: bool, control: Path) -> None:
    """Show by which key NAME or ADDRESS is known, since when, and how well."""
    told = command_to(control, {"command": "known-show", "subject": subject})["body"]
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for line in lines(told):
        click.echo(line)


@known.command()
@SUBJECT
@click.argument("fingerprint", default="")
@CONTROL
def pin(subject: str, fingerprint: str, control: Path) -> None:
    """Say that NAME or ADDRESS has the key of FINGERPRINT, and no other; without one, the key it is known by.

    What its administrator sees by `hushwire key show` is a FINGERPRINT.  IKE SAs that stand are not touched:
    `hushwire disconnect` ends them.
    """
    asked = {"command": "known-pin", "subject": subject, "fingerprint": fingerprint}
    click.echo(command_to(control, {**asked})["text"])


@known.command()
@SUBJECT
@CONTROL
def forget(subject: str, control: Path) -> None:
    """Forget the key of NAME or ADDRESS, pinned or not: the next that it proves is taken for its first.

    Whoever can stand between you and it at that moment can make that one his own: where you know the new key, `pin` it.
    """
    click.echo(command_to(control, {"command": "known-forget", "subject": subject})["text"])


def lines(told: dict[str, Any]) -> Iterator[str]:
    """What is known of one, as a person reads it."""
    yield f"subject      {told['subject']}{', pinned: with any other key it is refused' if told['pinned'] else ''}"
    yield f"fingerprint  {told['fingerprint']}"
    # As `hushwire key show` has it, to be compared with.
    yield f"             {read_fingerprint(told['fingerprint']).hex(' ', 2)}"
    yield f"level        {told['level']}, the highest that it reached with this key"
    if told["times"]:
        often = "once" if told["times"] == 1 else f"{told['times']} times, counted once an hour at most"
        yield f"met          {often}; first {_time(told['first'])}, last counted {_time(told['last'])}"
        if told["level"] != "clear":
            yield f"held         to that until {_time(told['until'])}, and for as long after each time it is seen"
    else:
        yield f"met          never; pinned {_time(told['first'])}"


def _all(control: Path) -> Iterator[dict[str, Any]]:
    after, more = "", True
    while more:
        body = command_to(control, {"command": "known-list", "after": after})["body"]
        yield from body["known"]
        more = body["more"]
        after = body["known"][-1]["subject"] if more else ""


def _time(wall: float) -> str:
    return f"{datetime.fromtimestamp(wall, UTC):%Y-%m-%d %H:%M} UTC"
