"""How long a sweep will take, from another one's table."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import Result

from runner.config.jobs import Job, longest_first
from runner.config.run_spec import RunSpec
from runner.execution import step_times
from runner.execution.executors.executor import Context
from runner.monitoring.eta import makespan
from runner.storage.rows import EpochRow, Event, RunResult

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

COLUMNS = "run,epoch,step,train_loss,train_accuracy,valid_loss,valid_accuracy,epoch_duration,run_duration"
MEASURED = f"""\
{COLUMNS},network,network.width,seed,lr,device,run_id
1,1,9,0.5,,,,1.0,1.5,slow,8,0,0.1,cpu,a
1,2,9,0.5,,,,1.0,60.0,slow,8,0,0.1,cpu,a
2,1,9,0.5,,,,1.0,50.0,slow,8,1,0.2,cpu,b
3,1,9,0.5,,,,1.0,20.0,slow,8,2,0.1,cpu,c
4,1,9,0.5,,,,1.0,5.0,quick,8,0,0.1,cpu,d
5,1,9,0.5,,,,1.0,5.0,,,,,,
"""
PLUGIN = """\
from runner import network


@network("slow")
def slow(*, width: int = 8): ...


@network("quick")
def quick(*, width: int = 8): ...
"""
CONFIG = """\
plugins: [two.py]
fixed: {dataset: fashion_mnist, network.width: 8, epochs: 10}
grid: {network: [quick, slow], seed: [0, 1]}
"""


@pytest.fixture
def last_line(bnbench: Bnbench, write: Write, tmp_path: Path) -> Callable[..., str]:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/metrics.csv").write_text(MEASURED)
    write("two.py", PLUGIN)
    config = write("new.yaml", CONFIG)

    def plan(*options: object) -> str:
        done = bnbench("plan", config, "--measured", tmp_path / "old", *options)
        assert done.exit_code == 0, done.stderr
        return done.stdout.splitlines()[-1]

    return plan


def test_the_median_run_s_epochs_say_how_long_others_take(last_line: Callable[..., str], tmp_path: Path) -> None:
    # slow: 60/2, 50 and 20 seconds an epoch; quick: 5. Ten epochs of two runs each.
    known = f"estimate from the epochs of {tmp_path / 'old'}: 12 min of training, "
    assert last_line("--workers", 1) == known + "12 min on 1 worker"
    assert last_line("--workers", 2) == known + "6 min on 2 workers"
    assert last_line("--workers", 64) == known + "5 min on 64 workers"
    assert last_line("--workers", 1, "--device", "cpu") == known + "12 min on 1 worker"


def test_what_was_not_measured_is_not_guessed(last_line: Callable[..., str]) -> None:
    assert last_line("--workers", 1, "--set", "grid.batch_size=[1000, 7]").endswith(
        "12 min on 1 worker; 4 of 8 jobs were not measured"
    )
    for change in ("fixed.network.width=9", "fixed.precision=bf16", "fixed.dataset=mnist"):
        assert not last_line("--workers", 1, "--set", change).startswith("estimate"), change
    assert not last_line("--device", "cuda").startswith("estimate")


def test_a_plan_says_what_a_job_asks_for(bnbench: Bnbench, write: Write) -> None:
    write("two.py", PLUGIN)
    asked = "resources: {num_gpus: 0.25, num_cpus: 2}\n"
    config = write("asks.yaml", CONFIG.replace("10}", "10, device: cuda}") + asked)
    lines = bnbench("plan", config, "--stack", "off", "--workers", 8).stdout.splitlines()
    assert lines[-1] == "4 jobs, each asks for 2 CPUs and 0.25 GPUs"
    for wrong, message in (
        ("{num_gpus: 2}", "resources.num_gpus: must be less than or equal to 1, got 2"),
        ("{gpus: 1}", "unknown key 'gpus'; did you mean 'num_gpus'? allowed: num_cpus, num_gpus"),
    ):
        done = bnbench("plan", write("wrong.yaml", CONFIG + f"resources: {wrong}\n"))
        assert (done.exit_code, message in done.stderr) == (2, True), done.stderr


def test_the_longest_job_first_and_equals_as_they_stand() -> None:
    runs = [RunSpec(network="n", epochs=epochs, seed=seed) for seed, epochs in enumerate((1, 5, 1, 3, 2))]
    jobs = [Job((runs[0],)), Job((runs[1],)), Job((runs[2],)), Job((runs[3], runs[4]), "grouped")]
    assert longest_first(jobs) == [jobs[1], jobs[3], jobs[0], jobs[2]]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_makespan_is_that_of_jobs_handed_out_second_by_second(workers: int) -> None:
    for lengths in itertools.product((1, 2, 5), repeat=5):
        waiting, busy, now = list(lengths), list[int](), 0
        while waiting or busy:
            while waiting and len(busy) < workers:
                busy.append(waiting.pop(0))
            now += 1
            busy = [left - 1 for left in busy if left > 1]
        assert makespan((), lengths, workers) == now


def test_a_sweep_s_own_folder_is_looked_at_first(
    bnbench: Bnbench, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write("own.yaml", "fixed: {network: batch_norm, dataset: digits, device: cpu, epochs: 1}\n")
    assert "estimate" not in bnbench("plan", config).stdout
    assert bnbench("run", config, "--executor", "inline", "-q").exit_code == 0
    plan = bnbench("plan", config, "--set", "fixed.epochs=600").stdout.splitlines()[-1]
    assert re.match(r"estimate from the epochs of results/own: \d+ (s|min) of training", plan)
    assert bnbench("plan", config, "--measured", tmp_path / "nowhere").exit_code == 2


def test_a_few_timed_steps_say_how_long_the_sweep_takes_and_what_fails_is_named(
    bnbench: Bnbench, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(jobs: Sequence[Job], _: Context) -> Iterator[Event]:
        """A step takes half a second, the rest of an epoch three seconds, and the first epoch a minute more."""
        for job in jobs:
            (run,) = job.runs
            if run.optimizer == "sgd":
                yield RunResult(run.run_id, "failed", error="ArithmeticError: as it was asked")
                continue
            assert run.train_samples is not None
            epoch = 3 + 0.5 * run.train_samples / run.batch_size
            for number, elapsed in ((1, 60 + epoch), (2, 60 + 2 * epoch)):
                yield EpochRow(run.run_id, number, 1, 0.5, 0.5, 0.5, 0.5, epoch, elapsed)

    monkeypatch.setattr(step_times, "executor", {"process": trained})
    monkeypatch.chdir(tmp_path)
    config = write(
        "timed.yaml",
        "fixed: {network: batch_norm, dataset: digits, device: cpu, epochs: 10, train_samples: 1000, batch_size: 10}\n"
        "grid: {optimizer: [adam, sgd], seed: [0, 1]}\n",
    )
    lines = bnbench("plan", config, "--time", "--workers", 2).stdout.splitlines()
    # 100 steps of half a second and three seconds more, ten times, for two runs.
    assert lines[-2:] == [
        "not measured: ArithmeticError: as it was asked",
        "estimate from a few steps of 1 kind of runs, each trained alone: 18 min of training, 9 min on 2 workers; "
        "2 of 4 jobs were not measured",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["timed.yaml"]
    both = bnbench("plan", config, "--time", "--measured", tmp_path)
    assert (both.exit_code, both.stderr) == (2, "--time and --measured: give one of them\n")


def test_steps_are_timed_by_real_training(bnbench: Bnbench, write: Write) -> None:
    config = write("real.yaml", "fixed: {network: batch_norm, dataset: digits, device: cpu, epochs: 1}\n")
    line = bnbench("plan", config, "--time", "--workers", 1).stdout.splitlines()[-1]
    assert re.fullmatch(r"estimate from a few steps of 1 kind of runs, each trained alone: .* on 1 worker", line)
