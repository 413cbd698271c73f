"""`bnbench variance`."""

from pathlib import Path
from typing import Any

import click

from runner.interfaces.cli.options import format_option, results_argument
from runner.interfaces.cli.table import at_option


@click.command()
@results_argument
@click.option("--metric", metavar="COLUMN", help="A column of metrics.csv, or test_accuracy (default: valid_accuracy).")
@at_option
@format_option("table", "csv", "json")
def variance(results: Path, style: Any, **selection: Any) -> None:
    """Show how much each source of randomness adds to the results of a sweep.

    RESULTS is the folder of a sweep whose grid varies the seeds of
    the random streams: seed_weights, seed_batches, seed_dropout,
    seed_split, seed_subset. They are crossed (each with each), or
    vary one at a time around fixed seeds.
    """
    from runner.analysis import variance as analysis
    from runner.reporting.variance_table import render
    from runner.storage.results import load

    click.echo(render(analysis.variance(load(results), **selection), style), nl=False)
