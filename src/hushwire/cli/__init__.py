"""The command line: one module per noun.  What is wrong is said in one line, with an exit status that is not 0."""

from importlib import import_module

import click

COMMANDS = {
    "run": "daemon", "check": "daemon",
    "status": "control", "connect": "control", "disconnect": "control", "rekey": "control",
    "why": "why", "whois": "whois",
    "key": "key", "dns": "dns", "trust": "trust", "known": "known",
    "lab": "lab", "sim": "sim",
}  # fmt: skip
"""Each command and the module of this room that it is in; read when it is called, so that --help is quick."""

SUMMARIES = {
    "run": "Protect this host's packets, as FILE says.",
    "check": "Say whether FILE would do, without starting.",
    "status": "Show who is there and how sure that is.",
    "why": "Explain what becomes of packets to a name or an address.",
    "whois": "Say who is at the other end of a connection.",
    "connect": "Look NAME up, set its policy, and make an SA now.",
    "disconnect": "Delete the SAs with NAME; its policy stays.",
    "rekey": "Replace the keys with NAME now.",
    "key": "Make, show and rotate a host's identity key.",
    "dns": "Publish a host's records, and check what is published.",
    "trust": "Say whose keys this host trusts, by fingerprint.",
    "known": "Look at the keys that peers are remembered by, pin them, and forget them.",
    "lab": "Run the demo, the interop runs and the benchmarks, on hosts made for it.",
    "sim": "Run hosts in virtual time, over a network that loses and reorders.",
}


class Nouns(click.Group):
    """A group that imports a command's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"hushwire.cli.{COMMANDS[cmd_name]}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))


@click.group(cls=Nouns, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hushwire")
def main() -> None:
    """IPsec for hosts that were never introduced.

    On each host: make a key (`hushwire key new`), publish it (`hushwire dns show`), write a few lines about whom to
    protect (examples/), check them (`hushwire check`), and run (`hushwire run`).  Then `hushwire status` tells.
    """
