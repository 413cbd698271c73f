"""What an executor is: a function that takes tasks (trials or jobs) and yields their events. It writes no file.

`inline` is the simplest: it trains in this process, which suits a debugger. `process` trains in worker processes: if
one dies, the others continue. `ray` has such workers on the nodes of a cluster. All executors give the same rows.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.config.jobs import Task, Trial
from runner.errors import UserError
from runner.execution.executors.ray_cluster import RayContext
from runner.execution.executors.server import Server
from runner.storage.rows import Event, Note
from runner.training.options import TrainingOptions


@dataclass(frozen=True)
class Context:
    """What an executor gets besides the tasks.

    At most `workers` tasks are worked on at a time. `checkpoints` maps a run's id to the file that the run continues
    from. `finished` are the runs that have their result already: a stack trains them again with its other runs. `gpus`
    are the names of GPUs for CUDA_VISIBLE_DEVICES: each worker process sees one of them. `server`
    starts the workers of the executor `process`; where it is None, the executor has a server of its own. Only the
    executor `ray` uses `ray`.
    """

    training: TrainingOptions
    workers: int = 1
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    finished: Collection[str] = ()
    gpus: Sequence[str] = ()
    ray: RayContext | None = None
    server: Server | None = None


def checkpoint_of(task: Task, checkpoints: Mapping[str, Path]) -> Path | None:
    """The file that a task continues from; None where it begins at the start."""
    return next((checkpoints[run_id] for run_id in task.run_ids if run_id in checkpoints), None)


Executor = Callable[[Sequence[Task], Context], Iterator[Event]]


def inline(tasks: Sequence[Task], context: Context) -> Iterator[Event]:
    """One task after the other, in this process.

    Errors: UserError where runs have a time limit, and where this process must not train the next task.
    """
    from runner.training.isolation import raise_if_spoiled
    from runner.training.networks import SpoiledProcessError
    from runner.training.train import work

    if context.training.run_timeout is not None:
        raise UserError("--run-timeout needs --executor process: inline runs cannot be stopped")
    for task in tasks:
        # A check before the first task can have spoiled this process.
        raise_if_spoiled()
        try:
            yield from work(task, context.training, checkpoint_of(task, context.checkpoints))
        except SpoiledProcessError as error:
            if isinstance(task, Trial) or task is not tasks[-1]:
                raise
            # Nothing else is to be trained.
            yield Note(f"this process must not train further runs, because {error.reason}")
