"""The text around a comparison's tables: titles and notes."""

from collections.abc import Iterator

from runner.analysis.records import ArmRow, Comparison, Difference
from runner.reporting import sequential_notes
from runner.reporting.error_notes import not_varied, over_images, shared_seeds
from runner.reporting.formats import FIXED, NOTHING, effect_text, p_text, percent, percents_text, shown

LISTED = (
    *("dataset", "train_samples", "subset", "split", "validate_on", "trainset", "augment"),
    *("network", "optimizer", "lr", "batch_size", "epochs"),
)
"""The parameters that a reader asks for first. Those that are the same in every run are named below the table."""


def title(comparison: Comparison) -> str:
    """The metric, the epoch, the axis and the baseline in one sentence."""
    over = "seeds (the runs of a seed are averaged)" if any(row.pooled for row in comparison.rows) else "runs"
    text = f"{comparison.metric.name}{moment(comparison)}, mean ± SD over {over}"
    if comparison.interaction:
        name, value = comparison.interaction
        text = f"{comparison.metric.name}{moment(comparison)}, how the difference depends on {name}"
        text += f"; difference of each {comparison.axis} to the baseline {shown(comparison.baseline)}, "
        text += f"minus that at {name} {shown(value)},"
    elif comparison.axis:
        text += f"; difference of each {comparison.axis} to the baseline {shown(comparison.baseline)}"
    if comparison.axis:
        text += " with its 95% interval"
        tests = max((d.tests for d in differences(comparison) if d.p is not None), default=0)
        if tests > 1:
            together = comparison.smallest_effect is not None
            text += f" (of all {tests} rows together)" if together else " (of its row alone)"
            text += f" and p, {comparison.adjustment}-adjusted for {tests} rows"
        elif tests:
            text += " and p"
    return text


def moment(comparison: Comparison) -> str:
    """The epoch as a title says it: " at the last epoch"; "" where each run has only one value."""
    named = {"last": "the last epoch", "best": "each run's best epoch", "last step": "the last step"}
    return f" at {named.get(str(comparison.at), f'epoch {comparison.at}')}" if comparison.at else ""


def target_title(comparison: Comparison) -> str:
    """The title of the second table, where a target was given."""
    ratio = "; ratio of the means to the baseline with its 95% interval (Fieller)" if comparison.axis else ""
    better = "or more" if comparison.metric.better > 0 else "or less"
    return (
        f"Steps and seconds to {comparison.metric.name} {comparison.target:.6g} {better}, mean over runs{ratio}; "
        "runs that did not reach it, or diverged, count with the last step that all ok runs of the cell trained"
    )


BOUNDS = {
    "at most": "≤: runs of the baseline did not reach the target, so the true ratio is at most this.",
    "at least": "≥: runs of the arm did not reach the target, so the true ratio is at least this.",
    "unknown": f"{NOTHING}: runs of both did not reach the target, so nothing is known of the true ratio.",
}


def target_notes(comparison: Comparison) -> list[str]:
    """What the signs in the second table mean, where some runs did not reach the target."""
    reach = [row.to_target for row in comparison.rows if row.to_target and row.difference]
    bounds = {time.bound for found in reach for time in (found.steps, found.seconds) if time}
    return [text for bound, text in BOUNDS.items() if bound in bounds]


def differences(comparison: Comparison) -> list[Difference]:
    return [row.difference for row in comparison.rows if row.difference]


def p_values(comparison: Comparison) -> list[float]:
    return [d.p for d in differences(comparison) if d.p is not None]


def needs_more_seeds(comparison: Comparison) -> bool:
    return any(d.needed for d in differences(comparison))


def notes(comparison: Comparison) -> list[str]:
    """What a reader must know beside the numbers.

    The notes give the comparison's warnings first. They name the runs that are not ok, the arms that are not paired,
    the rules of the verdict, and the parameters that are the same in every run.
    """
    kinds = (
        sequential_notes.notes,
        _not_measured,
        _not_ok,
        _left_out,
        _equal_pairs,
        _stated,
        _not_paired,
        shared_seeds,
        over_images,
        _norm_layers,
        _own_best,
        _tests,
        _judgement,
        _robust,
        not_varied,
    )
    found = [*comparison.warnings, *(note for kind in kinds for note in kind(comparison))]
    arguments = [name for name in comparison.constant if name.startswith("network.")]
    at = LISTED.index("network") + 1
    constant = {name: comparison.constant.get(name) for name in (*LISTED[:at], *arguments, *LISTED[at:])}
    defaults = (None, "null", "held_out", "fixed", "first", "[]")
    same = [f"{name} {shown(value)}" for name, value in constant.items() if value not in defaults]
    return [*found, f"Every run: {', '.join(same)}."] if same else found


def _not_measured(comparison: Comparison) -> Iterator[str]:
    """What to compare where no run has a validation set, as in a loop that the RunManager recorded."""
    name = comparison.metric.name
    if name.startswith("valid_") and "ok" in comparison.statuses and not any(row.n for row in comparison.rows):
        other = name.replace("valid_", "train_")
        yield f'No run has a {name}. {other} works: --metric {other}, or compare("{other}") in a notebook.'


def _not_ok(comparison: Comparison) -> Iterator[str]:
    counts = {status: n for status, n in comparison.statuses.items() if n and status != "ok"}
    if counts:
        planned = sum(row.planned for row in comparison.planned_rows)
        text = ", ".join(f"{n} {status}" for status, n in counts.items())
        diverged = " A diverged run counts with its last value, if it is finite." if "diverged" in counts else ""
        yield f"Of {planned} runs: {text}.{diverged}"
    if "diverged" in counts:
        rows = "; ".join(_diverged(comparison))
        yield f"Diverged, with 95% intervals (Wilson) and p (McNemar, exact): {rows}."


def _left_out(comparison: Comparison) -> Iterator[str]:
    """Says which rows that average runs leave seeds out."""
    for row in comparison.rows:
        n = row.difference.pairs if row.difference else row.n
        if row.pooled and n < row.planned_n:
            name = row_name(row, comparison)
            yield f"{name}: {n} of {row.planned_n} seeds count; the others lack runs that are averaged here."


def _equal_pairs(comparison: Comparison) -> Iterator[str]:
    for row in comparison.rows:
        found = row.difference
        if found and found.values is not None and found.pairs > 1 and not found.values.any():
            yield f"{row_name(row, comparison)}: every pair is exactly equal, so the two arms may compute the same."


def _stated(comparison: Comparison) -> Iterator[str]:
    if comparison.stated:
        counts = [f"{row_name(row, comparison)} {row.difference.pairs}" for row in comparison.rows if row.difference]
        yield f"Paired {comparison.stated.pairing}. Pairs: {', '.join(counts)}."
        yield from comparison.stated.notes


def _diverged(comparison: Comparison) -> Iterator[str]:
    """Every row of a block in which a run diverged."""
    blocks = {row.block for row in comparison.planned_rows if row.statuses.get("diverged")}
    for row in comparison.planned_rows:
        if row.block in blocks and row.divergence:
            p = "" if row.divergence.p is None else f", p {p_text(row.divergence.p)}"
            yield f"{row_name(row, comparison)} {percents_text(row.divergence.share)}{p}"


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
    counts = {
        "weights differ": difference.weights_differ,
        "batches differ": difference.batches_differ,
        "code differs": difference.code_differs,
    }
    return f"{' and '.join(f'{what} in {n}' for what, n in counts.items() if n)} of {difference.pairs} pairs"


def _own_best(comparison: Comparison) -> Iterator[str]:
    best = [row for row in comparison.rows if row.own_best_lr]
    if best:
        one_seed = all(row.planned_n == 1 for row in comparison.planned_rows)
        chose = "The first half of the seeds chose it, and the other half is compared."
        if one_seed:
            chose = "The only seed chose it and is compared, so these rows look too good."
        yield (f"best: each arm at its own best lr, that of the highest mean valid_accuracy at the last epoch. {chose}")
    elif (
        comparison.axis
        and not comparison.interaction
        and not comparison.stated
        and len({row.cell.get("lr") for row in comparison.rows}) > 1
    ):
        arm = shown(comparison.baseline)
        yield f"No best lr: of the first half of the seeds, none has a valid_accuracy of {arm} at every lr."
    at_edge = [row for row in comparison.rows if row.own_best_lr == "edge"]
    edge = dict.fromkeys(f"{shown(row.arm)} {shown(row.cell['lr'])}" for row in at_edge)
    if edge:
        arms = ", ".join(edge)
        yield f"best!: that lr is on the edge of the grid, and a better one may lie beyond ({arms})."


def _tests(comparison: Comparison) -> Iterator[str]:
    if comparison.sequential:
        return  # None of these p is valid.
    tests = {d.test for d in differences(comparison)}
    if "sign-flip" in tests:
        yield (
            "p: sign-flip test of the pairs; interval: paired t. They can disagree, because only the interval assumes "
            "a normal distribution."
        )
    if "Welch" in tests:
        yield "p and interval of rows that are not paired: Welch's t test."
    too_few = ((d.pairs, comparison.too_few(d)) for d in differences(comparison) if d.p is not None)
    if found := sorted({(n, fewest) for n, fewest in too_few if fewest}):
        yield "; ".join(f"{n} seeds cannot reach p < .05 here; run {fewest}" for n, fewest in found) + "."


WORDS = {
    "SUPERIOR": "better by {} or more",
    "BETTER": "better, by an unknown amount",
    "EQUIVALENT": "less than {} apart",
    "WORSE": "worse, by an unknown amount",
    "INFERIOR": "worse by {} or more",
    "UNDECIDED": "not shown with these seeds",
    "WITHHELD": "a few extreme pairs decide the mean",
}


def _judgement(comparison: Comparison) -> Iterator[str]:
    if comparison.smallest_effect is None or not comparison.axis:
        return
    unit = " pp" if comparison.metric.share else ""
    effect = f"{percent(comparison.metric) * comparison.smallest_effect:.6g}{unit}"
    found = {d.verdict for d in differences(comparison)}
    words = "; ".join(f"{word}: {text.format(effect)}" for word, text in WORDS.items() if word in found)
    if any(d.pairs > 1 and not d.paired for d in differences(comparison)):
        yield "Rows that are not paired have no verdict."
    if words:
        what = "Sequential verdict" if comparison.sequential else "Verdict"
        yield f"{what}, with a smallest effect of {effect} ({FIXED[comparison.fixed]}): {words}."
    if needs_more_seeds(comparison):
        yield (
            "needs: how many seeds would give a verdict with 80% power, if the mean and SD of the differences stay as "
            "they are (in brackets: for the ends of the SD's 80% interval)."
        )
    if comparison.at == "best":
        yield "Each run's best epoch was chosen by the numbers that are compared here, so the means are too good."


def _robust(comparison: Comparison) -> Iterator[str]:
    """Where a few extreme pairs decide what the mean says: both parts, the pairs with and without a collapsed run."""
    metric = comparison.metric
    for row in comparison.rows:
        found = row.difference and row.difference.robust
        if not found or not row.difference or not found.disagrees:
            continue
        name = row_name(row, comparison)
        withheld = "; the mean's verdict is withheld" if row.difference.verdict == "WITHHELD" else ""
        mean, median, trimmed = (
            effect_text(interval, metric) for interval in (found.mean, found.hodges_lehmann, found.trimmed_mean)
        )
        yield (
            f"{name}: a few extreme pairs move the mean{withheld}. Mean {mean}; "
            f"Hodges–Lehmann {median}; 20% trimmed mean {trimmed}."
        )
        if found.without_collapse:
            arms = [(shown(row.arm), found.collapsed), (shown(comparison.baseline), found.collapsed_baseline)]
            shares = ", ".join(f"{arm} {percents_text(share)}" for arm, share in arms)
            yield (
                f"{name}: collapsed runs: {shares}; p {p_text(found.collapse_p)} (McNemar, exact). "
                f"Mean of the pairs without a collapsed run: {effect_text(found.without_collapse, metric)}."
            )
