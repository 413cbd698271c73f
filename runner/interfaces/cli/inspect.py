"""`bnbench inspect`. Nothing heavy is imported before the command runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.argument("run")
@click.option("--data-dir", metavar="DIR", help="Data folder (default: $BNBENCH_DATA_DIR, else ./data).")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
def inspect(results: Path, run: str, data_dir: str | None, style: Any) -> None:
    """Show what a trained RUN of RESULTS is: its layers, and of its norm layers running_mean, running_var, γ and β.

    RUN is its number or its run_id in runs.csv; the sweep's config must have said `save_weights: true`. The running
    statistics stand beside those of the first batch the run was trained on. json: every number, null where one is not
    finite.
    """
    from runner.reporting.inspection_table import render
    from runner.storage.folder import data_folder
    from runner.training import inspection

    found = inspection.inspect(results, run, data_folder(data_dir))
    for remark in found.remarks:
        click.echo(remark, err=True)
    click.echo(render(found, style), nl=False)
