"""`bnbench report` and `plot`."""

from pathlib import Path
from typing import Any

import click

from runner.errors import UserError, allowed
from runner.execution.merge import together
from runner.interfaces.cli.options import PATH, results_argument
from runner.interfaces.cli.table import (
    at_option,
    opened,
    output_path,
    table_options,
    target_option,
    where_option,
)

_target = target_option(help="Accuracy to reach (default: the baseline's, rounded down to a whole percent).")
_metric = click.option(
    "--metric",
    metavar="COLUMN",
    help="The column whose differences are shown, such as test_accuracy (default: valid_accuracy).",
)


@click.command()
@click.argument("results", nargs=-1, required=True, type=PATH)
@where_option
@_target
@_metric
@at_option
@click.option("-o", "--output", type=PATH, help="File to write (default: RESULTS/report.html).")
@table_options
def report(
    results: tuple[Path, ...],
    question: Any,
    where: dict[str, object],
    baseline: str | None,
    target: float | None,
    output: Path | None,
    **shown: Any,
) -> None:
    """Write a sweep, or a table of another tool, as one HTML page.

    The page shows the verdict, the comparison, figures,
    every run and the config. The page works without internet.
    --where can be repeated.
    "bnbench compare --help" says which tables of other tools are read.
    Their page is written beside the table.
    RESULTS can be several shards of one sweep. Their page is written beside them.
    """
    from runner.reporting.page.report import report
    from runner.storage.files import write_atomically

    if output and not output.parent.is_dir():
        raise UserError(f"{output}: its folder does not exist")
    if output and output.suffix != ".html":
        raise UserError(f"{output}: it must end in .html")
    with together(results) as folders:
        if len(folders) > 1:
            raise UserError("a page shows one sweep; allowed: one folder, or shards of one sweep")
        tables = opened(folders[0], question, where, baseline)
        beside = results[0].parent / f"{tables.name}-report.html" if folders[0] not in results else None
        output = output or beside or output_path(tables, "report.html")
        write_atomically(output, report(tables, target=target, **shown))
    click.echo(output)


@click.command()
@results_argument
@click.argument("kind")
@where_option
@_target
@_metric
@at_option
@click.option("-o", "--output", type=PATH, help="A .svg, .png or .pdf file (default: RESULTS/KIND.svg).")
@table_options
def plot(
    results: Path,
    kind: str,
    question: Any,
    where: dict[str, object],
    baseline: str | None,
    target: float | None,
    output: Path | None,
    **shown: Any,
) -> None:
    """Draw one figure of a sweep, or of a table of another tool.

    KIND is accuracy, loss, differences, pairs, learning-rate, best-lr, target, gradients, activations or norms.
    --where can be repeated.
    "bnbench compare --help" says which tables of other tools are read.
    They have the kinds differences, pairs and, if lr is one of their keys, learning-rate.
    """
    from runner.reporting.figures.kinds import OF_A_METRIC, draw
    from runner.reporting.figures.study import study
    from runner.reporting.figures.style import save

    if not question and kind not in OF_A_METRIC and (shown["metric"] or shown["at"] != "last"):
        raise UserError(
            f"--metric and --at: figure '{kind}' is the same for each of them; allowed: {allowed(OF_A_METRIC)}"
        )
    tables = opened(results, question, where, baseline)
    output = output or output_path(tables, f"{kind}.svg")
    save(draw(study(tables, target=target, timed=kind == "target", **shown), kind), output)
    click.echo(output)
