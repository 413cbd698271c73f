"""Where and how a sweep runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runner.config.jobs import StackMode
from runner.config.run_spec import RunSpec
from runner.storage.checkpoints import Every

Existing = Literal["refuse", "resume", "fresh"]

EVERY_MINUTE = Every(seconds=60)


@dataclass(frozen=True)
class Options:
    """Where and how a sweep runs: nothing here changes a result (a stack: but by rounding)."""

    out: Path = Path("results")
    root: Path = Path("data")
    executor: str = "process"
    ray_address: str | None = None
    workers: int | None = None
    existing: Existing = "refuse"
    retry: Collection[str] = ()
    allow_changed: bool = False
    every: Every = EVERY_MINUTE
    run_timeout: float | None = None
    fail_fast: bool = False
    stack: StackMode = "auto"
    track: Collection[str] = ()
    quiet: bool = False
    verbose: bool = False


def default_workers(runs: Sequence[RunSpec]) -> int:
    """As many workers as the CPUs we may use have room for; one on CUDA, which a single process fills."""
    if any(run.device.startswith("cuda") for run in runs):
        return 1
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(len(runs), cpus // max(run.threads for run in runs)))
