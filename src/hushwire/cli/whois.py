"""`hushwire whois ADDRESS:PORT`: who is at the other end of this host's connections with it, and how sure that is."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from hushwire.cli.control import CONTROL, command_to
from hushwire.daemon.questions import PROTOCOLS
from hushwire.linux.diag import SockDiag
from hushwire.linux.netlink import NetlinkError
from hushwire.policy.selector import Flow
from hushwire.wire.address import Endpoint, host_network

NAMES = {number: name for name, number in PROTOCOLS.items()}


def endpoint(text: str) -> Endpoint:
    """ADDRESS:PORT, with brackets round an IPv6 address."""
    host, _, port = text.rpartition(":")
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
        if (address.version == 6) is not (host[:1] + host[-1:] == "[]") or not 0 < int(port) < 1 << 16:
            raise ValueError
    except ValueError:
        raise click.BadParameter(f"{text!a} is not ADDRESS:PORT, such as 192.0.2.2:25 or [2001:db8::2]:25") from None
    return Endpoint(address, int(port))


@click.command()
@click.argument("remote", metavar="ADDRESS:PORT", type=endpoint)
@CONTROL
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def whois(remote: Endpoint, control: Path, as_json: bool) -> None:
    """Say who is at the other end of this host's connections with ADDRESS:PORT, and how sure that is."""
    found = connections(remote)
    if not found:
        raise click.ClickException(f"no program of this host has a connection with {remote}")
    told = [{**question(flow), **command_to(control, {"command": "whois", **question(flow)})["body"]} for flow in found]
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo("\n\n".join("\n".join(lines(each)) for each in told))


def connections(remote: Endpoint) -> list[Flow]:
    """This host's flows with one remote end, in order."""
    try:
        with SockDiag() as diag:
            found = {each.flow for each in diag.connections(host_network(remote.address))}
    except (OSError, NetlinkError) as error:
        raise click.ClickException(f"the kernel does not tell of connections: {error}") from None
    flows = (flow for flow in found if flow.remote_port == remote.port)
    return sorted(flows, key=lambda flow: (flow.protocol, flow.local.packed, flow.local_port))


def question(flow: Flow) -> dict[str, Any]:
    """How a flow is written on the sockets."""
    ends = {"local": [str(flow.local), flow.local_port], "remote": [str(flow.remote), flow.remote_port]}
    return {"protocol": NAMES[flow.protocol], **ends}


def lines(told: dict[str, Any]) -> Iterator[str]:
    """The answer as a person reads it."""
    local, remote = (Endpoint(ip_address(address), port) for address, port in (told["local"], told["remote"]))
    yield f"{told['protocol']} {local} with {remote}: {told['level'] or 'held, nothing is proved'}"
    yield f"how          {told['how']}"
    if told["peer"]:
        proved = f", as {told['identity']}" if told["identity"] else ""
        yield f"peer         {told['peer']}{proved}"
    if told["key"]:
        yield f"key          {told['key']}"
    if told["since"]:
        often = "once" if told["met"] == 1 else f"{told['met']} times"
        yield f"met          {often}, first {datetime.fromtimestamp(told['since'], UTC):%Y-%m-%d %H:%M} UTC"
    if told["esp_suite"]:
        yield f"esp          {told['esp_suite']}, {told['mode']} mode"
        yield f"ike          {told['ike_suite']}, {told['established']:.0f} s old"
    if told["binding"]:
        yield f"binding      {told['binding']}"
