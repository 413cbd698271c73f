"""`bnbench report` and `bnbench plot`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from runner.errors import UserError

_results = click.argument("results", type=click.Path(path_type=Path))
_where = click.option(
    "--where", "where", multiple=True, metavar="KEY=VALUE", help="Only the runs of this parameter, e.g. lr=0.1."
)
_target = click.option(
    "--target", type=float, metavar="VALUE", help="Time the runs to this accuracy (default: where the baseline ends)."
)


@click.command()
@_results
@_where
@_target
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page (default: RESULTS/report.html).")
def report(results: Path, where: tuple[str, ...], target: float | None, output: Path | None) -> None:
    """Write RESULTS as one HTML page: verdict, table, pictures, config; it opens offline."""
    from runner.reporting.page.report import report
    from runner.storage.files import write_atomically

    if output and not output.parent.is_dir():
        raise UserError(f"{output}: its folder does not exist")
    output = output or results / "report.html"
    write_atomically(output, report(results, _parameters(where), target))
    click.echo(output)


@click.command()
@_results
@click.argument("kind", metavar="KIND")
@_where
@_target
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="A .svg, .png or .pdf file (default: RESULTS/KIND.svg)."
)
def plot(results: Path, kind: str, where: tuple[str, ...], target: float | None, output: Path | None) -> None:
    """Draw one KIND of picture of RESULTS: accuracy, loss, differences, pairs, learning-rate, target, gradients,
    activations or norms.
    """
    from runner.reporting.figures.kinds import draw
    from runner.reporting.figures.study import study, timed_study
    from runner.reporting.figures.style import save

    of = (timed_study if kind == "target" else study)(results, _parameters(where), target)
    output = output or results / f"{kind}.svg"
    save(draw(of, kind), output)
    click.echo(output)


def _parameters(assignments: tuple[str, ...]) -> dict[str, Any]:
    from runner.config.yaml_source import read_assignment

    return dict(read_assignment(assignment, "--where", "lr=0.1") for assignment in assignments)
