"""What the attempts at each run have reported. On a cluster, a job may start over on another node."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from runner.config.jobs import Job, Task, Trial, job_of
from runner.execution.executors.executor import checkpoint_of
from runner.execution.executors.ray_cluster import RayContext
from runner.storage.checkpoints import content, file_name
from runner.storage.rows import Checkpoint, EpochRow, Note, RunResult, Shortfall, Single, StackPlan
from runner.training.repeats import Repeats


class Attempts:
    """The runs of a sweep: their rows so far, the checkpoint that the next attempt continues, and lost attempts.

    `checkpoints` maps a run's id to the file that its first attempt continues. `finished` are runs that need no result.
    """

    def __init__(self, context: RayContext, checkpoints: Mapping[str, Path], finished: Collection[str]) -> None:
        self.context = context
        self.checkpoints = dict(checkpoints)
        self.finished = set(finished)
        self.ended = set(finished)
        self.tried: set[tuple[str, ...]] = set()
        self.shortfalls: list[Shortfall] = []
        self.rows: dict[str, list[EpochRow]] = defaultdict(list)
        self.repeats = Repeats()
        self.losses: Counter[str] = Counter()
        self.notes: set[Note] = set()

    def start(self, task: Task) -> Path | bytes | None:
        """Begin an attempt. Returns the checkpoint that it continues: a file that its node sees, or its content."""
        self.repeats.start_over(task.run_ids)
        file = checkpoint_of(task, self.checkpoints)
        return content(file) if file is not None and not self.context.shared else file

    def continues(self, task: Task) -> bool:
        """Whether the next attempt continues from a checkpoint."""
        return checkpoint_of(task, self.checkpoints) is not None

    def new(self, events: Iterable[Single]) -> Iterator[Single]:
        """The events that no earlier attempt has reported."""
        for event in events:
            if isinstance(event, Note):
                if event in self.notes:
                    continue
                self.notes.add(event)
            elif isinstance(event, Checkpoint):
                file = self.context.checkpoint_folder / file_name(event.run_ids, event.epoch)
                self.checkpoints |= dict.fromkeys(event.run_ids, file)
                self.repeats.checkpointed(event.run_ids)
            elif isinstance(event, StackPlan):
                self.tried.add(event.run_ids)
            elif isinstance(event, Shortfall):
                if event in self.shortfalls:
                    continue
                self.shortfalls.append(event)
            elif event.run_id in self.ended and event.run_id not in self.finished:
                # A stack starts over with all of its runs.
                continue
            elif isinstance(event, RunResult):
                event = self.end(event)
            elif self.repeats.is_repeated(event.run_id):
                continue
            else:
                self.losses[event.run_id] = 0
                if isinstance(event, EpochRow):
                    self.rows[event.run_id].append(event)
            yield event

    def end(self, result: RunResult) -> RunResult:
        """A run's result, with all rows that were passed on, from every attempt."""
        self.ended.add(result.run_id)
        self.repeats.ended(result.run_id)
        self.losses.pop(result.run_id, None)
        rows = self.rows.pop(result.run_id, [])
        return replace(result, rows=tuple(rows)) if len(rows) >= len(result.rows) else result

    def left(self, task: Task) -> list[str]:
        """The ids of the task's runs that have no result."""
        if isinstance(task, Trial) and task.run_ids in self.tried:
            return []
        return [run_id for run_id in task.run_ids if run_id not in self.ended]

    def next_attempts(self, task: Task) -> list[Task]:
        """The tasks that try a lost task again. They are the parts of a stack that did not train as planned."""
        tasks = [task]
        for shortfall in self.shortfalls:
            for each in list(tasks):
                if isinstance(each, Job) and shortfall.parts and set(shortfall.run_ids) <= set(each.run_ids):
                    tasks.remove(each)
                    tasks += _parts(each, shortfall)
        return [each for each in tasks if self.left(each)]

    def count_loss(self, task: Task) -> int:
        """Count a lost attempt. Returns how many attempts in a row were lost without a new row of any run."""
        left = self.left(task)
        self.losses.update(left)
        return min(self.losses[run_id] for run_id in left)


def _parts(job: Job, shortfall: Shortfall) -> list[Job]:
    runs = {run.run_id: run for run in job.runs}
    return [job_of(tuple(runs[run_id] for run_id in part), shortfall.form, shortfall.note) for part in shortfall.parts]
