"""What cannot be lost, broken on purpose. The quick part; `make faults` has the long one, with the same code."""

from __future__ import annotations

import errno
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result

Bnbench = Callable[..., Result]

Write = Callable[[str, str], Path]

ROOT = Path(__file__).parent.parent.parent

TIMING = ["epoch_duration", "run_duration"]


def script(name: str, *arguments: object) -> str:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # forks want no threads
    done = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{name}", *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("how", ["stub", "together"])
@pytest.mark.parametrize("stride", [101, pytest.param(1, marks=pytest.mark.faults)])
def test_a_kill_at_every_operation_and_again_in_the_recovery_costs_nothing(stride: int, how: str) -> None:
    assert " 0 failures" in script("harness", "kill", stride, how)


@pytest.mark.parametrize("how", ["stub", "together"])
def test_a_full_or_broken_disk_at_every_operation_costs_nothing(how: str) -> None:
    assert " 0 failures" in script("harness", "error", 1, how)


@pytest.mark.parametrize("times", [20, pytest.param(200, marks=pytest.mark.faults)])
def test_of_two_writers_one_wins(times: int) -> None:
    assert f"writers: {times} trials, 0 failures" in script("harness", "writers", times)


@pytest.mark.parametrize("runs", [1000, pytest.param(10_000, marks=pytest.mark.faults)])
def test_the_driver_does_not_grow_with_its_rows(runs: int) -> None:
    assert " 0 failures" in script("harness", "many", runs)


@pytest.mark.faults
def test_kills_at_random_moments_of_a_real_sweep_cost_nothing() -> None:
    assert "; 0 failures" in script("kills", 200)


# `make fuzz` tries the first of these.


@pytest.mark.faults
def test_rows_of_random_networks_depend_on_neither_order_nor_interruption() -> None:
    assert ": 0 failures" in script("fuzz_networks", 600)


@pytest.mark.faults
def test_no_config_and_no_command_line_is_a_traceback() -> None:
    assert ", 0 failures" in script("fuzz_configs", 15_000)


@pytest.mark.faults
def test_no_results_folder_is_a_traceback_a_lost_file_or_a_silent_other_table() -> None:
    assert ", 0 failures" in script("fuzz_folders", 4000)


# One bad run among good ones

ZOO = """\
import ctypes, os, time
import torch
from torch import nn
from runner.registry import network


class Animal(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.steps += 1
            late = self.steps > 7  # in the second epoch of five batches
            if self.kind == "raise" and late:
                raise ValueError("no more")
            if self.kind == "hang" and late:
                time.sleep(10_000)
            if self.kind == "exit" and late:
                os._exit(3)
            if self.kind == "segfault" and late:
                ctypes.string_at(0)
            if self.kind == "number" and late:
                return self.inner(x) * float("nan")
            if self.kind == "allocate" and late:
                torch.empty(10**15)
        return self.inner(x)


@network("animal")
def animal(*, kind: str = "tame"):
    return Animal(kind)
"""

KINDS = ["raise", "tame", "hang", "exit", "segfault", "number", "allocate", "calm"]


@pytest.mark.usefixtures("with_server")
def test_a_bad_run_is_its_own_status_and_nothing_more(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    write("zoo.py", ZOO)
    config = write(
        "zoo.yaml",
        "plugins: [zoo.py]\n"
        "fixed: {network: animal, dataset: digits, device: cpu, epochs: 3, batch_size: 250}\n"
        f"grid: {{network.kind: [{', '.join(KINDS)}]}}\n",
    )
    options = ("--workers", 2, "--run-timeout", 10, "--checkpoint-every", 1)
    done = bnbench("run", config, "--out", tmp_path / "all", *options)
    assert done.exit_code == 1
    runs = pd.read_csv(tmp_path / "all/zoo/runs.csv").set_index("network.kind")
    assert runs["status"].to_dict() == {
        **dict.fromkeys(("tame", "calm"), "ok"),
        **dict.fromkeys(("raise", "exit", "segfault"), "failed"),
        "hang": "timeout",
        "number": "diverged",
        "allocate": "oom",
    }
    assert runs.loc["exit", "error"] == "the worker process died (exit code 3)"
    assert runs.loc["segfault", "error"] == "the worker process died (killed by SIGSEGV)"
    assert "--run-timeout" in str(runs["error"]["hang"])
    for kind in ("raise", "exit", "segfault", "hang", "allocate"):
        assert runs.loc[kind, "epochs_trained"] == 1  # what it had told stays
        assert str(runs["error"][kind]) in done.stderr
    tame = ("--set", "grid={network.kind: [tame, calm]}", "--executor", "inline")
    good = bnbench("run", config, "--out", tmp_path / "good", *tame)
    assert good.exit_code == 0
    rows, alone = (pd.read_csv(tmp_path / name / "zoo/metrics.csv") for name in ("all", "good"))
    rows = rows[rows["network.kind"].isin(["tame", "calm"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows.drop(columns=["run", *TIMING]), alone.drop(columns=["run", *TIMING]))


def test_fail_fast_stops_and_resume_goes_on(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    write("zoo.py", ZOO)
    config = write(
        "zoo.yaml",
        "plugins: [zoo.py]\n"
        "fixed: {network: animal, dataset: digits, device: cpu, epochs: 3, batch_size: 250}\n"
        "grid: {network.kind: [tame, raise, calm]}\n",
    )
    done = bnbench("run", config, "--out", tmp_path, "--executor", "inline", "--fail-fast")
    assert done.exit_code == 1
    assert f"stopped at the first failure; bnbench resume {tmp_path / 'zoo'} finishes it" in done.stderr
    assert pd.read_csv(tmp_path / "zoo/runs.csv")["status"].tolist() == ["ok", "failed"]
    done = bnbench("resume", tmp_path / "zoo", "--executor", "inline")
    assert done.exit_code == 1, done.stderr
    assert pd.read_csv(tmp_path / "zoo/runs.csv")["status"].tolist() == ["ok", "failed", "ok"]


# Going on within a run

DEEP = """\
name: deep
fixed: {dataset: digits, device: cpu, train_samples: 500, batch_size: 50, epochs: 6}
grids:
  - {network: [batch_norm], optimizer: [sgd], momentum: [0.0, 0.9], seed: [0]}
  - {network: [batch_norm], optimizer: [adam, adamw], seed: [0]}
  - {network: [mlp], network.dropout: [0.3], network.norm: [batch], seed: [0, 1]}
"""


def interrupt(config: Path, out: Path, *options: str, after: int) -> tuple[int, str, float]:
    """SIGTERM as soon as metrics.csv has so many epochs: (exit code, stderr, seconds it took to end)."""
    bnbench = Path(sys.executable).parent / "bnbench"
    command = [str(bnbench), "run", str(config), "--out", str(out), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        _wait_for_epochs(process, out / config.stem / "metrics.csv", after)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        said = process.stderr.read()
        return process.wait(), said, time.monotonic() - began


def _wait_for_epochs(process: subprocess.Popen[Any], metrics: Path, epochs: int) -> None:
    """Wait until the table has so many rows below its head."""
    while not metrics.exists() or metrics.read_bytes().count(b"\n") <= epochs:
        assert process.poll() is None, "the command ended"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("stack", "kernels"), [("off", "auto"), ("on", "auto"), pytest.param("off", "torch", marks=pytest.mark.faults)]
)
def test_an_interrupted_run_goes_on_from_its_checkpoint(
    bnbench: Bnbench, write: Write, tmp_path: Path, stack: str, kernels: str
) -> None:
    """SGD, momentum, Adam, AdamW, dropout and batch norm: the same bytes, alone and in a stack."""
    config = write("deep.yaml", DEEP)
    options = (
        "--stack",
        stack,
        "--executor",
        "inline",
        "--workers",
        "1",
        "--checkpoint-every",
        "2",
        "--kernels",
        kernels,
    )
    assert bnbench("run", config, "--out", tmp_path / "whole", *options).exit_code == 0
    code, said, seconds = interrupt(config, tmp_path / "cut", *options, after=10 if stack == "on" else 5)
    folder = tmp_path / "cut/deep"
    assert code == 143
    assert seconds < 10
    assert f"bnbench resume {folder} finishes it" in said
    assert {path.name[-11:] for path in (folder / "checkpoints").iterdir()} == {"000002.ckpt", "000004.ckpt"}
    before = pd.read_csv(folder / "metrics.csv")
    assert bnbench("resume", folder, *options).exit_code == 0
    ours, theirs = (pd.read_csv(each / "metrics.csv") for each in (folder, tmp_path / "whole/deep"))
    pd.testing.assert_frame_equal(ours.drop(columns=TIMING), theirs.drop(columns=TIMING), check_exact=True)
    again = ours.merge(before[before["epoch"] <= 4], on=["run_id", "epoch"], suffixes=("", "_before"))
    assert len(again) >= 4
    assert (again["epoch_duration"] == again["epoch_duration_before"]).all()  # not trained again
    assert not (folder / "checkpoints").exists()
    ours, theirs = (pd.read_csv(each / "runs.csv") for each in (folder, tmp_path / "whole/deep"))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)


def test_a_finished_sweep_is_left_as_it_is(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write("deep.yaml", DEEP)
    bnbench("run", config, "--out", tmp_path, "--set", "fixed.epochs=1", "--executor", "inline")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "deep").iterdir() if path.name != ".lock"}
    for _ in range(2):
        assert bnbench("resume", tmp_path / "deep").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_changed_is_named_and_refused(
    bnbench: Bnbench, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write("deep.yaml", DEEP)
    options = ("--out", tmp_path, "--executor", "inline", "--set", "fixed.epochs=1")
    assert bnbench("run", config, *options).exit_code == 0
    monkeypatch.setattr("runner.training.environment.code", lambda: "f" * 64)
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    tables = (tmp_path / "deep/metrics.csv").read_bytes()
    done = bnbench("run", config, *options, "--resume")
    assert done.exit_code == 2
    assert "python: 3." in done.stderr
    assert "3.99.0 now" in done.stderr
    assert "code: " in done.stderr
    assert "ffffffffffff now" in done.stderr
    assert (tmp_path / "deep/metrics.csv").read_bytes() == tables
    grown = bnbench("run", config, *options, "--resume", "--allow-changed")
    assert grown.exit_code == 0
    assert '"changed": [' in (tmp_path / "deep/environment.json").read_text()
    assert bnbench("resume", tmp_path / "deep").exit_code == 0  # what it is now is known


def test_a_full_disk_says_where_and_how_to_go_on(
    bnbench: Bnbench, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write("deep.yaml", DEEP)
    real, written = os.write, []

    def write_some(descriptor: int, data: Any) -> int:
        if b",6," not in bytes(data):
            return real(descriptor, data)
        written.append(descriptor)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_some)
        done = bnbench("run", config, "--out", tmp_path, "--executor", "inline")
    assert done.exit_code == 2
    assert written
    assert f"free space or repair it, then run: bnbench resume {tmp_path / 'deep'}" in done.stderr
    assert f"{tmp_path / 'deep/metrics.csv'}: No space left on device" in done.stderr
    assert bnbench("resume", tmp_path / "deep", "--executor", "inline").exit_code == 0


def test_no_worker_outlives_a_killed_driver(write: Write, tmp_path: Path) -> None:
    config = write("deep.yaml", DEEP.replace("epochs: 6", "epochs: 10000"))
    bnbench = Path(sys.executable).parent / "bnbench"
    command = [str(bnbench), "run", str(config), "--out", str(tmp_path), "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _wait_for_epochs(process, tmp_path / "deep/metrics.csv", 1)
        # The server, and its two workers.
        children = [child for parent in _children(str(process.pid)) for child in (parent, *_children(parent))]
        assert len(children) >= 3
        process.kill()
    began = time.monotonic()
    while alive := [child for child in children if _running(child)]:
        assert time.monotonic() - began < 5, alive
        time.sleep(0.05)


def _children(process: str) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def _running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_retry_takes_the_statuses_it_is_given(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    write("zoo.py", ZOO)
    config = write(
        "zoo.yaml",
        "plugins: [zoo.py]\n"
        "fixed: {network: animal, dataset: digits, device: cpu, epochs: 3, batch_size: 250}\n"
        "grid: {network.kind: [tame, raise, number, allocate]}\n",
    )
    options = ("--out", tmp_path, "--executor", "inline")
    bnbench("run", config, *options)
    for retried, again in (("", []), ("diverged", ["number"]), ("oom,failed", ["raise", "allocate"])):
        before = pd.read_csv(tmp_path / "zoo/metrics.csv")
        retry = ["--retry", retried] if retried else []
        assert bnbench("resume", tmp_path / "zoo", "--executor", "inline", *retry).exit_code == 1
        after = pd.read_csv(tmp_path / "zoo/metrics.csv")
        both = before.merge(after, on=["network.kind", "epoch"])
        assert len(both) == len(before) == len(after)
        trained = both.loc[both["run_duration_x"] != both["run_duration_y"], "network.kind"]
        assert list(dict.fromkeys(trained)) == again
    wrong = bnbench("resume", tmp_path / "zoo", "--retry", "ok")
    assert wrong.exit_code == 2
    assert "allowed, separated by commas: failed, oom, timeout, diverged" in wrong.stderr


@pytest.mark.faults
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra: pip install 'bnbench[ray]'")
def test_nodes_and_drivers_of_a_cluster_that_go_away_cost_nothing() -> None:
    assert ": 0 failures" in script("nodes", 25)  # twenty nodes, five drivers


@pytest.mark.faults
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra: pip install 'bnbench[ray]'")
def test_a_sweep_on_a_cluster_in_chaos_is_the_whole_table() -> None:
    assert "the whole table: True; 0 failures" in script("chaos")
