"""Which runs train together. It imports no torch, because `bnbench plan` shows it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # `bnbench watch` starts without pydantic's models
    from runner.config.run_spec import RunSpec

Form = Literal["grouped", "loop", "unfold"]
"""How a stack computes the convolutions of its R runs: one grouped, R dense, or matrix products of unfolded images."""


@dataclass(frozen=True, slots=True)
class Job:
    """What an executor is given: one stack, or one run.

    `form` is the form of a stack's convolutions. It is None for a run that trains alone. `note` says why these runs do
    not train as was planned; `trained_as` in runs.csv repeats it.
    """

    runs: tuple[RunSpec, ...]
    form: Form | None = None
    note: str = ""

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(run.run_id for run in self.runs)


def job_of(runs: tuple[RunSpec, ...], form: Form | None, note: str = "") -> Job:
    """A job that trains these runs as a stack, or alone where `form` is None.

    A single run trains alone, except on CUDA: a stack of one is a CUDA graph.
    """
    alone = len(runs) == 1 and not runs[0].on_cuda
    return Job(runs, None if alone else form, note)


@dataclass(frozen=True)
class Trial:
    """What an executor is given before the jobs: runs that differ only in `STACKABLE`, to be tried as a stack.

    `most` is the most runs in a stack. With `fixed`, stacks have this size, if the memory allows it. `workers` is the
    number of these stacks that train at the same time, and `sharing` the number of workers that share the memory of a
    device.
    """

    runs: tuple[RunSpec, ...]
    most: int
    fixed: bool = False
    workers: int = 1
    sharing: int = 1

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(run.run_id for run in self.runs)


Task = Job | Trial
"""What an executor works on."""

StackMode = Literal["auto", "on", "off"] | int
"""Which runs train as stacks. A number is the most runs in a stack."""

STACKABLE = (
    *("seed", "lr", "momentum", "weight_decay", "lr_schedule", "lr_step", "lr_gamma"),
    *("seed_weights", "seed_batches", "seed_dropout", "seed_split", "seed_subset"),
)
"""The parameters in which the runs of one stack may differ: the optimizer and the random streams have one per run."""


def stackable(run: RunSpec, mode: StackMode) -> bool:
    """Whether a run trains as a stack, possibly of one run. `auto` stacks on CUDA only, where it is faster.

    On CUDA every run is a stack, because a stack's step is a CUDA graph. On a CPU, one process per core is as fast,
    because a stacked convolution is slow there, and a run's arithmetic stays independent of its stack. A DataLoader
    (`num_workers`) serves one run.
    """
    return run.num_workers == 0 and (run.on_cuda or mode not in ("auto", "off"))


def stack_groups(
    runs: Iterable[RunSpec], mode: StackMode, checkpoints: Mapping[str, Path] | None = None
) -> list[tuple[RunSpec, ...]]:
    """The largest groups of runs that can train together, in the order of their first runs.

    The runs of a group differ only in `STACKABLE`, and continue from the same one of the `checkpoints`, which are given
    by run id. Every run is in exactly one group.
    """
    groups: dict[object, list[RunSpec]] = {}
    for run in runs:
        key = stack_key(run) if stackable(run, mode) else run.run_id
        groups.setdefault((key, (checkpoints or {}).get(run.run_id)), []).append(run)
    return [tuple(group) for group in groups.values()]


def most_per_stack(count: int, mode: StackMode, workers: int) -> int:
    """The most runs in a stack of a sweep of `count` runs: the given size, or what gives every worker a stack."""
    if mode == "off":
        return 1
    return mode if isinstance(mode, int) else max(1, math.ceil(count / workers))


def expected_stacks(runs: Sequence[RunSpec], mode: StackMode, workers: int) -> list[tuple[RunSpec, ...]]:
    """The runs of each job, as they are before trials have found a better size of the stacks.

    >>> from runner.config.run_spec import RunSpec
    >>> runs = [RunSpec(network="lenet", batch_size=size, seed=seed) for size in (64, 256) for seed in range(4)]
    >>> [[len(stack) for stack in expected_stacks(runs, mode, workers=1)] for mode in ("on", 2)]
    [[4, 4], [2, 2, 2, 2]]
    >>> len(expected_stacks(runs, "off", workers=1))
    8
    """
    most = most_per_stack(len(runs), mode, workers)
    return [stack for group in stack_groups(runs, mode) for stack in stacks_of(group, most)]


def longest_first(jobs: Iterable[Job]) -> list[Job]:
    """The jobs with the most epochs first, so that no long one starts last. Equal jobs keep their order."""
    return sorted(jobs, key=lambda job: -sum(run.epochs for run in job.runs))


def stacks_of(group: Sequence[RunSpec], size: int) -> list[tuple[RunSpec, ...]]:
    """Cut a group into stacks of at most `size` runs, whose sizes differ by at most one."""
    return even_parts(group, math.ceil(len(group) / size))


def even_parts(group: Sequence[RunSpec], parts: int) -> list[tuple[RunSpec, ...]]:
    """Cut a group into this many parts, whose sizes differ by at most one."""
    bounds = [round(index * len(group) / parts) for index in range(parts + 1)]
    return [tuple(group[low:high]) for low, high in pairwise(bounds)]


def stack_key(run: RunSpec) -> str:
    """A text that is equal for runs that can train in one stack."""
    parameters = {name: value for name, value in run.parameters.items() if name not in STACKABLE}
    return json.dumps(parameters, sort_keys=True, default=list)
