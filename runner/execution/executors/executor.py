"""What an executor is: a function that takes jobs and yields their events. It writes nothing.

`inline` trains in this process, which suits a debugger. `process` trains in worker processes that survive one another's
death. `ray` has such workers on the nodes of a cluster. All give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.config.jobs import Job
from runner.execution.executors.ray_cluster import RayContext
from runner.storage.rows import Event
from runner.training.options import TrainingOptions


@dataclass(frozen=True)
class Context:
    """What an executor gets besides the jobs.

    At most `workers` jobs train at a time. `checkpoints` maps a run's id to the file that it continues from. `ray` is
    for the executor of that name.
    """

    training: TrainingOptions
    workers: int = 1
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    ray: RayContext | None = None


Executor = Callable[[Sequence[Job], Context], Iterator[Event]]
