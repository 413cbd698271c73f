"""What training reports: plain records, one an epoch and one a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "diverged", "failed", "oom", "timeout", "interrupted"]


@dataclass(frozen=True)
class EpochRow:
    """One epoch of one run. Losses are means over samples in nats, accuracies fractions, durations seconds.

    `step` counts optimizer steps since the run began. Training loss and accuracy are averages over the epoch, taken
    while the weights move; validation follows it, in evaluation mode. `epoch_duration` is the training pass alone,
    `run_duration` everything since the network was built; reading the data is not the run's. Of a stack's time a run
    has its share, one R-th.
    """

    run_id: str
    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float
    epoch_duration: float
    run_duration: float

    @property
    def finite(self) -> bool:
        """Whether the run has not diverged; the training loss is taken before a step, so the last one shows later.

        (The tutorial's RunManager does not validate: both its readings are NaN and say nothing.)
        """
        return math.isfinite(self.train_loss) and (math.isfinite(self.valid_loss) or math.isnan(self.valid_accuracy))


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    `parameter_count` counts trainable numbers. `weights_hash` digests the starting weights outside normalization layers,
    `batches_hash` has one digest of the batch order an epoch: runs that agree in both are paired. `trained_as`
    says how: alone, or in a stack of how many. `weights`, where a sweep keeps them, is a file that `torch.load` reads.
    """

    run_id: str
    status: Status
    rows: tuple[EpochRow, ...] = ()
    parameter_count: int | None = None
    test_loss: float | None = None
    test_accuracy: float | None = None
    weights_hash: str = ""
    batches_hash: str = ""
    error: str = ""
    traceback: str = ""
    trained_as: str = ""
    weights: bytes | None = field(default=None, repr=False)

    @property
    def last(self) -> EpochRow | None:
        return self.rows[-1] if self.rows else None

    @property
    def best(self) -> EpochRow | None:
        """The epoch of the highest validation accuracy, the earliest of equals; an epoch that diverged is never it."""
        finite = [row for row in self.rows if row.finite and math.isfinite(row.valid_accuracy)]
        return max(finite, key=lambda row: row.valid_accuracy, default=None)

    @property
    def outcomes(self) -> dict[str, float]:
        """What it ended with, by the columns of runs.csv, as far as there is any."""
        last, best = self.last, self.best
        found: dict[str, Any] = {
            "train_loss": last and last.train_loss,
            "train_accuracy": last and last.train_accuracy,
            "valid_loss": last and last.valid_loss,
            "valid_accuracy": last and last.valid_accuracy,
            "best_epoch": best and best.epoch,
            "best_valid_accuracy": best and best.valid_accuracy,
            "test_loss": self.test_loss,
            "test_accuracy": self.test_accuracy,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class CurveRow:
    """One reading within an epoch: `epoch` counts passes as a fraction, `duration` the seconds trained so far.

    Training loss and accuracy are averages since the last reading.
    """

    run_id: str
    epoch: float
    step: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float
    duration: float


@dataclass(frozen=True)
class ProbeRow:
    """One measure of a probe; `layer` is the module's name, empty for the whole network."""

    run_id: str
    epoch: float
    step: int
    layer: str
    measure: str
    value: float


@dataclass(frozen=True)
class Checkpoint:
    """What these runs need to go on after an epoch; `state` is `checkpoints.pack`'s."""

    run_ids: tuple[str, ...]
    epoch: int
    state: bytes


@dataclass(frozen=True)
class Note:
    """Something a person should know of where jobs run: a node that was lost, what a job waits for."""

    text: str


RunEvent = EpochRow | CurveRow | ProbeRow | RunResult
"""What a run reports: a row of a table."""

Single = RunEvent | Checkpoint | Note


@dataclass(frozen=True)
class EventBatch:
    """Events that came together: their rows are written together, with one fsync a table."""

    events: tuple[Single, ...]


Event = Single | EventBatch


def _fields(record: type[EpochRow | CurveRow | ProbeRow]) -> Sequence[str]:
    return tuple(name for name in record.__dataclass_fields__ if name != "run_id")


EPOCH_FIELDS = _fields(EpochRow)

CURVE_FIELDS = _fields(CurveRow)

PROBE_FIELDS = _fields(ProbeRow)

FAILED = ("failed", "oom", "timeout")

RETRYABLE = (*FAILED, "diverged")
