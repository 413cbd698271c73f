"""Write docs/claims.md: each claim with its source, its design, its verdict and its rows. Run by `make docs`.

It reads `results/reference/claims/verdicts.csv` and the sweeps in that folder. No number on the page is typed by hand.
"""

from __future__ import annotations

import json
import statistics
import sys
import textwrap
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pandas as pd

from runner.analysis.comparison import compare
from runner.analysis.stats.intervals import Interval
from runner.storage.folder import CONFIG, read_config
from runner.storage.results import load

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results/reference/claims"
EARLIER = ROOT / "results/reference/claims_earlier_seeds/notebook_cnn_mnist"
PAGE = ROOT / "docs/claims.md"

INTRODUCTION = """\
# Claims

`make docs` writes this page from `results/reference/claims/verdicts.csv`. These commands train all sweeps and print
such a table:

```sh
bnbench claims run --budget small
bnbench claims show results/claims/small --format csv
```

The first command writes the sweeps to `results/claims/small/`. The sweeps in `results/reference/claims/` are the
committed results of this command, and this page shows them. With a sweep's `config.yaml` you can run the sweep
again. Its `environment.json` names the machine. Each claim, its metric and its smallest effect were written before
these runs, in `experiments/claims/` and `configs/claims/`. The **smallest effect** is the smallest difference that we
call important. We chose it before the runs.

## How to read a verdict

Each seed gives one difference: the value of the arm minus the value of the baseline. The two runs of a seed share their
starting weights and their batches. The columns `weights_hash` and `batches_hash` in `runs.csv` prove this. The unit pp
means percentage points. The numbers in square brackets are Student's 95% interval of the mean difference.

A claim says either that there is a difference, or that there is no important difference. "Within ±0.2 pp" is a claim of
the second kind.

- Both kinds of claim get a sign-flip test: is there a difference? The test changes the signs (+ or −) of the pairs'
  differences in many combinations. It counts the combinations whose mean is at least as far from 0 as the measured
  mean. With twelve seeds, it tries all 4096 combinations of signs. For a claim of a difference, the page shows the p of
  this test.
- For a claim of "no important difference", an equivalence test (two one-sided t tests) asks whether the difference is
  smaller than the smallest effect. The page shows the p of this test, except when the verdict is REFUTED. Then it shows
  the p of the sign-flip test. Some of these claims compare several arms with the baseline. Then the arm with the
  largest p decides.
- The *Holm-adjusted p* is the p of the same test, but it takes into account that many claims are tested. The sign-flip
  tests of all claims are adjusted together. The equivalence tests are also adjusted together. With twelve seeds, the p
  of a sign-flip test is at least 1/2048. Holm's method multiplies the smallest of the 34 p by 34. So the Holm-adjusted
  p of such a test is at least 34/2048 = 0.0166.

There are four verdicts:

- **SUPPORTED**: There is a difference with the claimed sign. The Holm-adjusted p of the sign-flip test is below 0.05,
  and the mean difference is at least as large as the smallest effect.
- **REFUTED**: There is a difference with the opposite sign. The Holm-adjusted p of the sign-flip test is below 0.05,
  and the mean difference, without its sign, is at least as large as the smallest effect. A claim of "no important
  difference" is REFUTED by a difference with either sign.
- **EQUIVALENT**: The equivalence test shows that the difference is smaller than the smallest effect. Its p is below
  0.05. For a claim of "no important difference", this must be the Holm-adjusted p.
- **INCONCLUSIVE**: The runs show none of these three things. For most INCONCLUSIVE claims, the page estimates how many
  seeds would be needed to decide the claim. In most cases, this is the number of seeds that are needed to detect a
  difference as large as the smallest effect with 80% probability. It is calculated from the measured spread. In the
  other cases, the sweep already has that many seeds. Then the number depends on the result:
  - If the mean difference, without its sign, is at least as large as the smallest effect, or if the verdict would be
    EQUIVALENT without Holm's adjustment, the page gives the sweep's number of seeds plus one. This only means "more
    seeds".
  - Otherwise, the page gives the number of seeds that are needed for EQUIVALENT with 80% probability. This number is
    calculated from the measured spread and the measured mean difference.

A verdict can be INCONCLUSIVE although p is below 0.05. This happens when the Holm-adjusted p is 0.05 or more. It also
happens when the mean difference is smaller than the smallest effect, but too uncertain to be called EQUIVALENT.

A verdict is only about the network, the data set and the training time of its runs. Both CNNs train on 20,000 images
here: the notebook's CNN for two epochs, and the tutorial's CNN for four. So their "final accuracy" is the accuracy
early in training. The section "Accuracy after the documents' full training" has the accuracy later in training. The
documents are listed in [sources.md](sources.md).

## Were the rules chosen before the results were known?

- We wrote the claims, their rules and their sweeps while we looked at runs with other seeds. These were the seeds 0 to
  11, and for the notebook's CNN also 100 to 111. Then we committed everything, including the number of seeds.
- The runs on this page use the seeds 200 to 211. Nobody had run these seeds before. All of them were trained with the
  code of one commit (`environment.json` names it), and we looked at the results once. After that, no rule, metric or
  sweep was changed. Only the wording of some texts became plainer.
- @earlier@
- Some claims use the same sweep and so the same runs. Their tests are not independent. Holm's adjustment does not need
  independent tests.
- While the seconds of training were measured, the machine also did other work.
"""

OPPOSITE = "**This contradicts the document.** There is an effect, and it has the opposite sign."
NO_EFFECT = "**This contradicts the document.** If there is an effect, it is smaller than the smallest effect."

SUMMARIES = {
    ("=", "EQUIVALENT"): "This agrees with the claim: the difference is smaller than the smallest effect.",
    ("=", "REFUTED"): "**This contradicts the document.** There is an important difference.",
    ("+", "SUPPORTED"): "This agrees with the claim.",
    ("-", "SUPPORTED"): "This agrees with the claim.",
    ("+", "REFUTED"): OPPOSITE,
    ("-", "REFUTED"): OPPOSITE,
    ("+", "EQUIVALENT"): NO_EFFECT,
    ("-", "EQUIVALENT"): NO_EFFECT,
}
"""(what is claimed, the verdict) → a sentence; in every other case the runs do not decide."""

REMARKS = {
    "small_batches_break_it_group": "The sweep's baseline is layer norm, but this claim compares batch norm with group "
    "norm, which is another arm of the sweep."
}
"""Claim → what its design does not say."""

Row = dict[Any, Any]


def pp(interval: Interval | None) -> str:
    """An interval of accuracy in percentage points."""
    assert interval is not None
    estimate, low, high = (100 * value for value in astuple(interval))
    return f"{estimate:+.2f} [{low:+.2f}, {high:+.2f}] pp"


def earlier_seeds() -> str:
    """The result of twelve other seeds, for the claims whose verdict was then different."""
    comparison = compare([load(EARLIER)], metric="test_accuracy")
    difference = next(row.difference for row in comparison.rows if row.difference)
    return (
        "Two verdicts depend on the seeds: `unchanged_accuracy_notebook_cnn` and `higher_accuracy_notebook_cnn`. The\n"
        "  earlier seeds 100 to 111 are in `results/reference/claims_earlier_seeds/`. With these seeds, the\n"
        f"  difference is {pp(difference.interval)} with p {difference.p:.3f}. Both\n"
        "  verdicts would be INCONCLUSIVE. The interval of the earlier seeds and the interval on this page\n"
        "  overlap, so they do not contradict each other. But both are wide, so the size of the effect is uncertain."
    )


def page(results: Path = RESULTS) -> str:
    """The page for a folder that holds verdicts.csv, and one folder per sweep."""
    verdicts = pd.read_csv(results / "verdicts.csv", keep_default_na=False).to_dict("records")
    parts = [
        INTRODUCTION.replace("@earlier@", earlier_seeds()),
        "## Verdicts\n",
        verdict_table(verdicts),
        "## Claims of the documents that the runs contradict\n",
        against(verdicts),
        "## Accuracy after the documents' full training\n",
        at_full_budget(),
    ]
    parts += [section(row, results) for row in verdicts]
    return "\n".join(parts)


def verdict_table(verdicts: list[Row]) -> str:
    lines = [
        "| claim | seeds | difference [95% interval] | claimed | p | Holm-adjusted p | verdict |",
        "|:---|---:|:---|:---|---:|---:|:---|",
    ]
    for row in verdicts:
        lines.append(
            f"| [{row['claim']}](#{row['claim']}) | {row['n']}/{row['planned']} | {difference(row)} | {claimed(row)} | "
            f"{probability(own_p(row))} | {probability(row['p_adjusted'])} | **{row['verdict']}** |"
        )
    return "\n".join(lines) + "\n"


def against(verdicts: list[Row]) -> str:
    """The sentences that the runs contradict."""
    lines = [
        f"- [{row['claim']}](#{row['claim']}): {row['sentence']} Source: {row['source']}. "
        f"Measured difference: {difference(row)} {row['unit']}. Verdict: **{row['verdict']}**."
        for row in verdicts
        if summary(row).startswith("**")
    ]
    return "\n".join(lines or ["No verdict contradicts a document."]) + "\n"


def summary(row: Row) -> str:
    return SUMMARIES.get((row["claimed"], row["verdict"]), "These runs do not decide the claim.")


def at_full_budget() -> str:
    """The accuracy claims on the reference sweeps, which have other seeds, and the documents' epochs and test set."""
    lines = [
        "The sweeps in `results/reference/` named `notebook_mlp`, `notebook_cnn` and `tutorial` train as long as the",
        "documents did, on the whole training set. The sweeps of the claims train on five sixths of the training set",
        "or less. The differences below are the test accuracy",
        "after the last epoch with batch norm, minus that without batch norm:",
        "",
    ]
    for name, arm in (("notebook_mlp", "batch"), ("notebook_cnn", "batch"), ("tutorial", "batch_norm")):
        comparison = compare([load(ROOT / "results/reference" / name)], metric="valid_accuracy")  # on the test set
        row = next(row for row in comparison.rows if row.arm == arm and row.difference)
        assert row.difference is not None
        lines.append(f"- {name}, {row.n} seeds: {pp(row.difference.interval)}.")
    return "\n".join([*lines, ""])


def outlier(differences: list[float | None]) -> str:
    """A sentence on the other seeds, where exactly one seed is far from all others."""
    values = sorted(value for value in differences if value is not None)
    middle = statistics.median(values)
    usual = statistics.median(abs(value - middle) for value in values)
    gaps = {values[0]: values[1] - values[0], values[-1]: values[-1] - values[-2]}
    far = [value for value, gap in gaps.items() if gap > 5 * usual and abs(value - middle) > 10 * usual]
    if not usual or len(far) != 1:
        return ""
    rest = statistics.mean(value for value in values if value != far[0])
    return (
        f" One seed's difference ({far[0]:+.3g}) is far from the others and makes the interval wide. "
        f"Without this seed, the mean is {rest:+.3g}."
    )


def section(row: Row, results: Path) -> str:
    folder = results / row["sweep"]
    meaning = summary(row)
    if row["seeds_needed"]:
        meaning += f" About {float(row['seeds_needed']):.0f} seeds would be needed to decide it."
    meaning += outlier(json.loads(row["differences"]))
    items = [
        f"Source: {row['source']}.",
        f"Runs: {design(folder)}. {REMARKS.get(row['claim'], '')}",
        f"Metric: {row['metric']}. Unit: {row['unit']}.",
        f"Claimed difference: {claimed(row)}.",
        f"Measured difference: {difference(row)}, from {row['n']} of {row['planned']} seeds.",
        f"p: {probability(own_p(row))}. Holm-adjusted p: {probability(row['p_adjusted'])}.",
        f"Verdict: **{row['verdict']}**. {meaning}",
    ]
    if row["notes"]:
        items.append(f"Notes on the runs: {row['notes']}.")
    table = f"[{row['sweep']}/{row['table']}](../results/reference/claims/{row['sweep']}/{row['table']})"
    items.append(f"Data: {table}. Differences by seed: {by_seed(row['differences'])}.")
    shown = [f"### {row['claim']}", fill(f"> {row['sentence']}"), "\n".join(fill(f"- {item}") for item in items)]
    return "\n\n".join(shown) + "\n"


def design(folder: Path) -> str:
    """What was run, by the sweep's own config."""
    config = read_config(folder / CONFIG)
    fixed, grid = config["fixed"], dict(config["grid"])
    seeds = grid.pop("seed")
    together = grid.pop("zip", {})
    network = f"`{fixed['network']}`" if "network" in fixed else "both networks"
    samples = fixed.get("train_samples")
    varied = [" together with ".join(map(values_of, together, together.values()))] if together else []
    varied += map(values_of, grid, grid.values())
    rate = f", lr {fixed['lr']:g}" if "lr" in fixed else ""
    rate += f", batch {fixed['batch_size']}" if "batch_size" in fixed else ""
    epochs = f"{fixed['epochs']} epoch{'s' if fixed['epochs'] > 1 else ''}"
    trained_on = f"the first {samples:,} samples" if samples else "all training samples that are not held out"
    contrast = config["contrast"]
    return (
        f"{network} on {fixed['dataset']}, {trained_on}, {epochs}, {fixed['optimizer']}{rate}, {len(seeds)} seeds. "
        f"Varied: {'; '.join(varied)}. Baseline: {contrast['axis']} {contrast['baseline']}"
    )


def values_of(key: str, values: list[object]) -> str:
    return f"{key} ({', '.join(map(str, values))})"


def difference(row: Row) -> str:
    if row["difference"] == "":
        return "–"
    text = f"{float(row['difference']):+.3g}"
    return text if row["low"] == "" else f"{text} [{float(row['low']):+.3g}, {float(row['high']):+.3g}]"


def claimed(row: Row) -> str:
    effect = f"{float(row['smallest_effect']):g} {row['unit']}"
    return {"=": f"within ±{effect}", "+": f"≥ +{effect}", "-": f"≤ −{effect}"}[row["claimed"]]


def own_p(row: Row) -> object:
    """The p of the test that decides."""
    return row["p_equivalence"] if row["claimed"] == "=" and row["verdict"] != "REFUTED" else row["p"]


def probability(p: object) -> str:
    if p == "":
        return "–"
    return "<0.001" if float(str(p)) < 0.0005 else f"{float(str(p)):.3f}"


def by_seed(text: str) -> str:
    values = json.loads(text)
    return ", ".join("none" if value is None else f"{value:+.3g}" for value in values) or "none"


def fill(text: str) -> str:
    prefix = {"> ": "> ", "- ": "  "}.get(text[:2], "")
    return textwrap.fill(text, 120, subsequent_indent=prefix, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    if (RESULTS / "verdicts.csv").exists():
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(f"{RESULTS}/verdicts.csv does not exist yet: docs/claims.md is not written", file=sys.stderr)
