"""The text around a comparison's tables: titles and notes."""

from collections.abc import Iterator

from runner.analysis.records import ArmRow, Comparison, Difference
from runner.reporting import sequential_notes
from runner.reporting.formats import p_text, percent, shown

LISTED = (
    *("dataset", "train_samples", "validate_on", "trainset", "augment"),
    *("network", "optimizer", "lr", "batch_size", "epochs"),
)
"""The parameters that a reader asks for first. Those that are the same in every run are named below the table."""


def title(comparison: Comparison) -> str:
    """The metric, the epoch, the axis and the baseline in one sentence."""
    text = f"{comparison.metric.name}{moment(comparison)}, mean ± SD over runs"
    if comparison.axis:
        text += f"; difference of each {comparison.axis} to the baseline {shown(comparison.baseline)}"
        text += " with its 95% interval"
        tested = len(p_values(comparison))
        if tested:
            text += f" and p, {comparison.adjustment}-adjusted for {tested} rows" if tested > 1 else " and p"
    return text


def moment(comparison: Comparison) -> str:
    """The epoch as a title says it: " at the last epoch"; "" where each run has only one value."""
    named = {"last": "the last epoch", "best": "each run's best epoch", "last step": "the last step"}
    return f" at {named.get(str(comparison.at), f'epoch {comparison.at}')}" if comparison.at else ""


def target_title(comparison: Comparison) -> str:
    """The title of the second table, where a target was given."""
    ratio = "; ratio to the baseline with its 95% interval" if comparison.axis else ""
    better = "or more" if comparison.metric.better > 0 else "or less"
    return (
        f"Steps and seconds to {comparison.metric.name} {comparison.target:.6g} {better}, mean over runs{ratio}; "
        "runs that did not reach it, or diverged, count with the last step that all ok runs of the cell trained"
    )


def differences(comparison: Comparison) -> list[Difference]:
    return [row.difference for row in comparison.rows if row.difference]


def p_values(comparison: Comparison) -> list[float]:
    return [d.p for d in differences(comparison) if d.p is not None]


def needs_more_seeds(comparison: Comparison) -> bool:
    return any(d.verdict and d.verdict.seeds for d in differences(comparison))


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know beside the numbers.

    The notes name the runs that are not ok, mixed versions of the code, the arms that are not paired, the rules of the
    verdict, and the parameters that are the same in every run.
    """
    kinds = (sequential_notes.notes, _not_ok, _stated, _versions, _not_paired, _norm_layers, _own_best, _judgement)
    found = [note for kind in kinds for note in kind(comparison)]
    arguments = [name for name in comparison.constant if name.startswith("network.")]
    at = LISTED.index("network") + 1
    constant = {name: comparison.constant.get(name) for name in (*LISTED[:at], *arguments, *LISTED[at:])}
    defaults = (None, "null", "held_out", "[]")
    same = [f"{name} {shown(value)}" for name, value in constant.items() if value not in defaults]
    return [*found, f"Every run: {', '.join(same)}."] if same else found


def _not_ok(comparison: Comparison) -> Iterator[str]:
    counts = {status: n for status, n in comparison.statuses.items() if n and status != "ok"}
    if counts:
        planned = sum(row.planned for row in comparison.planned_rows)
        text = ", ".join(f"{n} {status}" for status, n in counts.items())
        diverged = " A diverged run counts with its last value." if "diverged" in counts else ""
        yield f"Of {planned} runs: {text}.{diverged}"
    if "diverged" in counts:
        rows = "; ".join(_diverged(comparison))
        yield f"Diverged, with 95% intervals (Wilson) and p (McNemar, exact): {rows}."


def _stated(comparison: Comparison) -> Iterator[str]:
    if comparison.stated:
        counts = [f"{row_name(row, comparison)} {row.difference.pairs}" for row in comparison.rows if row.difference]
        yield f"Paired {comparison.stated.pairing}. Pairs: {', '.join(counts)}."
        yield from comparison.stated.notes


def _versions(comparison: Comparison) -> Iterator[str]:
    if comparison.versions:
        arms = []
        for arm, counts in comparison.versions.items():
            runs = [f"{n} by {version[:8] or 'an older bnbench'}" for version, n in counts.items()]
            arms.append(f"{shown(arm)}: {', '.join(runs)}")
        yield f"Different versions of the code trained these runs (code_hash in runs.csv): {'; '.join(arms)}."


def _diverged(comparison: Comparison) -> Iterator[str]:
    """Every row of a block in which a run diverged."""
    blocks = {row.block for row in comparison.planned_rows if row.statuses.get("diverged")}
    for row in comparison.planned_rows:
        if row.block in blocks and row.divergence:
            share = row.divergence.share
            numbers = (share.estimate, share.low, share.high)
            estimate, *ends = (f"{100 * (number or 0):.0f}" for number in numbers)
            p = "" if row.divergence.p is None else f", p {p_text(row.divergence.p)}"
            yield f"{row_name(row, comparison)} {estimate}% [{', '.join(ends)}]{p}"


def row_name(row: ArmRow, comparison: Comparison) -> str:
    """A row's arm and parameters in a few words: "batch_norm lr 0.1"."""
    arm = [shown(row.arm)] if comparison.axis else []
    parameters = {**row.cell, **row.variant}.items()
    parts = [f"{name} {shown(value)}" for name, value in parameters if value is not None]
    return " ".join([*arm, *parts]) or "runs"


def _not_paired(comparison: Comparison) -> Iterator[str]:
    reasons = {}
    for row in comparison.rows:
        if row.difference and not row.difference.paired:
            reasons[f"{shown(row.arm)}: {why_not_paired(row.difference)}"] = row.difference.pairs
    if reasons:
        welch = ": the interval is Welch's, of a difference of means" if any(reasons.values()) else ""
        yield f"Not paired ({'; '.join(reasons)}){welch}."


def _norm_layers(comparison: Comparison) -> Iterator[str]:
    """What `swap_norm` did that a reader may not expect."""
    biases = [change for change in comparison.norm_changes if "gave a bias" in change]
    yield from (f"{change}." for change in comparison.norm_changes if change in biases or "not replaced" in change)
    if biases:
        yield "A bias that was added starts at 0 and is not in the hash of the shared weights (swap_norm_bias)."


def why_not_paired(difference: Difference) -> str:
    """Why the runs of an arm and of the baseline are not proven pairs."""
    if not difference.pairs:
        return "no pairs"
    counts = {"weights": difference.weights_differ, "batches": difference.batches_differ}
    differ = " and ".join(f"{name} differ in {n}" for name, n in counts.items() if n)
    return f"{differ} of {difference.pairs} pairs"


def _own_best(comparison: Comparison) -> Iterator[str]:
    if any(row.own_best_lr for row in comparison.rows):
        yield "best: each arm at the lr of its highest mean valid_accuracy at the last epoch."
    elif comparison.axis and len({row.cell.get("lr") for row in comparison.rows}) > 1:
        yield f"No best lr: no seed of {shown(comparison.baseline)} has a valid_accuracy at every lr."
    at_edge = [row for row in comparison.rows if row.own_best_lr == "edge"]
    edge = dict.fromkeys(f"{shown(row.arm)} {shown(row.cell['lr'])}" for row in at_edge)
    if edge:
        arms = ", ".join(edge)
        yield f"best!: that lr is on the edge of the grid, and a better one may lie beyond ({arms})."


def _judgement(comparison: Comparison) -> Iterator[str]:
    if any(d.paired and 1 < d.pairs < 6 for d in differences(comparison)):
        yield "p is of a sign-flip test, which needs 6 pairs or more to fall below .05."
    if comparison.smallest_effect is not None and comparison.axis:
        unit = " pp" if comparison.metric.share else ""
        effect = f"{percent(comparison.metric) * comparison.smallest_effect:.6g}{unit}"
        text = f"Verdict: is it better than the baseline by {effect} or more (fixed beforehand)?"
        needs = " needs: how many seeds would settle it." if needs_more_seeds(comparison) else ""
        yield text + needs
