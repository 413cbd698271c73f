"""Trackers as the tests of trackers see them: what they hold, and one that remembers."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from runner.errors import UserError
from runner.interfaces.cli.main import main
from runner.monitoring.trackers.registry import openers
from runner.monitoring.trackers.tracker import Opener, TrackedSweep
from runner.storage.rows import CurveRow, EpochRow, ProbeRow, RunEvent, RunResult

CONFIG = """\
name: t
contrast: {axis: network, baseline: no_batch_norm}
fixed: {dataset: digits, batch_size: 250, epochs: 2, device: cpu, evaluations_per_epoch: 2, probes: [histograms, norms]}
grid: {network: [no_batch_norm, batch_norm], lr: [0.01]}
"""

SMALL = CONFIG.replace(", probes: [histograms, norms]", "")

OPTIONS = ("--executor", "inline", "-q", "--out")

SCALARS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "epoch_duration", "run_duration")

TIMING = ["epoch_duration", "run_duration"]

Points = dict[tuple[int, str, int], list[Any]]
"""(run, name, step) → every value that stands there."""


def scalars_of_tensorboard(folder: Path) -> Points:
    pytest.importorskip("tensorboard")
    points: Points = defaultdict(list)
    for run in sorted(folder.glob("run-*")):
        for event in accumulated(run).Tags()["scalars"]:
            for point in accumulated(run).Scalars(event):
                points[int(run.name[4:]), event, point.step].append(point.value)
    return points


def accumulated(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(run), {"scalars": 0, "histograms": 0}).Reload()


def children_of_mlflow(out: Path) -> tuple[Any, Any, dict[int, Any]]:
    """(client, the sweep's run, the runs in it by number)"""
    client, runs = runs_of_mlflow(out)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    numbers = [int(run.data.tags["bnbench.run"]) for run in children]
    assert len(set(numbers)) == len(numbers) == len(runs) - 1
    return client, parents[0], dict(zip(numbers, children, strict=True))


def runs_of_mlflow(out: Path) -> tuple[Any, list[Any]]:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("t")
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))


def scalars_of_mlflow(out: Path) -> Points:
    client, _, children = children_of_mlflow(out)
    points: Points = defaultdict(list)
    for number, run in children.items():
        for name in run.data.metrics:
            for point in client.get_metric_history(run.info.run_id, name):
                points[number, name, point.step].append(point.value)
    return points


def wandb_records(file: Path) -> Iterator[Any]:
    """The records of a file of Weights & Biases: a log as LevelDB writes it, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, block, parts = file.read_bytes(), 7, 32768, b""
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, size, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(parts)
            parts = b""


def scalars_of_wandb(folder: Path) -> Points:
    pytest.importorskip("wandb")
    points: Points = defaultdict(list)
    for file in sorted(folder.glob("offline-run-*/*.wandb")):
        records = list(wandb_records(file))
        config = {item.key: item.value_json for record in records for item in record.run.config.update}
        if "bnbench.run" not in config:
            continue  # the run that has the warnings
        number = int(config["bnbench.run"])
        for record in records:
            values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            for name in set(values) - {"_step", "_timestamp", "_runtime"}:
                points[number, name, values["_step"]].append(values[name])
    return points


def scalars_of_trackio(folder: Path) -> Points:
    trackio = pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    points: Points = defaultdict(list)
    for run in trackio.Api().runs("t"):
        if run.config["bnbench.folder"] != str(folder.resolve()) or "bnbench.run" not in run.config:
            continue
        for row in SQLiteStorage.get_logs("t", run.name, run_id=run.id):
            for name in set(row) - {"step", "timestamp"}:
                points[run.config["bnbench.run"], name, row["step"]].append(row[name])
    return points


def warnings_of(name: str, folder: Path) -> list[str]:
    """The warnings that stand in wandb or Trackio."""
    if name == "trackio":
        import trackio

        configs = [run.config for run in trackio.Api().runs("t") if run.config["bnbench.folder"] == str(folder)]
        return [config["bnbench.warnings"] for config in configs if "bnbench.warnings" in config]
    records = [record for file in folder.glob("wandb/offline-run-*/*.wandb") for record in wandb_records(file)]
    items = [item for record in records for item in record.run.config.update]
    return [json.loads(item.value_json) for item in items if item.key == "bnbench.warnings"]


def by_epoch(points: Points) -> Points:
    return {key: values for key, values in points.items() if key[1] in SCALARS}


def table_of(folder: Path, kind: type = float) -> Points:
    """metrics.csv as points."""
    metrics = pd.read_csv(folder / "metrics.csv")
    return {
        (int(row["run"]), name, int(row["epoch"])): [float(kind(row[name]))]
        for _, row in metrics.iterrows()
        for name in SCALARS
    }


def untimed(folder: Path) -> str:
    metrics = pd.read_csv(folder / "metrics.csv", dtype=str, keep_default_na=False).drop(columns=TIMING)
    return str(metrics.to_csv()) + (folder / "runs.csv").read_text()


def installed(name: str) -> Opener:
    try:
        return openers([name])[name]
    except UserError:
        pytest.skip(f"{name} is not installed")


class Recorder:
    """A tracker that remembers; at the call named by `fails` it raises."""

    def __init__(self, sweep: TrackedSweep, fails: str = "") -> None:
        self.sweep, self.fails, self.where = sweep, fails, "nowhere"
        self.events: list[RunEvent] = []
        self.calls: list[str] = []
        self._call("open")

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails:
            raise RuntimeError("no connection")

    def on_epoch(self, row: EpochRow) -> None:
        self._call("on_epoch")
        self.events.append(row)

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        self._call("on_reading")
        self.events.append(row)

    def on_result(self, result: RunResult) -> None:
        self._call("on_result")
        self.events.append(result)

    def caught_up(self) -> None:
        self._call("caught_up")

    def close(self) -> None:
        self._call("close")


def tracked(out: Path, text: str, *names: str) -> tuple[Path, Result]:
    """Train a config, told to these trackers: (its folder, what the command said)."""
    (out / "t.yaml").write_text(text)
    options = [option for name in names for option in ("--track", name)]
    done = CliRunner().invoke(main, ["run", str(out / "t.yaml"), *OPTIONS, str(out), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return out / "t", done
