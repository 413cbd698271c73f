"""Trackers: what is read back is the tables, live, after a kill, and afterwards; one that fails fails nothing else."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result

from runner import factories, registry
from runner.monitoring.trackers.registry import openers, tracker
from runner.monitoring.trackers.tracker import Opener, TrackedSweep
from tests.monitoring.tracking import (
    CONFIG,
    OPTIONS,
    SCALARS,
    SMALL,
    Points,
    Recorder,
    accumulated,
    by_epoch,
    children_of_mlflow,
    installed,
    runs_of_mlflow,
    scalars_of_mlflow,
    scalars_of_tensorboard,
    table_of,
    tracked,
    untimed,
)

Bnbench = Callable[..., Result]

Write = Callable[[str, str], Path]


@pytest.fixture(scope="module", autouse=True)
def _own_store() -> Iterator[None]:
    """MLflow's store is the sweep's, whatever the shell says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], None]:
    """Put an MLflow store without runs into a folder; making its tables takes longer than all a test does with them."""
    store = tmp_path_factory.mktemp("store") / "mlflow.db"

    def put(folder: Path) -> None:
        if not importlib.util.find_spec("mlflow"):
            return
        if not store.exists():
            openers(["mlflow"])
            from mlflow.tracking import MlflowClient

            MlflowClient(f"sqlite:///{store}").search_experiments()
        shutil.copy(store, folder)

    return put


@pytest.fixture
def record() -> Iterator[Callable[..., list[Recorder]]]:
    """Register a Recorder as a tracker called 'recorder'; returns the list of those opened."""
    opened: list[Recorder] = []

    def register(fails: str = "") -> list[Recorder]:
        def open_one(sweep: TrackedSweep) -> Recorder:
            opened.append(Recorder(sweep, fails))
            return opened[-1]

        @tracker("recorder")
        def recorder() -> Opener:
            return open_one

        return opened

    with tracker.temporary():
        yield register


def test_an_export_is_told_what_a_live_tracker_was(
    bnbench: Bnbench, tmp_path: Path, record: Callable[..., list[Recorder]]
) -> None:
    opened = record()
    folder, _ = tracked(tmp_path, CONFIG.replace("histograms, ", ""), "recorder")
    done = bnbench("export", folder, "--format", "recorder")
    assert (done.exit_code, done.stdout) == (0, "nowhere\n")
    live, exported = opened
    assert live.sweep == exported.sweep
    assert len(live.events) > 100
    assert live.events == exported.events
    assert (live.calls[1], live.calls[-1]) == ("caught_up", "close")
    assert exported.calls[-2:] == ["caught_up", "close"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """The small sweep without a tracker."""
    return tracked(tmp_path_factory.mktemp("alone"), SMALL)


@pytest.mark.parametrize("call", ["open", "caught_up", "on_epoch", "on_reading", "on_result", "close"])
def test_a_tracker_that_fails_never_fails_the_sweep(
    call: str, alone: tuple[Path, Result], bnbench: Bnbench, tmp_path: Path, record: Callable[..., list[Recorder]]
) -> None:
    opened = record(call)
    folder, done = tracked(tmp_path, SMALL, "recorder")
    assert done.stdout == alone[1].stdout
    assert untimed(folder) == untimed(alone[0])
    assert done.stderr.count("recorder failed") == 1
    assert f"bnbench export {folder} --format recorder" in done.stderr
    log = (folder / "run.log").read_text()
    assert log.count("RuntimeError: no connection") == 2  # the message, and the traceback's last line
    assert opened == [] or opened[0].calls.count(call) == 1
    refused = bnbench("export", folder, "--format", "recorder")
    assert (refused.exit_code, "RuntimeError: no connection" in refused.stderr) == (2, True)


@pytest.mark.parametrize("name", sorted(tracker))
def test_contract_of_every_tracker(
    name: str,
    alone: tuple[Path, Result],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    empty_store: Callable[[Path], None],
) -> None:
    assert factories.summary(tracker[name])
    opener = installed(name)
    out, other = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("failing")
    empty_store(out)
    empty_store(other)
    folder, done = tracked(out, SMALL, name)
    assert (done.stdout, done.stderr) == (alone[1].stdout, alone[1].stderr)
    assert untimed(folder) == untimed(alone[0])

    def fails(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(opener, "on_epoch", fails)
    folder, done = tracked(other, SMALL, name)
    assert done.stdout == alone[1].stdout
    assert done.stderr.count(f"{name} failed") == 1
    assert untimed(folder) == untimed(alone[0])


@pytest.mark.parametrize("command", ["run", "resume", "export"])
@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("tensorboard", "tensorboard.summary.writer.record_writer"),
        ("mlflow", "mlflow.tracking"),
        ("wandb", "wandb"),
        ("trackio", "trackio"),
    ],
)
def test_an_absent_package_is_told_before_anything_is_done(
    command: str,
    name: str,
    module: str,
    bnbench: Bnbench,
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    config = write("t.yaml", SMALL)
    folder = tmp_path / "t"
    if command == "resume":
        folder.mkdir()
        (folder / "config.yaml").write_text(SMALL)
    done = {
        "run": lambda: bnbench("run", config, *OPTIONS, tmp_path, "--track", name),
        "resume": lambda: bnbench("resume", folder, "--track", name),
        "export": lambda: bnbench("export", folder, "--format", name),
    }[command]()
    assert done.exit_code == 2
    assert f"pip install 'bnbench[{name}]'" in done.stderr
    assert not (folder / "metrics.csv").exists()
    assert command == "resume" or not folder.exists()


def test_an_unknown_tracker_is_told_before_anything_is_done(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    done = bnbench("run", write("t.yaml", SMALL), *OPTIONS, tmp_path, "--track", "tensorbord")
    assert (done.exit_code, done.stderr) == (
        2,
        "unknown tracker 'tensorbord'; did you mean 'tensorboard'? allowed: mlflow, tensorboard, trackio, wandb\n",
    )
    assert not (tmp_path / "t").exists()
    done = bnbench("export", tmp_path, "--format", "tutorail")
    allowed = "mlflow, tensorboard, trackio, tutorial, wandb"
    assert f"unknown format 'tutorail'; did you mean 'tutorial'? allowed: {allowed}" in done.stderr


# TensorBoard


@pytest.fixture(scope="module")
def in_tensorboard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with readings and probes, tracked while it was trained."""
    pytest.importorskip("tensorboard")
    return tracked(tmp_path_factory.mktemp("tensorboard"), CONFIG, "tensorboard")[0]


def test_tensorboard_reads_back_every_value_of_the_tables(in_tensorboard: Path) -> None:
    points = scalars_of_tensorboard(in_tensorboard / "tensorboard")
    assert by_epoch(points) == table_of(in_tensorboard, np.float32)
    curves, probes, runs = (pd.read_csv(in_tensorboard / f"{name}.csv") for name in ("curves", "probes", "runs"))
    wanted: Points = {}
    for _, row in curves.iterrows():
        for name in SCALARS[:4]:
            wanted[int(row["run"]), f"curve/{name}", int(row["step"])] = [float(np.float32(row[name]))]
    for _, row in probes[probes.measure.str.contains("gamma|running|beta|gap")].iterrows():
        wanted[int(row["run"]), f"{row.layer}/{row.measure}", int(row["step"])] = [float(np.float32(row.value))]
    for _, row in runs.iterrows():
        for name in (*SCALARS[:4], "best_epoch", "best_valid_accuracy", "test_loss", "test_accuracy"):
            wanted[int(row["run"]), f"result/{name}", 2] = [float(np.float32(row[name]))]
    assert {key: values for key, values in points.items() if key[1] not in SCALARS} == wanted


def test_tensorboard_has_hyperparameters_with_results(in_tensorboard: Path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    metadata = accumulated(in_tensorboard / "tensorboard/run-002").SummaryMetadata
    start = HParamsPluginData.FromString(metadata("_hparams_/session_start_info").plugin_data.content)
    hparams = start.session_start_info.hparams
    assert (hparams["network"].string_value, hparams["lr"].number_value) == ("batch_norm", 0.01)
    experiment = HParamsPluginData.FromString(metadata("_hparams_/experiment").plugin_data.content).experiment
    assert "result/test_accuracy" in {info.name.tag for info in experiment.metric_infos}


def test_tensorboard_has_a_histogram_of_every_parameter_and_its_gradient(in_tensorboard: Path) -> None:
    found = accumulated(in_tensorboard / "tensorboard/run-002")
    names = [name for name, _ in registry.network["batch_norm"]().named_parameters()]
    assert set(found.Tags()["histograms"]) == {*names, *(f"{name}.grad" for name in names)}
    probes = pd.read_csv(in_tensorboard / "probes.csv")
    probes = probes[probes.run == 2]
    for tag in ("0.weight", "8.bias.grad"):
        layer, name = tag.removesuffix(".grad").split(".")
        name += "_gradient" if tag.endswith(".grad") else ""
        of_tag = probes[(probes.layer.astype(str) == layer) & probes.measure.str.match(rf"{name}_(low|high|bin)")]
        assert [event.step for event in found.Histograms(tag)] == sorted(set(probes.step))
        for event in found.Histograms(tag):
            values = dict(of_tag[of_tag.step == event.step][["measure", "value"]].itertuples(index=False))
            value = event.histogram_value
            assert (value.min, value.max) == (values[f"{name}_low"], values[f"{name}_high"])
            assert list(value.bucket) == [values[f"{name}_bin_{index:02}"] for index in range(32)]
            edges = np.histogram_bin_edges([], 32, (value.min, value.max))
            assert value.bucket_limit == pytest.approx(edges[1:], abs=1e-12)


def test_an_export_to_tensorboard_is_what_was_tracked(in_tensorboard: Path, bnbench: Bnbench, tmp_path: Path) -> None:
    done = bnbench("export", in_tensorboard, "--format", "tensorboard", "-o", tmp_path / "x")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'x'}\n")
    assert scalars_of_tensorboard(tmp_path / "x") == scalars_of_tensorboard(in_tensorboard / "tensorboard")
    refused = bnbench("export", in_tensorboard, "--format", "tensorboard", "-o", tmp_path / "x")
    assert (refused.exit_code, "is not empty" in refused.stderr) == (2, True)


# MLflow


@pytest.fixture(scope="module")
def in_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a sweep that was tracked while it was trained."""
    pytest.importorskip("mlflow")
    return tracked(tmp_path_factory.mktemp("mlflow"), SMALL, "mlflow")[0].parent


def test_mlflow_reads_back_every_value_of_the_tables(in_mlflow: Path) -> None:
    assert by_epoch(scalars_of_mlflow(in_mlflow)) == table_of(in_mlflow / "t")
    _, parent, children = children_of_mlflow(in_mlflow)
    runs = pd.read_csv(in_mlflow / "t/runs.csv", dtype=str, keep_default_na=False)
    assert list(runs.run) == [str(number) for number in sorted(children)]
    for _, row in runs.iterrows():
        child = children[int(row.run)]
        for name in ("test_loss", "test_accuracy", "best_epoch", "best_valid_accuracy", "parameters"):
            assert child.data.metrics[name] == float(row[name])
        parameters = row[list(runs.columns)[list(runs.columns).index("error") + 1 : -1]]
        assert child.data.params == {name: text for name, text in parameters.items() if text}
        tags = child.data.tags
        assert (tags["bnbench.run_id"], tags["bnbench.status"]) == (row.run_id, row.status)
        assert child.info.status == "FINISHED"
    assert parent.info.status == "FINISHED"


def test_the_tables_are_artifacts_of_the_sweeps_run(in_mlflow: Path, tmp_path: Path) -> None:
    client, parent, _ = children_of_mlflow(in_mlflow)
    for name in ("config.yaml", "environment.json", "metrics.csv", "runs.csv"):
        path = Path(client.download_artifacts(parent.info.run_id, name, str(tmp_path)))
        assert path.read_bytes() == (in_mlflow / "t" / name).read_bytes()


def test_mlflow_is_told_what_a_table_must_admit(
    in_mlflow: Path, bnbench: Bnbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrackedSweep, "warnings", lambda _: ("1 of 2 runs used another own.py.", "And more."))
    assert bnbench("export", in_mlflow / "t", "--format", "mlflow").exit_code == 0
    _, parent, _ = children_of_mlflow(in_mlflow)
    assert parent.data.tags["bnbench.warnings"] == "1 of 2 runs used another own.py. And more."


def test_an_export_to_mlflow_leaves_alone_what_is_there(in_mlflow: Path, bnbench: Bnbench) -> None:
    before = {run.info.run_id for run in runs_of_mlflow(in_mlflow)[1]}
    done = bnbench("export", in_mlflow / "t", "--format", "mlflow")
    assert (done.exit_code, done.stdout) == (0, f"sqlite:///{in_mlflow / 'mlflow.db'}\n")
    assert {run.info.run_id for run in runs_of_mlflow(in_mlflow)[1]} == before
    assert by_epoch(scalars_of_mlflow(in_mlflow)) == table_of(in_mlflow / "t")


def test_mlflow_goes_where_its_variable_says(
    in_mlflow: Path,
    bnbench: Bnbench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    empty_store: Callable[[Path], None],
) -> None:
    empty_store(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)  # artifacts go where that store says: here below the working folder
    assert bnbench("export", in_mlflow / "t", "--format", "mlflow").exit_code == 0
    assert by_epoch(scalars_of_mlflow(tmp_path)) == table_of(in_mlflow / "t")


# A kill

KILLED = """\
import os, signal
from pathlib import Path
from runner import network
from torch import nn

FIRST = Path(__file__).with_name("first")

class Killer(nn.Module):
    steps = 0
    def forward(self, x):
        self.steps += self.training
        # An epoch has 5 steps: this is the second run, in its fourth epoch.
        if self.steps == 15 + 3 and FIRST.exists() and "KILL" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.steps == 20:
            FIRST.touch()
        return x

@network("killer")
def killer():
    return nn.Sequential(Killer(), nn.Flatten(), nn.Linear(784, 10))
"""


def test_after_a_kill_and_a_resume_every_point_stands_once_and_is_the_tables(
    bnbench: Bnbench, write: Write, tmp_path: Path, empty_store: Callable[[Path], None]
) -> None:
    names = [name for name in ("tensorboard", "mlflow") if importlib.util.find_spec(name)]
    empty_store(tmp_path)
    write("killer.py", KILLED)
    config = write(
        "t.yaml",
        "name: t\nplugins: [killer.py]\ngrid: {seed: [0, 1, 2]}\n"
        "fixed: {network: killer, dataset: digits, batch_size: 250, epochs: 4, device: cpu, evaluations_per_epoch: 2, "
        "probes: [train]}\n",
    )
    track = [option for name in names for option in ("--track", name)]
    options = (*OPTIONS, tmp_path, "--checkpoint-every", 2, *track)
    command = [sys.executable, "-m", "runner.interfaces.cli.main", "run", str(config), *map(str, options)]
    killed = subprocess.run(command, env={**os.environ, "KILL": "1"}, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    kept = pd.read_csv(tmp_path / "t/metrics.csv")
    assert list(kept.epoch[kept.run == 2]) == [1, 2, 3]  # one beyond the checkpoint
    done = bnbench("resume", tmp_path / "t", "--executor", "inline", "-q", *track)
    assert done.exit_code == 0, done.stderr
    assert "failed" not in done.stderr
    now = pd.read_csv(tmp_path / "t/metrics.csv")
    assert list(now.run_duration[:6]) == list(kept.run_duration[:6])  # kept
    assert now.run_duration[6] != kept.run_duration[6]  # trained again
    assert bnbench("run", config, *OPTIONS, tmp_path / "whole").exit_code == 0
    assert (tmp_path / "t/probes.csv").read_bytes() == (tmp_path / "whole/t/probes.csv").read_bytes()
    if "tensorboard" in names:
        assert by_epoch(scalars_of_tensorboard(tmp_path / "t/tensorboard")) == table_of(tmp_path / "t", np.float32)
    if "mlflow" in names:
        assert by_epoch(scalars_of_mlflow(tmp_path)) == table_of(tmp_path / "t")
        _, _, children = children_of_mlflow(tmp_path)
        assert {child.info.status for child in children.values()} == {"FINISHED"}


def test_a_sweep_that_starts_over_or_grows_leaves_no_other_point_behind(
    bnbench: Bnbench, write: Write, tmp_path: Path, empty_store: Callable[[Path], None]
) -> None:
    for name in ("tensorboard", "mlflow"):
        installed(name)
    empty_store(tmp_path)
    config = write("t.yaml", SMALL)
    both = (*OPTIONS, tmp_path, "--track", "tensorboard", "--track", "mlflow")
    assert bnbench("run", config, *both, "--set", "grid.lr=[0.02, 0.01]").exit_code == 0
    assert bnbench("run", config, *both, "--fresh").exit_code == 0
    assert bnbench("run", config, *both, "--resume", "--set", "grid.lr=[0.03, 0.01]").exit_code == 0  # new numbers
    table = table_of(tmp_path / "t")
    assert {key[0] for key in table} == {1, 2, 3, 4}
    assert by_epoch(scalars_of_mlflow(tmp_path)) == table
    rounded = {key: [float(np.float32(value)) for value in values] for key, values in table.items()}
    assert by_epoch(scalars_of_tensorboard(tmp_path / "t/tensorboard")) == rounded
