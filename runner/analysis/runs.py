"""All runs of a comparison, one index for everything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runner.analysis.metrics import Curve, is_share
from runner.analysis.pairing import Arms, pairs


@dataclass(frozen=True)
class Runs:
    """All that is compared, one index for everything."""

    parameters: pd.DataFrame
    facts: pd.DataFrame
    arms: Arms
    metric: str
    target: float | None
    curves: list[Curve] | None  # where there is a target
    best_lr: pd.DataFrame | None = None  # lr, edge: where these are each arm's runs at its own best lr

    @property
    def better(self) -> int:
        """1 where more of the metric is better, else −1."""
        return 1 if is_share(self.metric) else -1


def pairs_by_row(runs: Runs, values: pd.Series, code: NDArray[np.int64]) -> dict[int, pd.DataFrame]:
    """Row → its pairs, where both runs of a pair have a value.

    Where a row pools several runs that share one baseline run, their mean is its one partner: counted each, they would
    be pairs that are not independent.
    """
    found = pairs(runs.parameters, runs.facts.assign(value=values), runs.arms)
    if found.empty:
        return {}
    how = {"value": "mean", "value_base": "mean", "weights": "any", "batches": "any"}
    found = found.assign(row=code[found.index]).groupby(["row", "run_base"]).agg(how).reset_index()
    return dict(iter(found.groupby("row")))  # type: ignore[arg-type]
