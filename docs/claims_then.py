"""The table "Then and now" of docs/claims.md: each earlier verdict beside the new one, and why it changed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.analysis.claims.finding import Finding
from runner.reporting.claim_table import effect_text
from runner.storage.folder import CONFIG, read_config

EARLIER = Path(__file__).parent.parent / "results/reference/claims/earlier_verdicts.csv"
"""The 34 verdicts as they were published, from twelve seeds (200 to 211), and what the present measures give on the
same runs (the verdicts.csv of commit 6e920a5; none where seeds are needed that choose a learning rate)."""

INTRODUCTION = """\
## Then and now

An earlier version of this page had 34 verdicts from twelve seeds, with other rules and mostly smaller budgets. The
table shows every one of them ([earlier_verdicts.csv](../results/reference/claims/earlier_verdicts.csv)) beside the new
one. The new runs have other seeds, and were planned before the first of them began. The third column has the old runs,
measured as now. If it differs from the second, the measure made the difference. If it differs from the fourth, the
budget, the images or the seeds did. A dash: other seeds than the tested ones choose the learning rate now, and the old
runs have no such seeds.

What changed:

- **Endpoint.** Then: one reading at the end of training, often right after a small last batch (of 16 or 32 images in
  the notebook's sweeps). Such a step can spoil the next reading: accuracy falls by more than a percentage point for one
  reading. Now: no small last batch, and the median of several readings.
- **Budget.** The last column says each claim's images and epochs, then and now.
- **Seeds and images.** Then: 12 seeds, and accuracy was read on images that were held out of the training set. Now: 30
  seeds (20 in `own_best_lr`), and the test set, except where images choose a learning rate, and in the claims about
  generalisation.
- **Rule.** Then: SUPPORTED needed a significant sign and a large mean. Now: SUPPORTED needs an interval that lies
  entirely beyond the smallest effect. REFUTED means that an effect of the claimed size is excluded. INCONCLUSIVE is
  called UNDECIDED now, and EQUIVALENT SUPPORTED.
- **Interval.** Then 95% for each claim alone. Now 99.86% or 99.72% for each claim alone, so that the verdicts hold
  together.
"""

THEN = {
    "affine": (10_000, 3),
    "batch_size": (2_000, 3),
    "divergence": (10_000, 2),
    "early_statistics": (2_000, 1),
    "eps": (10_000, 3),
    "generalisation": (1_000, 30),
    "generalisation_10k": (10_000, 15),
    "gradients": (1_000, 1),
    "initialisation": (10_000, 3),
    "learning_rates": (10_000, 3),
    "momentum": (10_000, 2),
    "notebook_cnn_mnist": (20_000, 2),
    "notebook_mlp_mnist": (50_000, 10),
    "order": (10_000, 2),
    "own_best_lr": (10_000, 3),
    "running_statistics": (10_000, 5),
    "sigmoid_mlp_mnist": (50_000, 5),
    "tutorial_fashion": (20_000, 4),
}
"""Sweep → (training images, epochs) of the earlier verdicts: results/reference/claims/*/config.yaml in commit fd79c2d^.
10,000 of the 60,000 images were held out."""


def then_and_now(findings: Sequence[Finding], results: Path) -> str:
    """The section, with a row for each earlier verdict. Errors: KeyError where a reason or a finding is missing."""
    now = {finding.claim.name: finding for finding in findings}
    with EARLIER.open(encoding="utf-8", newline="") as file:
        earlier = list(csv.DictReader(file))
    rows = ["| claim | then | the same runs, measured as now | now | why it changed |", "|:---|:---|:---|:---|:---|"]
    for old in earlier:
        name = old["claim"]
        then = f"{interval(old, 'difference', 'low', 'high')} {old['verdict']}"
        again = interval(old, "measured_as_now", "low_as_now", "high_as_now")
        new = f"{effect_text(now[name])} {now[name].word}"
        why = f"{budgets(now[name].claim.sweep_name, results)} {WHY[name]}"
        rows.append(f"| [{name}](#{name}) | {then} | {again} | {new} | {why} |")
    return "\n".join([INTRODUCTION, *rows]) + "\n"


def budgets(sweep: str, results: Path) -> str:
    """A sentence with a sweep's training images and epochs, then and now."""
    fixed = read_config(results / sweep / CONFIG)["fixed"]
    now = fixed["train_samples"] or (60_000 if fixed["validate_on"] == "test" else 50_000), fixed["epochs"]
    if now == THEN[sweep]:
        return f"Budget as then: {images(*now)}."
    return f"Budget: {images(*THEN[sweep])}, now {images(*now)}."


def images(count: int, epochs: int) -> str:
    return f"{count:,} images for {epochs} epoch{'s' if epochs > 1 else ''}"


def interval(row: Mapping[str, str], *columns: str) -> str:
    """An estimate with its interval; a dash where there is none."""
    if not row[columns[0]]:
        return "–"
    estimate, low, high = (f"{float(row[column]):+.3g}" for column in columns)
    return f"{estimate} [{low}, {high}]"


SPIKE = "Artefact: single readings right after a step on 16 images decided the old number"
SAME = "The word is the same, on new seeds"
SLOWER = "The word is the same. The accuracy is read ten times an epoch, so readings lie farther apart in a larger one"
GAIN = f"{SPIKE}. The median of ten readings shows a small, certain gain"
BATCHES = (
    "The word is the same. Batch sizes then: 2, 4, 16 and 64, also in the third column; now 2, 8 and 64. So the slopes "
    "are not of the same points. After more epochs, the networks with batches of 64 are trained, too"
)
GRADIENTS = "Measure: then the slope counted shrinking and growing gradients together"
DRAWN = "More seeds, and each draws its own images; then all had the same ones"

WHY = {
    "unchanged_accuracy_notebook_mlp": GAIN,
    "unchanged_accuracy_notebook_cnn": "After the longer training, less than 0.2 pp is left",
    "unchanged_accuracy_tutorial_cnn": (
        "After the longer training, a tenth is left. The interval ends just above 0.5 pp"
    ),
    "higher_accuracy_notebook_mlp": GAIN,
    "higher_accuracy_notebook_cnn": "After the longer training, a gain of 0.2 pp or more is excluded",
    "higher_accuracy_tutorial_cnn": "After the longer training there is a gain, but it may be smaller than 0.5 pp",
    "small_batches_break_it": BATCHES,
    "small_batches_break_it_group": BATCHES,
    "faster_notebook_mlp": SLOWER,
    "faster_sigmoid_mlp": SLOWER,
    "faster_notebook_cnn": SLOWER,
    "faster_tutorial_cnn": SLOWER,
    "faster_in_seconds_notebook_mlp": SLOWER,
    "faster_at_own_best_lr": "The word is the same. Then the tested seeds chose the learning rates, now other seeds do",
    "larger_area_at_own_best_lr": (
        "The word is the same. The mean is over the whole training, so in a longer one the early steps weigh less. "
        "Then the tested seeds chose the learning rates, now other seeds do"
    ),
    "better_generalisation": f"{DRAWN}. There is a gain of unknown size",
    "better_generalisation_10k": (
        f"The median of several readings made most of the change. {DRAWN}. There is a gain of unknown size"
    ),
    "better_generalisation_at_matched_loss": f"{DRAWN}. A gain of 0.5 pp is excluded",
    "better_generalisation_at_matched_loss_10k": (
        f"The word is the same, with its new name. The measure changed the sign; all three intervals contain 0. {DRAWN}"
    ),
    "fewer_vanishing_gradients_sigmoid": (
        f"The word is the same, on new seeds. {GRADIENTS}. Now growing ones count as 0 here, and have their own claim"
    ),
    "fewer_vanishing_gradients_relu": (
        f"{GRADIENTS}, and growing made it REFUTED. Now growing has a claim of its own. REFUTED, because nothing "
        "vanishes without batch norm that it could cure. So this test could not support the claim"
    ),
    "less_sensitive_to_initialisation": (
        "The word is the same. After more steps, batch norm has recovered more from bad weights. Without it, the "
        "network learns nothing there"
    ),
    "larger_learning_rates": (
        "More seeds, and other seeds choose the arms' best rates. The sign is certain, a factor of ten is not"
    ),
    "order_matters_little": (
        "More seeds, and the median of ten readings. Two of the six orders equal others, and are left out now"
    ),
    "fewer_divergences": SAME,
    "smaller_spread_over_seeds": (
        f"{SPIKE}. Without them, the whole spread is smaller than the smallest effect. So this test could not support "
        "the claim"
    ),
    "steadier_validation": (
        f"{SPIKE}, so the interval was 14 pp wide. The new measure ignores them, and the new runs have no such steps"
    ),
    "running_statistics_at_test_time": "After the longer training, the two kinds of averages agree better",
    "running_statistics_poor_early": SAME,
    "batch_statistics_of_256_at_test_time": (
        "Longer training, and more seeds. The interval is narrow, and contains −0.2 pp"
    ),
    "batch_statistics_of_2_at_test_time": "The word is the same. The loss is larger after the longer training",
    "momentum_changes_evaluation_only": "The word is the same, with its new name",
    "eps_matters_little": "More seeds, and the median of ten readings",
    "affine_matters_little": (
        "The word is the same, with its new name. The loss without γ and β is twice as large after longer training, "
        "and certain now, but still below 0.2 pp"
    ),
}
"""Claim → why its verdict changed, or its number, beside the budget."""
