"""Write the last sections of docs/calibration.md from the counts of docs/simulations.py. Run by `make docs`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from docs.simulations import P_VALUES, TABLE, WRONG

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/calibration.md"
HEADING = "\n## Do the verdicts err as rarely as they say?\n"

INTRODUCTION = """
`make simulations` (three minutes) simulates differences of pairs whose true effect is known, and judges them with the
code that judges sweeps. It writes counts to
[simulations.csv](../results/reference/calibration/simulations.csv), and `make docs` makes these tables from it. Each
case has a fixed seed. A share of 5% in 4,000 trials has a standard error of 0.3 percentage points, and in 1,000 trials
of 0.7 points.

All effects are in SDs of the differences. **Skewed** differences are exponential (skewness 2). A run that collapses is
far worse, and has its own table below. δ is the smallest effect; it is 1 SD, unless the text says otherwise.
"""

BOUNDARIES = """
### Words at the boundaries
How often a verdict is wrong where the true effect lies exactly at a boundary. Everywhere else, it is wrong less often.

- At −δ: EQUIVALENT, BETTER or SUPERIOR. INFERIOR is counted apart: it says more than −δ.
- At 0 (with δ = 0.1 SD): any word with a direction.
- At δ: EQUIVALENT, WORSE or INFERIOR. SUPERIOR is counted apart: it says more than δ. (EQUIVALENT at ±δ is the test of
  equivalence, TOST, at its margin.)

`tests` is the number of rows that are judged together. The smallest p of six pairs is .031, so six pairs show no
direction if ten rows are judged.
"""

LARGEST = """
The largest share with normal differences is {normal}. The verdicts promise at most 5%. Of the {cells} shares, {above}
by more than two standard errors. With skewed differences, the largest is {skewed}. Such cases are why a table shows
robust estimates beside the mean.
"""

EACH_P = """
### Each p
The p of the same trials, one by one ([p_values.csv](../results/reference/calibration/p_values.csv)): of the sign-flip
test where the true effect is 0, and of the test of equivalence (TOST) where it is δ. If a test keeps its promise, p is
below any level in at most that share of the trials. The last column is the largest excess at any level: the largest of
(share of trials with p ≤ level) − level.
"""

COVERAGE = """
### Coverage of the intervals
How often an interval at 95% holds the true value: the mean, the difference or ratio of means, the median of all means
of two differences (Hodges–Lehmann), the trimmed mean, or the median (sign process).
"""

COVERAGE_NOTES = """
The intervals of shares are of events, and have no distribution of differences. The exact paired interval promises at
least 95%, and is wider than it needs to be. Wilson's interval promises 95% on average over all shares. A sign process
counts as covered only if all of its intervals hold the median, after each of the n pairs. The last two rows have 100
test images that are drawn anew, with as much error as twelve seeds have: `compare --over seeds,images` gives the
first of them.
"""

RECORDED = """
### Differences of real sweeps
The same with the differences of the {contrasts} in [results/reference/](../results/reference) that have {n} pairs or
more. The differences of each contrast are shifted and scaled to mean 0 and SD 1, and samples of {n} are drawn from them
with replacement. Twelve numbers are skewed by chance, too, so the second row shows the same with normal differences in
place of the real ones.
"""

RECORDED_NOTES = """
Both rows are drawn in the same way, and only the first has the shapes of real differences. So the distance between the
two rows shows what these shapes change.
"""

FAMILIES = """
### Ten rows in one table
How many tables have a wrong word in any of their ten rows. Each row has 12 pairs of normal differences. If one baseline
serves all rows, their differences are correlated.
"""

CLUSTERING = """
### One seed in several cells
Six seeds were trained in five cells, and `--group-by` pools the cells. The differences of a seed have a correlation of
.8, and there is no true difference. `compare` averages within a seed first, so it has six pairs: it rejects in {now} of
{trials} comparisons. If all 30 pairs counted as independent, it would reject in {before}.
"""

OWN_BEST_LR = """
### Each arm at its own best learning rate
24 seeds were trained at five learning rates that are equally good, and the arms do not differ. `compare` lets half of
the seeds choose each arm's learning rate and compares the other half: it rejects in {half} of {trials} comparisons. If
each seed were compared at the rate that all other seeds chose, a sign-flip test would reject in {others}, because
these seeds are not independent.
"""

COLLAPSES = """
### Rare collapses
Most pairs are better by 2 SDs (2δ), but 1.7% of the arm's runs collapse, so that the mean difference is 0. A sample has
12 pairs.
"""

COLLAPSES_NOTES = """
If a sample has a collapse, the verdict about the mean is withheld, and the table shows both parts: the share of
collapses, and the difference without them. If it has none ({share} of the samples), no test can know of collapses. Then
the verdict holds for the runs that did not collapse, and the t interval never holds the mean.
"""

SEQUENTIAL = """
### Looking after every pair
`bnbench run --until-decided` judges after every pair, and ends at the first verdict that decides (SUPERIOR, EQUIVALENT
or INFERIOR), or at 200 pairs. The third column counts the sweeps in which a wrong word stood at any look. At ±δ, the
word that says more than δ is counted apart. Differences **with ties** are rounded to half an SD, so that many of them
equal the boundary. The true effect is the median here.
"""


def page() -> str:
    """The page with its last sections."""
    text, _, _ = PAGE.read_text(encoding="utf-8").partition(HEADING)
    counts = pd.read_csv(TABLE, keep_default_na=False)
    parts = (boundaries, each_p, coverage, recorded, families, clustering, own_best_lr, collapses, sequential)
    return text + HEADING + INTRODUCTION + "".join(line for part in parts for line in part(counts))


def share(rows: pd.DataFrame) -> float:
    """The share of the trials in which something in these rows happened."""
    return float(rows["count"].sum() / rows["trials"].iloc[0]) if len(rows) else 0.0


def percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"\n| {' | '.join(headings)} |\n|{'---|' * len(headings)}\n"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |\n"


LEVELS = (0.1, 0.05, 0.01)

MORE = {"−δ": "INFERIOR", "δ": "SUPERIOR"}


def boundary_errors(counts: pd.DataFrame) -> pd.DataFrame:
    """A row for each case: its distribution, n, tests, and the share of wrong words of each kind."""
    found = []
    for key, rows in counts[counts["table"] == "boundaries"].groupby(["differences", "n", "tests"]):
        errors = {}
        for case, words in WRONG.items():
            of_case = rows[rows["case"] == case]
            errors[f"at {case}"] = share(of_case[of_case["what"].isin(words)])
            if more := MORE.get(case):
                errors[f"{more} at {case}"] = share(of_case[of_case["what"] == more])
        found.append({**dict(zip(("differences", "n", "tests"), key, strict=True)), **errors})
    return pd.DataFrame(found)


def boundaries(counts: pd.DataFrame) -> Iterator[str]:
    yield BOUNDARIES
    errors = boundary_errors(counts)
    names = list(errors.columns[3:])
    yield from table(
        ["differences", "pairs", "tests", *names],
        ([*row[:3], *map(percent, row[3:])] for row in errors.itertuples(index=False)),
    )
    cells = errors.melt(["differences", "n", "tests"], names, var_name="case", value_name="share")
    largest = {}
    for kind, rows in cells.groupby("differences"):
        most = rows.sort_values("share").iloc[-1]
        judged = "one row" if most["tests"] == 1 else f"{most['tests']} rows"
        largest[str(kind)] = f"{percent(most['share'])} ({most['case']}, {most['n']} pairs, {judged} judged)"
    normal, trials = cells[cells["differences"] == "normal"], counts[counts["table"] == "boundaries"]["trials"].iloc[0]
    above = int((normal["share"] > 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5).sum())
    exceeds = {0: "none exceeds this", 1: "one exceeds this"}.get(above, f"{above} exceed this")
    yield fill(LARGEST.format(**largest, cells=len(normal), above=exceeds))


def each_p(_counts: pd.DataFrame) -> Iterator[str]:
    yield EACH_P
    rows = []
    for case, p in pd.read_csv(P_VALUES).items():
        ordered = np.sort(p.to_numpy())
        excess = float((np.arange(1, len(p) + 1) / len(p) - ordered).max())
        shares = (percent(float((p < level).mean())) for level in LEVELS)
        rows.append([case, len(p), *shares, percent(max(0.0, excess))])
    yield from table(["test, differences, pairs", "trials", *(f"p < {level}" for level in LEVELS), "excess"], rows)


def fill(text: str) -> str:
    return f"\n{textwrap.fill(text.strip(), 120, break_on_hyphens=False)}\n"


def coverage(counts: pd.DataFrame) -> Iterator[str]:
    yield COVERAGE
    rows = counts[counts["table"] == "coverage"].assign(share=lambda found: found["count"] / found["trials"])
    shares = rows.pivot_table(index=["case", "differences"], columns="n", values="share", sort=False)
    yield from table(
        ["interval", "differences", *(f"{n} pairs" for n in shares.columns)],
        ([*index, *map(percent, row)] for index, row in zip(shares.index, shares.to_numpy(), strict=True)),
    )
    yield COVERAGE_NOTES


def recorded(counts: pd.DataFrame) -> Iterator[str]:
    rows = counts[counts["table"] == "recorded"]
    found = []
    for kind, of_kind in rows.groupby("differences", sort=False):
        shares = [share(of_kind[of_kind["what"] == "covered"])]
        for case, words in WRONG.items():
            of_case = of_kind[of_kind["case"] == case]
            shares += [share(of_case[of_case["what"].isin(counted)]) for counted in (words, (MORE.get(case),))]
        del shares[4]  # No word says more than 0.
        found.append([kind, *map(percent, shares)])
    yield RECORDED.format(contrasts=found[0][0], n=rows["n"].iloc[0])
    errors = ("at −δ", "INFERIOR at −δ", "at 0", "at δ", "SUPERIOR at δ")
    yield from table(["differences", "t interval holds the mean", *errors], found)
    yield RECORDED_NOTES


def families(counts: pd.DataFrame) -> Iterator[str]:
    yield FAMILIES
    rows = counts[counts["table"] == "families"].assign(share=lambda found: found["count"] / found["trials"])
    shares = rows.pivot_table(index="case", columns="tests", values="share", sort=False)
    yield from table(
        ["rows and their true effects", "each judged alone", "judged together, as a table does"],
        ([case, *map(percent, row)] for case, row in zip(shares.index, shares[[1, 10]].to_numpy(), strict=True)),
    )


def clustering(counts: pd.DataFrame) -> Iterator[str]:
    now, before = (
        counts[(counts["table"] == "clustering") & (counts["what"] == what)]
        for what in ("compare rejects", "30 pairs reject")
    )
    yield CLUSTERING.format(now=percent(share(now)), before=percent(share(before)), trials=now["trials"].iloc[0])


def own_best_lr(counts: pd.DataFrame) -> Iterator[str]:
    half, others = (
        counts[(counts["table"] == "own_best_lr") & (counts["what"] == what)]
        for what in ("half of the seeds choose", "all other seeds choose")
    )
    text = OWN_BEST_LR.format(half=percent(share(half)), others=percent(share(others)), trials=half["trials"].iloc[0])
    yield text


def collapses(counts: pd.DataFrame) -> Iterator[str]:
    yield COLLAPSES
    rows = counts[counts["table"] == "collapses"]
    plain = "without robust estimates: "
    found = []
    for case, of_case in rows.groupby("case", sort=False):
        trials = int(of_case["trials"].iloc[0])
        shares = {
            str(what): percent(count / trials) for what, count in zip(of_case["what"], of_case["count"], strict=True)
        }
        covered = shares.pop("covered")
        words = ", ".join(f"{word} {shown}" for word, shown in shares.items() if plain not in word)
        alone = ", ".join(f"{word.removeprefix(plain)} {shown}" for word, shown in shares.items() if plain in word)
        found.append((case, trials, words, alone, covered))
    yield from table(
        ["sample", "samples", "verdict", "by the mean alone", "the t interval holds the mean"],
        found,
    )
    samples = {row[0]: row[1] for row in found}
    yield COLLAPSES_NOTES.format(share=percent(samples["without one"] / sum(samples.values())))


def sequential(counts: pd.DataFrame) -> Iterator[str]:
    yield SEQUENTIAL
    rows = counts[counts["table"] == "sequential"]
    ordinary = rows["case"].str.startswith("an ordinary")
    found = []
    for (case, kind), of_case in rows[~ordinary].groupby(["case", "differences"], sort=False):
        shares = of_case.set_index("what")["count"] / of_case["trials"].iloc[0]
        more = MORE.get(str(case))
        apart = f"{more} {percent(shares.get(more, 0.0))}" if more else ""
        within = [percent(shares[f"decided within {limit} pairs"]) for limit in (10, 20, 50, 200)]
        found.append((case, kind, percent(shares["a wrong word at any look"]), apart, *within))
    headings = ["true effect", "differences", "wrong at any look", "says more than δ"]
    yield from table([*headings, *(f"decided within {limit}" for limit in (10, 20, 50, 200))], found)
    (looks,), wrong = rows[ordinary]["n"], share(rows[ordinary])
    yield (
        f"\nAn ordinary t test that is repeated after every pair, from the sixth to the {looks}th,\nfinds a "
        f"difference where there is none in {percent(wrong)} of the sweeps.\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
