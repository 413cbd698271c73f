"""Simulate how often verdicts and intervals are wrong, where the truth is known.

`make simulations` (three minutes) writes two tables to `results/reference/calibration/`, from which docs/calibration.py
makes its page: `simulations.csv` has counts, and `p_values.csv` has each p. Each case has its own fixed seed, so it can
be repeated alone.
"""

from __future__ import annotations

import csv
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from math import log
from pathlib import Path

import numpy as np
import pandas as pd

from runner.analysis.comparison import compare
from runner.analysis.sequential import DECIDED
from runner.analysis.stats import intervals, sign_process
from runner.analysis.stats.crossed import crossed_interval
from runner.analysis.stats.estimates import MeanDifference, RateDifference, RatioOfMeans
from runner.analysis.stats.intervals import Interval, paired_interval
from runner.analysis.stats.robust import hodges_lehmann, robust, trimmed_mean
from runner.analysis.stats.significance import equivalence_p, sign_flip_p
from runner.analysis.stats.values import ALPHA, Values
from runner.analysis.stats.verdicts import decide, judge
from runner.storage.results import Results, load

TABLE = Path(__file__).parent.parent / "results/reference/calibration/simulations.csv"
P_VALUES = TABLE.with_name("p_values.csv")

DELTA = 1.0
"""The smallest effect, in SDs of the differences."""


@dataclass(frozen=True)
class Count:
    """How often something happened in a case: one line of the table."""

    table: str
    case: str
    differences: str
    """The distribution of the pairs' differences. Its SD is 1."""
    n: int
    tests: int
    truth: float
    """The true effect, in SDs of the differences."""
    what: str
    count: int
    trials: int


def generator(*case: object) -> np.random.Generator:
    """The random numbers of a case."""
    return np.random.default_rng(zlib.crc32(" ".join(map(str, case)).encode()))


Draw = Callable[[np.random.Generator, tuple[int, ...]], Values]

MEAN_0: dict[str, Draw] = {
    "normal": lambda random, shape: random.normal(size=shape),
    "skewed": lambda random, shape: random.exponential(size=shape) - 1,
}
"""Differences with mean 0. Skewed: exponential, with skewness 2."""

MEDIAN_0: dict[str, Draw] = {
    "normal": MEAN_0["normal"],
    "skewed": lambda random, shape: random.exponential(size=shape) - log(2),
    "with ties": lambda random, shape: np.round(2 * random.normal(size=shape)) / 2,
}

WRONG = {
    "−δ": ("EQUIVALENT", "BETTER", "SUPERIOR"),
    "0": ("SUPERIOR", "BETTER", "WORSE", "INFERIOR"),
    "δ": ("EQUIVALENT", "WORSE", "INFERIOR"),
}
"""Boundary → the words that are wrong there. At ±δ, the effect is one that matters."""


def wrong_at(truth: float) -> tuple[str, ...]:
    """The words that are wrong at a true effect of 0, or of ±δ or more."""
    return WRONG["0" if truth == 0 else "δ" if truth > 0 else "−δ"]


BOUNDARIES = {"−δ": (-DELTA, DELTA), "0": (0.0, DELTA / 10), "δ": (DELTA, DELTA)}
"""Boundary → the true effect and the smallest effect. A small one at 0, where EQUIVALENT would hide other words."""


def boundaries(share: float = 1.0) -> Iterator[Count]:
    """The six words at effects of −δ, 0 and δ."""
    trials = round(4000 * share)
    for kind, draw in MEAN_0.items():
        for n in (6, 12, 30):
            for case, (truth, smallest) in BOUNDARIES.items():
                words: dict[int, Counter[str]] = {1: Counter(), 10: Counter()}
                for differences in draw(generator("boundaries", kind, n, case), (trials, n)) + truth:
                    effect = MeanDifference(differences)
                    for tests, counts in words.items():
                        counts[decide(effect, smallest, 1, tests)] += 1
                for tests, counts in words.items():
                    for word, count in sorted(counts.items()):
                        yield Count("boundaries", case, kind, n, tests, truth, word, count, trials)


def p_values(share: float = 1.0) -> pd.DataFrame:
    """The p of each trial of the boundaries at 0 (sign-flip test) and at δ (TOST): a column for each case."""
    trials = round(4000 * share)
    columns = {}
    for kind, draw in MEAN_0.items():
        for n in (6, 12, 30):
            at_0 = draw(generator("boundaries", kind, n, "0"), (trials, n))
            columns[f"sign-flip, {kind}, {n} pairs"] = [MeanDifference(differences).p for differences in at_0]
            at_delta = draw(generator("boundaries", kind, n, "δ"), (trials, n)) + DELTA
            columns[f"TOST, {kind}, {n} pairs"] = [equivalence_p(differences, DELTA) for differences in at_delta]
    return pd.DataFrame(columns)


PSEUDOMEDIAN = {"normal": 0.0, "skewed": 1.6783469900166605 / 2 - 1}
"""The median of the mean of two differences: of a gamma distribution of shape 2."""
TRIMMED = {"normal": 0.0, "skewed": (0.6 - 0.8 * log(0.8) + 0.2 * log(0.2)) / 0.6 - 1}
"""The mean between the quantiles at 20% and 80%."""


def coverage(share: float = 1.0) -> Iterator[Count]:
    """How often an interval at 95% holds the true value."""
    trials = round(4000 * share)
    for n in (6, 12, 30):
        for kind, draw in MEAN_0.items():
            one, two = draw(generator("coverage", kind, n), (2, trials, n))
            ratios = map(RatioOfMeans, 4 + one + two, 5 + 2 * two)
            found: dict[str, tuple[float, Iterator[Interval]]] = {
                "paired t": (0.0, map(paired_interval, one)),
                "Welch, SDs 1 and 3": (0.0, map(intervals.welch_interval, one, 3 * two)),
                "Fieller, ratio of means": (-0.2, (ratio.interval() for ratio in ratios)),
                "Hodges–Lehmann": (PSEUDOMEDIAN[kind], map(hodges_lehmann, one)),
                "20% trimmed mean": (TRIMMED[kind], map(trimmed_mean, one)),
            }
            for name, (truth, each) in found.items():
                yield Count("coverage", name, kind, n, 1, truth, "covered", _covered(truth, each), trials)
            # One case is a sequence of intervals, one after each pair.
            paths = MEDIAN_0[kind](generator("coverage", "sign process", kind, n), (trials, n))
            covered = sum(_covered(0.0, _after_each_pair(path)) == n for path in paths)
            yield Count("coverage", "sign process, after every pair", kind, n, 1, 0.0, "covered", covered, trials)
        yield from _coverage_of_shares(n, trials)
        yield from _coverage_of_images(n, trials // 2)


def _after_each_pair(path: Values) -> Iterator[Interval]:
    return (sign_process.median_interval(path[: last + 1]) for last in range(len(path)))


def _coverage_of_shares(n: int, trials: int) -> Iterator[Count]:
    random = generator("coverage", "shares", n)
    arm, other = random.random((trials, n)) < 0.3, random.random((trials, n)) < 0.1
    wilson = (intervals.wilson_interval(int(events.sum()), n) for events in arm)
    yield Count("coverage", "Wilson, share 30%", "events", n, 1, 0.3, "covered", _covered(0.3, wilson), trials)
    exact = (RateDifference(a, b).interval() for a, b in zip(arm, other, strict=True))
    name = "exact paired difference of shares 30% and 10%"
    yield Count("coverage", name, "events", n, 1, 0.2, "covered", _covered(0.2, exact), trials)


def _coverage_of_images(n: int, trials: int) -> Iterator[Count]:
    """Differences on new images: the images add as much error to the mean as twelve seeds do."""
    images = 100
    random = generator("coverage", "images", n)
    tables = [
        random.normal(size=(n, 1)) + 3 * random.normal(size=(1, images)) + 3 * random.normal(size=(n, images))
        for _ in range(trials)
    ]
    found = {
        "seeds × images": map(crossed_interval, tables),
        "paired t of the same seeds, for new images": (paired_interval(table.mean(axis=1)) for table in tables),
    }
    for name, each in found.items():
        yield Count("coverage", name, "normal", n, 1, 0.0, "covered", _covered(0.0, each), trials)


def _covered(truth: float, found: Iterator[Interval]) -> int:
    """How many intervals hold the true value. An end that is None is no limit."""
    edge = 1e-9
    return sum(
        (each.low is None or each.low <= truth + edge) and (each.high is None or truth - edge <= each.high)
        for each in found
    )


SWEEPS = Path(__file__).parent.parent / "results/reference"


def recorded(share: float = 1.0) -> Iterator[Count]:
    """The boundaries and the t interval with the differences of real sweeps, which are drawn with replacement.

    The differences of each contrast are shifted and scaled to mean 0 and SD 1, and are then all that there is. Twelve
    differences are skewed by chance, too. So the same is done with as many contrasts of normal differences.
    """
    n, drawn = 12, round(100 * share)
    real = list(_real_differences(n))
    normal = list(generator("recorded, normal").normal(size=(len(real), n)))
    for kind, contrasts in ((f"{len(real)} contrasts", real), ("normal", normal)):
        words = {case: Counter[str]() for case in BOUNDARIES}
        covered, trials = 0, drawn * len(contrasts)
        for number, values in enumerate(contrasts):
            random, population = generator("recorded", kind, number), (values - values.mean()) / values.std()
            for differences in population[random.integers(len(population), size=(drawn, n))]:
                covered += _covered(0.0, iter([paired_interval(differences)]))
                for case, (truth, smallest) in BOUNDARIES.items():
                    words[case][decide(MeanDifference(differences + truth), smallest, 1)] += 1
        yield Count("recorded", "paired t", kind, n, 1, 0.0, "covered", covered, trials)
        for case, counts in words.items():
            for word, count in sorted(counts.items()):
                yield Count("recorded", case, kind, n, 1, BOUNDARIES[case][0], word, count, trials)


def _real_differences(at_least: int) -> Iterator[Values]:
    """The pairs' differences of each contrast in the committed sweeps that has so many pairs.

    The sweeps in `over_images/` are others trained once more.
    """
    for config in sorted(path for path in SWEEPS.glob("**/config.yaml") if "over_images" not in path.parts):
        results = load(config.parent)
        for row in compare([results]).planned_rows if results.axis else ():
            values = row.difference.values if row.difference else None
            if values is not None and len(values) >= at_least and values.std() > 0:
                yield values


def families(share: float = 1.0) -> Iterator[Count]:
    """Ten rows of a table, judged together: how many tables have a wrong word in any row."""
    n, rows, trials = 12, 10, round(1000 * share)
    cases: dict[str, Values] = {
        "ten at 0": np.zeros(rows),
        "ten at δ": np.full(rows, DELTA),
        "five at 0, five at δ": np.repeat([0.0, DELTA], 5),
    }
    for correlation in (0.0, 0.5):
        name = "one baseline for all rows" if correlation else "independent rows"
        for case, truths in cases.items():
            random = generator("families", name, case)
            own, common = random.normal(size=(trials, rows, n)), random.normal(size=(trials, 1, n))
            tables = np.sqrt(1 - correlation) * own + np.sqrt(correlation) * common + truths[:, None]
            for tests in (1, rows):
                wrong = sum(
                    any(
                        decide(MeanDifference(row), DELTA, 1, tests) in wrong_at(truth)
                        for row, truth in zip(table, truths.tolist(), strict=True)
                    )
                    for table in tables
                )
                yield Count("families", f"{name}, {case}", "normal", n, tests, 0.0, "any wrong word", wrong, trials)


def clustering(share: float = 1.0) -> Iterator[Count]:
    """One seed in five cells, through a whole comparison: how often it rejects where nothing differs."""
    seeds, cells, correlation, trials = 6, 5, 0.8, round(400 * share)
    random, count, before = generator("clustering"), 0, 0
    for _ in range(trials):
        common, own = random.normal(size=(seeds, 1)), random.normal(size=(seeds, cells))
        effects = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
        row = compare([_sweep(0.01 * effects)], group_by=["arm"]).rows[1].difference
        assert row is not None
        assert row.p is not None
        count += row.p < ALPHA
        before += sign_flip_p(effects.ravel(), random) < ALPHA
    case = "6 seeds in 5 cells, correlation .8"
    yield Count("clustering", case, "normal", seeds, 1, 0.0, "compare rejects", count, trials)
    yield Count("clustering", case, "normal", seeds * cells, 1, 0.0, "30 pairs reject", before, trials)


def own_best_lr(share: float = 1.0) -> Iterator[Count]:
    """Each arm at its own best learning rate, where nothing differs: by whom the rates are chosen."""
    seeds, rates, trials = 24, 5, round(400 * share)
    random, half, left_out = generator("own_best_lr"), 0, 0
    for _ in range(trials):
        none, batch = 0.5 + 0.01 * random.normal(size=(2, seeds, rates))
        row = compare([_sweep(batch - none, none, cell="lr")]).rows[-1]
        assert row.own_best_lr is not None
        assert row.difference is not None
        assert row.difference.p is not None
        half += row.difference.p < ALPHA
        differences = _chosen_by_others(batch) - _chosen_by_others(none)
        left_out += sign_flip_p(differences, random) < ALPHA
    case = "24 seeds, five equally good learning rates"
    yield Count("own_best_lr", case, "normal", seeds // 2, 1, 0.0, "half of the seeds choose", half, trials)
    yield Count("own_best_lr", case, "normal", seeds, 1, 0.0, "all other seeds choose", left_out, trials)


def _chosen_by_others(values: Values) -> Values:
    """The value of each seed at the learning rate that is best on all other seeds; of values [seeds, rates]."""
    best = (values.sum(axis=0) - values).argmax(axis=1)
    return np.asarray(np.take_along_axis(values, best[:, None], axis=1)[:, 0])


def _sweep(differences: Values, baseline: Values | float = 0.5, cell: str = "momentum") -> Results:
    """A sweep of two arms whose pairs have these differences: [seeds, cells]. `cell` is the parameter of the cells."""
    seeds, cells = differences.shape
    seed, number = (index.ravel() for index in np.meshgrid(range(seeds), range(cells), indexing="ij"))
    none = np.broadcast_to(baseline, differences.shape)
    runs = pd.concat(
        [
            pd.DataFrame({"arm": arm, cell: (number + 1) / 10, "seed": seed, "valid_accuracy": values.ravel()})
            for arm, values in (("none", none), ("batch", none + differences))
        ],
        ignore_index=True,
    )
    runs["run"], runs["run_id"] = range(1, len(runs) + 1), [f"{n:012}" for n in range(len(runs))]
    runs = runs.assign(status="ok", weights_hash="w", batches_hash="b", test_loss=np.nan, test_accuracy=np.nan)
    metrics = runs[["run", "valid_accuracy"]].assign(epoch=1)
    keys = ("arm", cell, "seed")
    return Results(Path("simulated"), "simulated", "arm", "none", keys, keys, metrics, runs)


def collapses(share: float = 1.0) -> Iterator[Count]:
    """Rare collapses (1.7% of the runs) make the mean difference 0, although most pairs are better by δ or more."""
    n, trials, rate, better = 12, round(4000 * share), 0.017, 2.0
    random = generator("collapses")
    collapsed = random.random((trials, n)) < rate
    # The collapse takes away what the other pairs gain, so the mean difference is 0.
    arm = np.where(collapsed, -better * (1 - rate) / rate, better) + random.normal(size=(trials, n)) / np.sqrt(2)
    baseline = random.normal(size=(trials, n)) / np.sqrt(2)
    found: dict[str, Counter[str]] = {"with a collapse": Counter(), "without one": Counter()}
    covered: Counter[str] = Counter()
    for values, base, collapse in zip(arm, baseline, collapsed.sum(axis=1).tolist(), strict=True):
        case, effect = "with a collapse" if collapse else "without one", MeanDifference(values - base)
        found[case][judge(effect, robust(values, base, 1), DELTA, 1)] += 1
        found[case][f"without robust estimates: {decide(effect, DELTA, 1)}"] += 1
        covered[case] += _covered(0.0, iter([effect.interval()]))
    for case, words in found.items():
        of_case = sum(count for word, count in words.items() if ":" not in word)
        for word, count in sorted(words.items()):
            yield Count("collapses", case, "mixture", n, 1, 0.0, word, count, of_case)
        yield Count("collapses", case, "mixture", n, 1, 0.0, "covered", covered[case], of_case)


LOOKS = 200
WITHIN = (10, 20, 50, 100, LOOKS)


def sequential(share: float = 1.0) -> Iterator[Count]:
    """A verdict after every pair, which ends at the first that decides, or at 200 pairs."""
    trials = round(2000 * share)
    cases: Mapping[str, tuple[float, float]] = {
        "no difference, δ = 0.1 SD": (0.0, 0.1),
        "no difference, δ = 1 SD": (0.0, DELTA),
        "−δ": (-DELTA, DELTA),
        "δ": (DELTA, DELTA),
        "2δ": (2 * DELTA, DELTA),
    }
    for kind, draw in MEDIAN_0.items():
        for case, (truth, effect) in cases.items():
            paths = draw(generator("sequential", kind, case), (trials, LOOKS)) + truth
            wrong = set(wrong_at(truth))
            found: Counter[str] = Counter({"a wrong word at any look": 0, "SUPERIOR": 0})
            for path in paths:
                words = _until_decided(path, effect)
                found["a wrong word at any look"] += not wrong.isdisjoint(words)
                found[words[-1]] += 1
                for limit in WITHIN:
                    found[f"decided within {limit} pairs"] += len(words) <= limit and words[-1] in DECIDED
            for what, count in found.items():
                yield Count("sequential", case, kind, LOOKS, 1, truth, what, count, trials)
    yield _repeated_t_test(round(1000 * share))


def _until_decided(path: Values, effect: float) -> list[str]:
    """The word after each pair, until one decides."""
    words: list[str] = []
    for n in range(1, len(path) + 1):
        words.append(sign_process.decide(path[:n], effect))
        if words[-1] in DECIDED:
            break
    return words


def _repeated_t_test(trials: int) -> Count:
    """An ordinary test after every pair from the sixth on, in place of the sequential one."""
    looks = 100
    paths = MEAN_0["normal"](generator("repeated t test"), (trials, looks))
    wrong = 0
    for path in paths:
        each = (paired_interval(path[:n]) for n in range(6, looks + 1))
        wrong += any((found.low or 0) > 0 or (found.high or 0) < 0 for found in each)
    case = "an ordinary t test after every pair"
    return Count("sequential", case, "normal", looks, 1, 0.0, "a wrong word at any look", wrong, trials)


TABLES = (boundaries, coverage, recorded, families, clustering, own_best_lr, collapses, sequential)
"""Each has as many trials as the page says, times its argument `share`."""


def main() -> None:
    rows = [astuple(count) for table in TABLES for count in table()]
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Count)])
        writer.writerows(rows)
    p_values().to_csv(P_VALUES, index=False, float_format="%.6f")


if __name__ == "__main__":
    main()
