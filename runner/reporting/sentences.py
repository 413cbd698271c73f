"""What a comparison says, in a sentence for each arm."""

from __future__ import annotations

from collections.abc import Sequence

from runner.analysis.metrics import is_share
from runner.analysis.records import ArmRow, Comparison
from runner.analysis.stats.values import ALPHA
from runner.reporting.formats import difference_text, p_text, shown


def sentences(comparison: Comparison) -> list[str]:
    """The verdict on each arm: whether it does better, by how much, and how sure that is; or why nothing can be said.

    The first is the answer; where the learning rate was varied, the others say how the arms do over all of them.
    """
    counted = [row for row in comparison.planned_rows if row.n]
    if not counted:
        return ["No run has ended yet: there is nothing to compare."]
    if comparison.axis is None:
        return ["Nothing is contrasted here, so no difference is tested."]
    # Each arm at its own learning rate is the fair question, where there are several.
    chosen = [row for row in comparison.rows if row.own_best_lr] or list(comparison.rows)
    rows = [row for row in chosen if row.difference is not None]
    if not rows:
        return [f"Only the baseline {shown(comparison.baseline)} has runs: there is nothing to compare it with."]
    by_arm: dict[object, list[ArmRow]] = {}
    for row in rows:
        by_arm.setdefault(row.arm, []).append(row)
    said = [
        _one(of_arm[0], comparison) if len(of_arm) == 1 else _several(of_arm, comparison) for of_arm in by_arm.values()
    ]
    if any(row.own_best_lr for row in rows):  # what a larger learning rate would do is the other half of the answer
        everywhere = [row for row in comparison.planned_rows if row.difference is not None]
        said += [_several([row for row in everywhere if row.arm == arm], comparison) for arm in by_arm]
    return said


def _one(row: ArmRow, comparison: Comparison) -> str:
    found = row.difference
    arm, baseline = shown(row.arm), shown(comparison.baseline)
    where = ", each at its own best learning rate" if row.own_best_lr else ""
    if found is None or found.interval is None:
        return f"{arm} cannot be compared with {baseline}: no pair of runs has ended."
    metric = comparison.metric.replace("_", " ").replace("valid", "validation").replace("train", "training")
    measured = f"{metric} {difference_text(found, comparison.metric)}"
    if found.pairs == 1 or found.p_adjusted is None:
        return f"{arm} against {baseline}{where}: {measured}, of one pair of runs, which says nothing about chance."
    how = f"{found.pairs} {'paired runs' if found.paired else 'runs that are not proven pairs'}"
    sure = f"(95% interval; {how}; p {_p(found.p_adjusted)})"
    judged = f" Verdict on the effect fixed beforehand: {found.verdict.word}." if found.verdict else ""
    if found.p_adjusted >= ALPHA:
        return f"No difference is shown between {arm} and {baseline}{where}: {measured} {sure}.{judged}"
    return f"{arm} does {_word(row, comparison)} than {baseline}{where}: {measured} {sure}.{judged}"


def _p(p: float) -> str:
    return p_text(p).replace("<", "< ") if p_text(p).startswith("<") else f"= {p_text(p)}"


def _several(rows: Sequence[ArmRow], comparison: Comparison) -> str:
    tested = [row for row in rows if row.difference and row.difference.p_adjusted is not None]
    decided = [row for row in tested if row.difference and (row.difference.p_adjusted or 0) < ALPHA]
    better = sum(_word(row, comparison) == "better" for row in decided)
    counts = f"better in {better}, worse in {len(decided) - better}, not told apart in {len(rows) - len(decided)}"
    arm, baseline = shown(rows[0].arm), shown(comparison.baseline)
    return f"{arm} against {baseline} in {len(rows)} settings: {counts} ({comparison.adjustment}-adjusted p below .05)."


def _word(row: ArmRow, comparison: Comparison) -> str:
    assert row.difference is not None
    assert row.difference.interval is not None
    more = row.difference.interval.estimate > 0
    return "better" if more == is_share(comparison.metric) else "worse"
