"""What a sweep will do: every run, its arm, the runs that it is paired with, and the runs that train together."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from runner import registry
from runner.config.contrast import pairs
from runner.config.jobs import STACKABLE, StackMode, expected_stacks
from runner.config.run_spec import RunSpec
from runner.config.sweep import Sweep
from runner.errors import UserError, described
from runner.storage import stacks as stack_file
from runner.storage.folder import STACKS, data_folder
from runner.storage.stacks import Stacks

SHOWN = 20
"""How many of a run's partners are named."""


def describe(sweep: Sweep) -> Iterator[str]:
    """The runs of a sweep as lines of text.

    >>> from runner.config.reader import from_mapping
    >>> fixed = {"network": "lenet", "dataset": "digits", "epochs": 2}
    >>> sweep = from_mapping({"name": "rates", "fixed": fixed, "grid": {"lr": [0.1, 0.01]}})
    >>> print(*describe(sweep), sep="\\n")
    rates: 2 runs, 4 epochs
    run 1  lr=0.1
    run 2  lr=0.01
    """
    contrast = f", comparing {sweep.axis} with {sweep.baseline}" if sweep.axis else ""
    yield f"{sweep.name}: {len(sweep.runs)} runs, {sum(run.epochs for run in sweep.runs)} epochs{contrast}"
    if plan := sweep.until_decided:
        yield f"seeds are trained one after the other until the verdict is decided, at most {plan.max_seeds}"
    # A shard can be without a run of the baseline.
    paired = any(run.parameters.get(sweep.axis or "") == sweep.baseline for run in sweep.runs)
    found = pairs(sweep) if paired else [[] for _ in sweep.runs]
    for number, (run, partners) in enumerate(zip(sweep.runs, found, strict=True), start=1):
        values = run.parameters
        columns = [f"run {number}", *(f"{key}={values[key]}" for key in sweep.grid_keys if key in values)]
        if sweep.axis:
            columns += [f"arm {values.get(sweep.axis)}", _paired(partners)]
        yield "  ".join(columns)


def record(sweep: Sweep) -> dict[str, Any]:
    """The same as a record for `--format json`. `paired_with` has the first of the run's partners, at most `SHOWN`."""
    return {
        "name": sweep.name,
        "epochs": sum(run.epochs for run in sweep.runs),
        "axis": sweep.axis,
        "baseline": sweep.baseline,
        "max_seeds": sweep.until_decided.max_seeds if sweep.until_decided else None,
        "runs": [
            {
                "run": number,
                "run_id": run.run_id,
                "arm": run.parameters.get(sweep.axis) if sweep.axis else None,
                "pairs": sum(map(len, partners)),
                "paired_with": list(islice(heapq.merge(*partners), SHOWN)),
                "parameters": dict(run.parameters),
            }
            for number, (run, partners) in enumerate(zip(sweep.runs, pairs(sweep), strict=True), start=1)
        ],
    }


def _paired(partners: Sequence[Sequence[int]]) -> str:
    """The runs that a run is paired with, from a sorted list for each arm."""
    named = ", ".join(f"run {number}" for number in islice(heapq.merge(*partners), SHOWN))
    count = sum(map(len, partners))
    more = f", … ({count:,} runs)" if count > SHOWN else ""
    return f"paired with {named}{more}" if named else "unpaired"


def describe_stacks(sweep: Sweep, mode: StackMode, data_dir: str | None, folder: Path) -> Iterator[str]:
    """Which runs train together, and how, as lines of text. Imports torch only where there are stacks to try.

    If the sweep has begun in `folder`, this was decided then, and `mode` is not used. Otherwise the lines say what is
    possible: when the sweep starts, a stack may be cut into smaller ones, for several workers, to fit into memory, or
    because it is faster.
    """
    if decided := _decided(sweep, stack_file.read(folder)):
        yield from decided
        return
    if mode == "auto" and any(run.device == "auto" for run in sweep.runs):
        differences = ", ".join(STACKABLE)
        yield f"stack auto: on CUDA, runs that differ only in {differences} train together; on a CPU, none"
        return
    stacks = [stack for stack in expected_stacks(sweep.runs, mode, workers=1) if len(stack) > 1]
    for index, stack in enumerate(stacks, start=1):
        members = ", ".join(str(sweep.number[run.run_id]) for run in stack)
        yield f"stack {index}: {len(stack)} runs ({members}): {_method(stack, data_dir)}"
    alone = len(sweep.runs) - sum(map(len, stacks))
    if alone:
        yield f"{alone} run{'s' if alone > 1 else ''} alone"


def _decided(sweep: Sweep, stacks: Stacks) -> list[str]:
    """The stacks of a sweep that has begun; none where these are another sweep's stacks."""
    planned = {run_id for job in stacks.jobs for run_id in job.runs}
    for device in ("cpu", "cuda") if planned else ():
        # The stacks were written after `device: auto` was replaced.
        runs = [run.changed(device=device) if run.device == "auto" else run for run in sweep.runs]
        numbers = {run.run_id: number for number, run in enumerate(runs, start=1)}
        if planned & numbers.keys():
            return list(_decided_lines(stacks, numbers))
    return []


def _decided_lines(stacks: Stacks, numbers: Mapping[str, int]) -> Iterator[str]:
    together = [job for job in stacks.jobs if len(job.runs) > 1]
    for index, job in enumerate(together, start=1):
        members = ", ".join(str(numbers.get(run_id, "?")) for run_id in job.runs)
        note = f", {job.note}" if job.note else ""
        yield f"stack {index}: {len(job.runs)} runs ({members}): {job.form}, as recorded in {STACKS}{note}"
    alone = len(stacks.jobs) - len(together)
    if alone:
        yield f"{alone} run{'s' if alone > 1 else ''} alone, as recorded in {STACKS}"


def _method(stack: Sequence[RunSpec], data_dir: str | None) -> str:
    """How a stack trains, or why it cannot. It is tried on the first images of its data set."""
    from runner.training.learners import stack_check, stacked_layers
    from runner.training.networks import build_network

    try:
        data = registry.dataset[stack[0].dataset](data_folder(data_dir), False)
    except UserError as error:
        return f"not tried, because its data are missing ({error})"
    try:
        network = build_network(stack[0])
    except (Exception, SystemExit) as error:  # Only the runs fail, not the plan.
        return f"one at a time, because the network cannot be built ({described(error)})"
    images, classes = data.train.images[:8].float() / 255, registry.dataset.shape(stack[0].dataset).classes
    if obstacle := stack_check.obstacle(network, images, classes):
        return f"one at a time, because {obstacle}"
    mapped = ", ".join(stacked_layers.mapped_layers(network))
    return "stacked layers" + (f", vmap for {mapped}" if mapped else "")
