"""How the arms of a contrast compare: tables in, the records of `runner.analysis.records` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runner.analysis.metrics import FOLDER, MEASURED, At, Curve, check, is_share, read_curves, read_runs
from runner.analysis.pairing import Arms, group, names, pairs, plain
from runner.analysis.records import Comparison, Difference, Divergence, Row, Time, ToTarget
from runner.analysis.stats import (
    Interval,
    Reach,
    Values,
    benjamini_hochberg,
    cohens_dz,
    holm,
    mcnemar_p,
    paired_interval,
    probability_of_improvement,
    sign_flip_p,
    time_to_target,
    verdict,
    welch_interval,
    welch_p,
    wilson_interval,
)
from runner.errors import UserError, unknown
from runner.storage.results import Results


def compare(
    results: Sequence[Results],
    *,
    metric: str = "valid_accuracy",
    at: At = "last",
    group_by: Sequence[str] | None = None,
    sort: str | None = None,
    target: float | None = None,
) -> Comparison:
    """Mean and SD per cell and arm, and each arm's difference to the baseline: its 95% interval, p and verdict.

    `at`: the last epoch, each run's best, or an epoch's number. `group_by`: the parameters that make a cell, instead
    of all that differ; runs then average over the others, and pairs still match in everything but the arm.
    `sort`: a column of `Comparison.records`, `-column` for descending. `target`: a value of the metric; how many steps
    and seconds it took is compared as well.

    Errors: UserError for tables that cannot be compared, and for a metric, epoch, target or column there is none of.
    """
    axis, baseline, smallest_effect = _contrast(results)
    check(results, metric, at)
    parameters, facts = read_runs(results, metric, at)
    curves = None if target is None else read_curves(results, metric)
    runs = Runs(parameters, facts, Arms(parameters, axis, baseline), metric, _checked(target, metric), curves)
    cells, variants = _columns(parameters, runs.arms, group_by, several=len(results) > 1)
    if FOLDER not in cells:
        _check_counted_once(results)
    constant = [name for name in names(parameters) if name != FOLDER and parameters[name].nunique(dropna=False) == 1]
    best = _own_best(runs, cells, variants, baseline)
    rows = _rows(runs, cells, variants) + (_rows(best, cells, variants) if best else ())
    smallest_effect = smallest_effect if is_share(metric) else None  # it is one of accuracy
    comparison = Comparison(
        metric=metric,
        at=at,
        axis=axis,
        baseline=baseline,
        cell_columns=cells,
        variant_columns=variants,
        constant={name: value for name in constant if (value := plain(parameters[name].iloc[0])) is not None},
        rows=_judged(rows, smallest_effect),
        smallest_effect=smallest_effect,
        target=target,
    )
    return _sorted(comparison, sort) if sort else comparison


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

    def reach(self, index: int, clock: Values, horizon: float) -> Reach:
        """When the run reached the target on its `clock`; a diverged one never did."""
        if self.curves is None or self.target is None or self.facts["status"].iat[index] == "diverged":
            return Reach(horizon, False)
        return time_to_target(clock, self.better * self.curves[index].values, self.better * self.target, horizon)


# What is compared


def _contrast(results: Sequence[Results]) -> tuple[str | None, object | None, float | None]:
    if not results:
        raise UserError("no results to compare")
    first = results[0]
    same = (first.axis, first.baseline, first.smallest_effect)
    if any((other.axis, other.baseline, other.smallest_effect) != same for other in results):
        said = [f"{result.folder}: {_contrast_text(result)}" for result in results]
        raise UserError("these results contrast different things: " + "; ".join(said))
    for result in results:
        if first.axis and first.axis not in result.parameters:
            raise UserError(f"{result.folder}: {unknown('column', first.axis, result.parameters)}")
    return same


def _check_counted_once(results: Sequence[Results]) -> None:
    """Folders that are pooled must not hold the same run twice: it would count as two."""
    ids = pd.concat([result.runs["run_id"].dropna() for result in results])
    if twice := int(ids.duplicated().sum()):
        raise UserError(f"{twice} runs stand in more than one of these folders; name '{FOLDER}' in --group-by")


def _contrast_text(result: Results) -> str:
    effect = "" if result.smallest_effect is None else f", smallest effect {result.smallest_effect}"
    return f"{result.axis} against {result.baseline}{effect}" if result.axis else "no contrast"


def _checked(target: float | None, metric: str) -> float | None:
    if target is not None and (not np.isfinite(target) or (is_share(metric) and not 0 < target <= 1)):
        rule = "a fraction above 0, such as 0.9" if is_share(metric) else "a finite number"
        raise UserError(f"target: {target} is no {metric}; allowed: {rule}")
    return target


# Cells, arms, pairs


def _columns(
    parameters: pd.DataFrame, arms: Arms, group_by: Sequence[str] | None, *, several: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that tell cells apart, and those that tell an arm's variants apart."""
    known = [name for name in names(parameters) if name != FOLDER or several]
    if group_by is None:
        chosen = [name for name in known if name != "seed" and _differs(parameters[name], arms, name)]
    else:
        for name in group_by:
            if name not in known:
                raise UserError(unknown("column", name, known))
        chosen = list(dict.fromkeys(group_by))
    chosen = [name for name in chosen if name != arms.axis]
    partial = set(arms.partial)
    return tuple(n for n in chosen if n not in partial), tuple(n for n in chosen if n in partial)


def _differs(column: pd.Series, arms: Arms, name: str) -> bool:
    if name in arms.partial:  # differs between arms by nature: only what differs within one tells variants apart
        return bool((column.groupby(arms.code).nunique(dropna=False) > 1).any())
    return column.nunique(dropna=False) > 1


def _rows(runs: Runs, cells: tuple[str, ...], variants: tuple[str, ...]) -> tuple[Row, ...]:
    parameters, facts, arms = runs.parameters, runs.facts, runs.arms
    axis = [arms.axis] if arms.axis else []
    cell = group(parameters, cells)
    code = group(parameters, [*cells, *axis, *variants])
    statuses = facts.groupby([code, facts["status"]]).size().unstack(fill_value=0)
    moments = facts["value"].groupby(code).agg(["count", "mean", "std"])
    paired = _pairs_by_row(runs, facts["value"], code)
    divergences = _divergences(runs, code)
    targets = _to_target(runs, cell, code)

    _, first = np.unique(code, return_index=True)
    order = sorted(first.tolist(), key=lambda i: (cell[i], arms.code[i] != arms.baseline, arms.code[i], code[i]))
    rows = []
    for index in order:
        run, key = parameters.iloc[index], code[index]
        contrasted = arms.axis and arms.code[index] != arms.baseline
        count, mean, sd = moments.loc[key]
        row = Row(
            cell={name: plain(run[name]) for name in cells},
            arm=plain(run[arms.axis]) if arms.axis else None,
            variant={name: plain(run[name]) for name in variants},
            statuses={str(status): int(number) for status, number in statuses.loc[key].items() if number},
            n=int(count),
            mean=plain(mean),
            sd=plain(sd),
            difference=_difference(paired.get(key), runs.better) if contrasted else None,
            divergence=divergences.get(key),
            to_target=targets.get(key),
        )
        if runs.best_lr is not None:
            lr, edge = runs.best_lr.iloc[index]
            row = replace(row, cell={**row.cell, "lr": plain(lr)}, own_best_lr="edge" if edge else "inner")
        rows.append(row)
    return tuple(rows)


def _pairs_by_row(runs: Runs, values: pd.Series, code: NDArray[np.int64]) -> dict[int, pd.DataFrame]:
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


def _difference(pairs: pd.DataFrame | None, better: int) -> Difference:
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


def _divergences(runs: Runs, code: NDArray[np.int64]) -> dict[int, Divergence]:
    diverged = runs.facts["diverged"].groupby(code).agg(["count", "sum"])
    paired = _pairs_by_row(runs, runs.facts["diverged"], code)
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


# Steps and seconds to a target


def _to_target(runs: Runs, cell: NDArray[np.int64], code: NDArray[np.int64]) -> dict[int, ToTarget]:
    if runs.curves is None or runs.target is None:
        return {}
    steps, reached = _times(runs, cell, [curve.steps for curve in runs.curves])
    seconds = _seconds(runs.curves, cell, steps, reached)
    by_steps, by_seconds = _time_by_row(runs, code, steps), _time_by_row(runs, code, seconds)
    counts = reached.groupby(code).agg(["count", "sum"])
    return {
        int(key): ToTarget(int(count), int(number), by_steps.get(key), by_seconds.get(key))
        for key, count, number in counts.itertuples()
    }


def _times(runs: Runs, cell: NDArray[np.int64], clocks: Sequence[Values]) -> tuple[pd.Series, pd.Series]:
    """Each run's min(T, horizon), and whether it got there; NaN where a run does not count.

    The horizon is the last time that every ok run of the cell got to; a diverged run is there without the target.
    """
    status = runs.facts["status"].to_numpy()
    last = np.array([clock[-1] if len(clock) else np.nan for clock in clocks])
    horizon = pd.Series(last).where(status == "ok").groupby(cell).transform("min").to_numpy()
    times, reached = np.full(len(status), np.nan), np.full(len(status), np.nan)
    for index in np.flatnonzero(np.isin(status, MEASURED) & (horizon > 0)).tolist():
        found = runs.reach(index, clocks[index], float(horizon[index]))
        times[index], reached[index] = found.time, found.reached
    table = pd.DataFrame({"times": times, "reached": reached})
    nobody = table["reached"].groupby(cell).transform("max") == 0  # equal times would read as a finding
    return table["times"].mask(nobody), table["reached"]


def _seconds(curves: Sequence[Curve], cell: NDArray[np.int64], steps: pd.Series, reached: pd.Series) -> pd.Series:
    """Seconds to the reading at which the target was reached; of a run that did not, the longest run's of its cell.

    Whether it was reached is decided by steps: in seconds runs have no common horizon.
    """
    longest = pd.Series([curve.seconds[-1] if len(curve.seconds) else np.nan for curve in curves])
    seconds = longest.groupby(cell).transform("max").where(steps.notna())
    for index in np.flatnonzero(reached == 1).tolist():
        curve = curves[index]
        seconds.iat[index] = curve.seconds[np.searchsorted(curve.steps, float(steps.to_numpy()[index]))]
    return seconds


def _time_by_row(runs: Runs, code: NDArray[np.int64], times: pd.Series) -> dict[int, Time]:
    paired = _pairs_by_row(runs, times, code)
    means = times.groupby(code).agg(["mean"]).dropna()
    return {int(key): Time(float(mean), *_time_intervals(paired.get(key))) for key, mean in means.itertuples()}


def _time_intervals(pairs: pd.DataFrame | None) -> tuple[Interval | None, Interval | None]:
    """Of the difference, and of the ratio: the exponential of the difference of logarithms."""
    if pairs is None:
        return None, None
    proven = not (pairs["weights"].any() or pairs["batches"].any())
    times, baseline = pairs["value"].to_numpy(), pairs["value_base"].to_numpy()

    def interval(a: Values, b: Values) -> Interval:
        return paired_interval(a - b) if proven else welch_interval(a, b)

    ratio = interval(np.log(times), np.log(baseline)) if min(times.min(), baseline.min()) > 0 else None
    difference = interval(times, baseline)
    if ratio is None:
        return difference, None
    low, high = (None if end is None else float(np.exp(end)) for end in (ratio.low, ratio.high))
    return difference, Interval(float(np.exp(ratio.estimate)), low, high)


# Each arm at its own best learning rate


def _own_best(runs: Runs, cells: Sequence[str], variants: Sequence[str], baseline: object) -> Runs | None:
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


# Small things


def _judged(rows: Sequence[Row], smallest_effect: float | None) -> tuple[Row, ...]:
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


def _sorted(comparison: Comparison, sort: str) -> Comparison:
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    records = comparison.records
    if name not in records[0]:
        raise UserError(unknown("column", name, list(records[0])))
    keyed = [(record[name], row) for record, row in zip(records, comparison.rows, strict=True)]
    full = [(value, row) for value, row in keyed if value is not None]
    full.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]), reverse=descending)
    rows = (*(row for _, row in full), *(row for value, row in keyed if value is None))
    return replace(comparison, rows=rows)
