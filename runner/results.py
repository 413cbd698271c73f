"""A sweep's folder → its tables as DataFrames."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from runner import builder, yaml_source
from runner.errors import UserError
from runner.rows import EPOCH_FIELDS
from runner.store import CONFIG, METRICS, RUN_FIELDS, RUNS, cell, read_header


@dataclass(frozen=True)
class Results:
    """One sweep as its tables say."""

    folder: Path
    name: str
    axis: str | None
    """The contrast's axis, such as "network"; None where the config names none."""
    baseline: object | None
    parameters: tuple[str, ...]
    """The run-parameter columns, grid keys first, in order."""
    grid_keys: tuple[str, ...]
    metrics: pd.DataFrame
    runs: pd.DataFrame
    """Every planned run, one row each, with the columns of runs.csv; status "missing" where there is no result yet."""
    smallest_effect: float | None = None
    """The smallest difference in accuracy of interest, where the config fixed one beforehand."""


def load(folder: Path) -> Results:
    """Read a sweep's folder; it may still be running, or be the RunManager's, which has no config.

    Errors: UserError where the folder holds no sweep.
    """
    header = read_header(folder / METRICS)
    if not header:
        raise UserError(f"{folder}: no sweep here (no {METRICS}); allowed: a folder that 'bnbench run' wrote")
    columns = tuple(header[1 + len(EPOCH_FIELDS) : -1])
    metrics, runs = _read(folder / METRICS), _read(folder / RUNS)
    contrast: dict[str, Any] = {}
    name, grid_keys = folder.name, columns
    if (folder / CONFIG).exists():
        config = yaml_source.read((folder / CONFIG).read_text(encoding="utf-8"), str(folder / CONFIG)).values
        contrast, name = config.get("contrast") or {}, config["name"]
        grids = config.get("grids") or [config.get("grid") or {}]
        grid_keys = tuple(dict.fromkeys(key for grid in grids for key in builder.keys(grid)))
        runs = _with_planned(runs, config, columns)
    axis, baseline = contrast.get("axis"), contrast.get("baseline")
    smallest_effect = contrast.get("smallest_effect")
    return Results(folder, name, axis, baseline, columns, grid_keys, metrics, runs, smallest_effect)


def _with_planned(runs: pd.DataFrame, config: dict[str, Any], columns: Sequence[str]) -> pd.DataFrame:
    """runs.csv with a row of status "missing" for each planned run that has none."""
    planned = io.StringIO()
    writer = csv.writer(planned)
    writer.writerow(["run", *columns])
    for number, parameters in enumerate(builder.expand(config), start=1):
        writer.writerow([number, *(cell(parameters.get(column)) for column in columns)])
    planned.seek(0)
    measured = runs[[*RUN_FIELDS, "run_id"]]
    table = _parse(planned).merge(measured, on="run", how="left")
    table["status"] = table["status"].astype(object).where(table["status"].notna(), "missing")
    return table[[*RUN_FIELDS, *columns, "run_id"]]


def _read(path: Path) -> pd.DataFrame:
    text = path.read_text(encoding="utf-8")
    return _parse(io.StringIO(text[: text.rfind("\n") + 1]))  # the torn last line of a killed sweep is left out


def _parse(file: io.StringIO) -> pd.DataFrame:
    hashes = {"run_id": str, "weights_hash": str, "batches_hash": str}  # "12e45678" is no number
    return pd.read_csv(file, keep_default_na=False, na_values=["", "nan"], dtype=hashes)
