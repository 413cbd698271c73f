"""`bnbench compare` and `export`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.errors import UserError, unknown
from runner.execution.merge import together
from runner.interfaces.cli.options import PATH, format_option, results_argument, words
from runner.interfaces.cli.table import at_option, opened, table_options, target_option, where_option
from runner.monitoring.trackers.registry import tracker

if TYPE_CHECKING:
    from runner.analysis.records import Comparison


@click.command()
@click.argument("results", nargs=-1, required=True, type=PATH)
@click.option(
    "--metric",
    multiple=True,
    metavar="COLUMN",
    help="A column of metrics.csv, or test_accuracy (default: valid_accuracy). Table: the column that is compared.",
)
@at_option
@where_option
@click.option(
    "--group-by",
    type=lambda text: words(text) or None,
    metavar="A,B",
    help="Compare separately for each value of these parameters (default: all that vary, except the seed).",
)
@click.option(
    "--over",
    type=click.Choice(["seeds", "seeds,images"]),
    default="seeds",
    help="What a difference is for: new seeds, or new seeds and new test images (needs save_predictions: true).",
)
@target_option(help="Also compare the time to reach this value.")
@click.option(
    "--interaction",
    metavar="PARAMETER",
    help="Show how the differences change with this parameter, from its first value to the others.",
)
@click.option("--sort", metavar="COLUMN", help="Sort rows by this column (-COLUMN: largest first).")
@format_option("table", "csv", "json", "md", "latex")
@table_options
def compare(results: tuple[Path, ...], style: Any, question: Any, **selection: Any) -> None:
    """Compare the arms of one or more sweeps, or of a table of another tool.

    --metric and --where can be repeated.
    RESULTS are the sweeps' folders. Several shards of a sweep are read
    as the sweep, before and after they are merged. An arm is one value of the setting
    that is compared. A cell is a group of runs that are equal
    in everything except arm and seed. In each cell,
    every arm is compared with the baseline.

    With --axis or --wide, RESULTS is one table that another tool wrote:
    a CSV or Parquet file, an MLflow store, or a folder in which Lightning's
    CSVLogger or Hydra jobs wrote a metrics.csv or metrics.json for each run.
    --axis names a column: the table is long, with a row for each run
    (or for each epoch or step of it: then the last row counts).
    --wide names the arms: the table is wide, with a column for each arm.
    Runs that are equal in the columns of --pair are a pair.
    """
    if question and len(results) > 1:
        raise UserError("a comparison reads one table of another tool at a time")
    with together(results) as folders:
        print_comparison(folders, style, question, **selection)


def print_comparison(
    paths: Sequence[Path],
    style: Any = "table",
    question: Any = None,
    metric: Sequence[str] = (),
    where: Mapping[str, object] | None = None,
    baseline: str | None = None,
    over: str = "seeds",
    **selection: Any,
) -> list[Comparison]:
    """Print the comparisons of sweeps' folders or, with a question, of a table of another tool: one for each metric.

    Returns them. `selection` are arguments of `runner.analysis.comparison.compare`.
    """
    from rich.console import Console

    from runner.analysis import images
    from runner.analysis.comparison import compare
    from runner.reporting.tables import render_all

    # The console knows NO_COLOR, FORCE_COLOR, TERM=dumb and pipes.
    console = Console()
    color = style == "table" and console.color_system is not None and not console.no_color
    comparisons = []
    for name in metric or (None,):
        asked = question and replace(question, metric=name or "")
        results = [opened(path, asked, where, baseline) for path in paths]
        if over == "seeds,images":
            name = name or images.metric_of(results)
        comparison = compare(results, metric=name, **selection)
        comparisons.append(images.over_images(comparison, results) if over == "seeds,images" else comparison)
    click.echo(render_all(comparisons, style, color=color), color=color or None)
    return comparisons


@click.command()
@results_argument
@click.option(
    "--format", "style", required=True, metavar="FORMAT", help="tutorial, tensorboard, mlflow, wandb or trackio."
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="For tutorial: path without .csv and .json (default: RESULTS/tutorial). For other formats: a folder.",
)
def export(results: Path, style: str, output: Path | None) -> None:
    """Write a sweep in another tool's format.

    With --format tutorial, the command writes exactly the same
    CSV and JSON files, byte for byte, as the tutorial's RunManager.
    The other formats give the same values as --track.
    tensorboard writes to RESULTS/tensorboard, and mlflow to the server that
    MLFLOW_TRACKING_URI names, or else to mlflow.db in the folder above RESULTS.
    wandb writes to RESULTS/wandb, unless WANDB_MODE=online; trackio writes to
    the folder that TRACKIO_DIR names.
    For tensorboard, mlflow and wandb, --output names another folder.
    """
    if style not in ("tutorial", *tracker):
        raise UserError(unknown("format", style, ["tutorial", *tracker]))
    # A missing package is reported before anything is read.
    opener = None if style == "tutorial" else tracker[style]()
    from runner.interfaces import tutorial_files
    from runner.monitoring.trackers import replay
    from runner.storage.result_warnings import warnings_of
    from runner.storage.results import load

    loaded = load(results)
    # The tutorial's files have no place for a text.
    for line in warnings_of([loaded]):
        click.echo(line, err=True)
    if opener:
        click.echo(replay.export(loaded, opener, output))
    else:
        texts = tutorial_files.tutorial(loaded, loaded.grid_keys)
        for path in tutorial_files.write(output or results / "tutorial", texts):
            click.echo(path)
