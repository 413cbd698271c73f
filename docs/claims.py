"""Write docs/claims.md: each claim with its source, its design, its verdict and its numbers. Run by `make docs`.

It reads the sweeps in `results/reference/claims/`. No number on the page is typed by hand.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from docs.claims_found import found
from docs.claims_then import then_and_now
from runner import registry
from runner.analysis.claims.claim import chosen_claims
from runner.analysis.claims.finding import Finding
from runner.analysis.claims.judge import evaluate
from runner.analysis.claims.plan import statement
from runner.reporting.claim_table import effect_text
from runner.reporting.formats import p_text
from runner.storage.folder import CONFIG, METRICS, read_config

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results/reference/claims"
PAGE = ROOT / "docs/claims.md"

NEEDED = """\
The seeds that a claim of "no important difference" needs were counted for a direction, too. No verdict, effect,
interval or p depends on this number
"""

MOVED = """\
The folder in which the configs are looked for is another one, so that an installation has them, too. The plan knows the
configs themselves, and they are the same
"""

WORDS = "The error message about a wrong `--target` has other words. No verdict, effect, interval or p depends on it"

EDITS = {
    "runner/analysis/claims/judge.py": NEEDED,
    "runner/analysis/stats/verdicts.py": NEEDED,
    "runner/analysis/calibration.py": MOVED,
    "experiments/claims/sweeps.py": MOVED,
    "runner/analysis/comparison.py": WORDS,
    "runner/storage/plugin_files.py": (
        "The new package `bnbench` is not taken for a file of a user's plugin. No sweep of the claims has a plugin."
    ),
}
"""What was edited after the runs → why."""

CHECKED = """\
### How the plan is checked
`bnbench claims freeze` writes down what decides a verdict. `bnbench claims show` and this page compare the plan with
what there is now.

- **Of each claim**: the smallest effect, the claimed sign, the unit, the kind of effect, the measure with all its
  arguments, the document's budget, the seeds, the config, and the number of tests. An edit is named by the claim, and
  an edit of a config by its sweep.
- **Of the code**: a digest of each file that reads tables or judges them (`runner/analysis/`, `runner/storage/`,
  `runner/config/contrast.py`, `grid.py`), and of each file that declares or measures claims (`experiments/claims/`, or
  the files of a plugin). An edit is named by the file. So an edited smallest effect is named twice.
- **No edit**: comments, docstrings, empty lines, and the wording of a claim (sentence, source, metric, reason). In the
  files that declare claims, a string counts as wording if it has a space and stands in one of these texts.
"""

INTRODUCTION = """\
# Claims

Documents about batch norm make claims, such as "it converges faster". Here each claim is an experiment. The documents
are listed in [sources.md](sources.md).
"""

HOW = """\
## How a claim is tested

- **Runs.** For each seed, two networks train. They have the same starting weights and the same batches, and differ in
  one thing only, such as the norm layer. The columns `weights_hash` and `batches_hash` in `runs.csv` prove this.
- **Budget.** Epochs, data, batch size and optimizer are those of the document. If the document names none, they are
  ours. Each claim below says which. Without the document's budget there is no verdict, and the table says NOT TESTED.
- **Endpoint.** Accuracy is the median of several readings, so that one bad step cannot decide. The smaller last batch
  of an epoch is left out (`drop_last`): a step on very few images makes the next reading erratic.
- **Images.** All runs are read on the same test images, or on the same held-out images. The intervals say what other
  seeds would give on these images.
- **Smallest effect.** Each claim says how large an effect must be to matter, and why.
- **Family.** All claims that come with bnbench are one family of @tests@ tests. Each interval and each p is adjusted
  for all of them (Bonferroni), also if a command names only one claim.

The words, each with an error of at most 5% over the whole family:

- **SUPPORTED**: the effect has the claimed sign and is at least as large as the smallest effect. For a claim of "no
  important difference": the effect is smaller than the smallest effect, in both directions.
- **SUPPORTED, SIZE OPEN**: the effect has the claimed sign. It may be smaller than the smallest effect.
- **REFUTED**: an effect of the claimed size is excluded. For a claim of "no important difference": there is one.
- **UNDECIDED**: the runs show none of these.
- **WITHHELD**: a few extreme seeds decide what the mean says, and most seeds say something else.

Signs are tested by the sign-flip test (McNemar's test for shares of runs), sizes by t intervals (Fieller's for ratios,
exact ones for shares of runs), and "no important difference" by two one-sided t tests (TOST). The p in the table is
about the sign, or that of TOST. REFUTED is about the size, so it needs no small p. Beside the mean, each claim has the
Hodges–Lehmann estimate and the 20% trimmed mean of its differences.

These commands freeze the rules, train all sweeps in about two hours of two cores, and print the table:

```sh
bnbench claims freeze results/claims/full/plan.json
bnbench claims run --budget full
bnbench claims show results/claims/full
```
"""


def findings_of(results: Path = RESULTS) -> tuple[Finding, ...]:
    """What a folder with one folder per sweep says about each claim."""
    registry.load_plugins()
    return evaluate(chosen_claims(), results)


def page(findings: Sequence[Finding], results: Path = RESULTS) -> str:
    """The page for what `findings_of` the same folder gives."""
    plan = [line.replace(f"{ROOT}/", "") for line in statement(results, chosen_claims())]
    parts = [
        INTRODUCTION,
        found(findings),
        "## All claims\n",
        table(findings),
        then_and_now(findings),
        "## Was the plan frozen before the runs?\n",
        "\n".join(fill(f"- {explained(line)}") for line in plan) + "\n",
        CHECKED,
        HOW.replace("@tests@", str(findings[0].tests)),
        costs(results),
        "## Each claim\n",
        *(section(finding, results) for finding in findings),
    ]
    return "\n".join(parts)


def explained(line: str) -> str:
    """A sentence about the plan. Errors: KeyError where it names an edit without a reason in `EDITS`."""
    if not line.startswith("Edited: "):
        return line
    reason = " ".join(EDITS[line.split(": ")[1]].split())
    return f"{line} {reason}."


def table(findings: Sequence[Finding]) -> str:
    lines = [
        "| claim | seeds | effect [interval] | confidence | claimed | adjusted p | verdict |",
        "|:---|---:|:---|---:|:---|---:|:---|",
    ]
    for finding in findings:
        name = finding.claim.name
        lines.append(
            f"| [{name}](#{name}) | {finding.n}/{finding.planned} | {effect_text(finding)} | {confidence(finding)} | "
            f"{finding.claim.claimed_effect} | {p_text(finding.p_adjusted)} | {finding.word} |"
        )
    return "\n".join(lines) + "\n"


def costs(results: Path) -> str:
    """What each sweep cost, and which machine and which commit trained it."""
    rows, total, trained_by = [], 0.0, set()
    for folder in sorted(path.parent for path in results.glob(f"*/{CONFIG}")):
        metrics = pd.read_csv(folder / METRICS, keep_default_na=False)
        minutes = float(metrics.groupby("run")["run_duration"].max().sum()) / 60
        total += minutes
        epochs = f"{int(metrics['epoch'].gt(0).sum()):,}"
        rows.append(f"| `{folder.name}` | {metrics['run'].nunique()} | {epochs} | {minutes:.1f} |")
        by = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        trained_by.add((by["git"]["commit"], by["git"]["dirty"], by["cpu"], by["cores"], by["packages"]["torch"]))
    # One commit trains everything, on one kind of processor.
    ((commit, dirty, cpu, cores, torch),) = trained_by
    assert not dirty
    said = (
        f"The code of commit `{commit[:12]}` trained all sweeps, on one machine ({cpu}, {cores} cores, torch {torch}). "
        f"A run has one thread. All runs together took {total / 60:.1f} hours of one core. Other work ran on the "
        "machine at the same time, so a quiet machine needs less."
    )
    head = ["| sweep | runs | epochs | minutes of one core |", "|:---|---:|---:|---:|"]
    return "\n".join(["## What the sweeps cost\n", fill(said) + "\n", *head, *rows]) + "\n"


def section(finding: Finding, results: Path) -> str:
    claim, robust = finding.claim, finding.robust
    items = [
        f"Source: {claim.source}.",
        f"Contradicted by {claim.contradicts}." if claim.contradicts else "",
        f"Budget: {claim.document.words}.",
        f"Runs in the table: {design(results / claim.sweep_name)}.",
        f"Metric: {claim.metric}.",
        f"Claimed: {claim.claimed_effect}. {claim.reason}.",
        f"Measured: {effect(finding)}; {finding.n} of {finding.planned} seeds.",
    ]
    if finding.p is not None:
        items.append(
            f"p ({finding.test}): {p_text(finding.p)}, for all {finding.tests} tests {p_text(finding.p_adjusted)}."
        )
    if robust:
        items.append(
            f"Arm minus baseline, Hodges–Lehmann {robust.hodges_lehmann.estimate:+.3g}, 20% trimmed mean "
            f"{robust.trimmed_mean.estimate:+.3g}."
        )
    items.append(f"Verdict: **{finding.word}**.")
    if finding.seeds_needed:
        items.append(f"About {finding.seeds_needed} seeds would decide it.")
    items += [f"{note[0].upper()}{note[1:]}." for note in finding.notes]
    path = f"{claim.sweep_name}/{claim.table}"
    differences = ", ".join("none" if value is None else f"{value:+.3g}" for value in finding.differences)
    items.append(f"Data: [{path}](../results/reference/claims/{path}). Arm minus baseline by seed: {differences}.")
    shown = [f"### {claim.name}", fill(f"> {claim.sentence}"), "\n".join(fill(f"- {item}") for item in items if item)]
    return "\n\n".join(shown) + "\n"


def effect(finding: Finding) -> str:
    """The effect with its unit and the confidence of its interval."""
    level = confidence(finding)
    return f"{effect_text(finding)} {finding.claim.unit}" + (f" ({level} interval)" if level else "")


def confidence(finding: Finding) -> str:
    return "" if finding.level is None else f"{100 * (1 - finding.level):.4g}%"


def design(folder: Path) -> str:
    """What was run, by the sweep's own config."""
    config = read_config(folder / CONFIG)
    fixed, grid = config["fixed"], dict(config["grid"])
    seeds = grid.pop("seed")
    together = grid.pop("zip", {})
    samples = fixed.get("train_samples")
    varied = [" together with ".join(map(values_of, together, together.values()))] if together else []
    varied += map(values_of, grid, grid.values())
    epochs = f"{fixed['epochs']} epoch{'s' if fixed['epochs'] > 1 else ''}"
    on = f"{samples:,} images" if samples else "all training images"
    on += "" if fixed["validate_on"] == "test" else " that are not held out" if not samples else ""
    network = f"`{fixed['network']}`" if "network" in fixed else "both networks"
    contrast = config["contrast"]
    return (
        f"{network} on {fixed['dataset']}, {on}, {epochs}, {len(seeds)} seeds. Varied: {'; '.join(varied)}. Baseline: "
        f"{contrast['axis']} {contrast['baseline']}"
    )


def values_of(key: str, values: list[object]) -> str:
    return f"{key} ({', '.join(map(str, values))})"


def fill(text: str) -> str:
    prefix = {"> ": "> ", "- ": "  "}.get(text[:2], "")
    return textwrap.fill(text, 120, subsequent_indent=prefix, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    PAGE.write_text(page(findings_of()), encoding="utf-8")
