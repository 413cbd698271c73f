"""What the runs of a job need to continue after an epoch, and the checkpoint that holds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from runner.storage import checkpoints
from runner.storage.rows import Checkpoint, EpochRow
from runner.training.learners.learner import State


@dataclass(frozen=True)
class TrainingState:
    """The state of R runs after an epoch.

    `step` counts optimizer steps, `trained` the seconds of training and `elapsed` all seconds, both per run.
    `batch_digests` has a digest per run and epoch. `learner` is the learner's own state.
    """

    run_ids: tuple[str, ...]
    epoch: int
    step: int
    trained: float
    elapsed: float
    batch_digests: Sequence[Sequence[str]]
    learner: State

    @classmethod
    def of(cls, saved: Mapping[str, Any], run_ids: Sequence[str]) -> TrainingState:
        """The state of these runs in a loaded checkpoint, which may hold more runs."""
        index = [saved["runs"].index(run_id) for run_id in run_ids]
        return cls(
            run_ids=tuple(run_ids),
            epoch=saved["epoch"],
            step=saved["step"],
            trained=saved["trained"],
            elapsed=saved["elapsed"],
            batch_digests=[list(saved["hashes"][i]) for i in index],
            learner=State(saved["tensors"], saved["averages"], saved["steps"]).of(index),
        )

    def checkpoint(self, rows: Mapping[str, Sequence[EpochRow]]) -> Checkpoint:
        """The checkpoint, with the rows of the runs so far, which their results will repeat."""
        values = {
            "runs": list(self.run_ids),
            "epoch": self.epoch,
            "step": self.step,
            "trained": self.trained,
            "elapsed": self.elapsed,
            "hashes": [list(digests) for digests in self.batch_digests],
            "rows": {run_id: [list(astuple(row)) for row in rows[run_id]] for run_id in self.run_ids},
            "tensors": self.learner.tensors,
            "averages": self.learner.averages,
            "steps": self.learner.steps,
        }
        return Checkpoint(self.run_ids, self.epoch, checkpoints.pack(values))
