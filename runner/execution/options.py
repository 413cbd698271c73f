"""Where and how a sweep runs."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runner.config.jobs import StackMode
from runner.config.run_spec import RunSpec
from runner.storage.checkpoints import Every
from runner.training.options import TrainingOptions

Existing = Literal["refuse", "resume", "fresh", "extend"]
"""What happens to a sweep that is in the folder. `extend` is a resume by the process that began or resumed it."""

EVERY_MINUTE = Every(seconds=60)
DEFAULT_TRAINING = TrainingOptions(checkpoint_every=EVERY_MINUTE)


@dataclass(frozen=True)
class Options:
    """How to run a sweep. No option changes the numbers of a run, except for the rounding of stacks and of kernels.

    out:            The sweep's folder is `out`/NAME.
    executor:       The name of a registered executor: inline, process or ray.
    ray_address:    The address of the Ray cluster. Default: $RAY_ADDRESS, else a cluster on this machine.
    workers:        How many jobs train at a time. Default: `default_workers`, or as many as the cluster has room for.
    existing:       What to do if the folder already holds this sweep.
    retry:          A resumed sweep trains runs with these statuses again.
    allow_changed:  Resume even if the code, the data or a package has changed.
    fail_fast:      Stop at the first run that fails.
    stack:          Which runs train as one batched model, or how many at most.
    track:          The names of trackers.
    quiet, verbose: Show failures only; show tracebacks, too.
    training:       The settings that every job needs.

    >>> Options(executor="inline", quiet=True).training.checkpoint_every
    Every(epochs=None, seconds=60)
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
    training: TrainingOptions = DEFAULT_TRAINING


def default_workers(runs: Sequence[RunSpec]) -> int:
    """How many workers a sweep gets: one for each CPU, or for each `threads` CPUs; on CUDA one for each GPU.

    A single process keeps a GPU busy. A sweep that names one GPU by its number has one worker.

    >>> default_workers([RunSpec(network="lenet", dataset="digits", device="cuda", seed=seed) for seed in range(9)])
    1
    """
    if any(run.on_cuda for run in runs):
        return max(1, min(len(runs), len(gpus(runs))))
    return max(1, min(len(runs), usable_cpus() // max(run.threads for run in runs)))


def gpus(runs: Sequence[RunSpec]) -> list[str]:
    """The visible GPUs as CUDA_VISIBLE_DEVICES names them; none where a run needs no GPU, or a certain one."""
    if any(run.device != "cuda" for run in runs):
        return []
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = named.split(",") if named else list(map(str, range(count)))
    return names[:count]


def usable_cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
