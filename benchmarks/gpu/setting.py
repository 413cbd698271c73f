"""What is measured, and how much of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from benchmarks.training import LENET
from runner.config.jobs import Form
from runner.config.run_spec import RunSpec

Row = dict[str, Any]
"""One measurement by name. A row with the key "wrong" says what is wrong: the benchmark then exits with 1.

A row with "not measured" says why a measurement is missing.
"""

Record = Callable[[Row], None]
"""Receives each row as soon as it is there, so that a part that is cut by its time limit keeps what it has measured."""


ON_CUDA = LENET.changed(device="cuda", epochs=10)


@dataclass(frozen=True)
class Setting:
    """The sizes of the benchmark. The defaults are those of a GPU; tests take small ones on the CPU.

    root:         The data folder.
    run:          The LeNet that every part trains: its device, data set, batch size (for the sweeps) and epochs.
    runs:         How many seeds a sweep trains of each network, and how many runs the profiled stack has.
    options:      Options of `bnbench run` and `bnbench resume`. One worker uses one GPU.
    stack_sizes:  How many runs the timed stacks have.
    batch_sizes:  The batch sizes of the timed stacks and of the other tools.
    forms:        The forms of the timed stacks.
    seconds:      How long each stack is timed.
    """

    root: Path
    run: RunSpec = ON_CUDA
    runs: int = 100
    options: tuple[str, ...] = ("--workers", "1")
    stack_sizes: tuple[int, ...] = (1, 4, 10, 32, 100, 320)
    batch_sizes: tuple[int, ...] = (1000, 64)
    forms: tuple[Form, ...] = get_args(Form)
    seconds: float = 0.5
