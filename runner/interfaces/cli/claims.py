"""`bnbench claims`: list, run and judge. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from runner.interfaces.cli.options import options_of

BUDGETS = ("smoke", "small", "full")

_names = click.argument("names", metavar="[NAME]...", nargs=-1)
_budget = click.option("--budget", type=click.Choice(BUDGETS), default="smoke", show_default=True, help="How much.")
_plugins = click.option("--plugin", "plugins", multiple=True, metavar="FILE", help="A Python file that adds claims.")
_format = click.option(
    "--format", "style", type=click.Choice(["table", "csv", "json", "md"]), default="table", show_default=True
)


@click.group(invoke_without_command=True)
@_plugins
@click.pass_context
def claims(context: click.Context, plugins: tuple[str, ...]) -> None:
    """What the source documents claim, put to the test; without a command, the list."""
    from runner import registry

    registry.load_plugins(plugins)
    if context.invoked_subcommand is None:
        from runner.analysis.claims.claim import chosen_claims

        for claim in chosen_claims():
            click.echo(f"{claim.name}\n    {claim.sentence}\n    {claim.source}")


@claims.command()
@_names
@_budget
@click.option("--data-dir", metavar="DIR", help="Data folder (default: $BNBENCH_DATA_DIR, else ./data).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("results/claims"),
    show_default=True,
    help="Sweeps go to OUT/BUDGET/.",
)
@click.option("--executor", default="process", show_default=True, help="inline or process.")
@click.option(
    "--workers", type=click.IntRange(1, 1024), help="Worker processes (default: what the CPUs have room for)."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def run(
    names: tuple[str, ...],
    budget: Any,
    data_dir: str | None,
    out: Path,
    executor: str,
    workers: int | None,
    quiet: bool,
) -> None:
    """Train what the claims NAME (default: all) need and is not there yet, and print the verdicts.

    Exit code: 0, 1 where some runs failed, 2 for a wrong name, 130 or 143 when interrupted; the same command goes on.
    """
    from runner.analysis.claims.claim import chosen_claims, sweeps_of
    from runner.analysis.claims.judge import evaluate
    from runner.execution.driver import run_sweeps
    from runner.reporting.claim_table import render

    chosen = chosen_claims(names)
    options = options_of(data_dir=data_dir, out=out / budget, executor=executor, workers=workers, quiet=quiet)
    code = run_sweeps(sweeps_of(chosen, budget), options, lambda line: None if quiet else click.echo(line, err=True))
    if code in (0, 1):
        click.echo(render(evaluate(chosen, out / budget), "table"), nl=False)
    sys.exit(code)


@claims.command()
@click.argument("results", type=click.Path(path_type=Path), default=Path("results/claims"))
@_names
@_budget
@_format
def show(results: Path, names: tuple[str, ...], budget: str, style: Any) -> None:
    """Judge what lies in RESULTS/BUDGET/, or in RESULTS/ where it has no such folder; trains nothing."""
    from runner.analysis.claims.claim import chosen_claims
    from runner.analysis.claims.judge import evaluate
    from runner.errors import UserError
    from runner.reporting.claim_table import render

    folder = results / budget if (results / budget).is_dir() else results
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; bnbench claims run --budget {budget} makes one")
    click.echo(render(evaluate(chosen_claims(names), folder), style), nl=False)
