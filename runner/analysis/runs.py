"""All runs of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from runner.analysis.metrics import Curve
from runner.analysis.pairing import DOUBTS, Arms, Codes, pairs
from runner.storage.results import Metric


@dataclass(frozen=True)
class Runs:
    """All runs of a comparison. Every table has one row per run, in the same order."""

    parameters: pd.DataFrame
    facts: pd.DataFrame
    arms: Arms
    metric: Metric
    target: float | None = None
    curves: Sequence[Curve] = ()
    """The curves of the metric, where there is a target."""
    best_lr: pd.DataFrame | None = None
    """`lr` and `edge`, where these are the runs of each arm at its own best learning rate."""


def pairs_by_row(runs: Runs, values: pd.Series, code: Codes) -> dict[int, pd.DataFrame]:
    """Each row's pairs, where both runs of a pair have a value. `code` is the row that each run belongs to.

    A row may pool several runs that share one baseline run. Their mean is then its one partner, because several pairs
    with the same run would not be independent.
    """
    found = pairs(runs.parameters, runs.facts.assign(value=values), runs.arms)
    found["row"] = code[found.index.astype(int)]
    how = {"value": "mean", "value_base": "mean", **dict.fromkeys(DOUBTS, "any"), "code_hash": "first"}
    found = found.groupby(["row", "run_base"]).agg(how).reset_index()
    return dict(iter(found.groupby("row")))  # type: ignore[arg-type]
