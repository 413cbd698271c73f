"""What a sweep will do, said before it does it: every run, its arm, and the runs it is paired with."""

from __future__ import annotations

from collections.abc import Iterator

from runner.config.contrast import pairs
from runner.config.jobs import STACKABLE, Job, StackMode, jobs
from runner.config.sweep import Sweep


def describe(sweep: Sweep) -> Iterator[str]:
    """The plan as lines of text."""
    epochs = sum(run.epochs for run in sweep.runs)
    contrast = f", comparing {sweep.axis} with {sweep.baseline}" if sweep.axis else ""
    yield f"{sweep.name}: {len(sweep.runs)} runs, {epochs} epochs{contrast}"
    for number, (run, partners) in enumerate(zip(sweep.runs, pairs(sweep), strict=True), start=1):
        values = run.parameters
        grid = "  ".join(f"{key}={values[key]}" for key in sweep.grid_keys if key in values)
        arm = f"  arm {values.get(sweep.axis)}" if sweep.axis else ""
        paired = f"  paired with {', '.join(f'run {other}' for other in partners)}" if partners else ""
        alone = "  unpaired" if sweep.axis and not partners else ""
        yield f"run {number}  {grid}{arm}{paired}{alone}"


def describe_stacks(sweep: Sweep, mode: StackMode, data_dir: str | None) -> Iterator[str]:
    """Which runs train together, and how, as lines of text; imports torch only where some do.

    A stack is cut further where several workers share it, or where memory does not hold it.
    """
    if mode == "auto" and any(run.device == "auto" for run in sweep.runs):
        yield (
            "stack auto: on CUDA, runs that differ only in " + ", ".join(STACKABLE) + " train together; on a CPU, none"
        )
        return
    numbers = {run.run_id: number for number, run in enumerate(sweep.runs, start=1)}
    together = [job for job in jobs(sweep.runs, mode, workers=1) if len(job) > 1]
    for index, job in enumerate(together, start=1):
        members = ", ".join(str(numbers[run.run_id]) for run in job)
        yield f"stack {index}: {len(job)} runs ({members}): {_how(job, data_dir)}"
    alone = len(sweep.runs) - sum(len(job) for job in together)
    if alone:
        yield f"{alone} run{'s' if alone > 1 else ''} alone"


def _how(job: Job, data_dir: str | None) -> str:
    """By which means a stack trains, or why it cannot: tried on the first images of its data set."""
    from runner import registry
    from runner.errors import UserError
    from runner.storage.folder import data_folder
    from runner.training.data.datasets import DataSet
    from runner.training.learners.stack_check import obstacle
    from runner.training.learners.stacked_layers import mapped_layers
    from runner.training.networks import build_network

    try:
        data: DataSet = registry.dataset[job[0].dataset](data_folder(data_dir), False)
    except UserError as error:
        return f"not tried without its data ({error})"
    try:
        network = build_network(job[0])
    except Exception as error:  # a plan is of what would happen: its runs will fail
        return f"one at a time, since it cannot be built ({type(error).__name__}: {error})"
    reason = obstacle(network, data.train.images[:8].float() / 255, int(data.train.labels.max()) + 1)
    if reason:
        return f"one at a time, since {reason}"
    mapped = mapped_layers(network)
    return "stacked layers" + (f", vmap for {', '.join(mapped)}" if mapped else "")
