"""A sweep's folder → its tables as DataFrames."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from runner.config import grid as builder
from runner.errors import UserError
from runner.storage.folder import CONFIG, METRICS, PROBES, RUNS, read_config
from runner.storage.rows import EPOCH_FIELDS
from runner.storage.tables import RUN_FIELDS, complete_lines, read_header


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
    if header[: 1 + len(EPOCH_FIELDS)] != ["run", *EPOCH_FIELDS] or header[-1] != "run_id":
        raise UserError(f"{folder / METRICS}: not this command's table; its header is damaged")
    columns = tuple(header[1 + len(EPOCH_FIELDS) : -1])
    runs = _runs(folder / RUNS)  # first: of a sweep that is running, a run's epochs are there before its end
    metrics = _metrics(folder / METRICS)
    _check_whole(folder, metrics, runs)
    contrast: dict[str, Any] = {}
    name, grid_keys = folder.name, columns
    if (folder / CONFIG).exists():
        config = read_config(folder / CONFIG)
        contrast, name = config.get("contrast") or {}, config["name"]
        grids = config.get("grids") or [config.get("grid") or {}]
        grid_keys = tuple(dict.fromkeys(key for grid in grids for key in builder.keys(grid)))
        runs = _with_planned(runs, config, columns)
    axis, baseline = contrast.get("axis"), contrast.get("baseline")
    smallest_effect = contrast.get("smallest_effect")
    return Results(folder, name, axis, baseline, columns, grid_keys, metrics, runs, smallest_effect)


def readings(results: Results, name: str) -> pd.DataFrame:
    """curves.csv or probes.csv of a sweep, each reading once.

    Errors: UserError where the sweep has none.
    """
    path = results.folder / name
    if not path.exists():
        raise UserError(f"{results.folder}: no {name}; it is written where a config asks for such readings")
    table = pd.read_csv(path, keep_default_na=False, na_values=["", "nan"], dtype={"run_id": str, "layer": str})
    return table.drop_duplicates(["run", "step", *(["layer", "measure"] if name == PROBES else [])])


def _with_planned(runs: pd.DataFrame, config: dict[str, Any], columns: Sequence[str]) -> pd.DataFrame:
    """runs.csv with a row of status "missing" for each planned run that has none.

    Parameters are the config's, typed: in the CSV the texts "1" and "1.0" and the number are one. Empty where a run
    does not have the parameter; an explicit null is the text "null".
    """
    planned = [[_value(point, column) for column in columns] for point in builder.expand(config)]
    table = pd.DataFrame(planned, columns=list(columns), dtype=object).infer_objects()
    table.insert(0, "run", range(1, len(table) + 1))
    table = table.merge(runs[[*RUN_FIELDS, "run_id"]], on="run", how="left")
    table["status"] = table["status"].astype(object).where(table["status"].notna(), "missing")
    return table[[*RUN_FIELDS, *columns, "run_id"]]


def _value(parameters: dict[str, Any], name: str) -> Any:
    if name not in parameters:
        return None
    value = parameters[name]
    return json.dumps(value) if value is None or isinstance(value, list) else value


def _metrics(path: Path) -> pd.DataFrame:
    metrics = _read(path)
    for name in ("run", *EPOCH_FIELDS):
        if not pd.api.types.is_numeric_dtype(metrics[name]) and len(metrics):
            wrong = metrics.loc[pd.to_numeric(metrics[name], errors="coerce").isna() & metrics[name].notna(), name]
            raise UserError(f"{path}: {name} is '{wrong.iloc[0]}' in a row, not a number: the table is damaged")
    return metrics


def _check_whole(folder: Path, metrics: pd.DataFrame, runs: pd.DataFrame) -> None:
    """A run that ended has all its epochs, and the last of them is what its row says. Errors: UserError else."""
    ended = runs[runs["status"].isin(["ok", "diverged"])].drop_duplicates("run_id").set_index("run_id")
    epochs = metrics.drop_duplicates(["run_id", "epoch"])
    last = epochs.loc[epochs.groupby("run_id")["epoch"].idxmax()].set_index("run_id").reindex(ended.index)
    counts = epochs.groupby("run_id").size().reindex(ended.index, fill_value=0)
    told = pd.to_numeric(ended["epochs_trained"], errors="coerce")
    short = (counts != told) | (last["epoch"] != told)
    for name in ("train_accuracy", "valid_accuracy"):
        short |= (last[name] != ended[name]) & ~(last[name].isna() & ended[name].isna())
    if short.any():
        run = ended.index[int(short.to_numpy().argmax())]
        raise UserError(
            f"{folder}: {METRICS} and {RUNS} disagree on run {ended.loc[run, 'run']} ({counts[run]} epochs, "
            f"{ended.loc[run, 'epochs_trained']} trained): a table is damaged; bnbench resume trains what is missing, "
            f"--fresh everything"
        )


def _runs(path: Path) -> pd.DataFrame:
    runs = _read(path)
    if missing := sorted({*RUN_FIELDS, "run_id"} - {*runs.columns, "trained_as"}):
        raise UserError(f"{path}: not this command's table; columns are missing: {', '.join(missing)}")
    return runs if "trained_as" in runs else runs.assign(trained_as="")  # tables older than stacks have none


def _read(path: Path) -> pd.DataFrame:
    hashes = {"run_id": str, "weights_hash": str, "batches_hash": str}  # "12e45678" is no number
    try:
        text = path.read_text(encoding="utf-8")
        return pd.read_csv(
            io.StringIO(complete_lines(text)), keep_default_na=False, na_values=["", "nan"], dtype=hashes
        )
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise UserError(f"{path}: cannot be read as this command's table: {error}") from None
