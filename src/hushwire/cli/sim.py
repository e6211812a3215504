"""`hushwire sim`: simulated internets, each from its own seed, and what must hold in all of them."""

import time

import click

from hushwire.sim.campaign import campaign, replay
from hushwire.sim.trial import STORM, Plan
from hushwire.sim.world import Weather

PART = click.FloatRange(0, 0.9)


@click.command()
@click.option("--seeds", type=click.IntRange(1), default=100, show_default=True, help="How many to try.")
@click.option("--first", type=int, default=0, show_default=True, help="The first of them.")
@click.option("--seed", type=int, help="Try this one only.")
@click.option("--ladder", is_flag=True, help="With --seed: show every exchange, decrypted.")
@click.option("--loss", type=PART, default=STORM.loss, show_default=True, help="Part of the datagrams that get lost.")
@click.option("--duplication", type=PART, default=STORM.duplication, show_default=True, help="Part that comes twice.")
@click.option("--delay", type=click.FloatRange(0.005, 5), default=STORM.delay[1], show_default=True,
              help="Seconds, at most, under way; what overtakes what follows from it.")  # fmt: skip
@click.option("--refusal", type=PART, default=STORM.refusal, show_default=True, help="Part of the SAs planes refuse.")
def sim(
    seeds: int, first: int, seed: int | None, ladder: bool, loss: float, duplication: float, delay: float,
    refusal: float,
) -> None:  # fmt: skip
    """Try seeds, each a world of two hosts that know only each other's names.

    The network loses, doubles and reorders; hosts rekey, delete, restart, move and change keys.  Then the weather
    calms, and they must have one IKE SA and one Child SA with the same keys.  At no time may a packet leave in clear,
    a nonce be used twice, or anybody be taken for whom he is not.

    Exit status 0: everything held in all of them.
    """
    plan = Plan(Weather(loss, duplication, (STORM.delay[0], delay), STORM.inside, refusal))
    if seed is not None:
        result, drawn = replay(seed, plan)
        click.echo(drawn if ladder else "", nl=False)
        if result.failure:
            raise click.ClickException(f"seed {seed}: {result.failure}")
        click.echo(f"seed {seed}: everything held")
        return
    begun, results = time.monotonic(), []
    for result in campaign(range(first, first + seeds), plan):
        results.append(result)
        if result.failure:
            click.echo(f"seed {result.seed}: {result}")
    failed = sum(bool(result.failure) for result in results)
    frames, lost = sum(result.frames for result in results), sum(result.lost for result in results)
    click.echo(
        f"{seeds} seeds from {first}: {failed} failed.  {frames} datagrams, {lost} of them lost; "
        f"{sum(result.made for result in results)} SAs made; {sum(result.heard for result in results)} packets heard; "
        f"{time.monotonic() - begun:.0f} s"
    )
    if failed:
        raise SystemExit(1)
