"""`bnbench report` and `plot`."""

from pathlib import Path
from typing import Any

import click

from runner.config.yaml_source import read_assignment
from runner.errors import UserError
from runner.interfaces.cli.options import PATH, results_argument
from runner.interfaces.cli.table import opened, output_path, table_options

_where = click.option(
    "--where",
    multiple=True,
    metavar="KEY=VALUE",
    callback=lambda _context, _option, texts: dict(read_assignment(text, "--where", "lr=0.1") for text in texts),
    help="Use only runs with this parameter value, e.g. lr=0.1.",
)
_target = click.option(
    "--target",
    type=float,
    metavar="VALUE",
    help="Accuracy to reach (default: the baseline's, rounded down to a whole percent).",
)
_metric = click.option("--metric", metavar="COLUMN", help="Table: the column that is compared.")


def _check_metric(metric: str | None, question: object) -> None:
    if metric and not question:
        raise UserError("--metric is for a table of another tool, with --axis or --wide; a sweep's page shows accuracy")


@click.command()
@results_argument
@_where
@_target
@_metric
@click.option("-o", "--output", type=PATH, help="File to write (default: RESULTS/report.html).")
@table_options
def report(
    results: Path,
    metric: str | None,
    question: Any,
    where: dict[str, object],
    target: float | None,
    output: Path | None,
) -> None:
    """Write a sweep, or a table of another tool, as one HTML page.

    The page shows the verdict, the comparison, figures,
    every run and the config. The page works without internet.
    --where can be repeated.
    "bnbench compare --help" says which tables of other tools are read.
    Their page is written beside the table.
    """
    from runner.reporting.page.report import report
    from runner.storage.files import write_atomically

    if output and not output.parent.is_dir():
        raise UserError(f"{output}: its folder does not exist")
    if output and output.suffix != ".html":
        raise UserError(f"{output}: it must end in .html")
    _check_metric(metric, question)
    tables = opened(results, question)
    output = output or output_path(tables, "report.html")
    write_atomically(output, report(tables, where, target))
    click.echo(output)


@click.command()
@results_argument
@click.argument("kind")
@_where
@_target
@_metric
@click.option("-o", "--output", type=PATH, help="A .svg, .png or .pdf file (default: RESULTS/KIND.svg).")
@table_options
def plot(
    results: Path,
    kind: str,
    metric: str | None,
    question: Any,
    where: dict[str, object],
    target: float | None,
    output: Path | None,
) -> None:
    """Draw one figure of a sweep, or of a table of another tool.

    KIND is accuracy, loss, differences, pairs, learning-rate, target, gradients, activations or norms.
    --where can be repeated.
    "bnbench compare --help" says which tables of other tools are read.
    They have the kinds differences, pairs and, if lr is one of their keys, learning-rate.
    """
    from runner.reporting.figures.kinds import draw
    from runner.reporting.figures.study import study, timed_study
    from runner.reporting.figures.style import save

    _check_metric(metric, question)
    tables = opened(results, question)
    output = output or output_path(tables, f"{kind}.svg")
    save(draw((timed_study if kind == "target" else study)(tables, where, target), kind), output)
    click.echo(output)
