"""What stands around a comparison's table: its title and its notes."""

from __future__ import annotations

from collections.abc import Iterator

from runner.analysis.metrics import is_share
from runner.analysis.records import ArmRow, Comparison, Difference
from runner.reporting.formats import p_text, shown

SAID = ("dataset", "train_samples", "validate_on", "trainset", "network", "optimizer", "lr", "batch_size", "epochs")
"""The parameters a reader asks for first; they are named below the table where every run has the same."""


def title(comparison: Comparison) -> str:
    """The metric, the epoch, the axis and the baseline in one sentence."""
    epoch = {"last": "at the last epoch", "best": "at each run's best epoch"}.get(
        str(comparison.at), f"at epoch {comparison.at}"
    )
    text = f"{comparison.metric} {epoch}, mean ± SD over runs"
    if comparison.axis:
        baseline = shown(comparison.baseline)
        text += f"; difference of each {comparison.axis} to the baseline {baseline} with its 95% interval"
        tested = len(p_values(comparison))
        if tested:
            text += f" and p, {comparison.adjustment}-adjusted for {tested} rows" if tested > 1 else " and p"
    return text


def p_values(comparison: Comparison) -> list[float]:
    return [row.difference.p for row in comparison.rows if row.difference and row.difference.p is not None]


def notes(comparison: Comparison) -> list[str]:
    """What must be known beside the numbers: runs that are not ok, what is not paired, what is the same everywhere."""
    said = [*_not_ok(comparison), *_not_paired(comparison), *_own_best(comparison), *_judgement(comparison)]
    usual = (None, "null", "held_out")
    told = {name: value for name, value in comparison.constant.items() if name in SAID and value not in usual}
    same = [f"{name} {shown(told[name])}" for name in SAID if name in told]
    return [*said, f"Every run: {', '.join(same)}."] if same else said


def _not_ok(comparison: Comparison) -> Iterator[str]:
    counts = {status: number for status, number in comparison.statuses.items() if number and status != "ok"}
    if counts:
        planned = sum(row.planned for row in comparison.planned_rows)
        text = ", ".join(f"{number} {status}" for status, number in counts.items())
        kept = " Diverged runs are counted with what they ended in." if "diverged" in counts else ""
        yield f"Of {planned} runs: {text}.{kept}"
    if "diverged" in counts:
        yield f"Diverged, with 95% intervals (Wilson) and p (McNemar, exact): {'; '.join(_diverged(comparison))}."


def _diverged(comparison: Comparison) -> Iterator[str]:
    """Every row that is compared with one in which a run diverged."""
    blocks = {row.block for row in comparison.planned_rows if row.statuses.get("diverged")}
    for row in comparison.planned_rows:
        if row.block in blocks and row.divergence:
            share = row.divergence.share
            low, high = (f"{100 * (end or 0):.0f}" for end in (share.low, share.high))
            p = "" if row.divergence.p is None else f", p {p_text(row.divergence.p)}"
            yield f"{who(row, comparison)} {100 * share.estimate:.0f}% [{low}, {high}]{p}"


def who(row: ArmRow, comparison: Comparison) -> str:
    """A row by what tells it apart."""
    facts = {**row.cell, **row.variant}
    said = [f"{name} {shown(value)}" for name, value in facts.items() if value is not None]
    return " ".join([*([shown(row.arm)] if comparison.axis else []), *said]) or "runs"


def _not_paired(comparison: Comparison) -> Iterator[str]:
    unpaired = [row for row in comparison.rows if row.difference and not row.difference.paired]
    if unpaired:
        why = dict.fromkeys(f"{shown(row.arm)}: {why_not_paired(row.difference)}" for row in unpaired if row.difference)
        welch = any(row.difference and row.difference.pairs for row in unpaired)
        tail = ": the interval is Welch's, of a difference of means" if welch else ""
        yield f"Not paired ({'; '.join(why)}){tail}."


def _own_best(comparison: Comparison) -> Iterator[str]:
    chosen = [row for row in comparison.rows if row.own_best_lr]
    if chosen:
        yield "best: each arm at the lr of its highest mean valid_accuracy at the last epoch."
    edge = list(
        dict.fromkeys(f"{shown(row.arm)} {shown(row.cell['lr'])}" for row in chosen if row.own_best_lr == "edge")
    )
    if edge:
        yield f"best!: that lr is on the edge of the grid, and a better one may lie beyond ({', '.join(edge)})."


def _judgement(comparison: Comparison) -> Iterator[str]:
    few = [row for row in comparison.rows if row.difference and row.difference.paired and 1 < row.difference.pairs < 6]
    if few:
        yield "p is of a sign-flip test, which needs 6 pairs or more to fall below .05."
    if comparison.smallest_effect is not None and comparison.axis:
        effect = f"{100 * comparison.smallest_effect:.6g} pp"
        text = f"Verdict on: better than the baseline by {effect} or more, the smallest effect fixed beforehand."
        yield text + (" needs: the seeds it would take." if needs_more_seeds(comparison) else "")


def needs_more_seeds(comparison: Comparison) -> bool:
    return any(row.difference and row.difference.verdict and row.difference.verdict.seeds for row in comparison.rows)


def why_not_paired(difference: Difference) -> str:
    """Why pairs are not pairs."""
    if not difference.pairs:
        return "no pairs"
    counts = {"weights": difference.weights_differ, "batches": difference.batches_differ}
    differ = " and ".join(f"{what} differ in {number}" for what, number in counts.items() if number)
    return f"{differ} of {difference.pairs} pairs"


def target_title(comparison: Comparison) -> str:
    """What the second table shows."""
    ratio = "; ratio to the baseline with its 95% interval" if comparison.axis else ""
    better = "or more" if is_share(comparison.metric) else "or less"
    return (
        f"Steps and seconds to {comparison.metric} {comparison.target:.6g} {better}, mean over runs{ratio}; "
        "a run that did not reach it counts as the horizon that every ok run of the cell got to, a diverged one too"
    )
