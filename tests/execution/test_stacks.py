"""Which runs train together is decided once, and what does not go as planned is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import Result

from runner.storage import stacks
from runner.storage.rows import Shortfall
from runner.storage.store import Store
from runner.training.learners.stack import Stack
from runner.training.train import StackFaultError

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

CONFIG = """\
name: seeds
fixed: {network: notebook_mlp, dataset: digits, device: cpu, epochs: 3, train_samples: 400, batch_size: 100}
grid: {seed: [0, 1, 2, 3]}
"""
INLINE = ("--executor", "inline", "--checkpoint-every", "1", "-q")
STACKED = ("--stack", "on", "--workers", "1", *INLINE)


class Killed(BaseException):
    """Stands for SIGKILL: nothing is written after it."""


def killed(monkeypatch: pytest.MonkeyPatch, method: str, call: int) -> None:
    """The driver dies just before this call of the store's method."""
    original, calls = getattr(Store, method), [0]

    def until(self: Store, event: Any) -> None:
        calls[0] += 1
        if calls[0] == call:
            raise Killed
        original(self, event)

    monkeypatch.setattr(Store, method, until)


def tables(folder: Path) -> tuple[str, str]:
    """The content of both tables, without the columns of durations."""
    metrics = pd.read_csv(folder / "metrics.csv", dtype=str).drop(columns=["epoch_duration", "run_duration"])
    return metrics.to_csv(), pd.read_csv(folder / "runs.csv", dtype=str).to_csv()


def lines_of(folder: Path) -> set[str]:
    """The lines of the runs that have a result, in both tables."""
    runs = (folder / "runs.csv").read_text().splitlines()[1:]
    ended = tuple(line.partition(",")[0] + "," for line in runs if ",interrupted," not in line)
    lines = (folder / "metrics.csv").read_text().splitlines()[1:]
    return {line for line in [*runs, *lines] if line.startswith(ended)}


def sizes(folder: Path) -> list[int]:
    return [len(job.runs) for job in stacks.read(folder).jobs]


NETWORKS = """
import os, pathlib, torch
from torch import nn
from runner.registry import network

class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = float(torch.rand(()))
    def forward(self, x):
        return x * self.scale

@network("drawn")
def drawn(*, kind: str):
    linear = nn.Linear(784, 10)
    other = {"scale": Scaled, "slope": lambda: nn.LeakyReLU(float(torch.rand(()))), "none": nn.ReLU}[kind]()
    return nn.Sequential(nn.Flatten(), linear, other)

class Dies(nn.Linear):
    def forward(self, x):
        if len(x) == self.batch and (pathlib.Path(__file__).parent / "die").exists():
            os._exit(3)
        return super().forward(x)

@network("dies")
def dies(*, batch: int):
    layer = Dies(784, 10)
    layer.batch = batch
    return nn.Sequential(nn.Flatten(), layer)

@network("unbuilt")
def unbuilt():
    if torch.initial_seed() == 1 and (pathlib.Path(__file__).parent / "flag").exists():
        raise OSError("no file")
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


@pytest.fixture
def config_of(write: Write) -> Callable[[str], Path]:
    def of(fixed: str) -> Path:
        write("networks.py", NETWORKS)
        return write("seeds.yaml", CONFIG.replace("network: notebook_mlp", fixed) + "plugins: [networks.py]\n")

    return of


@pytest.mark.parametrize(
    ("method", "call"),
    [("on_epoch", 1), ("on_epoch", 4), ("on_epoch", 6), ("on_checkpoint", 2), ("on_result", 1), ("on_result", 3)],
)
def test_a_killed_stack_keeps_its_runs_whatever_workers_there_are(
    bnbench: Bnbench, write: Write, tmp_path: Path, method: str, call: int
) -> None:
    # One run diverges at its first epoch. It has ended before the checkpoints.
    config = write("seeds.yaml", CONFIG + "exclude: [{seed: 2, lr: 0.01}, {seed: [0, 1, 3], lr: 1.0e+30}]\n")
    config.write_text(config.read_text().replace("seed: [0, 1, 2, 3]}", "seed: [0, 1, 2, 3], lr: [0.01, 1.0e+30]}"))
    assert bnbench("run", config, "--out", tmp_path / "whole", *STACKED).exit_code == 0
    with pytest.MonkeyPatch.context() as monkeypatch:
        killed(monkeypatch, method, call)
        with pytest.raises(Killed):
            bnbench("run", config, "--out", tmp_path / "cut", *STACKED)
    done = bnbench("resume", tmp_path / "cut/seeds", "--stack", "off", "--workers", "3", *INLINE)
    assert done.exit_code == 0, done.stderr
    assert sizes(tmp_path / "cut/seeds") == [4]
    assert tables(tmp_path / "cut/seeds") == tables(tmp_path / "whole/seeds")
    assert set(pd.read_csv(tmp_path / "cut/seeds/runs.csv")["trained_as"]) == {"stack of 4"}


def test_a_finished_run_that_trains_again_must_repeat_its_rows(
    bnbench: Bnbench, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write("seeds.yaml", CONFIG)
    with monkeypatch.context() as patch:
        killed(patch, "on_result", 3)
        with pytest.raises(Killed):
            bnbench("run", config, "--out", tmp_path, *STACKED)
    metrics = tmp_path / "seeds/metrics.csv"
    lines = metrics.read_text().splitlines(keepends=True)
    at = next(index for index, line in enumerate(lines) if line.startswith("1,3,"))
    lines[at] = re.sub(r"^(1,3,\d+,)[^,]+", r"\g<1>0.125", lines[at])
    metrics.write_text("".join(lines))
    finished = lines_of(tmp_path / "seeds")
    assert len(finished) == 2 * (3 + 1)
    done = bnbench("resume", tmp_path / "seeds", *INLINE)
    assert done.exit_code == 2
    assert "run 1 trained again with its stack and gave another train_loss at epoch 3 (0.125 then, 0." in done.stderr
    assert finished <= lines_of(tmp_path / "seeds")


def test_a_folder_without_stacks_json_is_resumed(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write("seeds.yaml", CONFIG)
    assert bnbench("run", config, "--out", tmp_path / "whole", *STACKED).exit_code == 0
    with pytest.MonkeyPatch.context() as monkeypatch:
        killed(monkeypatch, "on_epoch", 9)
        with pytest.raises(Killed):
            bnbench("run", config, "--out", tmp_path / "old", *STACKED)
    (tmp_path / "old/seeds/stacks.json").unlink()
    done = bnbench("resume", tmp_path / "old/seeds", *STACKED)
    assert done.exit_code == 0, done.stderr
    assert tables(tmp_path / "old/seeds") == tables(tmp_path / "whole/seeds")


def test_retry_trains_alone_once_the_stack_has_ended(
    bnbench: Bnbench, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write("seeds.yaml", CONFIG.replace("seed: [0, 1, 2, 3]", "seed: [0, 1], lr: [0.01, 1.0e+30]"))
    with monkeypatch.context() as patch:
        killed(patch, "on_result", 4)
        with pytest.raises(Killed):
            bnbench("run", config, "--out", tmp_path, *STACKED)
    folder = tmp_path / "seeds"
    first = bnbench("resume", folder, "--retry", "diverged", *INLINE)
    assert "not tried again yet, because other runs of their stack have not ended: run 2, 4" in first.stderr
    assert sizes(folder) == [4]
    second = bnbench("resume", folder, "--retry", "diverged", *INLINE)
    assert second.exit_code == 0, second.stderr
    assert sorted(sizes(folder)) == [1, 1, 2]
    trained = pd.read_csv(folder / "runs.csv").set_index("run")["trained_as"]
    assert trained.to_dict() == {1: "stack of 4", 2: "alone: trained again", 3: "stack of 4", 4: "alone: trained again"}


def fails_together(monkeypatch: pytest.MonkeyPatch, error: Exception, most: int = 1) -> None:
    """A stack of more than `most` runs fails at its second epoch."""
    begin = Stack.begin_epoch

    def begin_epoch(self: Stack, epoch: int) -> None:
        if epoch == 2 and len(self.runs) > most:
            raise error
        begin(self, epoch)

    monkeypatch.setattr(Stack, "begin_epoch", begin_epoch)


def test_a_stack_that_fails_says_so_in_the_table_the_log_and_the_last_line(
    bnbench: Bnbench, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_together(monkeypatch, RuntimeError("no such kernel"))
    config = write("seeds.yaml", CONFIG)
    with pytest.raises(StackFaultError):
        bnbench("run", config, "--out", tmp_path / "strict", *STACKED)
    monkeypatch.setenv("BNBENCH_STRICT", "0")
    done = bnbench("run", config, "--out", tmp_path, *STACKED)
    assert done.exit_code == 0
    line = "4 runs were to train as one stack, but trained alone: RuntimeError: no such kernel"
    assert done.stderr.splitlines()[-1] == f"{line} (more in {tmp_path / 'seeds/run.log'})"
    table = pd.read_csv(tmp_path / "seeds/runs.csv")
    assert set(table["trained_as"]) == {"alone: RuntimeError: no such kernel (planned: one stack of 4)"}
    assert set(table["status"]) == {"ok"}
    log = (tmp_path / "seeds/run.log").read_text()
    assert line in log
    assert "in begin_epoch" in log
    assert sizes(tmp_path / "seeds") == [1, 1, 1, 1]
    watched = bnbench("watch", tmp_path / "seeds", "--once").stdout
    assert line in watched


def test_a_stack_without_memory_is_halved_and_resumed_as_it_was_cut(
    bnbench: Bnbench, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write("seeds.yaml", CONFIG)
    with monkeypatch.context() as patch:
        fails_together(patch, torch.OutOfMemoryError("no room"), most=2)
        done = bnbench("run", config, "--out", tmp_path / "whole", *STACKED)
        assert done.exit_code == 0, done.stderr
        assert "4 runs were to train as one stack, but trained as 2 stacks of at most 2: out of memory" in done.stderr
        killed(patch, "on_epoch", 9)
        with pytest.raises(Killed):
            bnbench("run", config, "--out", tmp_path / "cut", *STACKED)
    # There is enough memory now.
    assert sizes(tmp_path / "cut/seeds") == [2, 2]
    assert bnbench("resume", tmp_path / "cut/seeds", *STACKED).exit_code == 0
    assert tables(tmp_path / "cut/seeds") == tables(tmp_path / "whole/seeds")


def test_a_network_that_fails_by_itself_is_a_failed_run_also_in_strict_mode(
    bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    plugin = """
from torch import nn
from runner.registry import network

class Late(nn.Linear):
    def forward(self, x):
        if len(x) == 100:  # a training batch, but not the trial's
            raise ValueError("late")
        return super().forward(x)

@network("late")
def late():
    return nn.Sequential(nn.Flatten(), Late(784, 10))
"""
    write("late.py", plugin)
    config = write(
        "late.yaml", CONFIG.replace("notebook_mlp", "late").replace("seeds", "late") + "plugins: [late.py]\n"
    )
    done = bnbench("run", config, "--out", tmp_path, *STACKED)
    assert done.exit_code == 1
    table = pd.read_csv(tmp_path / "late/runs.csv")
    assert set(table["error"]) == {"ValueError: late"}


def test_the_size_of_stacks_can_be_fixed(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write("seeds.yaml", CONFIG)
    done = bnbench("run", config, "--out", tmp_path, "--stack", "3", "--workers", "1", *INLINE)
    assert done.exit_code == 0, done.stderr
    assert sizes(tmp_path / "seeds") == [2, 2]
    for wrong in ("0", "-1", "some"):
        done = bnbench("run", config, "--out", tmp_path, "--stack", wrong)
        assert done.exit_code == 2
        assert "allowed: auto, on, off, or the number of runs in a stack" in done.stderr


def test_plan_and_watch_show_the_stacks(
    bnbench: Bnbench, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write("seeds.yaml", CONFIG)
    assert bnbench("run", config, "--stack", "3", "--workers", "1", *INLINE).exit_code == 0
    planned = bnbench("plan", config).stdout
    assert "stack 1: 2 runs (1, 2): grouped, as recorded in stacks.json" in planned
    assert "2 stacks of 2 runs, grouped" in bnbench("watch", "results/seeds", "--once").stdout
    other = write("other.yaml", CONFIG.replace("epochs: 3", "epochs: 4"))
    assert "as recorded" not in bnbench("plan", other).stdout


def test_a_damaged_stacks_json_is_one_message(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write("seeds.yaml", CONFIG)
    assert bnbench("run", config, "--out", tmp_path, *STACKED).exit_code == 0
    path = tmp_path / "seeds/stacks.json"
    whole = json.loads(path.read_text())
    (job,) = whole["jobs"]
    jobs: list[Any] = [
        *([{"rnus": []}], ["text"], [None], [job | {"runs": None}], [job | {"runs": 3}], [job, job]),
        *([job | {"form": "weird"}], [job | {"form": None}], [job | {"runs": [job["runs"]]}], [job | {"runs": []}]),
    ]
    texts = [json.dumps(whole | {"jobs": each}) for each in jobs]
    texts.append(json.dumps(whole | {"shortfalls": [{"run_ids": [], "planned": "x", "instead": "", "reason": ""}]}))
    for damaged in (path.read_text()[:-20], "[]", '{"jobs": 3}', *texts):
        path.write_text(damaged)
        done = bnbench("resume", tmp_path / "seeds", *INLINE)
        assert done.exit_code == 2, damaged
        assert re.search(r"stacks.json: damaged .*; delete it, and a resume decides anew", done.stderr)


@pytest.mark.usefixtures("with_server")
def test_a_stack_with_a_failed_run_is_finished_by_a_resume(
    bnbench: Bnbench, config_of: Callable[[str], Path], write: Write, tmp_path: Path
) -> None:
    """The worker of a stack dies, and the sweep stops at the first failure. Only one run has its result."""
    config = config_of("network: dies, network.batch: 100")
    options = ("--stack", "on", "--workers", "1", "-q")
    die = write("die", "")
    done = bnbench("run", config, "--out", tmp_path, "--fail-fast", *options)
    assert "the worker process died (exit code 3)" in done.stderr
    die.unlink()
    assert pd.read_csv(tmp_path / "seeds/runs.csv")["status"].tolist() == ["failed"]
    done = bnbench("resume", tmp_path / "seeds", *options, "--executor", "inline")
    assert done.exit_code == 1
    done = bnbench("resume", tmp_path / "seeds", "--retry", *options, "--executor", "inline")
    assert done.exit_code == 0, done.stderr
    assert set(pd.read_csv(tmp_path / "seeds/runs.csv")["status"]) == {"ok"}


@pytest.mark.usefixtures("with_server")
def test_a_trial_whose_worker_dies_is_an_error_in_strict_mode_and_an_obstacle_otherwise(
    bnbench: Bnbench, config_of: Callable[[str], Path], write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = config_of("network: dies, network.batch: 8"), write("die", "")
    options = ("--out", tmp_path, "--stack", "on", "--workers", "2", "-q", "--fresh")
    with pytest.raises(RuntimeError, match=r"a trial failed: the worker process died \(exit code 3\)"):
        bnbench("run", config, *options)
    monkeypatch.setenv("BNBENCH_STRICT", "0")
    done = bnbench("run", config, *options)
    assert done.exit_code == 0, done.stderr
    reason = "the trial failed: the worker process died (exit code 3)"
    assert f"4 runs were to train as 2 stacks, but trained alone: {reason}" in done.stderr
    table = pd.read_csv(tmp_path / "seeds/runs.csv")
    assert set(table["trained_as"]) == {f"alone: {reason} (planned: one stack of 2)"}


def test_stacks_that_do_not_fit_into_the_memory_are_cut_and_say_so(
    bnbench: Bnbench, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.training.trial.free_memory", lambda _: 0)
    monkeypatch.setattr("runner.training.trial.bytes_per_run", lambda *_: 1)
    config = write("seeds.yaml", CONFIG)
    done = bnbench("run", config, "--out", tmp_path, *STACKED)
    line = "4 runs were to train as one stack, but trained as 4 stacks of at most 1: the memory has room for 1 run"
    assert line in done.stderr.splitlines()[-1]
    assert line in (tmp_path / "seeds/run.log").read_text()


def test_the_same_shortfall_is_counted_once() -> None:
    shortfall = Shortfall(("a", "b"), "one stack in a CUDA graph", "without a graph", "no", traceback="first")
    recorded = stacks.Stacks((stacks.PlannedJob(("a", "b"), "loop"),)).with_shortfall(shortfall)
    again = recorded.with_shortfall(replace(shortfall, traceback="second"))
    assert again.jobs == recorded.jobs
    assert [each.traceback for each in again.shortfalls] == ["second"]


@pytest.mark.parametrize(("kind", "stacked"), [("scale", False), ("slope", False), ("none", True)])
def test_what_a_network_draws_beside_its_weights_keeps_its_runs_alone(
    bnbench: Bnbench, config_of: Callable[[str], Path], tmp_path: Path, kind: str, stacked: bool
) -> None:
    config = config_of(f"network: drawn, network.kind: {kind}")
    assert bnbench("run", config, "--out", tmp_path, *STACKED).exit_code == 0
    trained = set(pd.read_csv(tmp_path / "seeds/runs.csv")["trained_as"])
    assert trained == {"stack of 4"} if stacked else all("alone: " in how for how in trained)


def test_a_run_that_cannot_be_built_costs_its_stack_no_checkpoint(
    bnbench: Bnbench, config_of: Callable[[str], Path], write: Write, tmp_path: Path
) -> None:
    config, flag = config_of("network: unbuilt"), write("flag", "")
    with pytest.MonkeyPatch.context() as monkeypatch:
        killed(monkeypatch, "on_epoch", 8)
        with pytest.raises(Killed):
            bnbench("run", config, "--out", tmp_path, *STACKED)
    assert sorted(sizes(tmp_path / "seeds")) == [1, 3]
    flag.unlink()
    done = bnbench("resume", tmp_path / "seeds", "--executor", "inline")
    assert done.exit_code == 1
    assert "1 of 4 runs are there already; 3 go on from a checkpoint" in done.stderr
    assert bnbench("resume", tmp_path / "seeds", "--retry", *INLINE).exit_code == 0


def test_after_an_allowed_change_rows_are_not_compared_also_by_the_next_resume(
    bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    text = CONFIG.replace("seed: [0, 1, 2, 3]}", "seed: [0, 1], lr: [0.01, 1.0e+30]}")
    config = write("seeds.yaml", text.replace("notebook_mlp", "drawn, network.kind: none") + "plugins: [networks.py]\n")
    write("networks.py", NETWORKS)
    folder = tmp_path / "seeds"
    for options in (("run", config, "--out", tmp_path, *STACKED), ("resume", folder, "--allow-changed", *INLINE)):
        with pytest.MonkeyPatch.context() as monkeypatch:
            killed(monkeypatch, "on_epoch", 6)
            with pytest.raises(Killed):
                bnbench(*options)
        write("networks.py", NETWORKS.replace("nn.ReLU", "nn.Tanh"))
    done = bnbench("resume", folder, *INLINE)
    assert done.exit_code == 0, done.stderr


def test_a_change_that_is_killed_early_continues_no_checkpoint_of_the_old_code(
    bnbench: Bnbench, config_of: Callable[[str], Path], write: Write, tmp_path: Path
) -> None:
    config, folder = config_of("network: drawn, network.kind: none"), tmp_path / "seeds"
    with pytest.MonkeyPatch.context() as monkeypatch:
        killed(monkeypatch, "on_epoch", 10)
        with pytest.raises(Killed):
            bnbench("run", config, "--out", tmp_path, *STACKED)
    assert list((folder / "checkpoints").iterdir())
    write("networks.py", NETWORKS.replace("nn.ReLU", "nn.Tanh"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(Store, "_rewrite", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            bnbench("resume", folder, "--allow-changed", *INLINE)
    done = bnbench("resume", folder, "--executor", "inline")
    assert "0 go on from a checkpoint" in done.stderr
