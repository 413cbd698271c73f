"""Whether the harness itself can be trusted. Comparisons whose outcome is known go through the whole pipeline.

Where nothing differs, the same seeds must give differences of exactly zero, and other seeds must reject at 5% in 5% of
the comparisons. Where something large differs, it must be caught. The rules are fixed here, before any run.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom, kstest, ttest_1samp

from runner.analysis.metrics import At, check, read_runs
from runner.analysis.pairing import Arms, pairs, unproven
from runner.analysis.stats.intervals import paired_interval
from runner.analysis.stats.significance import sign_flip_p
from runner.analysis.stats.values import ALPHA, CONFIDENCE, Values
from runner.config import reader
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.storage.files import write_atomically
from runner.storage.folder import sweep_folder
from runner.storage.results import TEST_METRICS, Results, load

CONFIGS = Path(__file__).parent.parent.parent / "bnbench/configs/calibration"

SAME, DIFFERENT = "same_seed", "different_seeds"

PLANTED = {"learning_rate": "a learning rate × 100", "frozen_gamma": "a norm layer with γ frozen at 0"}
"""Sweeps with a planted effect, and the effect in words."""

SWEEPS = (SAME, DIFFERENT, *PLANTED)

PAIRS = 10
"""The pairs of one comparison, which is the number of seeds in this project's configs."""

EPOCH_METRICS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")


@dataclass(frozen=True)
class Check:
    """One row of calibration.csv."""

    check: str
    shows: str
    expected: str
    measured: str
    passed: bool

    @property
    def record(self) -> dict[str, str]:
        record = asdict(self)
        passed = record.pop("passed")
        return {**record, "verdict": "pass" if passed else "FAIL"}


def sweeps() -> list[Sweep]:
    """The sweeps that are judged, in their order. Errors: UserError where a config is wrong."""
    return [reader.load(CONFIGS / f"{name}.yaml") for name in SWEEPS]


def judge(folder: Path) -> list[Check]:
    """Judge the sweeps in `folder`.

    Writes calibration.csv with one row per check, and aa.csv with one row per comparison of an arm with itself.
    Errors: UserError where tables cannot be compared.
    """
    same, different, *planted = (load(sweep_folder(folder, name)) for name in SWEEPS)
    table = comparisons(different)
    checks = [same_seed(same), *different_seeds(table)]
    checks += [caught(*effect, results) for effect, results in zip(PLANTED.items(), planted, strict=True)]
    write_atomically(folder / "aa.csv", table.to_csv(index=False, lineterminator="\n"))
    write_atomically(folder / "calibration.csv", as_csv(checks))
    return checks


def as_csv(checks: Sequence[Check]) -> str:
    """The text of calibration.csv."""
    return pd.DataFrame([check.record for check in checks]).to_csv(index=False, lineterminator="\n")


def same_seed(results: Results) -> Check:
    """Whether every metric of every epoch is the same to the last bit in both arms."""
    check([results], "valid_loss", "last")
    epochs = range(1, int(results.metrics["epoch"].max()) + 1)
    parts = [_differences(results, metric, epoch) for metric in EPOCH_METRICS for epoch in epochs]
    parts += [_differences(results, metric, "last") for metric in TEST_METRICS]
    values, counts, doubts = zip(*parts, strict=True)
    differences, planned, doubtful = np.concatenate(values), sum(counts), sum(doubts)
    zeros = np.count_nonzero(differences == 0)
    largest = np.abs(differences).max() if len(differences) else np.nan
    return Check(
        SAME,
        "an arm against itself, same seeds: no difference in any metric of any epoch",
        f"{planned} of {planned} differences exactly 0",
        f"{zeros} of {planned}, largest {largest:g}" + _doubt(doubtful),
        zeros == planned > 0 and not doubtful,
    )


def comparisons(results: Results, metric: str = "valid_loss", n: int = PAIRS) -> pd.DataFrame:
    """One row per independent comparison: the next n runs of each arm, in the order of their seeds.

    A comparison in which a run has no result has no p.
    Errors: UserError where the arms share a seed (its batches would be the same), and where they do not have the same
    multiple of n runs.
    """
    check([results], metric, "last")
    parameters, facts = read_runs([results], metric, "last")
    arms = Arms(parameters, results.axis, results.baseline)
    seeds = parameters["seed"].astype(int)
    runs = facts[["value"]].assign(seed=seeds, arm=arms.code != arms.baseline).sort_values("seed")
    sides = runs[runs["arm"]], runs[~runs["arm"]]
    count = len(sides[0])
    if seeds.duplicated().any() or len(sides[1]) != count or count % n or not count:
        raise UserError(f"{results.folder}: needs two arms of {n}, {2 * n}, … runs each, no seed twice")
    arm, baseline = (side["value"].to_numpy(float).reshape(-1, n) for side in sides)
    ranges = ([f"{s[0]}..{s[-1]}" for s in side["seed"].to_numpy().reshape(-1, n)] for side in sides)
    table = pd.DataFrame(dict(zip(("seeds", "baseline_seeds"), ranges, strict=True)))
    table.insert(0, "comparison", range(1, len(table) + 1))
    return table.join(pd.DataFrame([_tests(differences) for differences in arm - baseline]))


def _tests(differences: Values) -> dict[str, float | None]:
    if not np.isfinite(differences).all():
        return dict.fromkeys(("difference", "low", "high", "p", "t_p"), float("nan"))
    interval = paired_interval(differences)
    return {
        "difference": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "p": sign_flip_p(differences, np.random.default_rng(0)),
        "t_p": float(ttest_1samp(differences, 0).pvalue),
    }


def different_seeds(table: pd.DataFrame, n: int = PAIRS) -> list[Check]:
    """The four checks of the table that `comparisons` makes.

    The sign-flip p of n pairs is one of 2/2^n, 4/2^n, …, 1. It is lowered by 1/2^n, to the middle of its step. That is
    within 1/2^n (.001 for 10 pairs) of the continuous uniform distribution of kstest.
    """
    p, t_p = table["p"].to_numpy(float), table["t_p"].to_numpy(float)
    excludes = ((table["low"] > 0) | (table["high"] < 0)).to_numpy()
    return [
        rejections("sign_flip_rejections", "the sign-flip test at 5%", p < ALPHA, p),
        uniformity("sign_flip_uniform", "the sign-flip test", p - 0.5**n),
        rejections("t_rejections", "the paired 95% t interval without 0", excludes, p),
        uniformity("t_uniform", "the paired t test", t_p),
    ]


def rejections(name: str, test: str, rejected: NDArray[np.bool_], p: Values) -> Check:
    """Whether these comparisons reject as often as a true hypothesis is rejected, by the exact binomial 95% band.

    A comparison counts where its p is not NaN.
    """
    complete = np.isfinite(p)
    total, count = len(rejected), int(rejected[complete].sum())
    low, high = (int(bound) for bound in binom.interval(CONFIDENCE, total, ALPHA))
    return Check(
        name,
        f"an arm against itself, other seeds: how often rejects {test}",
        f"{low} to {high} of {total}",
        f"{count} of {complete.sum()}",
        bool(complete.all()) and low <= count <= high,
    )


def uniformity(name: str, test: str, p: Values) -> Check:
    """Whether the p-values are uniform on 0 … 1, by the Kolmogorov-Smirnov test at 5%."""
    complete = p[np.isfinite(p)]
    measured, passed = "no p", False
    if len(complete):
        found = kstest(complete, "uniform")
        measured = f"D = {found.statistic:.3f}, p = {found.pvalue:.3f}, n = {len(complete)}"
        passed = len(complete) == len(p) and float(found.pvalue) >= ALPHA
    shows = f"an arm against itself, other seeds: uniform p of {test}"
    return Check(name, shows, f"Kolmogorov-Smirnov p >= {ALPHA:g}", measured, passed)


def caught(name: str, planted: str, results: Results, metric: str = "valid_accuracy") -> Check:
    """Whether the sign-flip test finds that the planted arm is worse, with all its planned pairs."""
    check([results], metric, "last")
    differences, planned, doubtful = _differences(results, metric, "last")
    n, mean, p = len(differences), float("nan"), 1.0
    if n:
        mean = float(differences.mean())
        p = sign_flip_p(differences, np.random.default_rng(0))
    return Check(
        name,
        f"{planted} is caught as worse",
        f"{metric} lower, sign-flip p < {ALPHA:g}, n = {planned}",
        f"{mean:+.3f}, p = {p:.4f}, n = {n}" + _doubt(doubtful),
        mean < 0 and p < ALPHA and n == planned and not doubtful,
    )


def _differences(results: Results, metric: str, at: At) -> tuple[Values, int, int]:
    """The pairs' differences from the baseline, how many pairs were planned, and how many are not proven."""
    parameters, facts = read_runs([results], metric, at)
    arms = Arms(parameters, results.axis, results.baseline)
    found = pairs(parameters, facts, arms)
    planned = int(np.count_nonzero(arms.code != arms.baseline))
    return (found["value"] - found["value_base"]).to_numpy(float), planned, unproven(found)


def _doubt(count: int) -> str:
    return f"; {count} not proven to be pairs" if count else ""
