"""A tracker whose tool has a run for each run of the sweep, with values by epoch: what wandb and trackio share.

Such a tool cannot delete single points. So what an earlier command wrote about this sweep is deleted first, and then
every run is sent again. Readings within an epoch are not sent: the tools' steps are whole numbers, and here epochs.
"""

import hashlib
from typing import Any

from runner.monitoring.trackers.tracker import TrackedSweep
from runner.storage.rows import EPOCH_FIELDS, CurveRow, EpochRow, ProbeRow, RunResult

SCALARS = tuple(name for name in EPOCH_FIELDS if name not in ("epoch", "step"))
FOLDER, RUN_ID, NUMBER, STATUS = "bnbench.folder", "bnbench.run_id", "bnbench.run", "bnbench.status"
WARNINGS = "bnbench.warnings"


class RunByRun:
    """Sends each run of a sweep. What a tool does in its own way is in `_start` and `_finish`."""

    where: str

    def __init__(self, sweep: TrackedSweep) -> None:
        self.sweep, self._home = sweep, str(sweep.folder.resolve())
        self._open: dict[str, Any] = {}
        """Run id → the tool's run, which has not ended."""
        self._last: dict[str, int] = {}
        """Run id → its last epoch."""

    def _start(self, key: str, name: str, settings: dict[str, Any]) -> Any:
        """Start a run of the tool. `key` is equal for the same run in another call."""
        raise NotImplementedError

    def _finish(self, run: Any, outcomes: dict[str, Any], epoch: int) -> None:
        """Send the outcomes of a run after its last epoch, and end it."""
        raise NotImplementedError

    def on_epoch(self, row: EpochRow) -> None:
        self._last[row.run_id] = row.epoch
        self._run(row.run_id).log({name: getattr(row, name) for name in SCALARS}, step=row.epoch)

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        """Readings within an epoch are in the tables only."""

    def on_result(self, result: RunResult) -> None:
        outcomes = {f"result/{name}": value for name, value in result.outcomes.items()}
        if result.parameter_count is not None:
            outcomes["result/parameters"] = result.parameter_count
        run = self._run(result.run_id)
        del self._open[result.run_id]
        self._finish(run, {**outcomes, STATUS: result.status}, self._last.get(result.run_id, 0))

    def caught_up(self) -> None:
        """Everything is sent already."""

    def close(self) -> None:
        for run_id in list(self._open):  # runs without a result
            self._finish(self._open.pop(run_id), {STATUS: "interrupted"}, self._last[run_id])
        if warnings := self.sweep.warnings():
            # They are known at the end, when the other runs are closed. So they stand in a run of their own.
            settings = {FOLDER: self._home, WARNINGS: " ".join(warnings)}
            self._finish(self._start("warnings", "warnings", settings), {STATUS: "ok"}, 0)

    def _run(self, run_id: str) -> Any:
        if run_id not in self._open:
            self._open[run_id] = self._start(run_id, self._name(run_id), self._settings(run_id))
        return self._open[run_id]

    def _name(self, run_id: str) -> str:
        """The name of a run: its number and grid values."""
        values = [f"{name}={text}" for name, text in self.sweep.grid_values(run_id).items()]
        return " ".join([self.sweep.runs[run_id].name, *values])

    def _settings(self, run_id: str) -> dict[str, Any]:
        """What the tool shows of a run: its parameters, and where it comes from."""
        run = self.sweep.runs[run_id]
        return {**run.parameters, FOLDER: self._home, RUN_ID: run_id, NUMBER: run.number}


def digest(text: str) -> str:
    """Eight characters that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
