"""From a sweep's tables to one number per seed: what claims are made of.

Every function returns an array [S] over the planned seeds in ascending order, NaN where a run of that seed has no
result, so that a failed run is seen to be missing. A diverged run stays in, with the accuracy it has, and never reaches
a target. Accuracies are in percentage points (pp).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from runner.analysis.metrics import MEASURED, read_runs
from runner.analysis.stats.values import Values
from runner.errors import UserError
from runner.storage.results import Results

PP = 100.0

Where = Mapping[str, object]


def values(results: Results, metric: str) -> pd.Series:
    """The metric at the last epoch, a value a run in the order of `results.runs`."""
    return read_runs([results], metric, "last")[1]["value"]


def by_seed(results: Results, of_run: pd.Series, where: Where) -> Values:
    """The value of the one run a seed whose parameters are these. Errors: UserError for none, or several a seed."""
    runs = results.runs
    chosen = np.ones(len(runs), dtype=bool)
    for name, value in where.items():
        chosen &= (runs[name] == value).to_numpy()
    seeds = runs.loc[chosen, "seed"]
    if seeds.empty or seeds.duplicated().any():
        raise UserError(f"{results.folder}: {'no run' if seeds.empty else 'several runs a seed'} with {dict(where)}")
    found = pd.Series(of_run.to_numpy()[chosen], index=seeds.to_numpy(), dtype=float)
    return found.reindex(np.sort(runs["seed"].unique())).to_numpy()


def difference(results: Results, of_run: pd.Series, arm: object, where: Where | None = None) -> Values:
    """Arm minus baseline [S]."""
    assert results.axis is not None
    ours, theirs = ({**(where or {}), results.axis: value} for value in (arm, results.baseline))
    return by_seed(results, of_run, ours) - by_seed(results, of_run, theirs)


def levels(results: Results, name: str) -> list[object]:
    """The values a parameter takes, in the order of the config."""
    return list(results.runs[name].unique().tolist())


def least_squares_slopes(x: Values, table: Values) -> Values:
    """Least-squares slopes of the columns of `table` [N, S] on `x` [N]."""
    centred = x - x.mean()
    # Sums, not BLAS's products, whose last digit depends on the processor.
    return np.asarray((centred[:, None] * table).sum(axis=0) / (centred**2).sum())


def per_run(results: Results) -> pd.Series:
    return pd.Series(np.nan, index=results.runs["run"].to_numpy(), dtype=float)


def measured(results: Results, of_run: pd.Series) -> pd.Series:
    """Without the runs that failed: what they have is not what was planned."""
    return pd.Series(of_run.to_numpy(dtype=float)).where(results.runs["status"].isin(MEASURED).to_numpy())
