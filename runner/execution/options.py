"""Where and how a sweep runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from runner.config.jobs import StackMode
from runner.config.run_spec import RunSpec
from runner.storage.checkpoints import Every
from runner.training.options import TrainingOptions

Existing = Literal["refuse", "resume", "fresh"]

EVERY_MINUTE = Every(seconds=60)


@dataclass(frozen=True)
class Options:
    """These options do not change results, except for rounding when runs are stacked.

    The sweep lies in `out`/NAME; `existing` says what happens where a sweep lies there already. `retry` has statuses of
    runs that a resumed sweep trains again. `training` is what every job needs to know.
    """

    out: Path = Path("results")
    executor: str = "process"
    ray_address: str | None = None
    workers: int | None = None
    existing: Existing = "refuse"
    retry: Collection[str] = ()
    allow_changed: bool = False
    fail_fast: bool = False
    stack: StackMode = "auto"
    track: Collection[str] = ()
    quiet: bool = False
    verbose: bool = False
    training: TrainingOptions = field(default_factory=lambda: TrainingOptions(checkpoint_every=EVERY_MINUTE))


def default_workers(runs: Sequence[RunSpec]) -> int:
    """As many workers as the usable CPUs have room for; one on CUDA, which a single process fills."""
    if any(run.device.startswith("cuda") for run in runs):
        return 1
    return max(1, min(len(runs), usable_cpus() // max(run.threads for run in runs)))


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
