"""`make bench`, in small: the arithmetic of an epoch, whole commands, and the sections made from its file."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import arithmetic, training

ROOT = Path(__file__).parent.parent


def test_the_arithmetic_of_an_epoch() -> None:
    """By hand, multiply-adds forward of an image: outputs × height × width × inputs × kernel."""
    first, second, linear = 6 * 24 * 24 * 1 * 25, 12 * 8 * 8 * 6 * 25, 192 * 120 + 120 * 60 + 60 * 10
    forward, weights, inputs = first + second + linear, first + second + linear, second + linear
    lenet = arithmetic.gflop_of_an_epoch(training.LENET)
    assert lenet == pytest.approx(2 * (forward + weights + inputs) * 60_000 / 1e9)
    assert round(lenet, 1) == 73.3
    mlp = arithmetic.gflop_of_an_epoch(training.MLP)
    assert mlp == pytest.approx(2 * (2 * 784 * 100 + 3 * 100 * 10) * 60_000 / 1e9)


@pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler")
def test_the_rate_of_a_core_is_measured() -> None:
    assert arithmetic.gflops_of_a_core() > 0


def test_a_whole_command_trains_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "RUNS", 1)
    assert training.command(training.CNN.changed(dataset="digits"), "torch")(tmp_path) > 0


def made_up() -> dict[str, Any]:
    """What `python -m benchmarks` writes, with made-up seconds: each contestant takes longer than the one before."""

    def seconds(case: training.Case) -> dict[str, list[float]]:
        return {name: [0.5 * place, 1.0 * place, 1.0 * place] for place, name in enumerate(case, start=1)}

    groups = {
        "training": training.cpu_cases(),
        "overhead": training.overhead_cases(),
        "run_count": training.run_count_cases(),
    }
    environment = {
        "cpu": "A CPU",
        "cores": 2,
        "python": "3.11",
        "packages": {"torch": "2"},
        "kernels": "x86_64_v4 0123",
    }
    return {
        "environment": environment,
        "gflops_of_a_core": 100.0,
        "gflop_of_an_epoch": dict.fromkeys(training.CASES, 50.0),
        "commands": {"bnbench --help": {"seconds": [0.1, 0.3, 0.2], "peak_mb": 30.4}},
    } | {group: {name: seconds(case) for name, case in cases.items()} for group, cases in groups.items()}


def test_the_section_of_a_machine() -> None:
    module = runpy.run_path(str(ROOT / "docs/performance.py"))
    text = "\n".join(module["machine"](made_up(), "2-A-CPU.json"))
    for line in (
        "## A CPU, 2 cores",
        "A core does 100 GFLOP/s if it does nothing but multiply-adds.",
        "An epoch has 50.0 GFLOP. With native kernels, bnbench reaches 25% of the peak.",
        "| bnbench, 8 runs of 5 epochs, 2 workers, native kernels | 1.00 | 1.00 (1.00 to 1.00) | 25% |",
        "| bnbench, 8 runs of 5 epochs, 2 workers, torch's kernels | 2.00 | 2.00 (2.00 to 2.00) | 12% |",
        "| the tutorial's loop | 6.00 | 6.00 (6.00 to 6.00) | 4% |",
        "| arithmetic alone, 2 cores | 0.25 | | 100% |",
        "| LeNet, FashionMNIST, batch 64 | bnbench, native kernels | 3.00 | 3.00 (3.00 to 3.00) |",
        "| 1 run, one stack, 1 thread | 10.00 | 10.00 (10.00 to 10.00) |",
        "| `bnbench --help` | 0.20 | 30 |",
    ):
        assert line in text, line
