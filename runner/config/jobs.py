"""Which runs train together. Imports no torch: `bnbench plan` shows it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # `bnbench watch` begins without pydantic's models
    from runner.config.run_spec import RunSpec

Job = tuple["RunSpec", ...]
"""What an executor is handed: one stack, or one run."""

StackMode = Literal["auto", "on", "off"]

STACKABLE = ("seed", "lr", "momentum", "weight_decay", "lr_schedule", "lr_step", "lr_gamma")
"""What the runs of one stack may differ in: all of it is a row of the `[R, P]` optimizer, or a stream of numbers."""


def stackable(run: RunSpec, mode: StackMode) -> bool:
    """Whether a run may train in a stack: `auto` is where that pays, on CUDA.

    On a CPU a process a core is as fast (a stacked convolution is slower), and keeps a run's arithmetic independent of
    its stack. A DataLoader (`num_workers`) serves one run.
    """
    return run.num_workers == 0 and (mode == "on" or (mode == "auto" and run.device.startswith("cuda")))


def jobs(runs: Sequence[RunSpec], mode: StackMode, workers: int) -> list[Job]:
    """Every run in exactly one job, jobs in the order of their first runs.

    A group of runs that differ only in `STACKABLE` is cut into stacks of at most ⌈runs / workers⌉, so that no worker is
    without one; what memory allows is found where they train.
    """
    groups: dict[str, list[RunSpec]] = {}
    for run in runs:
        key = stack_key(run) if stackable(run, mode) else run.run_id
        groups.setdefault(key, []).append(run)
    limit = math.ceil(len(runs) / workers) or 1
    found = []
    for group in groups.values():
        found += even_parts(group, math.ceil(len(group) / limit))
    return found


def remaining(jobs: Iterable[Job], finished: Collection[str], going_on: Mapping[str, Path]) -> list[Job]:
    """The jobs less their finished runs; runs that go on from different checkpoints are parted."""
    found: list[Job] = []
    for job in jobs:
        parts: dict[Path | None, list[RunSpec]] = {}
        for run in job:
            if run.run_id not in finished:
                parts.setdefault(going_on.get(run.run_id), []).append(run)
        found += [tuple(part) for part in parts.values()]
    return found


def longest_first(jobs: Iterable[Job]) -> list[Job]:
    """The jobs by their epochs, so that none of the long ones begins when all else is done; equals in their order."""
    return sorted(jobs, key=lambda job: -sum(run.epochs for run in job))


def even_parts(group: Sequence[RunSpec], parts: int) -> list[Job]:
    """Cut into so many parts whose sizes differ by one at most."""
    bounds = [round(index * len(group) / parts) for index in range(parts + 1)]
    return [tuple(group[low:high]) for low, high in pairwise(bounds)]


def stack_key(run: RunSpec) -> str:
    """Equal for runs that can train as one batched model."""
    parameters = {name: value for name, value in run.parameters.items() if name not in STACKABLE}
    return json.dumps(parameters, sort_keys=True, default=list)
