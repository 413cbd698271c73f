"""What whole commands cost: seconds and the largest process's memory."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from runner import driver, yaml_source
from runner.config import load
from runner.rows import EPOCH_FIELDS
from runner.store import RUN_FIELDS

GRID = {
    "network": ["no_batch_norm", "batch_norm"],
    "lr": {"logspace": [1.0e-4, 1, 10]},
    "batch_size": [64, 128, 256, 512, 1000],
}
MEASURED = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
CONTRAST = {"axis": "network", "baseline": "no_batch_norm"}


def commands(folder: Path) -> dict[str, list[str]]:
    """Name → command line. Makes what they read in `folder`."""
    bnbench = str(Path(sys.executable).parent / "bnbench")
    plan = folder / "plan.yaml"
    plan.write_text(yaml_source.dump({"contrast": CONTRAST, "grid": {**GRID, "seed": {"range": 1000}}}), "utf-8")
    lenet = folder / "lenet.yaml"
    fixed = {"network": "batch_norm", "device": "cpu", "epochs": 1}
    lenet.write_text(yaml_source.dump({"fixed": fixed, "grid": {"seed": {"range": 8}}}), "utf-8")
    train = [bnbench, "run", str(lenet), "--out", str(folder), "--fresh", "--quiet"]
    quickstart = str(Path(__file__).parent.parent / "configs/quickstart.yaml")
    return {
        "bnbench --help": [bnbench, "--help"],
        "bnbench plan of 20 runs": [bnbench, "plan", quickstart],
        "bnbench plan of 100,000 runs": [bnbench, "plan", str(plan)],
        "bnbench compare of 1,000,000 rows": [bnbench, "compare", str(million_rows(folder))],
        "bnbench run of 8 LeNet epochs, 2 workers": [*train, "--workers", "2"],
        "bnbench run of 8 LeNet epochs, one stack": [*train, "--executor", "inline", "--stack", "on", "--workers", "1"],
    }


def million_rows(folder: Path) -> Path:
    """A finished sweep of 10,000 runs of 100 epochs, its figures drawn at random."""
    config = folder / "million.yaml"
    fixed = {"dataset": "digits", "device": "cpu", "epochs": 100}
    grid = {**GRID, "seed": {"range": 100}}
    config.write_text(yaml_source.dump({"contrast": CONTRAST, "fixed": fixed, "grid": grid}), "utf-8")
    sweep = load(config, (), None)
    results = folder / "million"
    results.mkdir()
    (results / "config.yaml").write_text(driver.config_text(sweep, results), "utf-8")
    draw = random.Random(0)
    with (results / "metrics.csv").open("w") as metrics, (results / "runs.csv").open("w") as runs:
        metrics.write(",".join(["run", *EPOCH_FIELDS, *sweep.columns, "run_id"]) + "\n")
        runs.write(",".join([*RUN_FIELDS, *sweep.columns, "run_id"]) + "\n")
        for number, run in enumerate(sweep.runs, start=1):
            parameters = run.parameters
            tail = ",".join(_cell(parameters[name]) for name in sweep.columns) + f",{run.run_id}\n"
            for epoch in range(1, 101):
                measured = {name: f"{draw.random():.16f}" for name in MEASURED}
                values = ",".join(measured.values())
                metrics.write(f"{number},{epoch},{epoch * 10},{values},0.1,{epoch * 0.1:.1f},{tail}")
            last = {"run": number, "status": "ok", "epochs_trained": 100, "test_accuracy": draw.random(), **measured}
            last |= {"weights_hash": f"w{run.seed}", "batches_hash": f"b{run.seed}"}
            runs.write(",".join(str(last.get(name, "")) for name in RUN_FIELDS) + f",{tail}")
    return results


def _cell(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value).replace("()", "[]")


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
