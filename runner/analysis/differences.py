"""How an arm differs from the baseline: the intervals, p-values and verdicts of a row."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from runner.analysis.pairing import Codes, unproven
from runner.analysis.records import ArmRow, Difference, Divergence
from runner.analysis.runs import Runs, pairs_by_row
from runner.analysis.stats import effects, intervals, significance
from runner.analysis.stats.verdicts import verdict


def difference_of(pairs: pd.DataFrame | None, better: int) -> Difference:
    """The difference of a row's pairs. `better` is 1 where a higher metric is better, else −1."""
    if pairs is None:
        return Difference(0, 0, 0, None)
    n, weights, batches = len(pairs), int(pairs["weights"].sum()), int(pairs["batches"].sum())
    code, versions = int(pairs["code"].sum()), pairs["code_hash"].nunique()
    values, baseline = pairs["value"].to_numpy(), pairs["value_base"].to_numpy()
    # Unproven pairs are still matched run by run: an arm that failed at one lr is not compared across lrs.
    if unproven(pairs):
        p = significance.welch_p(values, baseline) if n > 1 else None
        interval = intervals.welch_interval(values, baseline)
        return Difference(n, weights, batches, interval, p, code_differs=code, code_versions=versions)
    differences = values - baseline
    # Each row has its own generator, so p does not depend on the table's other rows.
    generator = np.random.default_rng(0)
    return Difference(
        n,
        weights,
        batches,
        intervals.paired_interval(differences),
        p=significance.sign_flip_p(differences, generator) if n > 1 else None,
        dz=effects.cohens_dz(differences),
        improvement=effects.probability_of_improvement(better * differences),
        values=differences,
        code_differs=code,
        code_versions=versions,
    )


def divergences(runs: Runs, code: Codes) -> dict[int, Divergence]:
    """How many runs of each row diverged, where any ended. `code` is the row that each run belongs to."""
    diverged = runs.facts["diverged"]
    paired = pairs_by_row(runs, diverged, code)
    counts = diverged.groupby(code).agg(["count", "sum"])
    return {
        int(row): Divergence(intervals.wilson_interval(int(number), int(count)), _mcnemar(paired.get(row)))
        for row, count, number in counts.itertuples()
        if count
    }


def _mcnemar(pairs: pd.DataFrame | None) -> float | None:
    """None where pairs are not proven, and where only some of several pooled baseline runs diverged."""
    if pairs is None or unproven(pairs) or not pairs["value_base"].isin([0, 1]).all():
        return None
    return significance.mcnemar_p(pairs["value"].to_numpy() == 1, pairs["value_base"].to_numpy() == 1)


def judged(rows: Sequence[ArmRow], smallest_effect: float | None, better: Literal[1, -1]) -> tuple[ArmRow, ...]:
    """The rows with p adjusted for their number, and with verdicts where the smallest effect was fixed beforehand.

    `better`: 1 where a higher metric is better, else −1.
    """
    adjust = significance.benjamini_hochberg if smallest_effect is None else significance.holm
    p = [row.difference.p if row.difference else None for row in rows]
    judged = []
    for row, p_adjusted in zip(rows, significance.adjusted(p, adjust), strict=True):
        found = row.difference and replace(row.difference, p_adjusted=p_adjusted)
        if found and found.values is not None and smallest_effect is not None:
            p_adjusted = 1.0 if p_adjusted is None else p_adjusted
            found = replace(found, verdict=verdict(found.values, smallest_effect, better, p_adjusted))
        judged.append(replace(row, difference=found))
    return tuple(judged)
