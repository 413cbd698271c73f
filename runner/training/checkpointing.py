"""What a training job checkpoints, and what it goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

from runner.config.jobs import Job
from runner.storage import checkpoints
from runner.storage.checkpoints import NEVER, Every
from runner.storage.rows import Checkpoint, EpochRow
from runner.training.learners.learner import State


@dataclass(frozen=True)
class Checkpointing:
    """How often to yield a `Checkpoint`, the file that each run goes on from, where it has one, and whether a run's
    result carries its final weights.
    """

    every: Every = NEVER
    files: Mapping[str, Path] = field(default_factory=dict)
    final: bool = False


@dataclass(frozen=True)
class Unpacked:
    """A checkpoint before it is bytes."""

    job: Job
    epoch: int
    step: int
    trained: float
    elapsed: float
    hashes: Sequence[Sequence[str]]
    state: State

    def checkpoint(self, rows: Mapping[str, Sequence[EpochRow]]) -> Checkpoint:
        """With the rows told so far, which a run's result looks back on."""
        run_ids = tuple(run.run_id for run in self.job)
        values = {
            "runs": list(run_ids),
            "epoch": self.epoch,
            "step": self.step,
            "trained": self.trained,
            "elapsed": self.elapsed,
            "hashes": [list(of_run) for of_run in self.hashes],
            "rows": {run_id: [list(astuple(row)) for row in rows[run_id]] for run_id in run_ids},
            "tensors": self.state.tensors,
            "averages": self.state.averages,
            "steps": self.state.steps,
        }
        return Checkpoint(run_ids, self.epoch, checkpoints.pack(values))
