"""A sweep's folder → its tables as DataFrames."""

import io
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from runner.config import grid
from runner.config.run_spec import LATER, SEEDS, RunSpec
from runner.config.sweep import UntilDecided
from runner.errors import UserError
from runner.storage import contrast_history, files, norm_changes, small_batches
from runner.storage.folder import CONFIG, METRICS, PROBES, RUNS, read_config
from runner.storage.rows import ENDED
from runner.storage.tables import (
    ADDED,
    COUNTS,
    FIELDS,
    NUMBERS,
    RUN_FIELDS,
    check_columns,
    check_status,
    complete_lines,
    read_header,
)

TEST_METRICS = ("test_loss", "test_accuracy")

DEFAULTS = {name: field.default for name, field in RunSpec.model_fields.items() if not field.is_required()}
"""The defaults of the run parameters."""

TEXTS = dict.fromkeys(("run_id", "weights_hash", "batches_hash", "code_hash", "code_digests", "layer"), str)
"""Columns that hold texts. A hash such as "12e45678" must not become a number."""


@dataclass(frozen=True)
class Metric:
    """A number that runs are compared by."""

    name: str
    """Its column in the tables."""
    words: str
    """Its name in a sentence."""
    share: bool
    """Whether it is a share from 0 to 1. Shares are shown in percent."""
    better: Literal[1, -1]
    """1 where higher is better, else −1."""


@dataclass(frozen=True)
class Stated:
    """What somebody states of a table that another tool wrote. (A sweep's folder proves its pairs by hashes.)"""

    metric: Metric
    pair_by: tuple[str, ...]
    """The columns in which the runs of a pair are equal."""
    at: Literal["last", "last step", ""]
    """Which of a run's rows counts: that of its last epoch, of its last step, or its only one."""
    notes: tuple[str, ...]
    """How the table was read, in sentences."""
    arguments: str
    """The arguments of the commands that read it."""

    @property
    def pairing(self) -> str:
        """How its runs are paired, and what is not known of the pairs."""
        return f"by {', '.join(self.pair_by)}; equal starting points not proven"


@dataclass(frozen=True)
class Results:
    """The tables of one sweep, or of a table that another tool wrote.

    `axis` is the contrast's axis, such as "network", and `baseline` is its baseline arm; both are None where the config
    names none. `parameters` are the columns of run parameters. `grid_keys` are the parameters that the grid varies.
    `runs` has one row per planned run, with the columns of runs.csv; its status is "missing" where there is no result
    yet. `smallest_effect` is the smallest difference that matters, where one is fixed: in accuracy, for a sweep.
    `stated` is set for a table of another tool only; its metric is a column of `runs`, and `metrics` has no row.
    """

    folder: Path
    name: str
    axis: str | None
    baseline: object | None
    parameters: tuple[str, ...]
    grid_keys: tuple[str, ...]
    metrics: pd.DataFrame
    runs: pd.DataFrame
    smallest_effect: float | None = None
    stated: Stated | None = None
    norm_changes: tuple[str, ...] = ()
    """What run.log says of norm layers that were replaced: a sentence for each network and norm layer."""
    max_seeds: int | None = None
    """The most seeds of a sweep to which seeds were added until its verdict was decided; None for any other."""
    fixed: contrast_history.Fixed = "beforehand"
    """When the contrast and its smallest effect were fixed."""
    contrast_changes: tuple[str, ...] = ()
    """How the contrast was changed, or runs were added, after runs had begun, or runs or a baseline were chosen for
    one table: a sentence for each."""
    small_batches: tuple[str, ...] = ()
    """What run.log says of last batches that are very small."""

    @property
    def once(self) -> tuple[str, ...]:
        """The metrics of which `runs` has one value per run."""
        return (self.stated.metric.name,) if self.stated else TEST_METRICS

    @property
    def repeats(self) -> tuple[str, ...]:
        """The parameters whose values repeat a measurement, so that they make no cell."""
        return self.stated.pair_by if self.stated else SEEDS


def load(folder: Path, *, whole: bool = True) -> Results:
    """Read a sweep's folder. The sweep may still be running, or be the RunManager's, which has no config.

    With `whole=False`, `metrics` has no run parameters. `runs` has them as well, and a large table is read three times
    as fast.
    Errors: UserError where the folder holds no sweep, or a damaged one.
    """
    fields, header = list(FIELDS[METRICS]), read_header(folder / METRICS)
    if not header:
        raise UserError(f"{folder}: no sweep here (no {METRICS}); allowed: a folder that 'bnbench run' wrote")
    if header[: len(fields)] != fields or header[-1] != "run_id":
        raise UserError(f"{folder / METRICS}: not a table of bnbench, or its header is damaged")
    columns = tuple(header[len(fields) : -1])
    # RUNS is read first: the writer of a running sweep writes a run's epochs before its result.
    runs = _runs(folder / RUNS)
    metrics = _metrics(folder / METRICS, whole)
    _check_whole(folder, metrics, runs)
    contrast: dict[str, Any] = {}
    max_seeds = None
    name, grid_keys = folder.name, columns
    if files.exists(folder / CONFIG):
        config = read_config(folder / CONFIG)
        metrics = _with_added(metrics, LATER) if whole else metrics
        columns += tuple(column for column in LATER if column not in columns)
        contrast, name = config.get("contrast") or {}, config["name"]
        grids = config.get("grids") or [config.get("grid") or {}]
        grid_keys = tuple(dict.fromkeys(key for each in grids for key in grid.keys(each)))
        runs = _with_planned(runs, config, columns)
        if config.get("until_decided") is not None:
            max_seeds = UntilDecided.model_validate(config["until_decided"]).max_seeds
    axis, baseline = contrast.get("axis"), contrast.get("baseline")
    smallest_effect = contrast.get("smallest_effect")
    found = Results(folder, name, axis, baseline, columns, grid_keys, metrics, runs, smallest_effect)
    fixed, changes = contrast_history.judged(
        contrast_history.read(folder),
        contrast_history.Entry.of(
            contrast,
            runs_ended=int(runs["status"].isin(ENDED).sum()),
            runs_begun=metrics["run"].nunique(),
            runs_planned=None if max_seeds else runs["run"].nunique(),
        ),
    )
    return replace(
        found,
        norm_changes=norm_changes.read(folder),
        fixed=fixed,
        contrast_changes=tuple(changes),
        small_batches=small_batches.read(folder),
        max_seeds=max_seeds,
    )


def readings(results: Results, name: str) -> pd.DataFrame:
    """curves.csv or probes.csv of a sweep, each reading once.

    Errors: UserError where the sweep has none, or where rows of a run that has ended are missing.
    """
    path = results.folder / name
    if not files.exists(path):
        raise UserError(f"{results.folder}: no {name}: the config asks for no such readings")
    table, runs = _read(path), results.runs
    _check_numbers(path, table, [column for column in FIELDS[name] if column not in ("layer", "measure")])
    # An older bnbench did not count these rows.
    counted = runs[runs["status"].isin(ENDED) & runs[COUNTS[name]].notna()].set_index("run")[COUNTS[name]]
    rows = table.groupby("run").size().reindex(counted.index, fill_value=0)
    if (rows != counted).any():
        run = counted.index[rows != counted][0]
        raise UserError(f"{results.folder}: {name} and {RUNS} disagree on run {run}; use bnbench resume or --fresh")
    keys = ["run", "step", "layer", "measure"] if name == PROBES else ["run", "step"]
    return table.drop_duplicates(keys)


def _with_planned(runs: pd.DataFrame, config: dict[str, Any], columns: Sequence[str]) -> pd.DataFrame:
    """runs.csv with a row of status "missing" for each planned run that has none.

    Parameters come from the config, which knows their types; in a CSV the text "1" and the number 1 look the same. A
    parameter that only other grids of the config set has its default.
    """
    defaults = {column: DEFAULTS[column] for column in columns if column in DEFAULTS}
    planned = [[_value(defaults | run, column) for column in columns] for run in grid.expand(config)]
    table = pd.DataFrame(planned, columns=list(columns), dtype=object).infer_objects()
    table.insert(0, "run", range(1, len(table) + 1))
    table = table.merge(runs[[*RUN_FIELDS, "run_id"]], on="run", how="left")
    table["status"] = table["status"].astype(object).fillna("missing")
    return table[[*RUN_FIELDS, *columns, "run_id"]]


def _value(parameters: dict[str, Any], name: str) -> Any:
    """A parameter in the table: None where the run does not have it, the text "null" where the config says null."""
    if name not in parameters:
        return None
    value = parameters[name]
    return json.dumps(value) if value is None or isinstance(value, list | tuple | dict) else value


def _metrics(path: Path, whole: bool) -> pd.DataFrame:
    # As a category, the id that all rows of a run share is stored once. (pandas refuses a row with too many cells only
    # where it reads all columns. Here such a row has another id, unless the cells are behind the id, and
    # `_check_whole` misses the row.)
    metrics = _read(path) if whole else _read(path, [*FIELDS[METRICS], "run_id"], {"run_id": "category"})
    _check_numbers(path, metrics, FIELDS[METRICS])
    return metrics


def _check_whole(folder: Path, metrics: pd.DataFrame, runs: pd.DataFrame) -> None:
    """Errors: UserError where a run that ended lacks an epoch, or where its row says something else than the last."""
    ended = runs[runs["status"].isin(ENDED)].drop_duplicates("run_id").set_index("run_id")
    compared = ["train_accuracy", "valid_accuracy"]
    epochs = metrics[["run_id", "epoch", *compared]].drop_duplicates(["run_id", "epoch"])
    by_run = epochs.groupby("run_id", observed=True)["epoch"]
    last = epochs[epochs["epoch"] == by_run.transform("max")].set_index("run_id").reindex(ended.index)
    counts = by_run.count().reindex(ended.index, fill_value=0)
    trained = pd.to_numeric(ended["epochs_trained"], errors="coerce")
    wrong = (counts != trained) | (last["epoch"] != trained)
    for name in compared:
        wrong |= (last[name] != ended[name]) & ~(last[name].isna() & ended[name].isna())
    if wrong.any():
        run = ended.loc[wrong, "run"].iloc[0]
        raise UserError(f"{folder}: {METRICS} and {RUNS} disagree on run {run}; use bnbench resume or --fresh")


def _runs(path: Path) -> pd.DataFrame:
    runs = _with_added(_read(path), RUN_FIELDS)
    _check_numbers(path, runs, NUMBERS)
    for status in runs["status"].unique():
        check_status(str(status), path)
    return runs


def _check_numbers(path: Path, table: pd.DataFrame, names: Collection[str]) -> None:
    """Errors: UserError where a cell of these columns is neither empty nor a number, or a row has no run number."""
    for name in names if len(table) else ():
        cells = table[name]
        # pandas leaves a column as texts where a number has too many digits, or where all cells are "True".
        if cells.dtype.kind not in "iuf":
            table[name] = pd.to_numeric(cells.astype(str), errors="coerce").astype(float)
        missing = ~(table[name] % 1 == 0) if name == "run" else table[name].isna() & cells.notna()
        if missing.any():
            wrong = str(cells[missing].iloc[0])[:60]
            raise UserError(f"{path}: {name} is '{wrong}', not a number: the table is damaged")


def _with_added(table: pd.DataFrame, wanted: Collection[str]) -> pd.DataFrame:
    """The table with those of the wanted columns that it lacks because it is older than they are."""
    added = {name: ADDED[name] for name in wanted if name in ADDED and name not in table}
    # An empty cell is read as NaN.
    return table.assign(**{name: math.nan if value is None else value for name, value in added.items()})


def _read(path: Path, columns: list[str] | None = None, types: Mapping[str, Any] = TEXTS) -> pd.DataFrame:
    """The complete lines of a table, with these columns or all. Errors: UserError where it cannot be read."""
    try:
        lines = io.TextIOWrapper(io.BytesIO(complete_lines(files.read_bytes(path))), encoding="utf-8")
        table = pd.read_csv(lines, keep_default_na=False, na_values=["", "nan"], dtype=types, usecols=columns)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        # pandas' parser errors are ValueErrors.
        raise UserError(f"{path}: cannot be read as a table of bnbench: {' '.join(str(error).split())}") from None
    check_columns(table.columns, path)
    return table
