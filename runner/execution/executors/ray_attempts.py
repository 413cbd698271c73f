"""What the attempts at each run have reported. On a cluster, a job may start over on another node."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from runner.config.jobs import Job
from runner.execution.executors.ray_cluster import RayContext
from runner.storage.checkpoints import file_name
from runner.storage.rows import Checkpoint, EpochRow, Note, RunResult, Single
from runner.training.repeats import Repeats


class Attempts:
    """The runs of a sweep: their rows so far, the checkpoint that the next attempt continues, and lost attempts.

    `checkpoints` maps a run's id to the file that its first attempt continues.
    """

    def __init__(self, context: RayContext, checkpoints: Mapping[str, Path]) -> None:
        self.context = context
        self.checkpoints = dict(checkpoints)
        self.ended: set[str] = set()
        self.rows: dict[str, list[EpochRow]] = defaultdict(list)
        self.repeats = Repeats()
        self.losses: Counter[str] = Counter()
        self.notes: set[Note] = set()

    def start(self, job: Job) -> Path | bytes | None:
        """Begin an attempt. Returns the checkpoint that it continues: a file that its node sees, or its content."""
        self.repeats.start_over(run.run_id for run in job)
        file = self.checkpoints.get(job[0].run_id)
        return file.read_bytes() if file is not None and not self.context.shared else file

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

    def count_loss(self, job: Job) -> int:
        """Count a lost attempt. Returns how many attempts in a row were lost without a new row of any run."""
        self.losses.update(run.run_id for run in job)
        return min(self.losses[run.run_id] for run in job)
