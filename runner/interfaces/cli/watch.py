"""`bnbench watch`."""

import sys
from pathlib import Path

import click

from runner.errors import printable
from runner.interfaces.cli.options import flag, not_nan, results_argument
from runner.monitoring.watch import follow, glance


@click.command()
@results_argument
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=1e6),
    callback=not_nan,
    default=2.0,
    metavar="SECONDS",
    help="Time between updates.",
)
@flag("--once", text="Show the current state and exit.")
def watch(results: Path, interval: float, once: bool) -> None:
    """Show a sweep while another process trains it.

    RESULTS is the sweep's folder. This command writes nothing.

    The exit code is 0 if the sweep is finished,
    1 if its process ended before that, 130 after Ctrl-C.
    """
    try:
        if once:
            click.echo(printable("\n".join(glance(results))))
        elif not follow(results, interval):
            sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
