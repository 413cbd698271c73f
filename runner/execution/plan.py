"""What a sweep will do, said before it does it: every run, its arm, and the runs it is paired with."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from runner.config.jobs import STACKABLE, Job, StackMode, jobs
from runner.config.sweep import Sweep


def pairs(sweep: Sweep) -> list[list[int]]:
    """For each run, the numbers of the runs it is paired with: equal in everything but the contrast's axis.

    A run of the baseline is paired with those of every other arm, and each of those with the baseline's. An
    argument of the axis that one of the arms does not have does not part them.
    """
    axis = sweep.axis
    if axis is None:
        return [[] for _ in sweep.runs]
    parameters = [run.parameters for run in sweep.runs]
    partial = _arguments_of_some_arms(parameters, axis)
    groups: dict[str, list[int]] = defaultdict(list)
    keys = []
    names = [name for name in sorted(sweep.grid_keys) if name != axis and name not in partial]  # all others are fixed
    for number, values in enumerate(parameters, start=1):
        key = json.dumps([(name, values[name]) for name in names if name in values])
        keys.append(key)
        groups[key].append(number)
    baseline = [values.get(axis) == sweep.baseline for values in parameters]
    return [
        [n for n in groups[key] if baseline[n - 1] != is_baseline]
        for key, is_baseline in zip(keys, baseline, strict=True)
    ]


def _arguments_of_some_arms(parameters: list[dict[str, Any]], axis: str) -> set[str]:
    """The arguments below the axis (network.width below network, network.norm_args.eps below network.norm) that at
    least one arm does not have: the rule of `pairing.Arms`, on runs instead of tables.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for values in parameters:
        below = {name for name in values if name.startswith((f"{axis}.", f"{axis}_args."))}
        names[json.dumps(values.get(axis))] |= below
    every = list(names.values())
    return set().union(*every) - every[0].intersection(*every)


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
    from runner.training.learners.stack import obstacle
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
