"""Each arm at its own best learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from runner.analysis.pairing import Arms, group
from runner.analysis.runs import Runs


def best_lr(accuracy: pd.Series, lr: pd.Series, seed: pd.Series) -> float | None:
    """The learning rate with the highest mean accuracy; the smallest of several. None where no run has a result.

    All learning rates are compared on the same seeds: those with a result at each of them. A learning rate at which no
    run has a result is left out. The arguments have an entry per run; NaN is no result.
    """
    runs = pd.DataFrame({"accuracy": accuracy.to_numpy(), "lr": lr.to_numpy(float), "seed": seed.to_numpy()})
    table = runs.pivot_table(index="lr", columns="seed", values="accuracy")  # [L, S]; drops what is all NaN
    means = table.dropna(axis="columns").mean(axis="columns").dropna()
    return None if means.empty else float(means.index.to_numpy()[means.argmax()])


def at_own_best_lr(runs: Runs, cells: Sequence[str], variants: Sequence[str], baseline: object) -> Runs | None:
    """The runs of each arm at its best learning rate, by validation accuracy at the last epoch, as if all had one lr.

    None where the cells do not differ in lr, or the baseline has no best one.
    """
    parameters, facts, axis = runs.parameters, runs.facts, runs.arms.axis
    if axis is None or "lr" not in cells or parameters["lr"].nunique() < 2:
        return None
    lr, accuracy = parameters["lr"], facts["accuracy"]
    seed = parameters.get("seed", pd.Series(0, index=lr.index))
    arm = pd.Series(group(parameters, [*(name for name in cells if name != "lr"), axis, *variants]), index=lr.index)
    found = {code: best_lr(accuracy[rows], lr[rows], seed[rows]) for code, rows in arm.groupby(arm).groups.items()}
    best = arm.map(pd.Series(found, dtype=float))
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
