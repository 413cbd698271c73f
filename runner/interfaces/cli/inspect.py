"""`bnbench inspect`."""

from pathlib import Path
from typing import Any

import click

from runner.errors import printable
from runner.interfaces.cli.options import data_dir_option, format_option, results_argument
from runner.storage.folder import data_folder


@click.command()
@results_argument
@click.argument("run")
@data_dir_option
@format_option("table", "json")
def inspect(results: Path, run: str, data_dir: str | None, style: Any) -> None:
    """Show the layers of a trained run.

    RUN is the run's number or its run_id in RESULTS/runs.csv. The sweep's config must contain `save_weights: true`.

    Each norm layer is shown with running_mean, running_var, γ and β, and with the statistics of the first batch that
    the run was trained on. With --format json, the output contains every number.
    A number that is not finite is written as null.
    """
    from runner.reporting.inspection_table import render
    from runner.training import inspection

    inspected = inspection.inspect(results, run, data_folder(data_dir))
    for remark in inspected.remarks:
        click.echo(printable(remark), err=True)
    text = render(inspected, style)
    # JSON escapes texts by itself.
    click.echo(text if style == "json" else printable(text), nl=False)
