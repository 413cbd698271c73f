"""What training reports: plain records, such as one per epoch and one per run.

The texts of a network, such as an error's or a layer's name, can hold anything. In a record they are printable. So
every row, log line and terminal line can be made of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from runner.config.jobs import Form
from runner.errors import printable
from runner.storage.folder import CURVES, PROBES

Status = Literal["ok", "diverged", "failed", "oom", "timeout", "interrupted"]

FAILED = ("failed", "oom", "timeout")

ENDED = ("ok", "diverged")
"""The statuses of runs that have all their rows."""

RETRYABLE = (*FAILED, "diverged")

MEASURES = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")


def _make_printable(record: object, *names: str, keep: str = "\n\t") -> None:
    """Make texts of a frozen record printable."""
    for name in names:
        object.__setattr__(record, name, printable(getattr(record, name), keep))


@dataclass(frozen=True)
class Reading:
    """Loss and accuracy of one run at one moment.

    `epoch` counts passes over the training set, `step` counts optimizer steps since the run began. Losses are means
    over samples in nats, accuracies are fractions. Training loss and accuracy are averages since the last reading,
    taken while the weights move. Validation comes after them, in evaluation mode.
    """

    run_id: str
    epoch: float
    step: int
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float


@dataclass(frozen=True)
class EpochRow(Reading):
    """One epoch of one run; training loss and accuracy are averages over the epoch. Durations are in seconds.

    `epoch_duration` is the training pass alone. `run_duration` is all time since the network was built; it does not
    include reading the data. A run in a stack of R runs has one R-th of the stack's time.

    >>> row = EpochRow("a", 1, 50, 0.61, 0.78, 0.52, 0.81, epoch_duration=2.5, run_duration=3.1)
    >>> row.finite
    True
    """

    epoch: int
    epoch_duration: float
    run_duration: float

    @property
    def finite(self) -> bool:
        """Whether the run has not diverged.

        The training loss is taken before a step, so a last step that diverges shows only in the validation. The
        tutorial's RunManager does not validate: there, loss and accuracy are both NaN, and the training loss decides.
        """
        not_validated = math.isnan(self.valid_accuracy)
        return math.isfinite(self.train_loss) and (math.isfinite(self.valid_loss) or not_validated)


@dataclass(frozen=True)
class CurveRow(Reading):
    """One reading within an epoch. `epoch` is a fraction, `duration` is the seconds that the run has trained so far."""

    table: ClassVar = CURVES
    duration: float


@dataclass(frozen=True)
class ProbeRow:
    """One measure of a probe. `layer` is the module's name; it is empty for the whole network."""

    table: ClassVar = PROBES
    run_id: str
    epoch: float
    step: int
    layer: str
    measure: str
    value: float

    def __post_init__(self) -> None:
        _make_printable(self, "layer", "measure", keep="")


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    `parameter_count` counts trainable numbers. `weights_hash` is a digest of the starting weights outside normalization
    layers, `batches_hash` has one digest of the batch order per epoch. Runs that agree in both are paired.
    `trained_as` says whether the run trained alone or in a stack. `weights` is a file that `torch.load` reads; it is
    None where weights are not saved. `predictions` is a file that `storage.predictions` reads, or None likewise.

    >>> result = RunResult("a", "failed", error="ValueError: no such layer")
    >>> result.last is None, result.outcomes
    (True, {})
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
    predictions: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _make_printable(self, "error", "traceback", "trained_as")

    @property
    def last(self) -> EpochRow | None:
        return self.rows[-1] if self.rows else None

    @property
    def best(self) -> EpochRow | None:
        """The first epoch with the highest validation accuracy. An epoch that diverged is never the best one."""
        finite = [row for row in self.rows if row.finite and math.isfinite(row.valid_accuracy)]
        return max(finite, key=lambda row: row.valid_accuracy, default=None)

    @property
    def outcomes(self) -> dict[str, float]:
        """The outcomes that this run has, by the columns of runs.csv."""
        outcomes: dict[str, Any] = {}
        if last := self.last:
            outcomes |= {name: getattr(last, name) for name in MEASURES}
        if best := self.best:
            outcomes |= {"best_epoch": best.epoch, "best_valid_accuracy": best.valid_accuracy}
        outcomes |= {"test_loss": self.test_loss, "test_accuracy": self.test_accuracy}
        return {name: value for name, value in outcomes.items() if value is not None}


@dataclass(frozen=True)
class Checkpoint:
    """What these runs need to continue after an epoch.

    `state` was made by `checkpoints.pack`. `readings` says how many readings each run has reported by then: table → run
    id → rows. Where the node that trains the runs has written the file, `written_as` is its name, and `state` is empty.
    """

    run_ids: tuple[str, ...]
    epoch: int
    state: bytes
    readings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    written_as: str = ""


@dataclass(frozen=True)
class Note:
    """A message for the user about where jobs run, such as a node that was lost."""

    text: str

    def __post_init__(self) -> None:
        _make_printable(self, "text")


@dataclass(frozen=True)
class StackPlan:
    """What a trial found out about runs that can form stacks.

    `size` is the number of runs in a stack, at most, and `room` the number that fits into the memory by an estimate.
    `obstacle` says why they must train alone; it is empty where they can be stacked. `seconds` are the measured seconds
    per run and step, or why there are none, by candidate ("loop x 4"). `reason` says why the trial chose this form and
    size.
    """

    run_ids: tuple[str, ...]
    size: int = 1
    form: Form = "grouped"
    obstacle: str = ""
    seconds: Mapping[str, float | str] = field(default_factory=dict)
    reason: str = ""
    room: int | None = None

    def __post_init__(self) -> None:
        _make_printable(self, "obstacle", "reason")
        seconds = {name: printable(value) if isinstance(value, str) else value for name, value in self.seconds.items()}
        object.__setattr__(self, "seconds", seconds)


PLURAL = {
    "one stack": "{} stacks",
    "a CUDA graph": "{} CUDA graphs",
    "one stack in a CUDA graph": "{} stacks in CUDA graphs",
}
"""What runs can be planned as, and how several of them are called."""


@dataclass(frozen=True)
class Shortfall:
    """These runs were to train as `planned`, but trained as `instead` says, because of `reason`.

    `parts` has a tuple of run ids for each new job: a stack of this `form`, or a run alone where it is None. It is
    empty if the job keeps its runs. `traceback` is empty if the reason is no error.

    >>> shortfall = Shortfall(("a", "b"), "one stack", "alone", "a layer has hooks", parts=(("a",), ("b",)))
    >>> print(shortfall)
    2 runs were to train as one stack, but trained alone: a layer has hooks
    >>> shortfall.note
    'a layer has hooks (planned: one stack of 2)'
    """

    run_ids: tuple[str, ...]
    planned: str
    instead: str
    reason: str
    parts: tuple[tuple[str, ...], ...] = ()
    form: Form | None = None
    traceback: str = ""

    def __post_init__(self) -> None:
        _make_printable(self, "planned", "instead", "reason", "traceback")

    @property
    def note(self) -> str:
        """The note of the jobs that the parts are."""
        return f"{self.reason} (planned: {self.planned} of {len(self.run_ids)})"

    def __str__(self) -> str:
        runs = "1 run was" if len(self.run_ids) == 1 else f"{len(self.run_ids)} runs were"
        return f"{runs} to train as {self.planned}, but trained {self.instead}: {self.reason}"


RunEvent = EpochRow | CurveRow | ProbeRow | RunResult
"""What a run reports: a row of a table."""

Single = RunEvent | Checkpoint | Note | StackPlan | Shortfall


@dataclass(frozen=True)
class EventBatch:
    """Events that came together. Their rows are written together, with one fsync per table."""

    events: tuple[Single, ...]


Event = Single | EventBatch


def _columns(row: type[EpochRow | CurveRow | ProbeRow]) -> tuple[str, ...]:
    return tuple(column.name for column in fields(row) if column.name != "run_id")


EPOCH_FIELDS, CURVE_FIELDS, PROBE_FIELDS = _columns(EpochRow), _columns(CurveRow), _columns(ProbeRow)
