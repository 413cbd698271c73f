"""Finished sweeps whose figures are made up, not trained: tables of any size in seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner.config import yaml_source
from runner.config.reader import load
from runner.config.run_spec import RunSpec
from runner.execution import existing
from runner.storage.rows import EPOCH_FIELDS
from runner.storage.tables import RUN_FIELDS, cell

MEASURED = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")

Draw = Callable[[RunSpec, int], tuple[float, float, float, float]]
"""(run, epoch) → the `MEASURED` of that epoch."""


def made_up(
    folder: Path,
    config: Mapping[str, Any],
    draw: Draw,
    ended: Callable[[RunSpec], tuple[str, int] | None] | None = None,
) -> Path:
    """Write the tables of a sweep below `folder`. `ended`: a run's status and epochs where it is not ok, else None."""
    path = folder / f"{config.get('name', 'study')}.yaml"
    path.write_text(yaml_source.dump(dict(config)), "utf-8")
    sweep = load(path, (), None)
    results = folder / sweep.name
    results.mkdir()
    (results / "config.yaml").write_text(existing.config_text(sweep, results), "utf-8")
    with (results / "metrics.csv").open("w") as metrics, (results / "runs.csv").open("w") as runs:
        metrics.write(",".join(["run", *EPOCH_FIELDS, *sweep.columns, "run_id"]) + "\n")
        runs.write(",".join([*RUN_FIELDS, *sweep.columns, "run_id"]) + "\n")
        for number, run in enumerate(sweep.runs, start=1):
            parameters = run.parameters
            tail = ",".join(_quoted(parameters.get(name)) for name in sweep.columns) + f",{run.run_id}\n"
            status, epochs = (ended and ended(run)) or ("ok", run.epochs)
            last: dict[str, Any] = {}
            for epoch in range(1, epochs + 1):
                last = dict(zip(MEASURED, draw(run, epoch), strict=True))
                values = ",".join(map(cell, last.values()))
                metrics.write(f"{number},{epoch},{epoch * 10},{values},0.1,{epoch * 0.1:.1f},{tail}")
            last |= {
                "run": number,
                "status": status,
                "epochs_trained": epochs,
                "test_accuracy": last.get("valid_accuracy"),
            }
            last |= {"weights_hash": f"w{run.seed}", "batches_hash": f"b{run.seed}"}
            runs.write(",".join(cell(last.get(name)) for name in RUN_FIELDS) + f",{tail}")
    return results


def _quoted(value: object) -> str:
    text = cell(list(value) if isinstance(value, tuple) else value)
    return f'"{text}"' if "," in text or '"' in text else text
