"""MLflow: an experiment for each sweep's name, in it a run for the sweep, and child runs for the sweep's runs.

Where `MLFLOW_TRACKING_URI` is not set, the store is `mlflow.db` (SQLite) in the results folder. MLflow cannot delete
single points. So a run that is trained again, whole or in part, becomes a new MLflow run, and the old one is deleted.
"""

import hashlib
import os
import time
from collections import defaultdict
from typing import Any

from runner.errors import cut
from runner.monitoring.trackers.tracker import Opener, TrackedSweep, require
from runner.storage.files import is_regular
from runner.storage.folder import CONFIG, CURVES, ENVIRONMENT, LOG, METRICS, PROBES, RUNS
from runner.storage.rows import EPOCH_FIELDS, FAILED, CurveRow, EpochRow, ProbeRow, RunResult

SCALARS = tuple(name for name in EPOCH_FIELDS if name != "epoch")
ARTIFACTS = (CONFIG, ENVIRONMENT, METRICS, RUNS, CURVES, PROBES, LOG)

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for the comparison
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}

FOLDER, RUN_ID, DIGEST, STATUS = "bnbench.folder", "bnbench.run_id", "bnbench.digest", "bnbench.status"
NUMBER, PARENT, WARNINGS = "bnbench.run", "mlflow.parentRunId", "bnbench.warnings"
MOST_OF_A_TAG = 5000
STATUSES = {"interrupted": "KILLED", **dict.fromkeys(FAILED, "FAILED")}


def mlflow() -> Opener:
    """Runs in MLflow: the server that MLFLOW_TRACKING_URI names, else mlflow.db in the results folder."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)  # what the user has set stays
    require("MLflow", "mlflow", ("mlflow.tracking", "sqlalchemy", "alembic"))
    return MLflow


class MLflow:
    """Writes to one MLflow store: the runs of the tables run by run, then what is trained epoch by epoch."""

    def __init__(self, sweep: TrackedSweep) -> None:
        from mlflow.tracking import MlflowClient

        self.sweep = sweep
        folder = (sweep.output or sweep.folder.parent).resolve()
        uri = None if sweep.output else os.environ.get("MLFLOW_TRACKING_URI")
        artifacts = None
        if not uri:
            folder.mkdir(parents=True, exist_ok=True)
            uri, artifacts = f"sqlite:///{folder / 'mlflow.db'}", (folder / "mlartifacts").as_uri()
        self.where = uri
        self.client = client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(sweep.name)
        if experiment:
            self.experiment = experiment.experiment_id
        else:
            self.experiment = client.create_experiment(sweep.name, artifacts)
        self._earlier: dict[str, list[Any]] = defaultdict(list)
        """Run id → the MLflow runs that an earlier command wrote."""
        self.parent = self._open_parent()
        self._children: dict[str, Any] = {}
        """Run id → the `RunInfo` of the MLflow run that this command writes."""
        self._waiting: dict[str, list[EpochRow]] = defaultdict(list)
        """Run id → rows that are not sent yet."""
        self._ended: set[str] = set()
        self._live = False

    def on_epoch(self, row: EpochRow) -> None:
        self._waiting[row.run_id].append(row)
        if self._live:
            self._send(row.run_id)

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        """Readings within an epoch are in the artifacts: MLflow's steps are whole numbers, and here epochs."""

    def on_result(self, result: RunResult) -> None:
        run_id, digest = result.run_id, _digest(result)
        if result.status != "interrupted":
            self._ended.add(run_id)
        if run_id not in self._children and self._keep_earlier(run_id, digest):
            self._waiting.pop(run_id, None)
            return
        child, last = self._send(run_id), result.last
        outcomes = {name: value for name, value in result.outcomes.items() if name not in SCALARS}
        if result.parameter_count is not None:
            outcomes["parameters"] = result.parameter_count
        end, epoch = _milliseconds(child, last), last.epoch if last else 0
        self._send_metrics(child, [(name, float(value), end, epoch) for name, value in outcomes.items()])
        self.client.set_tag(child.run_id, STATUS, result.status)
        self.client.set_terminated(child.run_id, STATUSES.get(result.status, "FINISHED"), end)
        self.client.set_tag(child.run_id, DIGEST, digest)  # last: now the MLflow run is complete

    def caught_up(self) -> None:
        for run_id in list(self._waiting):  # runs that continue from a checkpoint
            self._send(run_id)
        for run_id in list(self._earlier):
            self._delete_earlier(run_id)
        self._live = True

    def close(self) -> None:
        for name in ARTIFACTS:
            if is_regular(self.sweep.folder / name):
                self.client.log_artifact(self.parent, str(self.sweep.folder / name))
        if warnings := self.sweep.warnings():
            self.client.set_tag(self.parent, WARNINGS, cut(" ".join(warnings), MOST_OF_A_TAG))
        status = "FINISHED" if len(self._ended) == self.sweep.planned else "KILLED"
        self.client.set_terminated(self.parent, status)

    def _open_parent(self) -> str:
        """Find the MLflow run of this sweep by its folder, and its children; or create it. Returns its id."""
        folder = str(self.sweep.folder.resolve())
        runs = self._all_runs()
        known = [run.info.run_id for run in runs if run.data.tags.get(FOLDER) == folder]
        parent: str | None = known[0] if known else None
        if parent is None:
            axis = {"bnbench.axis": self.sweep.axis} if self.sweep.axis else {}
            tags = {FOLDER: folder, **axis}
            run = self.client.create_run(self.experiment, tags=tags, run_name=self.sweep.name)
            return str(run.info.run_id)
        self.client.update_run(parent, "RUNNING")
        for run in runs:
            if run.data.tags.get(PARENT) == parent:
                self._earlier[run.data.tags.get(RUN_ID, "")].append(run)
        return parent

    def _all_runs(self) -> list[Any]:
        page = self.client.search_runs([self.experiment], max_results=1000)
        runs = list(page)
        while page.token:
            page = self.client.search_runs([self.experiment], max_results=1000, page_token=page.token)
            runs += page
        return runs

    def _keep_earlier(self, run_id: str, digest: str) -> bool:
        """Whether MLflow has this result already. Then only the run's number changes, if the sweep has grown."""
        earlier = self._earlier[run_id]
        run = next((run for run in earlier if run.data.tags.get(DIGEST) == digest), None)
        if run is None:
            return False
        earlier.remove(run)
        number = str(self.sweep.runs[run_id].number)
        if run.data.tags.get(NUMBER) != number:
            self.client.update_run(run.info.run_id, name=self._name(run_id))
            self.client.set_tag(run.info.run_id, NUMBER, number)
        return True

    def _delete_earlier(self, run_id: str) -> None:
        for run in self._earlier.pop(run_id, ()):
            self.client.delete_run(run.info.run_id)

    def _send(self, run_id: str) -> Any:
        """Send the rows of a run that wait. Returns the `RunInfo` of its MLflow run, which is created if need be."""
        if run_id not in self._children:
            self._delete_earlier(run_id)
            self._children[run_id] = self._create_child(run_id)
        child = self._children[run_id]
        rows = [(row, _milliseconds(child, row)) for row in self._waiting.pop(run_id, [])]
        points = [(name, getattr(row, name), at, row.epoch) for row, at in rows for name in SCALARS]
        self._send_metrics(child, points)
        return child

    def _create_child(self, run_id: str) -> Any:
        from mlflow.entities import Param

        run, now = self.sweep.runs[run_id], int(time.time() * 1000)
        tags = {PARENT: self.parent, RUN_ID: run_id, NUMBER: str(run.number)}
        child = self.client.create_run(self.experiment, now, tags, self._name(run_id)).info
        parameters = [Param(name, text) for name, text in run.parameters.items()]
        self.client.log_batch(child.run_id, params=parameters)
        return child

    def _name(self, run_id: str) -> str:
        """The name of an MLflow run: the run's number and grid values."""
        values = [f"{name}={text}" for name, text in self.sweep.grid_values(run_id).items()]
        return " ".join([self.sweep.runs[run_id].name, *values])

    def _send_metrics(self, child: Any, values: list[tuple[str, float, int, int]]) -> None:
        """Send (name, value, time, epoch)s of one run."""
        from mlflow.entities import Metric

        self.client.log_batch(child.run_id, metrics=[Metric(*value) for value in values])


def _milliseconds(child: Any, row: EpochRow | None) -> int:
    """The time stamp of an epoch's end: the run's own duration after the start of its MLflow run, also in an export."""
    return int(child.start_time) + round(1000 * row.run_duration if row else 0)


def _digest(result: RunResult) -> str:
    kept = (result.status, result.rows, result.parameter_count, result.test_loss, result.test_accuracy)
    return hashlib.sha256(repr(kept).encode()).hexdigest()
