"""Each arm at its own best learning rate."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from runner.analysis.pairing import Arms, group
from runner.analysis.records import ArmRow
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


def without_own_seed(accuracy: pd.Series, lr: pd.Series, seed: pd.Series) -> pd.Series:
    """For each run, the learning rate that is best on the other seeds (leave one out; Cawley & Talbot 2010).

    So a run's luck at one learning rate does not choose it. With one seed, or where the others have no result at every
    learning rate, all seeds choose. The arguments are those of `best_lr`; NaN where no run has a result.
    """
    runs = pd.DataFrame({"accuracy": accuracy.to_numpy(), "lr": lr.to_numpy(float), "seed": seed.to_numpy()})
    table = runs.pivot_table(index="lr", columns="seed", values="accuracy").dropna(axis="columns")
    if table.empty:
        return pd.Series(np.nan, index=lr.index)
    sums, count = table.sum(axis="columns"), table.shape[1]
    # [lr, seed]: the sum over the other seeds. A seed that is not in the table takes nothing away.
    others = table.reindex(columns=runs["seed"].unique()).fillna(0.0) if count > 1 else table * 0.0
    chosen = (-others).add(sums, axis="index").round(12).idxmax()
    return runs["seed"].map(chosen).fillna(float(sums.index.to_numpy()[sums.argmax()])).set_axis(lr.index)


def at_own_best_lr(runs: Runs, cells: Sequence[str], variants: Sequence[str], baseline: object) -> Runs | None:
    """The runs of each arm at its best learning rate, with one learning rate for all, so that they are one cell.

    The best is chosen by validation accuracy at the last epoch, for each seed on the other seeds. None where the cells
    do not differ in their learning rate, or the baseline has no best one.
    """
    parameters, axis = runs.parameters, runs.arms.axis
    if axis is None or "lr" not in cells or parameters["lr"].nunique() < 2:
        return None
    if runs.facts["accuracy"].isna().all() or not is_numeric_dtype(parameters["lr"]):
        return None
    lr, accuracy = parameters["lr"], runs.facts["accuracy"]
    seed = pd.Series(runs.repeat, index=lr.index)
    others = [name for name in cells if name != "lr"]
    arm = pd.Series(group(parameters, [*others, axis, *variants]), index=lr.index)
    of_arm = lr.groupby(arm)
    found = [without_own_seed(accuracy[rows], lr[rows], seed[rows]) for rows in of_arm.groups.values()]
    best = pd.concat(found).sort_index()
    edge = (best == of_arm.transform("min")) | (best == of_arm.transform("max"))
    chosen = np.flatnonzero((lr == best) & (of_arm.transform("nunique") > 1))
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


def at_its_lr(row: ArmRow, best: pd.DataFrame) -> ArmRow:
    """A row of `at_own_best_lr` with the learning rate that most of its seeds chose. `best`: those of its runs."""
    counts = Counter(best["lr"].astype(float).tolist())
    lr = max(counts, key=lambda rate: (counts[rate], -rate))
    return replace(
        row, cell={**row.cell, "lr": lr}, own_best_lr="edge" if best["edge"].any() else "inner", lr_counts=counts
    )


def marked_copies(rows: Sequence[ArmRow]) -> tuple[ArmRow, ...]:
    """The rows of `at_own_best_lr`. Marked are those whose arm and baseline are best at one and the same rate."""
    baselines = {row.block: row.lr_counts for row in rows if row.difference is None}

    def copied(row: ArmRow) -> bool:
        of_baseline = baselines.get(row.block, {})
        return row.difference is not None and len(row.lr_counts) == 1 and row.lr_counts.keys() == of_baseline.keys()

    return tuple(replace(row, copied=copied(row)) for row in rows)
