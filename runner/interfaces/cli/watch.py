"""`bnbench watch`."""

import sys
from pathlib import Path

import click

from runner.errors import UserError
from runner.execution.merge import fitting
from runner.interfaces.cli.options import PATH, flag, format_option, not_nan, put
from runner.monitoring import watch_shards
from runner.monitoring.watch import follow, record, report, seen


@click.command()
@click.argument("results", nargs=-1, required=True, type=PATH)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=1e6),
    callback=not_nan,
    default=2.0,
    metavar="SECONDS",
    help="Time between updates.",
)
@flag("--once", text="Show the current state and exit.")
@format_option("table", "json")
def watch(results: tuple[Path, ...], interval: float, once: bool, style: str) -> None:
    """Show a sweep while another process trains it.

    RESULTS is the sweep's folder, or the folders of several of its shards. This command writes nothing.
    --format json needs --once.

    The exit code is 0 if the sweep is finished (with --once, also if it is being trained),
    1 if its process ended before that, 130 after Ctrl-C.
    """
    if style == "json" and not once:
        raise UserError("--format json needs --once")
    try:
        if len(results) > 1:
            shown = fitting(results)
            sweep = shown.whole["name"], shown.shard.of, [part.folder for part in shown.parts]
        if once:
            found: object
            if len(results) > 1:
                (found, lines), why = watch_shards.glance(*sweep)
            else:
                (found, lines), why = seen(results[0], _look, lambda *state: (record(*state), report(*state)))
            put(style, found, lines)
            stopped = why == "stopped"
        elif len(results) > 1:
            stopped = not watch_shards.follow(*sweep, interval)
        else:
            stopped = not follow(results[0], interval, _look)
        if stopped:
            sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _look(results: Path) -> tuple[bool, str]:
    """Where a sweep stands that grows until its verdict is decided: `runner.monitoring.sweep_reader.Look`."""
    # These modules import pandas, which takes half a second. Other sweeps do not need it.
    from runner.analysis import sequential
    from runner.storage.results import load

    found = sequential.read(load(results))
    return (not found.over, found.ending if found.over else found.conclusion) if found else (False, "")
