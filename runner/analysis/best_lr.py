"""Each arm at its own best learning rate."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from runner.analysis.pairing import Arms, group
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


def at_own_best_lr(runs: Runs, cells: Sequence[str], variants: Sequence[str], baseline: object) -> Runs | None:
    """The runs of each arm at its best learning rate, with one learning rate for all, so that they are one cell.

    The best is chosen by validation accuracy at the last epoch. None where the cells do not differ in their learning
    rate, or the baseline has no best one.
    """
    parameters, axis = runs.parameters, runs.arms.axis
    if axis is None or "lr" not in cells or parameters["lr"].nunique() < 2:
        return None
    if runs.facts["accuracy"].isna().all() or not is_numeric_dtype(parameters["lr"]):
        return None
    lr, accuracy = parameters["lr"], runs.facts["accuracy"]
    seed = parameters.get("seed", pd.Series(0, index=lr.index))
    others = [name for name in cells if name != "lr"]
    arm = pd.Series(group(parameters, [*others, axis, *variants]), index=lr.index)
    of_arm = lr.groupby(arm)
    found = {code: best_lr(accuracy[rows], lr[rows], seed[rows]) for code, rows in of_arm.groups.items()}
    best = arm.map(pd.Series(found, dtype=float))
    edge = (best == of_arm.transform("min")) | (best == of_arm.transform("max"))
    chosen = np.flatnonzero(lr == best)
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
        curves=[runs.curves[run] for run in chosen.tolist()] if runs.curves else (),
        best_lr=kept(pd.DataFrame({"lr": lr, "edge": edge})),
    )
