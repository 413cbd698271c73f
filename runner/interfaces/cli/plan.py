"""`bnbench plan` and `validate`."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.errors import UserError
from runner.interfaces.cli.options import config_argument, data_dir_option, device_option, set_option, stack_option

if TYPE_CHECKING:
    from runner.config.jobs import StackMode
    from runner.config.sweep import Sweep


@click.command()
@config_argument
@set_option
@data_dir_option
@device_option
@stack_option
@click.option("--workers", type=click.IntRange(1, 1024), help="Expect so many (default: what the CPUs have room for).")
@click.option(
    "--measured",
    type=click.Path(path_type=Path),
    metavar="RESULTS",
    help="A sweep of such runs, whose epochs say how long these take (default: results/<name>).",
)
def plan(
    config: Path,
    overrides: tuple[str, ...],
    data_dir: str | None,
    device: str | None,
    stack: StackMode,
    workers: int | None,
    measured: Path | None,
) -> None:
    """Show every run of CONFIG, its arm, what it is paired and trains with, and how long it takes; trains nothing."""
    from runner.config.reader import load

    if measured is not None and not measured.is_dir():
        raise UserError(f"--measured {measured}: no such results folder")
    sweep = load(config, overrides, device)
    print_plan(sweep, stack, data_dir, workers, measured or Path("results") / sweep.name)


def print_plan(sweep: Sweep, stack: StackMode, data_dir: str | None, workers: int | None, measured: Path) -> None:
    from runner.execution import forecast as schedule
    from runner.execution.options import default_workers
    from runner.execution.plan import describe, describe_stacks

    workers = workers or default_workers(sweep.runs)
    time = schedule.describe(sweep, stack, workers, measured)
    for line in chain(describe(sweep), describe_stacks(sweep, stack, data_dir), time):
        click.echo(line)


@click.command()
@config_argument
@set_option
@data_dir_option
@device_option
def validate(config: Path, overrides: tuple[str, ...], data_dir: str | None, device: str | None) -> None:
    """Check CONFIG, its devices and its data; trains nothing, writes nothing but downloaded data."""
    from runner.config.reader import load
    from runner.execution import preflight
    from runner.storage.folder import data_folder

    sweep = preflight.check(load(config, overrides, device), data_folder(data_dir))
    click.echo(f"{config}: {len(sweep.runs)} runs, no fault")
