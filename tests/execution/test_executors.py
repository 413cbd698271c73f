"""The contract of every executor: the bytes of `inline`, timing aside, and what one bad run may do to the others."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from click.testing import Result

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.execution.executors.executor import Context
from runner.execution.executors.registry import executor
from runner.execution.executors.server import Server
from runner.registry import load_plugins
from runner.storage.checkpoints import Every, to_bytes
from runner.storage.rows import Checkpoint, RunResult
from runner.training.options import TrainingOptions

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]
ROOT = Path(__file__).parent.parent.parent
RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not RAY, reason="needs the extra: pip install 'bnbench[ray]'")

SET_BY_RAY = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")
"""Variables that connecting sets. A test sets them first, so that they are as before after it."""

PLUGIN = """\
from torch import nn
from runner import network


@network("mine")
def mine(*, width: int = 8, broken: bool = False):
    layers = [nn.Flatten(), nn.Linear(784, width), nn.BatchNorm1d(width), nn.Linear(width, 9 if broken else 10)]
    return nn.Sequential(*layers)
"""
CONFIG = """\
name: all
plugins: [mine.py]
contrast: {axis: network, baseline: no_batch_norm}
fixed: {dataset: digits, batch_size: 250, device: cpu, evaluations_per_epoch: 2, probes: [norms]}
grids:
  - {network: [no_batch_norm, batch_norm], epochs: [2], seed: [0, 1]}
  - {network: [mine], network.broken: [false, true], epochs: [3], seed: [0]}
"""
TIMING = ["epoch_duration", "run_duration", "duration"]
ARGUMENTS = {"inline": [], "process": ["--workers", "2"], "ray": []}


def run_command(config: Path, out: Path, name: str) -> list[str]:
    command = [sys.executable, "-m", "runner.interfaces.cli.main", "run", str(config)]
    return [*command, "--out", str(out), "--executor", name]


def train(config: Path, out: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`bnbench run` in a process of its own; for `ray` in a cluster of two nodes."""
    command = run_command(config, out, name)
    within = [sys.executable, "-m", "tests.cluster"] if name == "ray" else []
    return subprocess.run(
        [*within, *command, *ARGUMENTS[name], *options], cwd=ROOT, capture_output=True, text=True, check=False
    )


def tables(folder: Path) -> dict[str, str]:
    """Every table, byte for byte, but for the timing columns."""
    found = {}
    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        found[path.name] = str(table.drop(columns=[name for name in TIMING if name in table]).to_csv())
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    (folder / "mine.py").write_text(PLUGIN)
    (folder / "all.yaml").write_text(CONFIG)
    return folder / "all.yaml"


@pytest.fixture(scope="module")
def expected(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("inline")
    done = train(config, out, "inline")
    assert done.returncode == 1, done.stderr  # one run fails
    assert "the network returned [250, 9]" in done.stderr
    found = tables(out / "all")
    assert set(found) == {"metrics.csv", "runs.csv", "curves.csv", "probes.csv"}
    return found


OTHERS = [pytest.param(each, marks=needs_ray if each == "ray" else ()) for each in executor if each != "inline"]


@pytest.mark.parametrize("name", OTHERS)
def test_every_executor_leaves_the_same_tables(
    config: Path, expected: dict[str, str], tmp_path: Path, name: str
) -> None:
    done = train(config, tmp_path, name, "--checkpoint-every", "1")
    assert done.returncode == 1, done.stderr
    assert "the network returned [250, 9]" in done.stderr
    assert tables(tmp_path / "all") == expected


@needs_ray
def test_a_job_that_asks_for_what_no_node_has_is_told_so(config: Path, tmp_path: Path) -> None:
    command = run_command(config, tmp_path, "ray")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [*command, "--device", "cuda", "-q"],
        cwd=ROOT,
        env=environment | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "a job asks for 1 CPUs and 1 GPUs, and no node of the cluster has them" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_says_what_to_install(
    bnbench: Bnbench, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in SET_BY_RAY:
        monkeypatch.setenv(name, "")
    done = bnbench("run", config, "--out", tmp_path, "--executor", "ray")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == "--executor ray needs ray: pip install 'bnbench[ray]'"
    assert list(tmp_path.iterdir()) == []


def test_an_address_where_no_cluster_answers_is_an_error_at_once(
    bnbench: Bnbench, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace())
    for name in SET_BY_RAY:
        monkeypatch.setenv(name, "")
    with socket.socket() as unheard:
        # No program listens at this port.
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        done = bnbench("run", config, "--out", tmp_path, "--executor", "ray", "--ray-address", address)
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith(f"--ray-address {address}: no cluster answers there: ")
    assert list(tmp_path.iterdir()) == []


def test_an_address_without_its_executor_is_an_error(bnbench: Bnbench, config: Path, tmp_path: Path) -> None:
    for command in (["run", config], ["claims", "run"], ["calibrate"]):
        done = bnbench(*command, "--out", tmp_path, "--ray-address", "auto")
        assert done.exit_code == 2
        assert done.stderr.splitlines()[-1] == "--ray-address needs --executor ray"
    assert list(tmp_path.iterdir()) == []


MORTAL = """\
import os
from pathlib import Path
from typing import Any

import torch
from runner import network


class Mortal(torch.nn.Linear):
    steps = 0

    def forward(self, x):
        self.steps += self.training
        if Path(__file__).with_name("die").exists() and self.steps > 40:
            os._exit(3)
        return super().forward(x.flatten(1))


@network("mortal")
def mortal(): return Mortal(784, 10)
"""


def test_a_run_that_dies_after_a_resume_is_told_with_all_its_rows(write: Write, server: Server, tmp_path: Path) -> None:
    plugin = str(write("mortal.py", MORTAL))
    load_plugins((plugin,))
    fixed: dict[str, Any] = {"dataset": "digits", "device": "cpu", "train_samples": 200, "batch_size": 20}
    run = RunSpec(network="mortal", epochs=5, **fixed)  # ten steps an epoch
    events = list(executor["inline"]([Job((run,))], Context(TrainingOptions(tmp_path, (plugin,), Every(epochs=2)))))
    saved = next(event for event in events if isinstance(event, Checkpoint))
    (tmp_path / "two.ckpt").write_bytes(to_bytes(saved))
    write("die", "")
    checkpoints = {run.run_id: tmp_path / "two.ckpt"}
    context = Context(TrainingOptions(tmp_path, (plugin,)), checkpoints=checkpoints, server=server)
    result = list(executor["process"]([Job((run,))], context))[-1]
    assert isinstance(result, RunResult)
    assert (result.status, [row.epoch for row in result.rows]) == ("failed", [1, 2, 3, 4])
