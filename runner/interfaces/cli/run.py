"""`bnbench run` and `resume`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.errors import UserError
from runner.interfaces.cli.compare import print_comparison
from runner.interfaces.cli.options import config_argument, device_option, execution_options, options_of, set_option
from runner.interfaces.cli.plan import print_plan

if TYPE_CHECKING:
    from runner.config.sweep import Sweep
    from runner.execution.options import Existing


@click.command()
@config_argument
@set_option
@device_option
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Results folder."
)
@click.option("--resume", is_flag=True, help="Finish the sweep that lies there.")
@click.option("--fresh", is_flag=True, help="Start over where a sweep lies there.")
@click.option("--dry-run", is_flag=True, help="Show the plan and train nothing.")
@execution_options
def run(
    config: Path,
    overrides: tuple[str, ...],
    device: str | None,
    out: Path,
    resume: bool,
    fresh: bool,
    dry_run: bool,
    **how: Any,
) -> None:
    """Train every run of CONFIG and print the comparison.

    The sweep lies in OUT/<name>/. Exit code: 0, 1 where some runs failed, 2 for a wrong config, 130 or 143 when
    interrupted.
    """
    from runner.config.reader import load

    if resume and fresh:
        raise UserError("--resume and --fresh contradict each other; allowed: one of them")
    for option in ("retry", "allow_changed"):
        if how[option] and not resume:
            raise UserError(f"--{option.replace('_', '-')} goes with --resume")
    sweep = load(config, overrides, device)
    if dry_run:
        print_plan(sweep, how["stack"], how["data_dir"], how["workers"], out / sweep.name)
        return
    _train(sweep, out, "resume" if resume else "fresh" if fresh else "refuse", how)


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@execution_options
def resume(results: Path, **how: Any) -> None:
    """Finish the sweep in RESULTS, from the config that lies there, and print the comparison."""
    from runner.config.reader import load
    from runner.storage.folder import CONFIG, sole_writer

    if results.is_dir():
        with sole_writer(results):
            pass  # a plugin may import torch: be turned away before
    sweep = load(results / CONFIG, (), None)
    if sweep.name != results.resolve().name:
        raise UserError(f"{results}: its config is of a sweep named '{sweep.name}'; the folder must bear that name")
    _train(sweep, results.resolve().parent, "resume", how)


def _train(sweep: Sweep, out: Path, existing: Existing, how: dict[str, Any]) -> None:
    from runner.execution.driver import run_sweep

    code = run_sweep(sweep, options_of(out=out, existing=existing, **how))
    if code in (0, 1) and not how["fail_fast"]:
        print_comparison([out / sweep.name], "valid_accuracy", "last", (), None, "table")
    sys.exit(code)
