"""How an arm differs from the baseline: intervals, p and verdicts of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runner.analysis.records import ArmRow, Difference, Divergence
from runner.analysis.runs import Runs, pairs_by_row
from runner.analysis.stats.effects import cohens_dz, probability_of_improvement
from runner.analysis.stats.intervals import paired_interval, welch_interval, wilson_interval
from runner.analysis.stats.significance import benjamini_hochberg, holm, mcnemar_p, sign_flip_p, welch_p
from runner.analysis.stats.verdicts import verdict


def difference_of(pairs: pd.DataFrame | None, better: int) -> Difference:
    if pairs is None:
        return Difference(0, 0, 0, None)
    weights, batches = int(pairs["weights"].sum()), int(pairs["batches"].sum())
    values, baseline = pairs["value"].to_numpy(), pairs["value_base"].to_numpy()
    several = len(pairs) > 1
    # What is not paired is still matched, run for run: an arm that failed at one lr is not compared across lrs.
    if weights or batches:
        p = welch_p(values, baseline) if several else None
        return Difference(len(pairs), weights, batches, welch_interval(values, baseline), p)
    differences = values - baseline
    return Difference(
        len(pairs),
        weights,
        batches,
        paired_interval(differences),
        # A generator of its own for each row: whatever else the table holds, p is the same.
        p=sign_flip_p(differences, np.random.default_rng(0)) if several else None,
        dz=cohens_dz(differences),
        improvement=probability_of_improvement(better * differences),
        values=differences,
    )


def divergences(runs: Runs, code: NDArray[np.int64]) -> dict[int, Divergence]:
    diverged = runs.facts["diverged"].groupby(code).agg(["count", "sum"])
    paired = pairs_by_row(runs, runs.facts["diverged"], code)
    found = {}
    for key, count, number in diverged.itertuples():
        if count:
            share = wilson_interval(int(number), int(count))
            found[int(key)] = Divergence(share, _mcnemar(paired.get(key)))
    return found


def _mcnemar(pairs: pd.DataFrame | None) -> float | None:
    """None where pairs are not proven, and where a baseline of several runs diverged in some of them."""
    if pairs is None or pairs["weights"].any() or pairs["batches"].any() or not pairs["value_base"].isin([0, 1]).all():
        return None
    return mcnemar_p(pairs["value"].to_numpy() == 1, pairs["value_base"].to_numpy() == 1)


# Small things


def judged(rows: Sequence[ArmRow], smallest_effect: float | None) -> tuple[ArmRow, ...]:
    """The rows with p adjusted for their number; with verdicts, where the smallest effect was fixed beforehand."""
    p = [row.difference.p for row in rows if row.difference and row.difference.p is not None]
    adjusted = iter((benjamini_hochberg if smallest_effect is None else holm)(np.array(p)).tolist())
    judged = []
    for row in rows:
        found = row.difference
        if found and found.p is not None:
            found = replace(found, p_adjusted=next(adjusted))
        if found and found.values is not None and smallest_effect is not None:
            p_adjusted = 1.0 if found.p_adjusted is None else found.p_adjusted
            found = replace(found, verdict=verdict(found.values, smallest_effect, 1, p_adjusted))
        judged.append(replace(row, difference=found))
    return tuple(judged)
