"""Each arm at its own best learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from runner.analysis.pairing import Arms, group
from runner.analysis.runs import Runs

# Each arm at its own best learning rate


def at_own_best_lr(runs: Runs, cells: Sequence[str], variants: Sequence[str], baseline: object) -> Runs | None:
    """The runs of each arm at the lr of its highest mean validation accuracy at the last epoch, as if all had one lr.

    None where the cells do not differ in lr, or nothing tells which is the baseline's best.
    """
    parameters, facts, axis = runs.parameters, runs.facts, runs.arms.axis
    if axis is None or "lr" not in cells or parameters["lr"].nunique() < 2:
        return None
    lr = parameters["lr"]
    arm = pd.Series(group(parameters, [*(name for name in cells if name != "lr"), axis, *variants]), index=lr.index)
    means = facts["accuracy"].groupby([arm, lr]).mean().dropna()
    best = arm.map(pd.Series(dict(means.groupby(level=0).idxmax().tolist()), dtype=float))
    edge = (best == lr.groupby(arm).transform("min")) | (best == lr.groupby(arm).transform("max"))
    chosen = np.flatnonzero(lr == best)
    if not (runs.arms.code[chosen] == runs.arms.baseline).any():
        return None
    kept = parameters.iloc[chosen].reset_index(drop=True).assign(lr=0.0)
    return replace(
        runs,
        parameters=kept,
        facts=facts.iloc[chosen].reset_index(drop=True),
        arms=Arms(kept, axis, baseline),
        curves=runs.curves and [runs.curves[index] for index in chosen],
        best_lr=pd.DataFrame({"lr": lr, "edge": edge}).iloc[chosen].reset_index(drop=True),
    )
