"""Each arm at its own best learning rate."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype

from runner.analysis.pairing import Arms, Codes, group
from runner.analysis.runs import Runs


def best_lr(accuracy: pd.Series, lr: pd.Series, seed: pd.Series) -> float | None:
    """The learning rate with the highest mean accuracy; the smallest of several. None where no run has a result.

    The arguments have one entry per run; an accuracy of NaN means that there is no result. Learning rates are compared
    on the seeds that have a result at each of them. A learning rate without any result is left out.

    >>> best_lr(pd.Series([0.8, 0.9]), lr=pd.Series([0.1, 0.01]), seed=pd.Series([0, 0]))
    0.01
    """
    runs = pd.DataFrame({"accuracy": accuracy.to_numpy(), "lr": lr.to_numpy(float), "seed": seed.to_numpy()})
    # This drops rows and columns that hold nothing but NaN.
    table = runs.pivot_table(index="lr", columns="seed", values="accuracy")
    means = table.dropna(axis="columns").mean(axis="columns").dropna()
    return None if means.empty else float(means.index.to_numpy()[means.argmax()])


def choosers(repeat: Codes) -> NDArray[np.bool_]:
    """Which runs choose the learning rates: those of the first half of the seeds. With one seed, all choose.

    The other half is compared. A seed that chose is lucky at the chosen rate (Cawley & Talbot 2010). If every seed were
    compared at the rate that all others chose, the seeds would not be independent, and p would be far too small
    (docs/calibration.md).

    >>> choosers(np.array([3, 1, 2, 1])).tolist()
    [False, True, False, True]
    """
    seeds = np.unique(repeat)
    return np.isin(repeat, seeds[: len(seeds) // 2] if len(seeds) > 1 else seeds)


def at_own_best_lr(runs: Runs, cells: Sequence[str], variants: Sequence[str], baseline: object) -> Runs | None:
    """The runs of each arm at its best learning rate, with one learning rate for all, so that they are one cell.

    The best is chosen by validation accuracy at the last epoch. The seeds that choose it are left out, unless there is
    one seed only. None where the cells do not differ in their learning rate, or the baseline has no best one.
    """
    parameters, axis = runs.parameters, runs.arms.axis
    if axis is None or "lr" not in cells or parameters["lr"].nunique() < 2:
        return None
    if runs.facts["accuracy"].isna().all() or not is_numeric_dtype(parameters["lr"]):
        return None
    lr, accuracy = parameters["lr"], runs.facts["accuracy"]
    choose = choosers(runs.repeat)
    seed = pd.Series(runs.repeat, index=lr.index)[choose]
    others = [name for name in cells if name != "lr"]
    arm = pd.Series(group(parameters, [*others, axis, *variants]), index=lr.index)
    found = {
        code: best_lr(accuracy[rows], lr[rows], seed[rows]) for code, rows in arm[choose].groupby(arm).groups.items()
    }
    best, of_arm = arm.map(pd.Series(found, dtype=float)), lr.groupby(arm)
    edge = (best == of_arm.transform("min")) | (best == of_arm.transform("max"))
    compared = ~choose | choose.all()
    chosen = np.flatnonzero((lr == best) & compared & (of_arm.transform("nunique") > 1))
    if not (runs.arms.code[chosen] == runs.arms.baseline).any():
        return None

    def kept(table: pd.DataFrame) -> pd.DataFrame:
        return table.iloc[chosen].reset_index(drop=True)

    same_lr = kept(parameters).assign(lr=0.0)
    return replace(
        runs,
        parameters=same_lr,
        facts=kept(runs.facts),
        arms=Arms(same_lr, axis, baseline),
        repeat=runs.repeat[chosen],
        curves=[runs.curves[run] for run in chosen.tolist()] if runs.curves else (),
        best_lr=kept(pd.DataFrame({"lr": lr, "edge": edge})),
    )
