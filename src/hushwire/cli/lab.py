"""`hushwire lab`: the demo, the interop runs and the benchmarks, on hosts made for them on this machine."""

import sys
from pathlib import Path

import click


@click.group()
def lab() -> None:
    """Run the demo, the interop runs and the benchmarks, on hosts made for it."""


@lab.command()
@click.option("--plane", type=click.Choice(["auto", "kernel", "userspace"]), default="auto", show_default=True,
              help="Whose ESP. Where this kernel has none, `kernel` boots one that has (User-Mode Linux).")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), default=Path("build/demo.json"), show_default=True,
              help="Where the numbers go.")  # fmt: skip
def demo(plane: str, output: Path) -> None:
    """Show the story, end to end.

    Two hosts that know only each other's names, real programs, and somebody between them who sees every packet.
    As root, or as an ordinary user where this host lets users make namespaces.  Exit status 0: all of it went as it
    should, and nothing secret was seen on the wire.
    """
    from hushwire.lab.demo import CannotShow, run

    try:
        sys.exit(run(plane, output))
    except CannotShow as error:
        raise click.ClickException(str(error)) from None


@lab.group()
def bench() -> None:
    """Measure hushwire and a peer in turn, in one run, and print the ratio."""


@bench.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--handshakes", type=click.IntRange(1, 10_000), default=300, show_default=True, help="In each round.")
def handshake(rounds: int, handshakes: int) -> None:
    """Responder CPU for each Ed25519/X25519 handshake, against strongSwan."""
    from hushwire.lab.bench_handshake import compare

    click.echo(compare(rounds, handshakes, click.echo))


@bench.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=3, show_default=True)
@click.option("--seconds", type=click.IntRange(1, 60), default=3, show_default=True, help="Of each round.")
def esp(rounds: int, seconds: int) -> None:
    """TCP through ESP in userspace, against strongSwan's kernel-libipsec."""
    from hushwire.lab.bench_esp import compare

    for offloads in (True, False):
        click.echo("bursts pass the wire whole:" if offloads else "every datagram crosses the wire by itself:")
        rates = compare(rounds, seconds, offloads=offloads, tell=click.echo)
        for throughput in rates.values():
            click.echo(throughput)
        ours, theirs = rates["hushwire userspace plane"], rates["strongSwan kernel-libipsec"]
        click.echo(f"ratio {ours.middle / theirs.middle:.2f}")


@bench.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--plane", type=click.Choice(["auto", "kernel", "userspace"]), default="auto", show_default=True)
def latency(rounds: int, plane: str) -> None:
    """What a program waits for its first byte, plain and with hushwire, over a wire with delay."""
    from hushwire.lab.bench_latency import measure

    measure(rounds, plane, click.echo)


@bench.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--lookups", type=click.IntRange(1, 1_000_000), default=20_000, show_default=True, help="In each round.")
def lookups(rounds: int, lookups: int) -> None:
    """Look-ups through the capturing resolver, against unbound."""
    from hushwire.lab.bench_lookups import compare

    click.echo(compare(rounds, lookups, click.echo))


@bench.command()
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
def strangers(rounds: int) -> None:
    """What it costs to remember peers, to trust keys and to have peers at work, as their number grows."""
    from hushwire.lab.bench_strangers import measure

    measure(rounds, click.echo)
