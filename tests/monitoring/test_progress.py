"""What a person sees while a sweep trains: the forecast, the bars, the lines."""

from __future__ import annotations

import heapq
import io
import os
import re
import termios
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from runner.config.jobs import Job
from runner.config.reader import load
from runner.config.sweep import Sweep
from runner.monitoring.eta import Pace, makespan, roughly
from runner.monitoring.progress import Progress
from runner.storage.rows import EpochRow, RunResult

Write = Callable[[str, str], Path]

CONFIG = """\
name: pair
contrast: {axis: network, baseline: no_batch_norm}
fixed: {dataset: digits, epochs: 10, device: cpu}
grid:
  lr: [0.01]
  network: [no_batch_norm, batch_norm]
  seed: {range: 3}
"""


class Terminal(io.StringIO):
    """What is written to a terminal of so many columns."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.ours, self.theirs = os.openpty()
        termios.tcsetwinsize(self.theirs, (24, columns))

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.theirs

    def close(self) -> None:
        if not self.closed:
            os.close(self.ours)
            os.close(self.theirs)
        super().close()


@pytest.fixture
def sweep(write: Write) -> Sweep:
    return load(write("pair.yaml", CONFIG), (), None)


def screen(monkeypatch: pytest.MonkeyPatch, columns: int = 80, term: str = "xterm") -> Terminal:
    """(No fixture: pytest puts its own stderr back between a fixture and its test.)"""
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr("runner.monitoring.progress.FORECAST_EVERY", 0.0)
    terminal = Terminal(columns)
    monkeypatch.setattr("sys.stderr", terminal)
    return terminal


def row(run_id: str, epoch: int, seconds: float = 1.0, **values: float) -> EpochRow:
    """An epoch of a run whose epochs take so many seconds each."""
    readings: dict[str, Any] = {
        "train_loss": 0.5,
        "train_accuracy": 0.8,
        "valid_loss": 0.25,
        "valid_accuracy": 0.9,
        "epoch_duration": 0.6 * seconds,
        "run_duration": epoch * seconds,
    }
    return EpochRow(run_id, epoch, epoch, **(readings | values))


def solo(sweep: Sweep) -> list[Job]:
    return [Job((run,)) for run in sweep.runs]


def simulate(
    jobs: Sequence[Job], seconds: Callable[[Job], float], begin: Sequence[float]
) -> list[tuple[float, EpochRow | RunResult]]:
    """What workers that begin at these times say, and when."""
    said: list[tuple[float, EpochRow | RunResult]] = []
    free = [(at, worker) for worker, at in enumerate(begin)]
    for job in jobs:
        at, worker = heapq.heappop(free)
        rows = [row(job.runs[0].run_id, epoch, seconds(job)) for epoch in range(1, job.runs[0].epochs + 1)]
        for each in rows:
            at += seconds(job)
            said.append((at, each))
        said.append((at, RunResult(job.runs[0].run_id, "ok", tuple(rows))))
        heapq.heappush(free, (at, worker))
    return sorted(said, key=lambda each: each[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_the_forecast_is_right_whoever_trains_and_however_long_the_start_took(
    sweep: Sweep, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    progress = Progress(sweep, solo(sweep), workers=workers, clock=lambda: now)
    assert progress.eta() is None

    def seconds(job: Job) -> float:
        return 2.0 if job.runs[0].network == "no_batch_norm" else 5.0

    said = simulate(solo(sweep), seconds, [7.0, 7.5][:workers])
    end, missed = said[-1][0], {}
    for index, (now, event) in enumerate(said):
        progress.on_epoch(event) if isinstance(event, EpochRow) else progress.on_result(event)
        if index + 1 == len(said) or said[index + 1][0] > now:
            missed[now] = now + (progress.eta() or 0.0) - end
    known = next(at for at, event in said if event.run_id == sweep.runs[3].run_id)  # the slow network's first epoch
    later = [error for at, error in missed.items() if at >= known]
    assert max(map(abs, later)) < 5.0, missed  # one epoch, that nobody has told of yet
    assert sum(abs(error) < 0.01 for error in later) > 0.9 * len(later), missed
    drift = [error for at, error in missed.items() if at < known]  # it takes the slow epochs for fast ones, calmly
    assert max(drift) - min(drift) < 5.0, missed
    assert "ETA" in capsys.readouterr().err


def test_a_worker_that_warms_up_does_not_slow_the_forecast() -> None:
    pace = Pace()
    assert pace.seconds("a") is None
    pace.on_epoch(1, "a", 1, 30.0)
    assert pace.seconds("a") == 30.0  # all that is known, of any kind
    assert pace.seconds("b") == 30.0
    pace.on_epoch(1, "a", 2, 32.0)
    pace.on_epoch(2, "a", 1, 5.0)
    assert pace.seconds("a") == 2.0
    for epoch in range(3, 103):  # the machine is busier now
        pace.on_epoch(1, "a", epoch, 32.0 + 4.0 * (epoch - 2))
    assert pace.seconds("a") == pytest.approx(4.0, abs=0.05)
    pace.on_epoch(3, "c", 7, 70.0)  # from a checkpoint: ten seconds an epoch, as far as one knows
    assert pace.seconds("c") == 10.0


def test_what_takes_longest_is_not_hidden_by_an_idle_worker() -> None:
    assert makespan([3.0, 50.0], [10.0, 10.0], workers=2) == 50.0
    assert makespan([], [4.0, 4.0, 4.0], workers=2) == 8.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (44, "44 s"), (100, "2 min"), (7800, "2 h 10 min"), (3 * 86400 + 4 * 3600, "3 d 4 h")],
)
def test_a_forecast_in_words(seconds: float, text: str) -> None:
    assert roughly(seconds) == text


def test_a_pipe_gets_a_line_for_each_run_with_a_forecast_that_counts_down(
    sweep: Sweep, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    progress = Progress(sweep, solo(sweep), clock=lambda: now)
    for run in sweep.runs:
        now += 5.0
        rows = [row(run.run_id, epoch, 0.5) for epoch in range(1, 11)]
        for each in rows:
            progress.on_epoch(each)
        progress.on_result(RunResult(run.run_id, "ok", tuple(rows)))
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(sweep.runs)
    assert lines[0] == (
        "run 1/6 lr=0.01 network=no_batch_norm seed=0  epoch 10/10  train accuracy 0.8000  valid accuracy 0.9000  "
        "5.0 s  1/6 runs ended  ETA 25 s"
    )
    assert [line.partition("ETA ")[2] for line in lines] == ["25 s", "20 s", "15 s", "10 s", "5 s", ""]


def test_a_pipe_also_hears_of_a_long_run_once_a_minute(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    progress = Progress(sweep, solo(sweep), clock=lambda: now)
    for epoch in range(1, 10):
        now += 25.0
        progress.on_epoch(row(sweep.runs[0].run_id, epoch, 25.0))
    assert re.findall(r"epoch (\d)/10", capsys.readouterr().err) == ["3", "6", "9"]


def test_a_stack_is_one_line_with_the_means_of_its_runs(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(sweep, [Job(sweep.runs[:3], "grouped"), Job(sweep.runs[3:], "grouped")], clock=lambda: 0.0)
    first, second, third = (run.run_id for run in sweep.runs[:3])
    for run_id, accuracy in ((first, 0.7), (second, 0.9)):
        progress.on_epoch(row(run_id, 10, 2.0, train_accuracy=accuracy))
    progress.on_epoch(row(third, 1, 2.0, train_loss=float("nan"), valid_accuracy=0.1))
    progress.on_result(RunResult(third, "diverged"))
    assert capsys.readouterr().err == "run 3 lr=0.01 network=no_batch_norm seed=2 diverged\n"
    for run_id, accuracy in ((first, 0.7), (second, 0.9)):
        progress.on_result(RunResult(run_id, "ok", (row(run_id, 10, 2.0, train_accuracy=accuracy),)))
    assert capsys.readouterr().err == (
        "runs 1…3/6 lr=0.01 network=no_batch_norm seed=0…2  epoch 10/10  train accuracy 0.8000  valid accuracy 0.9000  "
        "means of 2 runs  40.0 s  3/6 runs, 1 diverged ended  ETA 60 s\n"
    )


def test_the_parts_of_a_stack_that_was_cut_report_apart(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    screen(monkeypatch)
    progress = Progress(sweep, [Job(sweep.runs[:2], "grouped")], clock=lambda: 0.0)
    first, second = (run.run_id for run in sweep.runs[:2])
    for run_id, epoch in ((first, 2), (first, 3), (second, 2)):  # an epoch is shown when the next one begins
        progress.on_epoch(row(run_id, epoch, 4.0, valid_accuracy=epoch / 10))
    assert "valid 0.3000" in str(bar(progress, first))
    progress.close()


def test_the_sweeps_bar_counts_epochs_and_what_a_failure_spares(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, ids = screen(monkeypatch), [run.run_id for run in sweep.runs]
    begun = {ids[1]: 6}
    progress = Progress(sweep, solo(sweep)[1:], workers=2, begun=begun, clock=lambda: 0.0)
    assert (progress.sweep.n, progress.sweep.total) == (6, 50)
    assert "1/6 runs" in str(progress.sweep)
    assert "run 2  epoch 6/10" in str(bar(progress, ids[1]))
    progress.on_epoch(row(ids[1], 7, 3.0))
    progress.on_epoch(row(ids[2], 1, 3.0))
    assert "ETA 00:09" in str(bar(progress, ids[1]))
    progress.on_result(RunResult(ids[2], "failed", error="no such layer"))
    assert (progress.sweep.n, progress.sweep.total) == (8, 41)
    assert "8/41 epochs, 2/6 runs, 1 failed" in str(progress.sweep)
    assert "sweep  20%  ETA 01:00" in str(progress.sweep)  # two workers: 3 + 10 epochs of 3 s, and 10 + 10
    assert "run 3 lr=0.01 network=no_batch_norm seed=2 failed: no such layer\n" in terminal.getvalue()
    progress.close()


def test_each_job_in_progress_has_its_line_and_the_next_one_takes_it_over(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, ids = screen(monkeypatch), [run.run_id for run in sweep.runs]
    progress = Progress(sweep, solo(sweep), workers=2, clock=lambda: 0.0)
    lines = [abs(bar(progress, run_id).pos) for run_id in ids[:2]]
    assert lines == [1, 2]
    progress.on_epoch(row(ids[1], 10))
    progress.on_result(RunResult(ids[1], "ok"))
    assert abs(bar(progress, ids[2]).pos) == 2
    progress.on_epoch(row(ids[0], 1))
    progress.on_epoch(row(ids[4], 1))  # out of turn: it has the line of the one not heard of
    assert abs(bar(progress, ids[4]).pos) == 2
    assert "run 5  epoch 1/10" in str(bar(progress, ids[4]))
    assert str(bar(progress, ids[0])).startswith(
        "run 1  epoch 1/10  ETA 00:09  loss 0.5000  valid 0.9000  no_batch_norm"
    )
    progress.on_epoch(row(ids[5], 1))  # more at once than there are workers
    assert abs(bar(progress, ids[5]).pos) == 3
    progress.close()
    assert terminal.getvalue().endswith("\n")


def test_a_narrow_terminal_cuts_the_label_not_the_forecast(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = screen(monkeypatch, columns=40)
    progress = Progress(sweep, solo(sweep), clock=lambda: 0.0)
    progress.on_epoch(row(sweep.runs[0].run_id, 3))
    progress.close()
    drawn = [re.sub(r"\x1b\[\w", "", line) for line in re.split(r"[\r\n]", terminal.getvalue())]
    assert max(map(len, drawn)) == 39
    assert any("run 1  epoch 3/10  ETA 00:07" in line for line in drawn)
    assert any(line.startswith("sweep   5%  ETA 00:57") for line in drawn)


def test_a_dumb_terminal_is_a_pipe_and_quiet_is_quiet(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = screen(monkeypatch, term="dumb")
    for quiet in (False, True):
        progress = Progress(sweep, solo(sweep), quiet=quiet)
        only = row(sweep.runs[0].run_id, 10)
        progress.on_epoch(only)
        progress.on_result(RunResult(only.run_id, "ok", (only,)))
        progress.close()
    assert len(terminal.getvalue().splitlines()) == 1
    assert "\x1b" not in terminal.getvalue()


def bar(progress: Progress, run_id: str) -> Any:
    found = progress.open[progress.place[run_id]].bar
    assert found is not None
    return found
