"""`bnbench watch`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from runner.interfaces.cli.options import finite


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=1e6),
    callback=finite,
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)
@click.option("--once", is_flag=True, help="Show the state and leave.")
def watch(results: Path, interval: float, once: bool) -> None:
    """Show the sweep that another process trains in RESULTS; writes nothing.

    Exit code: 0 when the sweep is finished, 1 when its process is gone before that, 130 after Ctrl-C.
    """
    from runner.monitoring.watch import follow, glance

    try:
        if once:
            click.echo("\n".join(glance(results)))
        elif not follow(results, interval):
            sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
