"""`make bench`, in small: the arithmetic of an epoch and a whole command."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import arithmetic, training


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
