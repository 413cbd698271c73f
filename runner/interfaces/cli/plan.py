"""`bnbench plan` and `validate`."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import click

from runner import factories, registry
from runner.config.jobs import StackMode
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.execution import forecast
from runner.execution import plan as plans
from runner.execution.options import default_workers
from runner.interfaces.cli import options
from runner.storage.folder import data_folder
from runner.training.options import Kernels


@click.command()
@options.reads_config
@options.data_dir_option
@options.stack_option
@options.workers_option
@click.option("--kernels", type=options.KERNELS, help="Also say which layers these kernels compute on a CPU.")
@options.format_option("table", "json")
@click.option(
    "--measured",
    type=options.PATH,
    metavar="RESULTS",
    help="Estimate the duration from the sweep in this folder (default: results/NAME).",
)
@options.flag("--time", text="Train a few steps of each kind of run, and estimate the duration from them.")
def plan(sweep: Sweep, measured: Path | None, time: bool, **settings: Any) -> None:
    """Show what a config would train.

    The plan lists every run of CONFIG, its arm
    and the run that it is paired with. The plan also says
    which runs train together and, for CUDA, which layers
    are a problem there. It estimates the duration
    if the folder results/NAME, or the folder given by --measured,
    contains epochs whose time was measured. Nothing is trained,
    except a few steps with --time, which downloads missing data sets.
    """
    if time and measured:
        raise UserError("--time and --measured: give one of them")
    if measured is not None and not measured.is_dir():
        raise UserError(f"--measured {measured}: no such results folder")
    folder = Path("results") / sweep.name
    print_plan(sweep, folder, None if time else measured or folder, **settings)


def print_plan(
    sweep: Sweep,
    folder: Path,
    measured: Path | None,
    *,
    stack: StackMode,
    data_dir: str | None,
    workers: int | None,
    kernels: Kernels | None,
    style: str = "table",
    **_: Any,
) -> None:
    """Print the sweep's runs, its stacks and its duration.

    The sweep may have begun in `folder`. The duration is estimated from the epochs in the folder `measured`; where it
    is None, from a few steps that are trained for this.
    """
    _check_shapes(sweep)
    more = {
        "stacks": list(plans.describe_stacks(sweep, stack, data_dir, folder)),
        "cuda": _cuda_lines(sweep, data_dir),
        "kernels": list(_kernel_lines(sweep, kernels)) if kernels else [],
        "time": list(_time_lines(sweep, stack, workers or default_workers(sweep.runs), measured, data_dir)),
    }
    record = plans.record(sweep) | more if style == "json" else None
    options.put(style, record, chain(plans.describe(sweep), *more.values()))


def _time_lines(
    sweep: Sweep, stack: StackMode, workers: int, measured: Path | None, data_dir: str | None
) -> Iterator[str]:
    if measured:
        seconds, source = forecast.epoch_seconds(measured), f"the epochs of {measured}"
    else:
        from runner.execution import step_times

        seconds, errors = step_times.measure(sweep, data_folder(data_dir), workers)
        yield from (f"not measured: {error}" for error in errors)
        source = f"a few steps of {len(seconds)} kind{'s' if len(seconds) > 1 else ''} of runs, each trained alone"
    yield from forecast.describe(sweep, stack, workers, seconds, source)


def _check_shapes(sweep: Sweep) -> None:
    """Errors: UserError where a network does not fit its data set. Imports torch only if a shape is not MNIST's."""
    if all(registry.dataset.shape(name) == factories.Shape() for name in {run.dataset for run in sweep.runs}):
        return
    from runner.execution import shape_checks

    if faults := shape_checks.faults(sweep):
        raise UserError(*faults)


def _kernel_lines(sweep: Sweep, asked: Kernels) -> Iterator[str]:
    # This module imports torch.
    from runner.execution import kernels

    return kernels.describe(sweep, asked)


def _cuda_lines(sweep: Sweep, data_dir: str | None) -> list[str]:
    """A line for each layer that is a problem on CUDA. Imports torch only where runs are to train there."""
    runs = [run for run in sweep.runs if run.on_cuda]
    if not runs:
        return []
    from runner.execution import cuda_checks

    lines = cuda_checks.lines(runs, lambda name: registry.dataset[name](data_folder(data_dir), False))
    return list(lines) or ["on CUDA: no layer of the networks is refused or slower"]


@click.command()
@options.reads_config
@options.data_dir_option
@options.format_option("table", "json")
def validate(sweep: Sweep, data_dir: str | None, style: str) -> None:
    """Check a config, its devices, its data and its networks.

    Each network is built and computes a batch of its training images.
    Nothing is trained. Missing data sets are downloaded.
    On CUDA, the networks' layers are checked, too.
    """
    from runner.execution import preflight, shape_checks

    root = data_folder(data_dir)
    checked = preflight.check(sweep, root)
    notes = [*preflight.norm_changes(checked), *preflight.batch_warnings(checked, root)]
    if faults := shape_checks.batch_faults(checked, root):
        raise UserError(*faults)
    notes += _cuda_lines(checked, data_dir)
    record = {"name": sweep.name, "runs": len(sweep.runs), "notes": notes}
    options.put(style, record, [*notes, f"{sweep.name}: {len(sweep.runs)} runs, no faults"])
