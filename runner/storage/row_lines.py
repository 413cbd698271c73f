"""The columns of a sweep's tables, and the lines of their rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from runner.storage.folder import CURVES, METRICS, PROBES, RUNS
from runner.storage.tables import FIELDS, cell, csv_text

Parameters = Mapping[str, Mapping[str, Any]]
"""Run id → the run's parameters by name."""


class RowLines:
    """Turns records into lines. `columns` and `runs` are those of `Store`. `number` maps a run's id to its number."""

    def __init__(self, columns: Sequence[str], runs: Parameters) -> None:
        self.columns, self.runs = tuple(columns), runs
        self.number = {run_id: number for number, run_id in enumerate(runs, start=1)}
        # run id → the last cells of each of its rows, of the runs that train
        self._cells: dict[str, list[str]] = {}

    @property
    def headers(self) -> dict[str, list[str]]:
        """The tables of this sweep and their columns."""
        headers = {name: [*FIELDS[name], *self.columns, "run_id"] for name in (RUNS, METRICS)}
        if any(parameters.get("evaluations_per_epoch", 1) > 1 for parameters in self.runs.values()):
            headers[CURVES] = [*FIELDS[CURVES], "run_id"]
        if any(parameters.get("probes") for parameters in self.runs.values()):
            headers[PROBES] = [*FIELDS[PROBES], "run_id"]
        return headers

    def of(self, name: str, record: Mapping[str, Any]) -> str:
        """A line of a table from a record by column. The run's number and parameters are added."""
        run_id = record["run_id"]
        record = {**record, "run": self.number[run_id]}
        parameters = self._parameters(run_id) if name in (RUNS, METRICS) else [run_id]
        return csv_text([[*(cell(record.get(column)) for column in FIELDS[name]), *parameters]])

    def _parameters(self, run_id: str) -> list[str]:
        if run_id not in self._cells:
            parameters = self.runs[run_id]
            self._cells[run_id] = [*(cell(parameters.get(column)) for column in self.columns), run_id]
        return self._cells[run_id]

    def forget(self, run_id: str) -> None:
        """A run has ended: its cells are not kept any more."""
        self._cells.pop(run_id, None)
