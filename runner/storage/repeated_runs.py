"""Finished runs that train again, because another run of their stack is not finished."""

from collections.abc import Collection
from pathlib import Path

from runner.errors import UserError
from runner.storage.folder import METRICS, RUNS
from runner.storage.rows import FAILED, MEASURES, EpochRow, RunEvent, RunResult, Single
from runner.storage.tables import cell, each_row

OUTCOMES = ("status", "test_loss", "test_accuracy", "weights_hash", "batches_hash")


class NotRepeatedError(UserError):
    """A finished run that trained again gave other numbers."""


class RepeatedRuns:
    """The rows of finished runs that train again with their stack. Only the folder's rows are kept.

    The new rows of the runs `verified` must be equal to them, except for the timing columns. A run that failed is not
    compared: its worker may have died at any epoch.
    """

    def __init__(self, folder: Path, run_ids: Collection[str] = (), verified: Collection[str] = ()) -> None:
        self.folder, self.run_ids, self.verified = folder, set(run_ids), set(verified)
        epochs, results = (each_row(folder / name) if run_ids else () for name in (METRICS, RUNS))
        self.epochs = {(row["run_id"], row["epoch"]): row for row in epochs if row["run_id"] in self.run_ids}
        self.results = {row["run_id"]: row for row in results if row["run_id"] in self.run_ids}
        self.verified -= {run_id for run_id, row in self.results.items() if row["status"] in FAILED}

    def is_repeated(self, event: Single) -> bool:
        """Whether the folder has this event already. Errors: NotRepeatedError where it has another row for it."""
        if not isinstance(event, RunEvent) or event.run_id not in self.run_ids:
            return False
        if event.run_id in self.verified:
            if isinstance(event, EpochRow):
                self._compare(event, ("step", *MEASURES), self.epochs.get((event.run_id, str(event.epoch))))
            elif isinstance(event, RunResult) and event.status not in FAILED:
                self._compare(event, OUTCOMES, self.results.get(event.run_id))
        return True

    def _compare(self, event: EpochRow | RunResult, names: Collection[str], stored: dict[str, str] | None) -> None:
        for name in names:
            now = cell(getattr(event, name))
            then = stored[name] if stored else "no row"
            if now != then:
                number = self.results[event.run_id]["run"]
                at = f" at epoch {event.epoch}" if isinstance(event, EpochRow) else ""
                raise NotRepeatedError(
                    f"{self.folder}: run {number} trained again with its stack and gave another {name}{at} "
                    f"({then} then, {now} now); the other runs of its stack cannot be finished to the same "
                    "table; use bnbench run --fresh to start over"
                )
