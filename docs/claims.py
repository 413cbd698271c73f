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
from runner.config import yaml_source
from runner.storage.results import load

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results/reference/claims"
EARLIER = ROOT / "results/reference/claims_earlier_seeds/notebook_cnn_mnist"
PAGE = ROOT / "docs/claims.md"

INTRODUCTION = """\
# Claims

`make docs` writes this page from `results/reference/claims/verdicts.csv`. That table is what these commands print for
the sweeps in `results/reference/claims/`:

```sh
bnbench claims run --budget small
bnbench claims show results/claims/small --format csv
```

A sweep's `config.yaml` runs it again, and its `environment.json` says which machine it ran on. The claim, its metric
and its smallest effect were written before these runs, in `experiments/claims/` and `configs/claims/`; see "How blind
it was".

Each seed gives one difference, arm minus baseline. Its two runs share their starting weights and their batches, which
`weights_hash` and `batches_hash` in `runs.csv` prove. The interval is Student's 95% interval. p is that of a sign-flip
test, or of two one-sided t tests where equivalence is claimed and not refuted. *Holm* is p adjusted over all sign-flip
tests, or over all tests of equivalence. With twelve seeds a sign-flip p is at least 1/2048, so Holm's is at least .016.

- **SUPPORTED**: Holm's p < .05, the mean has the claimed sign and at least the size of the smallest effect.
- **REFUTED**: the same with the opposite sign; for a claim of equivalence, with either sign.
- **EQUIVALENT**: the difference is smaller than the smallest effect, p < .05.
- **INCONCLUSIVE**: none of these. The page says how many seeds would settle it at this spread.

A verdict is about this network, data set and budget only. Here the two CNNs see 20,000 images two and four times, so
their "final" accuracy is an early one. "At the documents' own budgets" has the late one. The documents are listed in
[sources.md](sources.md).

## How blind it was

- The claims, their rules and their sweeps were written while looking at runs of other seeds: 0 to 11, and 100 to 111
  for the notebook's CNN. Then everything was fixed and committed, including the number of seeds. The runs here use
  seeds 200 to 211, which nobody had run before. They were trained and read once, all by one commit
  (`environment.json`). Nothing was changed afterwards.
- @earlier@
- Claims that share a sweep share its runs. Holm's adjustment does not need independent tests.
- The seconds were measured on a machine that did other work at the same time.
"""

OPPOSITE = "**This contradicts the document**: the effect is real and has the opposite sign."
NO_EFFECT = "**This contradicts the document**: if there is an effect, it is smaller than the smallest effect."

SUMMARIES = {
    ("=", "EQUIVALENT"): "As claimed: the difference is smaller than the smallest effect.",
    ("=", "REFUTED"): "**This contradicts the document**: there is a difference.",
    ("+", "SUPPORTED"): "As claimed.",
    ("-", "SUPPORTED"): "As claimed.",
    ("+", "REFUTED"): OPPOSITE,
    ("-", "REFUTED"): OPPOSITE,
    ("+", "EQUIVALENT"): NO_EFFECT,
    ("-", "EQUIVALENT"): NO_EFFECT,
}
"""(what is claimed, the verdict) → a sentence; any other pair is not settled."""

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
        "One pair of verdicts depends on the seeds: the two claims on the accuracy of the notebook's CNN. The earlier\n"
        f"  seeds 100 to 111 (`results/reference/claims_earlier_seeds/`) gave {pp(difference.interval)},\n"
        f"  p {difference.p:.3f}: INCONCLUSIVE. The intervals overlap, so the size of that effect is uncertain."
    )


def page(results: Path = RESULTS) -> str:
    """The page for a folder that holds verdicts.csv, and one folder per sweep."""
    verdicts = pd.read_csv(results / "verdicts.csv", keep_default_na=False).to_dict("records")
    parts = [
        INTRODUCTION.replace("@earlier@", earlier_seeds()),
        "## Verdicts\n",
        verdict_table(verdicts),
        "## Against the documents\n",
        against(verdicts),
        "## At the documents' own budgets\n",
        at_full_budget(),
    ]
    parts += [section(row, results) for row in verdicts]
    return "\n".join(parts)


def verdict_table(verdicts: list[Row]) -> str:
    lines = ["| claim | n | difference [95%] | claimed | p | Holm | verdict |", "|:---|---:|:---|:---|---:|---:|:---|"]
    for row in verdicts:
        lines.append(
            f"| [{row['claim']}](#{row['claim']}) | {row['n']}/{row['planned']} | {difference(row)} | {claimed(row)} | "
            f"{probability(own_p(row))} | {probability(row['p_adjusted'])} | **{row['verdict']}** |"
        )
    return "\n".join(lines) + "\n"


def against(verdicts: list[Row]) -> str:
    """The sentences that the runs contradict."""
    lines = [
        f"- {row['sentence']} Said by: {row['source']}. Found: {difference(row)} {row['unit']}, {row['verdict']}."
        for row in verdicts
        if summary(row).startswith("**")
    ]
    return "\n".join(lines or ["No verdict contradicts a document."]) + "\n"


def summary(row: Row) -> str:
    return SUMMARIES.get((row["claimed"], row["verdict"]), "Not settled by these runs.")


def at_full_budget() -> str:
    """The accuracy claims on the reference sweeps, which have other seeds, and the documents' epochs and test set."""
    lines = [
        "The README's reference sweeps train as long as the documents did, on the whole training set. The sweeps of",
        "the claims leave out a sixth of it. Batch norm minus none, in test accuracy after the last epoch:",
        "",
    ]
    for name, arm in (("notebook_mlp", "batch"), ("notebook_cnn", "batch"), ("tutorial", "batch_norm")):
        comparison = compare([load(ROOT / "results/reference" / name)], metric="valid_accuracy")  # on the test set
        row = next(row for row in comparison.rows if row.arm == arm and row.difference)
        assert row.difference is not None
        lines.append(f"- {name}, {row.n} seeds: {pp(row.difference.interval)}.")
    return "\n".join([*lines, ""])


def outlier(differences: list[float | None]) -> str:
    """A sentence on the other seeds, where exactly one seed is far from the rest."""
    values = [value for value in differences if value is not None]
    middle = statistics.median(values)
    usual = statistics.median(abs(value - middle) for value in values)
    far = [value for value in values if abs(value - middle) > 10 * usual]
    if not usual or len(far) != 1:
        return ""
    rest = statistics.mean(value for value in values if value != far[0])
    return f" One seed is far from the rest ({far[0]:+.3g}) and sets the spread; the others' mean is {rest:+.3g}."


def section(row: Row, results: Path) -> str:
    folder = results / row["sweep"]
    meaning = summary(row)
    if row["seeds_needed"]:
        meaning += f" It would take about {float(row['seeds_needed']):.0f} seeds."
    meaning += outlier(json.loads(row["differences"]))
    shown = [
        f"### {row['claim']}",
        fill(f"> {row['sentence']}"),
        fill(f"Said by: {row['source']}."),
        fill(f"Design: {design(folder)}. Metric: {row['metric']}, in {row['unit']}. Claimed: {claimed(row)}."),
        fill(
            f"Found: {difference(row)} over {row['n']} of {row['planned']} seeds, p {probability(own_p(row))}, by Holm "
            f"{probability(row['p_adjusted'])}: **{row['verdict']}**. {meaning}"
        ),
    ]
    if row["notes"]:
        shown.append(fill(f"Notes on the runs: {row['notes']}."))
    rows = f"[{row['sweep']}/{row['table']}](../results/reference/claims/{row['sweep']}/{row['table']})"
    shown.append(fill(f"Rows: {rows}. Differences by seed: {by_seed(row['differences'])}."))
    return "\n\n".join(shown) + "\n"


def design(folder: Path) -> str:
    """What was run, by the sweep's own config."""
    config = yaml_source.read((folder / "config.yaml").read_text(encoding="utf-8"), str(folder)).values
    fixed, grid = config["fixed"], dict(config["grid"])
    seeds = grid.pop("seed")
    varied = {**grid.pop("zip", {}), **grid}
    network = fixed.get("network", "both networks")
    samples = fixed.get("train_samples")
    arms = "; ".join(f"{key} {', '.join(map(str, values))}" for key, values in varied.items())
    rate = f", lr {fixed['lr']:g}" if "lr" in fixed else ""
    rate += f", batch {fixed['batch_size']}" if "batch_size" in fixed else ""
    epochs = f"{fixed['epochs']} epoch{'s' if fixed['epochs'] > 1 else ''}"
    trained_on = f"the first {samples:,} samples" if samples else "all training samples"
    contrast = config["contrast"]
    return (
        f"`{network}` on {fixed['dataset']}, {trained_on}, {epochs}, {fixed['optimizer']}{rate}, {len(seeds)} seeds; "
        f"{arms}; baseline {contrast['axis']} {contrast['baseline']}"
    )


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
    return "<.001" if float(str(p)) < 0.0005 else f"{float(str(p)):.3f}".lstrip("0")


def by_seed(text: str) -> str:
    values = json.loads(text)
    return ", ".join("none" if value is None else f"{value:+.3g}" for value in values) or "none"


def fill(text: str) -> str:
    prefix = "> " if text.startswith("> ") else ""
    return textwrap.fill(text, 120, subsequent_indent=prefix, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    if (RESULTS / "verdicts.csv").exists():
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(f"{RESULTS}/verdicts.csv does not exist yet: docs/claims.md is not written", file=sys.stderr)
