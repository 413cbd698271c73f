"""Workers on a machine with GPUs, emulated: which GPU each one sees, and what happens when one is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import Result

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.execution.composition import sharing
from runner.execution.executors.executor import Context, inline
from runner.execution.executors.process import process
from runner.execution.executors.server import Server
from runner.execution.options import default_workers, gpus
from runner.registry import load_plugins
from runner.storage.rows import Event, Note, RunResult
from runner.training.networks import SpoiledProcessError, raise_if_lost
from runner.training.options import TrainingOptions

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

PLUGIN = """
import json, os, pathlib, torch
from torch import nn
from runner.registry import network
from runner.training import train
from runner.training.networks import SpoiledProcessError

HERE = pathlib.Path(__file__).parent

@network("seen")
def seen():
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    with open(HERE / "seen.jsonl", "a") as file:
        file.write(json.dumps({"worker": os.getpid(), "gpu": gpu}) + "\\n")
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

class Asserts(nn.Linear):
    def forward(self, x):
        train.raise_if_lost = lost
        raise RuntimeError("CUDA error: device-side assert triggered")

def lost(run):
    raise SpoiledProcessError("the device is lost")

@network("asserts")
def asserts():
    return nn.Sequential(nn.Flatten(), Asserts(784, 10))
"""
RUN = RunSpec(network="seen", dataset="digits", device="cpu", epochs=1, train_samples=100)


@pytest.fixture
def plugin(write: Write) -> Path:
    path = write("seen.py", PLUGIN)
    load_plugins((str(path),))
    return path


def results(events: list[Event]) -> list[RunResult]:
    return [event for event in events if isinstance(event, RunResult)]


def seen(plugin: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (plugin.parent / "seen.jsonl").read_text().splitlines()]


def test_a_lost_gpu_costs_its_own_job_and_a_new_worker_takes_the_next(plugin: Path, server: Server) -> None:
    options = TrainingOptions(plugin.parent, (str(plugin),))
    wrong = RUN.changed(network="asserts")
    jobs = [Job((RUN,)), Job((wrong, wrong.changed(seed=1)), "grouped"), Job((RUN.changed(seed=1),))]
    events = list(process(jobs, Context(options, gpus=["1"], server=server)))
    found = results(events)
    assert [result.status for result in found] == ["ok", "failed", "failed", "ok"]
    assert found[1].error == found[2].error == "RuntimeError: CUDA error: device-side assert triggered"
    said = [event.text for event in events if isinstance(event, Note)]
    assert said == ["a new worker process trains the next runs, because the device is lost"]
    first, second = seen(plugin)
    assert first["worker"] != second["worker"]
    assert first["gpu"] == second["gpu"] == "1"


def test_inline_ends_with_one_message(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.training.train.raise_if_lost", raise_if_lost)
    options = TrainingOptions(plugin.parent, (str(plugin),))
    events = inline([Job((RUN.changed(network="asserts"),)), Job((RUN,))], Context(options))
    assert results([next(events)])[0].status == "failed"
    with pytest.raises(SpoiledProcessError, match="the device is lost"):
        next(events)


def test_inline_ends_well_where_the_process_is_lost_after_the_last_job(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.training.train.raise_if_lost", raise_if_lost)
    options = TrainingOptions(plugin.parent, (str(plugin),))
    result, note = inline([Job((RUN.changed(network="asserts"),))], Context(options))
    assert results([result])[0].status == "failed"
    assert note == Note("this process must not train further runs, because the device is lost")


def test_a_gpu_is_lost_where_synchronising_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def synchronize(device: object) -> None:
        asked.append(device)
        if device == "cuda:1":
            raise RuntimeError("CUDA error: device-side assert triggered\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    raise_if_lost(RUN)
    raise_if_lost(RUN.changed(device="cuda"))
    assert asked == ["cuda"]
    with pytest.raises(SpoiledProcessError, match=r"device 'cuda:1' has failed: CUDA error: device-side"):
        raise_if_lost(RUN.changed(device="cuda:1"))


@pytest.mark.parametrize(
    ("visible", "count", "names"),
    [("", 3, ["0", "1", "2"]), ("5,2", 2, ["5", "2"]), ("GPU-a", 1, ["GPU-a"]), ("", 0, [])],
)
def test_a_sweep_has_one_worker_for_each_visible_gpu(
    monkeypatch: pytest.MonkeyPatch, visible: str, count: int, names: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    runs = [RUN.changed(device="cuda", seed=seed) for seed in range(9)]
    assert gpus(runs) == names
    assert default_workers(runs) == max(1, count)
    assert default_workers(runs[:1]) == 1
    certain = [run.changed(device="cuda:1") for run in runs]
    assert (gpus(certain), default_workers(certain)) == ([], 1)


def test_stacks_of_several_workers_share_a_gpu() -> None:
    options = TrainingOptions()
    for workers, names, expected in ((4, ["0", "1"], 2), (3, ["0", "1"], 2), (1, ["0"], 1), (3, [], 3)):
        assert sharing("cuda", Context(options, workers=workers, gpus=names)) == expected
    assert sharing("cpu", Context(options, workers=8)) == 1


@pytest.mark.usefixtures("with_server")
def test_a_sweep_gives_each_worker_one_gpu(
    bnbench: Bnbench, write: Write, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's part, with GPUs that only the driver believes in."""
    monkeypatch.setattr("runner.execution.driver.gpus", lambda _: ["7", "GPU-5"])
    config = write(
        "two.yaml",
        "name: two\nfixed: {network: seen, dataset: digits, device: cpu, epochs: 2}\n"
        f"grid: {{seed: [0, 1, 2, 3]}}\nplugins: [{plugin.name}]\n",
    )
    done = bnbench("run", config, "--out", tmp_path, "--workers", "2", "-q")
    assert done.exit_code == 0, done.stderr
    assert set(pd.read_csv(tmp_path / "two/runs.csv")["status"]) == {"ok"}
    by_worker = {(line["worker"], line["gpu"]) for line in seen(plugin)}
    assert sorted(str(gpu) for _, gpu in by_worker) == ["7", "GPU-5"]
