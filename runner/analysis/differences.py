"""How an arm differs from the baseline: the intervals, p-values and verdicts of a row."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pandas as pd

from runner.analysis.pairing import Codes, unproven
from runner.analysis.records import ArmRow, Difference, Divergence
from runner.analysis.runs import Runs, pairs_by_row
from runner.analysis.stats import effects, intervals, significance
from runner.analysis.stats.estimates import MeanDifference
from runner.analysis.stats.robust import robust
from runner.analysis.stats.values import ALPHA
from runner.analysis.stats.verdicts import judge, seeds_needed


def difference_of(pairs: pd.DataFrame | None, better: int) -> Difference:
    """The difference of a row's pairs. `better` is 1 where a higher metric is better, else −1."""
    if pairs is None:
        return Difference(0, 0, 0, None)
    n, weights, batches = len(pairs), int(pairs["weights"].sum()), int(pairs["batches"].sum())
    code = int(pairs["code"].sum())
    values, baseline = pairs["value"].to_numpy(), pairs["value_base"].to_numpy()
    # Unproven pairs are still matched run by run: an arm that failed at one lr is not compared across lrs.
    if unproven(pairs):
        p = significance.welch_p(values, baseline) if n > 1 else None
        interval, test = intervals.welch_interval(values, baseline), None if p is None else "Welch"
        return Difference(n, weights, batches, interval, p, test, code_differs=code)
    effect = MeanDifference(values - baseline)
    return Difference(
        n,
        weights,
        batches,
        effect.interval(),
        effect.p,
        None if effect.p is None else effect.test,
        dz=effects.cohens_dz(effect.differences),
        improvement=effects.probability_of_improvement(better * effect.differences),
        robust=robust(values, baseline, better),
        values=effect.differences,
        code_differs=code,
    )


def dependent(rows: Sequence[ArmRow]) -> tuple[ArmRow, ...]:
    """The rows without interval, p and verdict, because their pairs share seeds and are not independent."""
    return tuple(replace(row, difference=row.difference and _only_mean(row.difference)) for row in rows)


def _only_mean(difference: Difference) -> Difference:
    counts = (difference.pairs, difference.weights_differ, difference.batches_differ)
    mean = difference.interval and intervals.Interval(difference.interval.estimate)
    return Difference(*counts, mean, code_differs=difference.code_differs)


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
    """None where pairs are not proven, and where only some of several runs of a seed diverged."""
    if pairs is None or unproven(pairs) or not pairs[["value", "value_base"]].isin([0, 1]).all(axis=None):
        return None
    return significance.mcnemar_p(pairs["value"].to_numpy() == 1, pairs["value_base"].to_numpy() == 1)


def judged(rows: Sequence[ArmRow], smallest_effect: float | None, better: Literal[1, -1]) -> tuple[ArmRow, ...]:
    """The rows with p adjusted for their number, and with verdicts where the config has a smallest effect.

    `better`: 1 where a higher metric is better, else −1.
    """
    p = [row.difference.p if row.difference else None for row in rows]
    tests = sum(value is not None for value in p) or 1
    if smallest_effect is None:
        adjusted = significance.adjusted(p, significance.benjamini_hochberg)
    else:
        adjusted = [None if value is None else min(1.0, value * tests) for value in p]
    return tuple(
        replace(row, difference=_judged(row.difference, value, tests, smallest_effect, better))
        for row, value in zip(rows, adjusted, strict=True)
    )


def _judged(
    difference: Difference | None, p: float | None, tests: int, smallest_effect: float | None, better: int
) -> Difference | None:
    if difference is None:
        return None
    difference = replace(difference, p_adjusted=p, tests=tests)
    if difference.values is None or difference.robust is None or smallest_effect is None:
        return difference
    word = judge(MeanDifference(difference.values), difference.robust, smallest_effect, better, tests)
    needed = seeds_needed(difference.values, smallest_effect, tests) if word == "UNDECIDED" and p is not None else None
    simultaneous = intervals.paired_interval(difference.values, ALPHA / tests)
    return replace(difference, verdict=word, needed=needed, simultaneous=simultaneous)
