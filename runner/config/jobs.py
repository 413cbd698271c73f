"""Which runs train together. It imports no torch, because `bnbench plan` shows it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # `bnbench watch` starts without pydantic's models
    from runner.config.run_spec import RunSpec

Job = tuple["RunSpec", ...]
"""What an executor is given: one stack, or one run."""

StackMode = Literal["auto", "on", "off"]

Form = Literal["grouped", "loop", "unfold"]
"""How a stack computes its convolutions: one with groups, one per run, or a matrix product. The results are equal."""

STACKABLE = ("seed", "lr", "momentum", "weight_decay", "lr_schedule", "lr_step", "lr_gamma")
"""The parameters in which the runs of one stack may differ: the optimizer and the random streams have one per run."""


def stackable(run: RunSpec, mode: StackMode) -> bool:
    """Whether a run may train in a stack. `auto` stacks on CUDA only, where it is faster.

    On a CPU, one process per core is as fast, because a stacked convolution is slow there, and a run's arithmetic stays
    independent of its stack. A DataLoader (`num_workers`) serves one run.
    """
    return run.num_workers == 0 and (mode == "on" or (mode == "auto" and run.device.startswith("cuda")))


def jobs(runs: Sequence[RunSpec], mode: StackMode, workers: int) -> list[Job]:
    """The jobs of these runs, in the order of their first runs. Every run is in exactly one job.

    Runs that differ only in `STACKABLE` make stacks of at most ⌈runs / workers⌉ runs, so that every worker has a job.
    The limit of the device's memory is found later, in the worker.

    >>> from runner.config.run_spec import RunSpec
    >>> runs = [RunSpec(network="lenet", batch_size=size, seed=seed) for size in (64, 256) for seed in range(4)]
    >>> [len(job) for job in jobs(runs, "on", workers=1)], len(jobs(runs, "off", workers=1))
    ([4, 4], 8)
    """
    groups: dict[str, list[RunSpec]] = {}
    for run in runs:
        key = stack_key(run) if stackable(run, mode) else run.run_id
        groups.setdefault(key, []).append(run)
    limit = math.ceil(len(runs) / workers) or 1
    return [job for group in groups.values() for job in even_parts(group, math.ceil(len(group) / limit))]


def remaining(jobs: Iterable[Job], finished: Collection[str], checkpoints: Mapping[str, Path]) -> list[Job]:
    """The jobs without their finished runs. Runs that continue from different checkpoints become different jobs.

    finished: ids of runs.
    checkpoints: the checkpoint of each run that continues from one, by the run's id.
    """
    result: list[Job] = []
    for job in jobs:
        parts: dict[Path | None, list[RunSpec]] = {}
        for run in job:
            if run.run_id not in finished:
                parts.setdefault(checkpoints.get(run.run_id), []).append(run)
        result += map(tuple, parts.values())
    return result


def longest_first(jobs: Iterable[Job]) -> list[Job]:
    """The jobs with the most epochs first, so that no long one starts last. Equal jobs keep their order."""
    return sorted(jobs, key=lambda job: -sum(run.epochs for run in job))


def even_parts(group: Sequence[RunSpec], parts: int) -> list[Job]:
    """Cut a group into this many parts, whose sizes differ by at most one."""
    bounds = [round(index * len(group) / parts) for index in range(parts + 1)]
    return [tuple(group[low:high]) for low, high in pairwise(bounds)]


def stack_key(run: RunSpec) -> str:
    """A text that is equal for runs that can train in one stack."""
    parameters = {name: value for name, value in run.parameters.items() if name not in STACKABLE}
    return json.dumps(parameters, sort_keys=True, default=list)
