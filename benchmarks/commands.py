"""What whole commands cost: seconds and the largest process's memory."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from benchmarks.made_up import made_up
from runner.config import yaml_source

BNBENCH = str(Path(sys.executable).parent / "bnbench")

GRID = {
    "network": ["no_batch_norm", "batch_norm"],
    "lr": {"logspace": [1.0e-4, 1, 10]},
    "batch_size": [64, 128, 256, 512, 1000],
}
CONTRAST = {"axis": "network", "baseline": "no_batch_norm"}


def commands(folder: Path) -> dict[str, list[str]]:
    """Name → command line. Makes what they read in `folder`."""
    plan = folder / "plan.yaml"
    plan.write_text(yaml_source.dump({"contrast": CONTRAST, "grid": {**GRID, "seed": {"range": 1000}}}), "utf-8")
    lenet = folder / "lenet.yaml"
    fixed = {"network": "batch_norm", "device": "cpu", "epochs": 1}
    lenet.write_text(yaml_source.dump({"fixed": fixed, "grid": {"seed": {"range": 8}}}), "utf-8")
    digits = folder / "digits.yaml"
    digits.write_text(yaml_source.dump({"fixed": {**fixed, "dataset": "digits"}}), "utf-8")
    train = [BNBENCH, "run", "--out", str(folder), "--fresh", "--quiet"]
    quickstart = str(Path(__file__).parent.parent / "configs/quickstart.yaml")
    return {
        "bnbench --help": [BNBENCH, "--help"],
        "bnbench plan of 20 runs": [BNBENCH, "plan", quickstart],
        "bnbench plan of 100,000 runs": [BNBENCH, "plan", str(plan)],
        "bnbench compare of 1,000,000 rows": [BNBENCH, "compare", str(million_rows(folder))],
        "bnbench report of 4,000 runs": [BNBENCH, "report", str(many_runs(folder))],
        "bnbench run of one 1-epoch digits run": [*train, str(digits)],
        "bnbench run of 8 LeNet runs of 1 epoch, 2 workers": [*train, str(lenet), "--workers", "2"],
    }


def million_rows(folder: Path) -> Path:
    """A finished sweep of 10,000 runs of 100 epochs, its figures drawn at random."""
    draw = random.Random(0)
    fixed = {"dataset": "digits", "device": "cpu", "epochs": 100}
    config = {"name": "million", "contrast": CONTRAST, "fixed": fixed, "grid": {**GRID, "seed": {"range": 100}}}
    return made_up(folder, config, lambda *_: (draw.random(), draw.random(), draw.random(), draw.random()))


def many_runs(folder: Path) -> Path:
    """A finished sweep of 4,000 runs of 10 epochs: two networks at ten learning rates, 200 seeds of each."""
    draw = random.Random(0)
    fixed = {"dataset": "digits", "device": "cpu", "epochs": 10}
    grid = {"network": GRID["network"], "lr": GRID["lr"], "seed": {"range": 200}}
    config = {"name": "many", "contrast": CONTRAST, "fixed": fixed, "grid": grid}
    return made_up(folder, config, lambda *_: (draw.random(), draw.random(), draw.random(), draw.random()))


CALL = """
import resource, subprocess, sys, time
began = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000)
"""
"""A small process in between: a child's peak begins with that of the process it was forked from."""


def measure(command: list[str]) -> tuple[float, float]:
    """(seconds, peak MB) of one call."""
    done = subprocess.run([sys.executable, "-c", CALL, *command], capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes
