"""Made-up sweeps for the tests of comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from runner.analysis.records import ArmRow, Comparison, Difference
from runner.storage.results import Results

NAN = float("nan")

METRICS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "epoch_duration", "run_duration")


@dataclass(frozen=True)
class Planned:
    """One planned run: its parameters, and valid_accuracy per epoch; valid_loss is 1 − that."""

    parameters: Mapping[str, Any]
    accuracy: Sequence[float] = ()
    status: str = "ok"
    weights: str | None = None  # default: a hash of the seed alone, as for arms that share their layers
    batches: str | None = None  # default: a digest per epoch, of the seed alone
    test_accuracy: float = NAN
    code: str = "c"  # the version of the code that trained it


def sweep(
    runs: Sequence[Planned], *, axis: str | None = "network", baseline: object = "none", name: str = "study"
) -> Results:
    """`Results` as they are loaded: the parameters are those of any run, empty where a run has none."""
    parameters = tuple(dict.fromkeys(key for run in runs for key in run.parameters))
    epochs, ends = [], []
    for number, run in enumerate(runs, 1):
        seed, count = run.parameters.get("seed", 0), len(run.accuracy)
        of_run = [*(run.parameters.get(key) for key in parameters), f"{name}{number}"]
        for epoch, value in enumerate(run.accuracy, 1):
            epochs.append([number, epoch, 60 * epoch, 1 - value, value, 1 - value, value, 0.5, 0.5 * epoch, *of_run])
        weights = f"w{seed}" if run.weights is None else run.weights
        digests = " ".join(f"s{seed}e{epoch}" for epoch in range(1, count + 1))
        hashes = [weights or None, (digests if run.batches is None else run.batches) or None]
        ends.append([number, run.status, count, 1 - run.test_accuracy, run.test_accuracy, *hashes, run.code, *of_run])
    metrics = pd.DataFrame(epochs, columns=["run", "epoch", "step", *METRICS, *parameters, "run_id"])
    columns = [
        "run",
        "status",
        "epochs_trained",
        "test_loss",
        "test_accuracy",
        "weights_hash",
        "batches_hash",
        "code_hash",
    ]
    table = pd.DataFrame(ends, columns=[*columns, *parameters, "run_id"])
    return Results(Path("results") / name, name, axis, baseline, parameters, parameters, metrics, table)


def one_epoch(arms: Mapping[str, Sequence[float]], **parameters: Any) -> list[Planned]:
    """A run per arm and seed: {"none": [.90, .91], "bn": [.92, .93]} makes two pairs."""
    return [
        Planned({**parameters, "network": arm, "seed": seed}, [accuracy])
        for arm, accuracies in arms.items()
        for seed, accuracy in enumerate(accuracies)
    ]


def by_arm(comparison: Comparison) -> dict[object, ArmRow]:
    assert len({row.arm for row in comparison.rows}) == len(comparison.rows)
    return {row.arm: row for row in comparison.rows}


def difference(row: ArmRow) -> Difference:
    assert row.difference is not None
    return row.difference


def interval(row: ArmRow) -> tuple[Any, Any, Any]:  # Any: mypy does not see that a number equals an approximate one
    found = difference(row).interval
    assert found is not None
    return found.estimate, found.low, found.high
