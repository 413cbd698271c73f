"""`bnbench compare` and `export`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, cast

import click

from runner.errors import UserError, unknown

FORMATS = ("table", "csv", "json", "md", "latex")


def _at(_: click.Context, __: click.Parameter, text: str) -> str | int:
    if text in ("last", "best"):
        return text
    head, _equals, number = ("epoch", "", text) if text.isdecimal() else text.partition("=")
    if head == "epoch" and number.isdecimal() and int(number) > 0:
        return int(number)
    raise click.BadParameter(f"'{text}'; allowed: last, best, epoch=N")


def _columns(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--metric", default="valid_accuracy", show_default=True, help="A column of metrics.csv, or test_accuracy."
)
@click.option("--at", default="last", show_default=True, callback=_at, metavar="last|best|epoch=N", help="Which epoch.")
@click.option(
    "--group-by", callback=_columns, metavar="A,B", help="Cell columns (default: all parameters that differ)."
)
@click.option("--target", type=float, metavar="VALUE", help="Also compare steps and seconds to this value.")
@click.option("--sort", metavar="COLUMN", help="Sort rows by a column; -COLUMN descending.")
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
def compare(
    results: tuple[Path, ...],
    metric: str,
    at: str | int,
    group_by: tuple[str, ...] | None,
    target: float | None,
    sort: str | None,
    style: str,
) -> None:
    """Compare the arms of one or several RESULTS folders, per cell, against the baseline."""
    print_comparison(results, metric, at, group_by, sort, style, target)


def print_comparison(
    folders: Any, metric: str, at: Any, group_by: Any, sort: str | None, style: str, target: float | None = None
) -> None:
    from runner.analysis.comparison import compare
    from runner.reporting.tables import render
    from runner.storage.results import load

    comparison = compare(
        [load(folder) for folder in folders], metric=metric, at=at, group_by=group_by or None, sort=sort, target=target
    )
    color = style == "table" and _color()
    click.echo(render(comparison, cast(Any, style), color=color), color=color or None)  # click strips it in a pipe


def _color() -> bool:
    """On a terminal that has colours, unless NO_COLOR asks for none; FORCE_COLOR asks for them anywhere."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--format", "style", required=True, metavar="FORMAT", help="tutorial, tensorboard or mlflow.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="tutorial: path without suffix (default: RESULTS/tutorial); else a folder (default: where --track writes).",
)
def export(results: Path, style: str, output: Path | None) -> None:
    """Write RESULTS in another tool's format: the tutorial's CSV and JSON, byte for byte, or a tracker's."""
    from runner.monitoring.trackers.registry import tracker

    if style not in ("tutorial", *tracker):
        raise UserError(unknown("format", style, ["tutorial", *tracker]))
    opener = None if style == "tutorial" else tracker[style]()  # an absent package is told before anything is read
    from runner.monitoring.trackers.replay import export as replay
    from runner.storage.files import write_atomically
    from runner.storage.results import load

    loaded = load(results)
    if opener:
        click.echo(replay(loaded, opener, output))
        return
    from runner.interfaces.tutorial_files import tutorial

    base = output or results / "tutorial"
    for suffix, text in zip((".csv", ".json"), tutorial(loaded, loaded.grid_keys), strict=True):
        path = base.with_name(base.name + suffix)
        write_atomically(path, text)
        click.echo(path)
