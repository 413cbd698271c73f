"""What has been told of each run of a sweep whose jobs may start again elsewhere."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from runner.config.jobs import Job
from runner.execution.executors.executor import Context
from runner.storage.checkpoints import file_name
from runner.storage.rows import Checkpoint, EpochRow, Note, RunResult, Single


class Ledger:
    """So that a run which starts again tells nothing twice.

    A run's events are the same at every attempt, so it is enough to count those beyond the checkpoint gone on from.
    """

    def __init__(self, context: Context) -> None:
        self.folder, self.shared = context.checkpoint_folder, context.checkpoints_shared
        self.files = dict(context.checkpoints)
        self.finished: set[str] = set()
        self.rows: dict[str, list[EpochRow]] = defaultdict(list)
        self.beyond: Counter[str] = Counter()
        self.again: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()

    def begin(self, job: Job) -> Path | bytes | None:
        """What an attempt goes on from: a file that its node can read, or the file's content."""
        for run in job:
            self.again[run.run_id] = self.beyond[run.run_id]
        file = self.files.get(job[0].run_id)
        return file.read_bytes() if file is not None and not self.shared else file

    def enter(self, event: Single) -> Single | None:
        """The event, where it is new."""
        if isinstance(event, Checkpoint):
            for run_id in event.run_ids:
                self.files[run_id] = self.folder / file_name(event.run_ids, event.epoch)
                self.beyond[run_id] = self.again[run_id]
            return event
        assert not isinstance(event, Note)
        if isinstance(event, RunResult):
            return self.close(event)
        if self.again[event.run_id]:
            self.again[event.run_id] -= 1
            return None
        self.beyond[event.run_id] += 1
        self.losses[event.run_id] = 0
        if isinstance(event, EpochRow):
            self.rows[event.run_id].append(event)
        return event

    def close(self, result: RunResult) -> RunResult:
        """A run's end, with the rows that were told of it, whichever attempt they came from."""
        self.finished.add(result.run_id)
        for counter in (self.again, self.beyond, self.losses):
            counter.pop(result.run_id, None)
        told = self.rows.pop(result.run_id, [])
        return replace(result, rows=tuple(told)) if len(told) >= len(result.rows) else result

    def count_loss(self, job: Job) -> int:
        """How often in a row this job has been lost without a row more."""
        for run in job:
            self.losses[run.run_id] += 1
        return min(self.losses[run.run_id] for run in job)
