"""From a sweep's tables to one number per seed. The measures of claims are built from these functions.

An array [S] has one value per planned seed, in ascending order of the seeds. The value is NaN where a run of that seed
has no result, so a failed run stays visible. A diverged run counts with the accuracy that it has, and never reaches a
target. Accuracies are in percentage points (pp).
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from runner.analysis.claims.paired_values import PairedValues
from runner.analysis.metrics import MEASURED, read_runs
from runner.analysis.stats.values import Values
from runner.errors import UserError
from runner.storage.folder import CURVES
from runner.storage.results import Results, readings

PP = 100.0

Where = Mapping[str, object]


def accuracies(results: Results, epochs: int = 1) -> pd.Series:
    """The median accuracy of the readings of a run's last `epochs` epochs: one value per row of `results.runs`.

    The readings are those of curves.csv, or of metrics.csv where a sweep reads once an epoch. One bad step, such as one
    on a small last batch, spoils one reading only, and hardly moves the median. A diverged run counts with its last
    reading.
    """
    several = (results.runs["evaluations_per_epoch"] > 1).any()
    table = readings(results, CURVES) if several else results.metrics
    planned = table["run"].map(results.runs.set_index("run")["epochs"].astype(float))
    # The reading at the end of epoch 4 has the epoch 4.0; those of epoch 5 come after it.
    late = table[table["epoch"] > planned - epochs]
    medians = measured(results, late.groupby("run")["valid_accuracy"].median())
    return medians.mask(results.runs["status"] == "diverged", values(results, "valid_accuracy"))


def values(results: Results, metric: str) -> pd.Series:
    """The metric at the last epoch: one value per row of `results.runs`."""
    return read_runs([results], metric, "last")[1]["value"]


def measured(results: Results, by_run: Mapping[Any, float] | pd.Series) -> pd.Series:
    """Values by run number → one value per row of `results.runs`.

    A failed run has none: its readings are not what was planned.
    """
    found = results.runs["run"].map(by_run).astype(float)
    return found.where(results.runs["status"].isin(MEASURED))


def by_seed(results: Results, of_run: pd.Series, arm: object, where: Where | None = None) -> Values:
    """The value of the arm's one run per seed [S]. `where` selects among the arm's runs by other parameters.

    Errors: UserError where there is no such run, or several per seed.
    """
    runs = results.runs
    where = {results.axis or "": arm, **(where or {})}
    chosen = np.ones(len(runs), dtype=bool)
    for name, value in where.items():
        chosen &= (runs[name] == value).to_numpy()
    seeds = runs.loc[chosen, "seed"]
    if seeds.empty or seeds.duplicated().any():
        count = "no run" if seeds.empty else "several runs per seed"
        raise UserError(f"{results.folder}: {count} with {where}")
    found = pd.Series(of_run.to_numpy()[chosen], index=seeds, dtype=float)
    return found.reindex(np.sort(runs["seed"].unique())).to_numpy()


def compared(results: Results, of_run: pd.Series, arm: object, where: Where | None = None) -> PairedValues:
    """Arm and baseline [S]."""
    return PairedValues(by_seed(results, of_run, arm, where), by_seed(results, of_run, results.baseline, where))


def only_seeds(results: Results, seeds: Collection[int], *, among: bool) -> Results:
    """The sweep with the runs whose seed is one of `seeds` (`among`), or with those of all other seeds."""
    kept = results.runs["seed"].isin(list(seeds)) == among
    return replace(results, runs=results.runs[kept].reset_index(drop=True))


def other_arms(results: Results) -> list[object]:
    """The arms without the baseline, in the order of the config."""
    return [arm for arm in results.runs[results.axis].unique().tolist() if arm != results.baseline]


def least_squares_slopes(x: Values, table: Values) -> Values:
    """The least-squares slopes of the columns of `table` [N, S] on `x` [N]."""
    centred = x - x.mean()
    weights = centred / (centred**2).sum()
    # Row by row: the last digit of a BLAS product depends on the processor.
    return np.asarray(sum(weights[:, None] * (table - table.mean(axis=0))))
