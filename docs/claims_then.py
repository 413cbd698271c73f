"""The table "Then and now" of docs/claims.md: each earlier verdict beside the new one, and why it changed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.analysis.claims.finding import Finding
from runner.reporting.claim_table import effect_text

EARLIER = Path(__file__).parent.parent / "results/reference/claims/earlier_verdicts.csv"
"""The 34 verdicts as they were published, from twelve seeds (200 to 211), and what the present measures give on the
same runs (the verdicts.csv of commit 6e920a5; none where seeds are needed that choose a learning rate)."""

INTRODUCTION = """\
## Then and now

An earlier version of this page had 34 verdicts from twelve seeds, with other rules and mostly smaller budgets. The
table shows every one of them ([earlier_verdicts.csv](../results/reference/claims/earlier_verdicts.csv)) beside the new
one. The new runs have other seeds, and were planned before the first of them began. The third column has the old runs,
measured as now. If it differs from the second, the measure made the difference. If it differs from the fourth, the
budget or the seeds did.

What changed, where it applies to a claim:

- **Endpoint.** Then: one reading at the end of training, right after a small last batch (of 16 images in the notebook's
  sweeps). Such a step spoils the next reading: accuracy falls by more than a percentage point for one reading. Now: no
  small last batch, and the median of several readings where they are there.
- **Budget.** Then: often 10,000 or 20,000 images and two to five epochs. Now: the document's own budget.
- **Seeds and images.** Then: 12 seeds, and images that were held out of the training set. Now: 30 seeds (20 in
  `own_best_lr`), and the test set, except where images choose a learning rate.
- **Rule.** Then: SUPPORTED needed a significant sign and a large mean. Now: SUPPORTED needs an interval that lies
  entirely beyond the smallest effect. REFUTED means that an effect of the claimed size is excluded.
- **Interval.** Then 95% for each claim alone. Now they hold for all claims together.
"""


def then_and_now(findings: Sequence[Finding]) -> str:
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
        rows.append(f"| [{name}](#{name}) | {then} | {again} | {new} | {WHY[name]} |")
    return "\n".join([INTRODUCTION, *rows]) + "\n"


def interval(row: Mapping[str, str], *columns: str) -> str:
    """An estimate with its interval; a dash where there is none."""
    if not row[columns[0]]:
        return "–"
    estimate, low, high = (f"{float(row[column]):+.3g}" for column in columns)
    return f"{estimate} [{low}, {high}]"


SPIKE = "Artefact: single readings right after a step on 16 images decided the old number"
SAME = "The word is the same, on new seeds"
CNN = "Budget: then two epochs of 20,000 images, now the document's five of 60,000"
TUTORIAL = "Budget: then four epochs of 20,000 images, now the document's ten of 60,000"
BATCHES = "The word is the same. The effect is smaller after 30 epochs than after three"

WHY = {
    "unchanged_accuracy_notebook_mlp": f"{SPIKE}. The median of ten readings shows a small, certain gain",
    "unchanged_accuracy_notebook_cnn": f"{CNN}, after which less than 0.2 pp is left",
    "unchanged_accuracy_tutorial_cnn": f"{TUTORIAL}, after which a tenth is left. The interval ends just above 0.5 pp",
    "higher_accuracy_notebook_mlp": f"{SPIKE}. The median of ten readings shows a small, certain gain",
    "higher_accuracy_notebook_cnn": f"{CNN}, after which a gain of 0.2 pp or more is excluded",
    "higher_accuracy_tutorial_cnn": f"{TUTORIAL}. There is a gain, but it may be smaller than 0.5 pp",
    "small_batches_break_it": BATCHES,
    "small_batches_break_it_group": BATCHES,
    "faster_notebook_mlp": SAME,
    "faster_sigmoid_mlp": SAME,
    "faster_notebook_cnn": SAME,
    "faster_tutorial_cnn": SAME,
    "faster_in_seconds_notebook_mlp": SAME,
    "faster_at_own_best_lr": "The word is the same. Then the tested seeds chose the learning rates, now other seeds do",
    "larger_area_at_own_best_lr": (
        "The word is the same. In a training of ten epochs of 60,000 images, the early steps weigh less than in one of "
        "three epochs of 10,000"
    ),
    "better_generalisation": (
        "More seeds, and each draws its own 1,000 images; then all had the same ones. There is a gain of unknown size"
    ),
    "better_generalisation_10k": "The median of several readings, and more seeds. There is a gain of unknown size",
    "better_generalisation_at_matched_loss": "More seeds, and each draws its own images. A gain of 0.5 pp is excluded",
    "better_generalisation_at_matched_loss_10k": "The word is the same: INCONCLUSIVE is now called UNDECIDED",
    "fewer_vanishing_gradients_sigmoid": SAME,
    "fewer_vanishing_gradients_relu": (
        "Measure: then the slope counted shrinking and growing gradients together, and growing made it REFUTED. Now "
        "growing has a claim of its own. REFUTED, because nothing vanishes without batch norm that it could cure"
    ),
    "less_sensitive_to_initialisation": SAME,
    "larger_learning_rates": (
        "More seeds, and other seeds choose the arms' best rates. The sign is certain, a factor of ten is not"
    ),
    "order_matters_little": "More seeds, five epochs of 20,000 images (then two of 10,000), and the median of readings",
    "fewer_divergences": SAME,
    "smaller_spread_over_seeds": f"{SPIKE}. Without them, a difference of 0.1 pp is excluded",
    "steadier_validation": (
        f"{SPIKE}, so the interval was 14 pp wide. Without them, the changes from reading to reading are smaller"
    ),
    "running_statistics_at_test_time": "Budget: then five epochs of 10,000 images, now ten of 60,000",
    "running_statistics_poor_early": SAME,
    "batch_statistics_of_256_at_test_time": (
        "Budget: then five epochs of 10,000 images, now ten of 60,000. The interval is narrow, and contains −0.2 pp"
    ),
    "batch_statistics_of_2_at_test_time": SAME,
    "momentum_changes_evaluation_only": "The word is the same: EQUIVALENT is now called SUPPORTED",
    "eps_matters_little": "More seeds, and five epochs of 60,000 images (then three of 10,000)",
    "affine_matters_little": "The word is the same: EQUIVALENT is now called SUPPORTED",
}
"""Claim → why its verdict changed."""
