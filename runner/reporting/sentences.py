"""A comparison in sentences, one for each arm."""

from collections.abc import Sequence

from runner.analysis.records import ArmRow, Comparison, Difference
from runner.analysis.stats.values import ALPHA
from runner.reporting import sequential_notes
from runner.reporting.formats import FIXED, difference_text, p_text, shown


def sentences(comparison: Comparison) -> list[str]:
    """For each arm: whether it does better than the baseline, by how much, and how sure that is.

    The first sentence is the answer. Where the learning rate was varied, the next ones say how the arms do at all
    learning rates. The comparison's warnings come last. Where there is nothing to compare, the only sentence says why.

    >>> from runner.analysis.metrics import of_sweep
    >>> from runner.analysis.stats.intervals import Interval
    >>> difference = Difference(8, 0, 0, Interval(0.02, 0.01, 0.03), p=0.008, p_adjusted=0.008)
    >>> rows = (
    ...     ArmRow({}, "none", {}, {"ok": 8}, n=8, mean=0.90, sd=0.01, difference=None),
    ...     ArmRow({}, "batch", {}, {"ok": 8}, n=8, mean=0.92, sd=0.01, difference=difference),
    ... )
    >>> comparison = Comparison(of_sweep("valid_accuracy"), "last", "network.norm", "none", (), (), {}, rows)
    >>> sentences(comparison)[0]
    'batch does better than none: validation accuracy +2.00 [+1.00, +3.00] pp (95% interval; 8 paired runs; p = 0.008).'
    """
    planned = comparison.planned_rows
    if not any(row.n for row in planned):
        return ["No run has ended yet: there is nothing to compare."]
    if comparison.axis is None:
        return ["Nothing is contrasted here, so no difference is tested."]
    # If there are several learning rates, the fair comparison is each arm at its own best one.
    chosen = [row for row in comparison.rows if row.own_best_lr] or planned
    compared = [row for row in chosen if row.difference]
    if not compared:
        return [f"Only the baseline {shown(comparison.baseline)} has runs to compare."]
    found = []
    for rows in _by_arm(compared):
        found.append(_one(rows[0], comparison) if len(rows) == 1 else _several(rows, comparison))
    # The other half of the answer: what happens at the other learning rates.
    if compared[0].own_best_lr:
        everywhere = [row for row in planned if row.difference]
        found += [_several(rows, comparison) for rows in _by_arm(everywhere)]
    return [*found, *comparison.warnings]


def _by_arm(rows: Sequence[ArmRow]) -> list[list[ArmRow]]:
    found: dict[object, list[ArmRow]] = {}
    for row in rows:
        found.setdefault(row.arm, []).append(row)
    return list(found.values())


def _one(row: ArmRow, comparison: Comparison) -> str:
    difference = row.difference
    arm, baseline = shown(row.arm), shown(comparison.baseline)
    where = ", each at its own best learning rate" if row.own_best_lr else ""
    if difference is None or difference.interval is None:
        return f"{arm} cannot be compared with {baseline}: no pair of runs has ended."
    if comparison.sequential:
        return sequential_notes.sentence(row, comparison)
    metric = comparison.metric
    value = f"{where}: {metric.words} {difference_text(difference, metric)}"
    if difference.pairs == 1 or difference.p_adjusted is None:
        return f"{arm} against {baseline}{value}, of one pair of runs, which says nothing about chance."
    p = p_text(difference.p_adjusted)
    p = f"p < {p[1:]}" if p.startswith("<") else f"p = {p}"
    kind = "paired runs" if difference.paired else "runs that are not proven pairs"
    if comparison.stated:
        kind = f"pairs {comparison.stated.pairing}"
    facts = f"{value} (95% interval; {difference.pairs} {kind}; {p})."
    if difference.verdict:
        facts += f" Verdict on the smallest effect ({FIXED[comparison.fixed]}): {difference.verdict}."
    if fewest := comparison.too_few(difference):
        few = f"{difference.pairs} seeds cannot reach p < .05 here; run {fewest}"
        return f"Too few seeds to compare {arm} with {baseline} ({few}){facts}"
    if difference.p_adjusted >= ALPHA:
        return f"No difference is shown between {arm} and {baseline}{facts}"
    return f"{arm} does {_word(difference, comparison)} than {baseline}{facts}"


def _several(rows: Sequence[ArmRow], comparison: Comparison) -> str:
    words = []
    for difference in (row.difference for row in rows):
        p = difference.p_adjusted if difference else None
        if difference and p is not None and p < ALPHA:
            words.append(_word(difference, comparison))
    arm, baseline = shown(rows[0].arm), shown(comparison.baseline)
    if all(row.difference and comparison.too_few(row.difference) for row in rows):
        return f"{arm} against {baseline} in {len(rows)} settings: too few seeds for p below .05 in any of them."
    counts = f"better in {words.count('better')}, worse in {words.count('worse')}"
    counts += f", no clear difference in {len(rows) - len(words)}"
    how = f"{comparison.adjustment}-adjusted p below .05"
    return f"{arm} against {baseline} in {len(rows)} settings: {counts} ({how})."


def _word(difference: Difference, comparison: Comparison) -> str:
    assert difference.interval is not None
    return "better" if difference.interval.estimate * comparison.metric.better > 0 else "worse"
