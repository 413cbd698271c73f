"""`bnbench report` and `plot`."""

from pathlib import Path

import click

from runner.config.yaml_source import read_assignment
from runner.errors import UserError
from runner.interfaces.cli.options import PATH, results_argument

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


@click.command()
@results_argument
@_where
@_target
@click.option("-o", "--output", type=PATH, help="File to write (default: RESULTS/report.html).")
def report(results: Path, where: dict[str, object], target: float | None, output: Path | None) -> None:
    """Write a sweep as one HTML page.

    The page shows the verdict, the comparison, figures,
    every run and the config. The page works without internet.
    --where can be repeated.
    """
    from runner.reporting.page.report import report
    from runner.storage.files import write_atomically

    if output and not output.parent.is_dir():
        raise UserError(f"{output}: its folder does not exist")
    output = output or results / "report.html"
    write_atomically(output, report(results, where, target))
    click.echo(output)


@click.command()
@results_argument
@click.argument("kind")
@_where
@_target
@click.option("-o", "--output", type=PATH, help="A .svg, .png or .pdf file (default: RESULTS/KIND.svg).")
def plot(results: Path, kind: str, where: dict[str, object], target: float | None, output: Path | None) -> None:
    """Draw one figure of a sweep.

    KIND is accuracy, loss, differences, pairs, learning-rate, target, gradients, activations or norms.
    --where can be repeated.
    """
    from runner.reporting.figures.kinds import draw
    from runner.reporting.figures.study import study, timed_study
    from runner.reporting.figures.style import save

    tables = (timed_study if kind == "target" else study)(results, where, target)
    output = output or results / f"{kind}.svg"
    save(draw(tables, kind), output)
    click.echo(output)
