"""What an executor is: a function that takes jobs and yields their events. It writes no file. `inline` is the simplest.

`inline` trains in this process, which suits a debugger. `process` trains in worker processes: if one dies, the others
continue. `ray` has such workers on the nodes of a cluster. All executors give the same rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.config.jobs import Job
from runner.errors import UserError
from runner.execution.executors.ray_cluster import RayContext
from runner.storage.rows import Event
from runner.training.options import TrainingOptions


@dataclass(frozen=True)
class Context:
    """What an executor gets besides the jobs.

    At most `workers` jobs train at a time. `checkpoints` maps a run's id to the file that the run continues from. Only
    the executor `ray` uses `ray`.
    """

    training: TrainingOptions
    workers: int = 1
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    ray: RayContext | None = None


Executor = Callable[[Sequence[Job], Context], Iterator[Event]]


def inline(jobs: Sequence[Job], context: Context) -> Iterator[Event]:
    """One job after the other, in this process. Errors: UserError where runs have a time limit."""
    from runner.training.train import train

    if context.training.run_timeout is not None:
        raise UserError("--run-timeout needs --executor process: inline runs cannot be stopped")
    for job in jobs:
        yield from train(job, context.training, context.checkpoints.get(job[0].run_id))
