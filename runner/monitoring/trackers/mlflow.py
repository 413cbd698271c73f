"""MLflow: an experiment for each sweep's name, a run for the sweep, and in it a run for each of its runs.

Where `MLFLOW_TRACKING_URI` is not set, the store is `mlflow.db` (SQLite) in the results folder. MLflow deletes no
single point, so a run that is trained again, whole or in part, is a new MLflow run, and the old one goes to its bin.
"""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

from runner.monitoring.trackers.tracker import Opener, TrackedSweep, require
from runner.storage.folder import CONFIG, CURVES, ENVIRONMENT, LOG, METRICS, PROBES, RUNS
from runner.storage.rows import EPOCH_FIELDS, FAILED, CurveRow, EpochRow, ProbeRow, RunResult

SCALARS = tuple(name for name in EPOCH_FIELDS if name != "epoch")
ARTIFACTS = (CONFIG, ENVIRONMENT, METRICS, RUNS, CURVES, PROBES, LOG)
MAX_METRICS, MAX_PARAMETERS = 1000, 100
"""Of one request (MLflow's limits)."""

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would report home
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is the comparison's
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}

FOLDER, RUN_ID, DIGEST, STATUS = "bnbench.folder", "bnbench.run_id", "bnbench.digest", "bnbench.status"
NUMBER, PARENT = "bnbench.run", "mlflow.parentRunId"


def mlflow() -> Opener:
    """Runs in MLflow: the server that MLFLOW_TRACKING_URI names, else mlflow.db in the results folder."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)  # the user's word stands
    require("MLflow", "mlflow", ("mlflow.tracking", "sqlalchemy", "alembic"))
    return MLflow


class MLflow:
    """Talks to one MLflow store. What the tables hold is sent a run at a time, what is trained an epoch at a time."""

    def __init__(self, sweep: TrackedSweep) -> None:
        from mlflow.tracking import MlflowClient

        self.sweep = sweep
        folder = sweep.output or sweep.folder.parent
        uri = None if sweep.output else os.environ.get("MLFLOW_TRACKING_URI")
        artifacts = None
        if not uri:
            folder.mkdir(parents=True, exist_ok=True)
            uri, artifacts = f"sqlite:///{folder.resolve() / 'mlflow.db'}", (folder.resolve() / "mlartifacts").as_uri()
        self.where = uri
        self.client = MlflowClient(uri)
        found = self.client.get_experiment_by_name(sweep.name)
        self.experiment = (
            found.experiment_id if found else self.client.create_experiment(sweep.name, artifact_location=artifacts)
        )
        self.parent, self._there = self._what_is_there()
        self._children: dict[str, Any] = {}  # the MLflow runs begun now, by our run's id
        self._waiting: dict[str, list[EpochRow]] = {}
        self._ended: set[str] = set()
        self._live = False

    def on_epoch(self, row: EpochRow) -> None:
        self._waiting.setdefault(row.run_id, []).append(row)
        if self._live:
            self._send(row.run_id)

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        """Readings within an epoch are in the artifacts: MLflow's steps are whole, and here epochs."""

    def on_result(self, result: RunResult) -> None:
        run_id, digest = result.run_id, _digest(result)
        if result.status != "interrupted":
            self._ended.add(run_id)
        if run_id not in self._children and self._is_there(run_id, digest):
            self._waiting.pop(run_id, None)
            return
        child, last = self._send(run_id), result.last
        found = {"parameters": result.parameter_count, **result.outcomes}
        extra = {name: float(value) for name, value in found.items() if value is not None and name not in SCALARS}
        ended = _at(child, last)
        self._metrics(child, [(name, value, ended, last.epoch if last else 0) for name, value in extra.items()])
        self.client.set_tag(child.info.run_id, STATUS, result.status)
        status = "KILLED" if result.status == "interrupted" else "FAILED" if result.status in FAILED else "FINISHED"
        self.client.set_terminated(child.info.run_id, status, end_time=ended)
        self.client.set_tag(child.info.run_id, DIGEST, digest)  # last: it is whole

    def caught_up(self) -> None:
        for run_id in list(self._waiting):  # runs that go on from a checkpoint
            self._send(run_id)
        for run_id in list(self._there):
            self._drop(run_id)
        self._live = True

    def close(self) -> None:
        for name in ARTIFACTS:
            if (self.sweep.folder / name).exists():
                self.client.log_artifact(self.parent, str(self.sweep.folder / name))
        status = "FINISHED" if len(self._ended) == self.sweep.planned else "KILLED"
        self.client.set_terminated(self.parent, status)

    def _what_is_there(self) -> tuple[str, dict[str, list[Any]]]:
        """The MLflow run of this sweep, by its folder, begun where there is none; and its children by our run's id."""
        folder = str(self.sweep.folder.resolve())
        runs: list[Any] = []
        token: str | None = None
        while token != "":
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=token)
            runs, token = [*runs, *page], page.token or ""
        parent = next((run.info.run_id for run in runs if run.data.tags.get(FOLDER) == folder), None)
        if parent:
            self.client.update_run(parent, "RUNNING")
        else:
            contrast = {"bnbench.axis": self.sweep.axis} if self.sweep.axis else {}
            tags = {FOLDER: folder, **contrast}
            parent = self.client.create_run(self.experiment, tags=tags, run_name=self.sweep.name).info.run_id
        there: dict[str, list[Any]] = {}
        for run in runs:
            if run.data.tags.get(PARENT) == parent:
                there.setdefault(run.data.tags.get(RUN_ID, ""), []).append(run)
        return parent, there

    def _is_there(self, run_id: str, digest: str) -> bool:
        """Whether MLflow has this very result; then it is left alone, but for its number in a sweep that has grown."""
        for run in self._there.get(run_id, ()):
            if run.data.tags.get(DIGEST) == digest:
                self._there[run_id].remove(run)
                number, name = self._name(run_id)
                if run.data.tags.get(NUMBER) != number:
                    self.client.update_run(run.info.run_id, name=name)
                    self.client.set_tag(run.info.run_id, NUMBER, number)
                return True
        return False

    def _drop(self, run_id: str) -> None:
        for run in self._there.pop(run_id, ()):
            self.client.delete_run(run.info.run_id)

    def _send(self, run_id: str) -> Any:
        """Hand over the rows that wait; returns the run's MLflow run, begun where it is not."""
        if run_id not in self._children:
            self._drop(run_id)
            self._children[run_id] = self._begin(run_id)
        child = self._children[run_id]
        rows = self._waiting.pop(run_id, [])
        values = [(name, getattr(row, name), _at(child, row), row.epoch) for row in rows for name in SCALARS]
        self._metrics(child, values)
        return child

    def _begin(self, run_id: str) -> Any:
        from mlflow.entities import Param

        number, name = self._name(run_id)
        tags = {PARENT: self.parent, RUN_ID: run_id, NUMBER: number}
        now = int(time.time() * 1000)
        child = self.client.create_run(self.experiment, start_time=now, tags=tags, run_name=name)
        params = [Param(name, value) for name, value in self.sweep.runs[run_id].parameters.items()]
        for start in range(0, len(params), MAX_PARAMETERS):
            self.client.log_batch(child.info.run_id, params=params[start : start + MAX_PARAMETERS])
        return child

    def _name(self, run_id: str) -> tuple[str, str]:
        """A run's number as a tag, and what it is called: its number and grid values."""
        run = self.sweep.runs[run_id]
        grid = [f"{name}={run.parameters[name]}" for name in self.sweep.grid_keys if name in run.parameters]
        return str(run.number), " ".join([f"run-{run.number:03}", *grid])

    def _metrics(self, child: Any, values: list[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(*value) for value in values]
        for start in range(0, len(metrics), MAX_METRICS):
            self.client.log_batch(child.info.run_id, metrics=metrics[start : start + MAX_METRICS])


def _at(child: Any, row: EpochRow | None) -> int:
    """When an epoch ended, in milliseconds: the run's own time after the MLflow run's beginning, also of a replay."""
    return int(child.info.start_time) + round(1000 * row.run_duration if row else 0)


def _digest(result: RunResult) -> str:
    kept = (result.status, result.rows, result.parameter_count, result.test_loss, result.test_accuracy)
    return hashlib.sha256(repr(kept).encode()).hexdigest()
