"""Write docs/claims.md: from each sentence to who says it, its design, its verdict and its rows. Run by `make docs`.

Reads `results/reference/claims/verdicts.csv` and the sweeps beside it; no figure in the page is written by hand.
"""

from __future__ import annotations

import json
import statistics
import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd

from runner.analysis.comparison import compare
from runner.config import yaml_source
from runner.storage.results import load

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results/reference/claims"
EARLIER = ROOT / "results/reference/claims_earlier_seeds/notebook_cnn_mnist"
PAGE = ROOT / "docs/claims.md"

INTRODUCTION = """\
# Claims

Made by `make docs` from `results/reference/claims/verdicts.csv`, which is

```sh
bnbench claims run --budget small
bnbench claims show results/claims/small --format csv
```

of the sweeps in `results/reference/claims/`; a folder's `config.yaml` runs it again, `environment.json` says on what.
Claim, metric and smallest effect were written before these runs, in `experiments/claims/` and `configs/claims/`; see
"How blind it was".

A seed gives one difference, arm minus baseline, of two runs that share starting weights and batches (`weights_hash` and
`batches_hash` in `runs.csv`, checked). The interval is Student's 95%; p is of a sign-flip test, or of two one-sided t
tests where equivalence is claimed and not refuted; *Holm* is p adjusted over all sign-flip tests, or over all tests of
equivalence (with twelve seeds a sign-flip p cannot be below 1/2048, and so Holm's not below .016). **SUPPORTED**:
Holm's p < .05, the claimed sign, and a mean of at least the smallest effect; **REFUTED**: the same with the other sign
(a claim of equivalence: with either); **EQUIVALENT**: smaller than the smallest effect, p < .05; **INCONCLUSIVE**:
neither, with the number of seeds it would take at this spread. A verdict is on this network, data set and budget alone:
here the two CNNs see 20,000 images two and four times, so their "final" accuracy is an early one ("At the documents'
own budgets" has the late one). The documents are listed in [sources.md](sources.md).

## How blind it was

- The claims, their rules and their sweeps were made while looking at runs of other seeds (0 to 11, and 100 to 111 for
  the notebook's CNN). Then everything was fixed, the number of seeds too, and committed; the runs here are of seeds
  200 to 211, which nobody had run before, trained and read once, all by one commit (`environment.json`). Nothing was
  changed after.
- @earlier@
- Claims that share a sweep share its runs; Holm's adjustment needs no independence.
- Seconds were measured on a machine that did other work as well.
"""

SUMS_UP = {
    ("=", "EQUIVALENT"): "As claimed: the difference is smaller than the smallest effect.",
    ("=", "REFUTED"): "**This contradicts the document**: there is a difference.",
    ("+", "SUPPORTED"): "As claimed.",
    ("-", "SUPPORTED"): "As claimed.",
    ("+", "REFUTED"): "**This contradicts the document**: the effect is real and has the opposite sign.",
    ("-", "REFUTED"): "**This contradicts the document**: the effect is real and has the opposite sign.",
    (
        "+",
        "EQUIVALENT",
    ): "**This contradicts the document**: whatever effect there is, it is smaller than the smallest effect.",
    (
        "-",
        "EQUIVALENT",
    ): "**This contradicts the document**: whatever effect there is, it is smaller than the smallest effect.",
}


def earlier_seeds() -> str:
    """What twelve other seeds had said where their verdict was another one."""
    comparison = compare([load(EARLIER)], metric="test_accuracy")
    difference = next(row.difference for row in comparison.rows if row.difference)
    interval = difference.interval
    assert interval is not None
    assert interval.low is not None
    assert interval.high is not None
    low, high = 100 * interval.low, 100 * interval.high
    return (
        "One pair of verdicts depends on the seeds: for the two claims on the accuracy of the notebook's CNN, seeds\n"
        f"  100 to 111 (`results/reference/claims_earlier_seeds/`) gave {100 * interval.estimate:+.2f} [{low:+.2f}, "
        f"{high:+.2f}] pp, p {difference.p:.3f}: INCONCLUSIVE. The intervals\n  overlap; take the size of that effect "
        "with care."
    )


def page(results: Path = RESULTS) -> str:
    """The page for a folder that holds verdicts.csv and a folder a sweep."""
    verdicts = pd.read_csv(results / "verdicts.csv", keep_default_na=False).to_dict("records")
    parts = [
        INTRODUCTION.replace("@earlier@", earlier_seeds()),
        "## Verdicts\n",
        summary(verdicts),
        "## Against the documents\n",
        against(verdicts),
        "## At the documents' own budgets\n",
        at_full_budget(),
    ]
    parts += [section(row, results) for row in verdicts]
    return "\n".join(parts)


def summary(verdicts: list[dict[Any, Any]]) -> str:
    lines = ["| claim | n | difference [95%] | claimed | p | Holm | verdict |", "|:---|---:|:---|:---|---:|---:|:---|"]
    for row in verdicts:
        lines.append(
            f"| [{row['claim']}](#{row['claim']}) | {row['n']}/{row['planned']} | {difference(row)} | {claimed(row)} | "
            f"{probability(own_p(row))} | {probability(row['p_adjusted'])} | {word(row)} |"
        )
    return "\n".join(lines) + "\n"


def against(verdicts: list[dict[Any, Any]]) -> str:
    """The sentences that the runs contradict, stated plainly."""
    found = [row for row in verdicts if str(SUMS_UP.get((str(row["claimed"]), str(row["verdict"])))).startswith("**")]
    lines = [
        f"- {row['sentence']} Said by: {row['source']}. Found: {difference(row)} {row['unit']}, {row['verdict']}."
        for row in found
    ]
    return "\n".join(lines or ["No verdict contradicts a document."]) + "\n"


def at_full_budget() -> str:
    """The accuracy claims on the reference sweeps: other seeds, the documents' epochs and their test set."""
    lines = [
        "The README's reference sweeps train as long as the documents did, on the whole training set, where the",
        "claims' hold out a sixth of it. Batch norm minus none in test accuracy after the last epoch:",
        "",
    ]
    for name, arm in (("notebook_mlp", "batch"), ("notebook_cnn", "batch"), ("tutorial", "batch_norm")):
        comparison = compare([load(ROOT / "results/reference" / name)], metric="valid_accuracy")  # on the test set
        row = next(row for row in comparison.rows if row.arm == arm and row.difference)
        assert row.difference is not None
        interval = row.difference.interval
        assert interval is not None
        assert interval.low is not None
        assert interval.high is not None
        numbers = [f"{100 * value:+.2f}" for value in (interval.estimate, interval.low, interval.high)]
        lines.append(f"- {name}, {row.n} seeds: {numbers[0]} [{numbers[1]}, {numbers[2]}] pp.")
    return "\n".join([*lines, ""])


def outlier(differences: list[float | None]) -> str:
    """What the others say where one seed stands far out."""
    values = [value for value in differences if value is not None]
    middle = statistics.median(values)
    usual = statistics.median(abs(value - middle) for value in values)
    far = [value for value in values if abs(value - middle) > 10 * usual]
    if not usual or len(far) != 1:
        return ""
    rest = statistics.mean(value for value in values if value != far[0])
    return f" One seed stands far out ({far[0]:+.3g}) and sets the spread; the mean of the others is {rest:+.3g}."


def section(row: dict[Any, Any], results: Path) -> str:
    folder = results / str(row["sweep"])
    said = SUMS_UP.get((str(row["claimed"]), str(row["verdict"])), "Not settled by these runs.")
    if row["seeds_needed"]:
        said += f" It would take about {float(str(row['seeds_needed'])):.0f} seeds."
    said += outlier(json.loads(str(row["differences"])))
    shown = [
        f"### {row['claim']}",
        fill(f"> {row['sentence']}"),
        fill(f"Said by: {row['source']}."),
        fill(f"Design: {design(folder)}. Metric: {row['metric']}, in {row['unit']}. Claimed: {claimed(row)}."),
        fill(
            f"Found: {difference(row)} over {row['n']} of {row['planned']} seeds, p {probability(own_p(row))}, by Holm "
            f"{probability(row['p_adjusted'])}: {word(row)}. {said}"
        ),
    ]
    if row["notes"]:
        shown.append(fill(f"Of the runs: {row['notes']}."))
    rows = f"[{row['sweep']}/{row['table']}](../results/reference/claims/{row['sweep']}/{row['table']})"
    shown.append(fill(f"Rows: {rows}. Differences by seed: {by_seed(str(row['differences']))}."))
    return "\n\n".join(shown) + "\n"


def design(folder: Path) -> str:
    """What the sweep's own config says was run."""
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


def difference(row: dict[Any, Any]) -> str:
    if row["difference"] == "":
        return "–"
    text = f"{float(str(row['difference'])):+.3g}"
    return text if row["low"] == "" else f"{text} [{float(str(row['low'])):+.3g}, {float(str(row['high'])):+.3g}]"


def claimed(row: dict[Any, Any]) -> str:
    effect = f"{float(str(row['smallest_effect'])):g} {row['unit']}"
    return {"=": f"within ±{effect}", "+": f"≥ +{effect}", "-": f"≤ −{effect}"}[str(row["claimed"])]


def own_p(row: dict[Any, Any]) -> object:
    """Of the test that decides."""
    return row["p_equivalence"] if row["claimed"] == "=" and row["verdict"] != "REFUTED" else row["p"]


def probability(p: object) -> str:
    if p == "":
        return "–"
    return "<.001" if float(str(p)) < 0.0005 else f"{float(str(p)):.3f}".lstrip("0")


def word(row: dict[Any, Any]) -> str:
    return f"**{row['verdict']}**"


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
        print(
            f"{RESULTS.relative_to(ROOT)}/verdicts.csv is not there yet: docs/claims.md is left alone", file=sys.stderr
        )
