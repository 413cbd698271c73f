"""`python -m benchmarks gpu`, in small on the CPU: its parts, its time limits, and the section made from its file."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from benchmarks.gpu import parts, run, stacks, sweeps
from benchmarks.gpu.setting import Row, Setting
from benchmarks.training import LENET

ROOT = Path(__file__).parent.parent

Bnbench = Callable[..., Result]

SMALL = Setting(
    root=Path(),
    run=LENET.changed(network="notebook_mlp", dataset="digits", batch_size=100, epochs=2),
    runs=3,
    options=("--stack", "on", "--executor", "inline", "--workers", "1"),
    stack_sizes=(1, 3),
    batch_sizes=(100,),
    seconds=0.01,
)


def recorded(part: Callable[[Setting, Callable[[Row], None]], None], setting: Setting = SMALL) -> list[Row]:
    rows: list[Row] = []
    part(setting, rows.append)
    json.dumps(rows)
    return rows


@pytest.fixture
def _in_this_process(bnbench: Bnbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that are not killed need no process of their own."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = bnbench(*arguments, "--quiet")
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    monkeypatch.setattr(sweeps, "call", call)


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert run.main() == 2
    assert capsys.readouterr().err == "python -m benchmarks gpu needs a GPU, and torch finds none on this machine.\n"


def test_the_time_limits_are_ten_minutes() -> None:
    assert sum(limit for _, limit in parts.PARTS.values()) <= 600 - 10


# Parts


def test_stacks_of_every_size_and_form_are_timed() -> None:
    rows = recorded(stacks.sizes)
    assert [(row["batch_size"], row["runs"], row["form"]) for row in rows] == [
        (100, size, form) for size in (1, 3) for form in SMALL.forms
    ]
    assert all(row["milliseconds"] > 0 and row["how"].startswith(f"stack of {row['runs']}") for row in rows)


def test_a_stack_without_room_is_not_measured_and_one_that_fails_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    errors: Iterator[Exception] = iter([torch.OutOfMemoryError("no room"), RuntimeError("another device")])

    def fails(*_: object) -> None:
        raise next(errors)

    monkeypatch.setattr(stacks.Steps, "seconds", fails)
    full, failed = (stacks.measured(SMALL.forms[0], SMALL.run, 1, SMALL) for _ in range(2))
    assert full == {"not measured": "out of memory"}
    assert failed == {"wrong": "RuntimeError: another device"}


def test_the_longest_kernels() -> None:
    rows = [row for row in recorded(stacks.kernels) if row["form"] == SMALL.forms[0]]
    times = [row["milliseconds"] for row in rows]
    assert len(rows) == stacks.KERNELS
    assert times == sorted(times, reverse=True)
    assert 0.5 < sum(row["share"] for row in rows) <= 1
    assert any("bmm" in row["kernel"] for row in rows)  # the linear layers of a stack


@pytest.mark.usefixtures("_in_this_process")
def test_the_main_job() -> None:
    (row,) = recorded(sweeps.main_job)
    assert (row["runs"], row["epochs"], row["trained_as"]) == (6, 2, {"stack of 3": 6})
    assert sorted(row["milliseconds"]) == ["batch_norm", "no_batch_norm"]
    assert 0 < sum(row["milliseconds"].values()) / 1000 < row["seconds"]
    assert "wrong" not in row


@pytest.mark.usefixtures("_in_this_process")
def test_a_sweep_again_and_one_that_was_killed_have_the_same_bytes() -> None:
    setting = replace(SMALL, run=SMALL.run.changed(epochs=20), runs=2)
    first, again, killed = recorded(sweeps.same_bytes, setting)
    assert first == {"sweep": "first", "runs": 2}
    assert again == {"sweep": "again", "equal": True}
    assert killed["equal"]
    assert 2 <= killed["rows_when_killed"] < 40


def test_a_difference_is_found_in_every_column_but_the_times(tmp_path: Path) -> None:
    for name, loss, seconds in (("a", "0.5", "1"), ("b", "0.5", "2"), ("c", "0.50000001", "1")):
        (tmp_path / name).mkdir()
        text = f"run,train_loss,epoch_duration,run_duration\n1,0.25,1,1\n2,{loss},{seconds},{seconds}\n"
        (tmp_path / name / "metrics.csv").write_text(text)
        (tmp_path / name / "runs.csv").write_text("run,status\n1,ok\n")
    assert sweeps.difference(tmp_path / "a", tmp_path / "b") == {"equal": True}
    found = sweeps.difference(tmp_path / "a", tmp_path / "c")
    assert found == {"wrong": "metrics.csv: train_loss of run 2 is 0.50000001, not 0.5"}
    (tmp_path / "b/runs.csv").write_text("run,status\n")
    assert sweeps.difference(tmp_path / "a", tmp_path / "b") == {"wrong": "runs.csv has 0 rows, not 1"}


def test_a_stack_that_was_not_cut_is_wrong() -> None:
    assert sweeps.not_cut(["stack of 16, CUDA graph", "stack of 8, CUDA graph"]) == {}
    for text in ("stack of 32, CUDA graph", "alone"):
        assert text in sweeps.not_cut(["stack of 16, CUDA graph", text])["wrong"]


def test_tests_are_counted_and_failures_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "test_made_up.py"
    path.write_text(
        "import pytest\n\n\ndef test_good():\n    pass\n\n\ndef test_bad():\n    assert 1 + 1 == 3\n\n\n"
        "@pytest.mark.skip(reason='one GPU')\ndef test_second():\n    pass\n"
    )
    rows: list[Row] = []
    parts.run_tests([str(path)], rows.append)
    assert [row["outcome"] for row in rows] == ["passed", "failed", "skipped"]
    assert "test_bad" in rows[1]["test"]
    assert rows[1]["wrong"].endswith("AssertionError")
    assert rows[2]["not measured"].endswith("one GPU")
    nothing: list[Row] = []
    parts.run_tests(["-k", "no_such_test", str(path)], nothing.append)
    assert nothing == [{"wrong": "pytest ended with exit code 5, and 0 tests passed"}]


def test_other_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.training.tutorials_loop", lambda *_: lambda _: 2.0)
    monkeypatch.setattr(parts, "find_spec", lambda _: None)
    missing, loop = recorded(parts.loops)
    assert missing["not measured"] == "lightning is not installed"
    assert loop == {"tool": "the tutorial's loop", "batch_size": 100, "seconds": [2.0, 2.0]}


# Time limits

ROWS = (
    "import json, subprocess, sys, time; file = open(sys.argv[1], 'a', buffering=1); file.write('{\"runs\": 1}\\n')\n"
)


def part_of(code: str, limit: float = 20) -> dict[str, Any]:
    return run.measured([sys.executable, "-c", ROWS + code], limit)


def test_a_part_that_takes_too_long_is_cut_and_keeps_its_rows() -> None:
    part = part_of("file.write('{\"half\"'); time.sleep(60)", limit=2)
    assert part["cut"]
    assert part["rows"] == [{"runs": 1}]
    assert not run.is_wrong(part)
    assert part["seconds"] < 30
    assert "  not measured: time (what was left after 2 s)" in run.in_lines("stacks", part)


def test_a_part_that_fails_is_wrong() -> None:
    failed = part_of("raise ValueError('a fault')")
    assert run.is_wrong(failed)
    assert failed["rows"] == [{"runs": 1}]
    assert failed["error"].endswith("ValueError: a fault\n\nexit code 1")
    assert part_of("import os; os.kill(os.getpid(), 9)")["error"] == "exit code -9"
    assert run.is_wrong(part_of('file.write(\'{"wrong": "another number"}\\n\')'))
    assert not run.is_wrong(part_of(""))


@pytest.mark.parametrize("fails", [False, True])
def test_the_program_of_a_part_writes_its_rows(fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def part(setting: Setting, record: Callable[[Row], None]) -> None:
        record({"runs": setting.runs})
        if fails:
            raise ValueError("a fault")

    monkeypatch.setitem(parts.PARTS, "made up", (part, 1))
    with pytest.raises(ValueError, match="a fault") if fails else nullcontext():
        parts.main("made up", str(tmp_path / "rows"))
    rows = list(map(json.loads, (tmp_path / "rows").read_text().splitlines()))
    assert rows == [{"runs": 100}, {"wrong": "ValueError: a fault"}][: 1 + fails]


@pytest.mark.parametrize(("rows", "code"), [([], 0), ([{"wrong": "another number"}], 1)])
def test_the_command_writes_a_file_named_after_the_gpu(
    rows: list[Row], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def measured(command: list[str], limit: float) -> dict[str, Any]:
        seen.append((command[-1], limit, os.environ["BNBENCH_STRICT"]))
        return {"seconds": 1.0, "limit": limit, "cut": False, "error": "", "rows": rows}

    for name in ("BNBENCH_STRICT", "BNBENCH_CACHE_DIR"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(run, "load", lambda *_: None)
    monkeypatch.setattr("runner.training.environment.describe", lambda *_: {"cpu": "a processor"})
    monkeypatch.setattr(run, "measured", measured)
    monkeypatch.setattr(run, "RESULTS", tmp_path / "gpu")
    assert run.main() == code
    assert seen == [(name, limit, "1") for name, (_, limit) in parts.PARTS.items()]
    results = json.loads((tmp_path / "gpu/NVIDIA-H100-80GB-HBM3.json").read_text())
    assert results["gpu"] == "NVIDIA H100 80GB HBM3"
    assert [part["rows"] for part in results["parts"].values()] == [rows] * len(parts.PARTS)
    assert [goal["met"] for goal in results["goals"]] == [None, None]


# The file and the section


def made_up(milliseconds: float = 3.9, seconds: float = 5.0) -> dict[str, Any]:
    """Results that no machine gave."""
    test = {"test": "tests/test_a.py::test_a", "seconds": 1.0}
    rows: dict[str, list[Row]] = {
        "tests": [
            {**test, "outcome": "passed"},
            {**test, "outcome": "skipped", "not measured": "one GPU"},
            {**test, "outcome": "failed", "wrong": "AssertionError"},
        ],
        "main_job": [
            {
                "runs": 200,
                "epochs": 10,
                "seconds": 20.0,
                "milliseconds": {"no_batch_norm": 3.5, "batch_norm": milliseconds},
                "trained_as": {"stack of 100, CUDA graph": 200},
            }
        ],
        "same_bytes": [
            {"sweep": "first", "runs": 100},
            {"sweep": "again", "equal": True},
            {"sweep": "killed and resumed", "wrong": "metrics.csv has 9 rows, not 10"},
        ],
        "memory": [{"runs": 32, "bytes": 4 << 30, "trained_as": {"stack of 16, CUDA graph": 32}}],
        "stacks": [
            {"batch_size": 1000, "runs": 4, "form": "grouped", "milliseconds": 8.25},
            {"batch_size": 1000, "runs": 4, "form": "loop", "milliseconds": 4.0},
            {"batch_size": 1000, "runs": 320, "form": "grouped", "not measured": "out of memory"},
        ],
        "loops": [
            {"tool": "Lightning", "batch_size": 1000, "not measured": "lightning is not installed"},
            {"tool": "the tutorial's loop", "batch_size": 1000, "seconds": [seconds + 1, seconds]},
        ],
        "kernels": [{"form": "loop", "kernel": "gemm<128|64>", "milliseconds": 1.5, "calls": 2.0, "share": 0.25}],
    }
    measured = {
        name: {"seconds": 9.0, "limit": 30, "cut": name == "kernels", "error": "", "rows": found}
        for name, found in rows.items()
    }
    environment = {"packages": {"torch": "2.10.0"}, "cuda": "13.0", "cpu": "a processor"}
    gpu = "NVIDIA H200"
    return {"gpu": gpu, "environment": environment, "goals": run.goals(gpu, measured), "parts": measured}


def section(results: dict[str, Any], folder: Path) -> str:
    (folder / "NVIDIA-H200.json").write_text(json.dumps(results))
    return "\n".join(runpy.run_path(str(ROOT / "docs/performance.py"))["gpus"](folder))


def test_the_section_of_a_gpu(tmp_path: Path) -> None:
    text = section(made_up(), tmp_path)
    for line in (
        "## NVIDIA H200",
        "| A LeNet run trains for one epoch at batch 1000 in at most 4 ms | 3.90 ms | yes |",
        "| A LeNet run trains at least 1,000 times as fast as in the tutorial's loop | 1,282 times | yes |",
        "1 tests passed, 1 failed, 1 skipped.",
        "- **Wrong**: AssertionError (tests/test_a.py::test_a)",
        "to its end. This is 10.00 ms per run and epoch.",
        "| `batch_norm` | 3.90 |",
        "| again | yes |",
        "| killed and resumed | no |",
        "- **Wrong**: metrics.csv has 9 rows, not 10 (killed and resumed)",
        "with 4.3 GB. The runs trained: 32 as `stack of 16, CUDA graph`.",
        "| runs, batch 1000 | grouped | loop |",
        "| 4 | 8.25 | 4.00 |",
        "- Not measured (1000, 320, grouped): out of memory",
        "| the tutorial's loop, batch 1000 | 5.00 | 1,250 |",
        "- Not measured (Lightning, 1000): lightning is not installed",
        "| `gemm<12864>` | loop | 1.500 | 2 | 25% |",
        "- The rest was not measured: this part may take 30 s.",
    ):
        assert line in text, line
    assert "one GPU" not in text


def test_goals_that_are_missed_or_not_measured(tmp_path: Path) -> None:
    missed = section(made_up(milliseconds=5.5), tmp_path)
    assert "in at most 4 ms | 5.50 ms | no |" in missed
    assert "in the tutorial's loop | 909 times | no |" in missed
    results = made_up()
    for part in results["parts"].values():
        part["rows"] = []
    results["goals"] = run.goals("NVIDIA H100 80GB HBM3", results["parts"])
    unmeasured = section(results, tmp_path)
    assert "in at most 6 ms | not measured | |" in unmeasured
    assert "in the tutorial's loop | not measured | |" in unmeasured
    assert len(run.goals("NVIDIA A100", results["parts"])) == 1


def test_a_page_without_a_gpu_says_so(tmp_path: Path) -> None:
    (text,) = runpy.run_path(str(ROOT / "docs/performance.py"))["gpus"](tmp_path)
    assert "No GPU has been measured." in text
