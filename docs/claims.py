"""Write docs/claims.md: each claim with its source, its design, its verdict and its numbers. Run by `make docs`.

It reads the sweeps in `results/reference/claims/`. No number on the page is typed by hand.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from docs.claims_beside import Beside, has_own_budget, is_unsupportable, note, unequal_batches, why_own
from docs.claims_found import found
from docs.claims_then import then_and_now
from runner import registry
from runner.analysis.claims.claim import chosen_claims
from runner.analysis.claims.finding import Finding
from runner.analysis.claims.judge import evaluate
from runner.analysis.claims.plan import statement
from runner.analysis.stats.values import ALPHA
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

LARGE = "Tables with a million rows are sorted on the disk, not in memory. Tests compare the bytes that are written"
"""Why the files that keep tables were edited."""

NODES = "On a Ray cluster, a node can write its checkpoints itself. No sweep of the claims was trained on a cluster"

EDITS = {
    "runner/analysis/claims/judge.py": NEEDED,
    "runner/analysis/stats/verdicts.py": NEEDED,
    "runner/analysis/calibration.py": MOVED,
    "experiments/claims/sweeps.py": MOVED,
    "runner/analysis/comparison.py": WORDS,
    "runner/config/grid.py": LARGE,
    "runner/storage/checkpoint_files.py": NODES,
    "runner/storage/checkpoint_places.py": NODES,
    "runner/storage/checkpoints.py": NODES,
    "runner/storage/contrast_history.py": LARGE,
    "runner/storage/files.py": f"{LARGE}. {NODES}",
    "runner/storage/repeated_runs.py": LARGE,
    "runner/storage/resume.py": LARGE,
    "runner/storage/row_lines.py": LARGE,
    "runner/storage/rows.py": NODES,
    "runner/storage/stacks.py": LARGE,
    "runner/storage/store.py": f"{LARGE}. {NODES}",
    "runner/storage/table_rows.py": LARGE,
    "runner/storage/tables.py": LARGE,
    "runner/storage/plugin_files.py": (
        "The new package `bnbench` is not taken for a file of a user's plugin. No sweep of the claims has a plugin"
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

UNSUPPORTABLE = """\
¹ This test could not support the claim, whatever batch norm does: without batch norm, what is measured is already
closer to 0 than the smallest effect. The claim's section says how close.
"""

KNOWN = """\
### What was known before
- An earlier version of this page had verdicts from twelve other seeds (200 to 211). They stand above, under "Then and
  now". The rules were changed after they were seen.
- The endpoint was tried on twelve more seeds (900 to 911) before the plan was frozen. It gave +0.445 [+0.255, +0.634]
  pp for the notebook's MLP. The message of commit `6e920a5` says so; their tables were not kept.
- The plan was frozen before any of the seeds in the tables was trained (990 to 1029).
"""

HOW = """\
- **Whose claims.** {own} claims are ours: they follow from what a document says, or ask what it leaves open. These are
  {own_claims}. The other {theirs} say what a document says. How large an effect must be is ours everywhere.
- **Runs.** For each seed, two networks train. They have the same starting weights and the same batches, and differ in
  one thing only, such as the norm layer. The columns `weights_hash` and `batches_hash` in `runs.csv` show this. A run
  that diverges stops early. It has seen fewer batches, so the batches' hashes of a pair differ: in {unequal}.
- **Budget.** Epochs, data, batch size and optimizer of {documents} claims are those of a document. Each claim below
  names the exceptions, such as our own learning rates. For {chosen} claims they are ours, or nothing is trained. If a
  sweep was trained with another budget than its claim names, there is no verdict, and the table says NOT TESTED.
- **Pixels.** `trainset: half` puts them between −1 and 1, as the notebook does. Most pixels are black, so their mean is
  far below 0. `trainset: normal` gives them mean 0 and SD 1. Each claim below says which.
- **Endpoint.** Accuracy is the median of several readings, so that one bad step cannot decide. The smaller last batch
  of an epoch is left out (`drop_last`): a step on very few images makes the next reading erratic. The column `epoch` of
  `curves.csv` is a fraction: 0.1 is after a tenth of the first epoch.
- **Images.** All runs are read on the same test images, or on the same held-out images. The intervals say what other
  seeds would give on these images.
- **Smallest effect.** Each claim says how large an effect must be to matter, and why.
- **Family.** All claims that come with bnbench are one family of {tests} tests. Each p, and the confidence of each
  interval, is adjusted for all of them (Bonferroni), also if a command names only one claim.
- **Intervals.** Of the {tests} intervals, {levels} confidence, each by itself. The lower one belongs to one-sided
  tests: the verdict says that an effect is small enough. So one number can have two intervals. All intervals together
  hold with a probability of at least {together}. That is less than 95%, because the verdict chooses the interval, and
  because a claim about several arms shows the one that reaches farthest from 0.
"""

WORDS_OF_VERDICTS = """\
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


EDITED = "Edited: "
"""How a sentence about the plan begins that names an edit."""


def findings_of(results: Path = RESULTS) -> tuple[Finding, ...]:
    """What a folder with one folder per sweep says about each claim."""
    registry.load_plugins()
    return evaluate(chosen_claims(), results)


def plan_of(results: Path = RESULTS) -> list[str]:
    """The sentences about the frozen plan."""
    return [line.replace(f"{ROOT}/", "") for line in statement(results, chosen_claims())]


def edits_in(plan: Sequence[str]) -> int:
    return sum(line.startswith(EDITED) for line in plan)


def page(findings: Sequence[Finding], results: Path = RESULTS) -> str:
    """The page for what `findings_of` the same folder gives."""
    beside, plan = Beside(results, len(findings)), plan_of(results)
    parts = [
        INTRODUCTION,
        found(findings, beside, edits_in(plan)),
        "## All claims\n",
        table(findings, beside),
        UNSUPPORTABLE,
        then_and_now(findings, results),
        "## Was the plan frozen before the runs?\n",
        "\n".join(fill(f"- {explained(line)}") for line in plan) + "\n",
        KNOWN,
        CHECKED,
        how(findings, results),
        costs(results),
        "## Each claim\n",
        *(section(finding, beside) for finding in findings),
    ]
    return "\n".join(parts)


def how(findings: Sequence[Finding], results: Path) -> str:
    """How a claim is tested, with the numbers of these findings."""
    own = [finding for finding in findings if why_own(finding)]
    levels = Counter(map(confidence, findings))
    # Whatever the verdict is, its interval holds if the narrow one does.
    worst = sum(2 * ALPHA / each.tests * comparisons(each, results) for each in findings)
    unequal = {sweep: unequal_batches(results, sweep) for sweep in ("divergence", "initialisation")}
    numbers = {
        "tests": findings[0].tests,
        "own": len(own),
        "theirs": len(findings) - len(own),
        "own_claims": "; ".join(f"{each.claim.name} ({why_own(each)})" for each in own),
        "documents": sum(not has_own_budget(each) for each in findings),
        "chosen": sum(map(has_own_budget, findings)),
        "levels": " and ".join(f"{count} have {level}" for level, count in sorted(levels.items(), reverse=True)),
        "together": f"{math.floor(100 * (1 - worst))}%",
        "unequal": " and ".join(f"{some} of {all_} pairs of `{name}`" for name, (some, all_) in unequal.items()),
    }
    # Each item is folded again, now that it has its numbers.
    items = re.split(r"\n(?=- )", HOW.strip().format(**numbers))
    listed = "\n".join(fill(" ".join(item.split())) for item in items)
    return f"## How a claim is tested\n\n{listed}\n\n{WORDS_OF_VERDICTS}"


def comparisons(finding: Finding, results: Path) -> int:
    """How many intervals a claim has, of which the widest is shown."""
    return len(Beside(results, finding.tests).sides(finding.claim).parts())


def explained(line: str) -> str:
    """A sentence about the plan. Errors: KeyError where it names an edit without a reason in `EDITS`."""
    if not line.startswith(EDITED):
        return line
    reason = " ".join(EDITS[line.split(": ")[1]].split())
    return f"{line} {reason}."


def table(findings: Sequence[Finding], beside: Beside) -> str:
    lines = [
        "| claim | seeds | effect [interval] | confidence | claimed | adjusted p | verdict |",
        "|:---|---:|:---|---:|:---|---:|:---|",
    ]
    for finding in findings:
        name = finding.claim.name
        mark = " ¹" if is_unsupportable(finding, beside) else ""
        lines.append(
            f"| [{name}](#{name}) | {finding.n}/{finding.planned} | {effect_text(finding)} | {confidence(finding)} | "
            f"{finding.claim.claimed_effect} | {p_text(finding.p_adjusted)} | {finding.word}{mark} |"
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


def section(finding: Finding, beside: Beside) -> str:
    claim, robust = finding.claim, finding.robust
    items = [
        f"Source: {claim.source}.",
        f"The claim is ours: {why_own(finding)}." if why_own(finding) else "",
        f"Contradicted by {claim.contradicts}." if claim.contradicts else "",
        f"Budget: {claim.document.words}.",
        f"Runs in the table: {design(beside.results / claim.sweep_name)}.",
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
    if is_unsupportable(finding, beside):
        items.append(unsupportable(finding, beside))
    if said := note(finding, beside):
        items.append(f"Beside the verdict, and not planned: {said}.")
    if finding.seeds_needed:
        items.append(f"About {finding.seeds_needed} seeds would decide it.")
    items += [f"{note[0].upper()}{note[1:]}." for note in finding.notes]
    path = f"{claim.sweep_name}/{claim.table}"
    differences = ", ".join("none" if value is None else f"{value:+.3g}" for value in finding.differences)
    items.append(f"Data: [{path}](../results/reference/claims/{path}). Arm minus baseline by seed: {differences}.")
    shown = [f"### {claim.name}", fill(f"> {claim.sentence}"), "\n".join(fill(f"- {item}") for item in items if item)]
    return "\n\n".join(shown) + "\n"


def unsupportable(finding: Finding, beside: Beside) -> str:
    """That no arm could have shown the claimed effect, with the baseline's mean."""
    claim = finding.claim
    baseline = f"{beside.sides(claim).baseline.mean():.3g} {claim.unit}"
    return (
        f"This test could not support the claim. Without batch norm, the mean is {baseline}, and it cannot be below 0. "
        f"So batch norm could not lower it by {claim.smallest_effect:g} {claim.unit}. REFUTED says no more than this."
    )


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
        f"{network} on {fixed['dataset']} (`trainset: {fixed['trainset']}`), {on}, {epochs}, {len(seeds)} seeds. "
        f"Varied: {'; '.join(varied)}. Baseline: {contrast['axis']} {contrast['baseline']}"
    )


def values_of(key: str, values: list[object]) -> str:
    return f"{key} ({', '.join(map(str, values))})"


def fill(text: str) -> str:
    prefix = {"> ": "> ", "- ": "  "}.get(text[:2], "")
    return textwrap.fill(text, 120, subsequent_indent=prefix, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    PAGE.write_text(page(findings_of()), encoding="utf-8")
