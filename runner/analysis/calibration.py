"""Whether the harness itself can be trusted: what is known beforehand, put through the whole pipeline.

Nothing differs: the same seeds have to give differences of exactly zero, other seeds a rejection at 5% in 5% of the
comparisons. Something large differs: it has to be caught. The rules are fixed here, before any run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom, kstest, ttest_1samp

from runner.analysis.metrics import TEST_METRICS, At, check, read_runs
from runner.analysis.pairing import Arms, pairs
from runner.analysis.stats.intervals import paired_interval
from runner.analysis.stats.significance import sign_flip_p
from runner.analysis.stats.values import ALPHA, CONFIDENCE, Values
from runner.config import reader as config
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.storage.files import write_atomically
from runner.storage.folder import sweep_folder
from runner.storage.results import Results, load

CONFIGS = Path(__file__).parent.parent.parent / "configs/calibration"

SAME, DIFFERENT = "same_seed", "different_seeds"

PLANTED = {"learning_rate": "a learning rate × 100", "frozen_gamma": "a norm layer with γ frozen at 0"}

SWEEPS = (SAME, DIFFERENT, *PLANTED)

PAIRS = 10
"""Of one comparison: the seeds that the configs of this project have."""

EPOCH_METRICS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    check: str
    shows: str
    expected: str
    measured: str
    passed: bool

    @property
    def record(self) -> dict[str, str]:
        words = {"check": self.check, "shows": self.shows, "expected": self.expected, "measured": self.measured}
        return {**words, "verdict": "pass" if self.passed else "FAIL"}


def sweeps() -> list[Sweep]:
    """The sweeps that are judged, in their order. Errors: UserError where a config is wrong."""
    return [config.load(CONFIGS / f"{name}.yaml") for name in SWEEPS]


def judge(folder: Path) -> list[Check]:
    """What the sweeps in `folder` say; writes calibration.csv, a row a check, and aa.csv, a row an A/A comparison.

    Errors: UserError where tables cannot be compared.
    """
    same, different, *planted = (load(sweep_folder(folder, name)) for name in SWEEPS)
    table = comparisons(different)
    checks = [same_seed(same), *different_seeds(table)]
    checks += [caught(name, PLANTED[name], results) for name, results in zip(PLANTED, planted, strict=True)]
    write_atomically(folder / "aa.csv", table.to_csv(index=False, lineterminator="\n"))
    write_atomically(folder / "calibration.csv", as_csv(checks))
    return checks


def as_csv(checks: Sequence[Check]) -> str:
    """A row a check."""
    return pd.DataFrame([check.record for check in checks]).to_csv(index=False, lineterminator="\n")


# Nothing differs


def same_seed(results: Results) -> Check:
    """Whether every metric of every epoch is the same to the last bit in both arms."""
    check([results], "valid_loss", "last")
    epochs = range(1, int(results.metrics["epoch"].max()) + 1)
    readings: list[tuple[str, At]] = [(metric, epoch) for metric in EPOCH_METRICS for epoch in epochs]
    found = [_differences(results, metric, at) for metric, at in [*readings, *((m, "last") for m in TEST_METRICS)]]
    differences, planned = np.concatenate([values for values, _, _ in found]), sum(n for _, n, _ in found)
    unproven = sum(n for _, _, n in found)
    zeros = int(np.count_nonzero(differences == 0))
    largest = float(np.abs(differences).max()) if len(differences) else float("nan")
    return Check(
        SAME,
        "an arm against itself, same seeds: no difference in any metric of any epoch",
        f"{planned} of {planned} differences exactly 0",
        f"{zeros} of {planned}, largest {largest:g}" + _unproven(unproven),
        zeros == planned > 0 and not unproven,
    )


def comparisons(results: Results, metric: str = "valid_loss", n: int = PAIRS) -> pd.DataFrame:
    """The runs of both arms in the order of their seeds, n with n: a row an independent comparison.

    A comparison with a run that has no result has no p. Errors: UserError where the arms share a seed (of those the
    batches would be the same), or are not as many times n runs each.
    """
    check([results], metric, "last")
    parameters, facts = read_runs([results], metric, "last")
    arms = Arms(parameters, results.axis, results.baseline)
    runs = pd.DataFrame({"seed": parameters["seed"].astype(int), "value": facts["value"].astype(float)})
    runs = runs.assign(arm=arms.code != arms.baseline).sort_values("seed")
    ours, theirs = runs[runs["arm"]], runs[~runs["arm"]]
    if runs["seed"].duplicated().any() or len(ours) != len(theirs) or len(ours) % n or ours.empty:
        raise UserError(f"{results.folder}: needs two arms of {n}, {2 * n}, … runs each, no seed twice")
    rows: list[dict[str, int | float | str]] = []
    for start in range(0, len(ours), n):
        one, other = ours.iloc[start : start + n], theirs.iloc[start : start + n]
        differences = one["value"].to_numpy(dtype=np.float64) - other["value"].to_numpy(dtype=np.float64)
        seeds = {"seeds": _range(one["seed"]), "baseline_seeds": _range(other["seed"])}
        rows.append({"comparison": len(rows) + 1, **seeds, **_tests(differences)})
    return pd.DataFrame(rows)


def _range(seeds: pd.Series) -> str:
    return f"{seeds.iloc[0]}..{seeds.iloc[-1]}"


def _tests(differences: Values) -> dict[str, float]:
    if not np.isfinite(differences).all():
        return dict.fromkeys(("difference", "low", "high", "p", "t_p"), float("nan"))
    interval = paired_interval(differences)
    assert interval.low is not None
    assert interval.high is not None
    return {
        "difference": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "p": sign_flip_p(differences, np.random.default_rng(0)),
        "t_p": float(ttest_1samp(differences, 0).pvalue),
    }


def different_seeds(table: pd.DataFrame, n: int = PAIRS) -> list[Check]:
    """The four checks of `comparisons`' table.

    The sign-flip p of n pairs is one of 2/2^n, 4/2^n, …, 1; each lowered by 1/2^n is the middle of its step, within
    1/2^n (.001 for 10 pairs) of the continuous uniform distribution that kstest compares with.
    """
    excludes = ((table["low"] > 0) | (table["high"] < 0)).to_numpy()
    p, t_p = table["p"].to_numpy(dtype=np.float64), table["t_p"].to_numpy(dtype=np.float64)
    return [
        rejections("sign_flip_rejections", "the sign-flip test at 5%", p < ALPHA, np.isfinite(p)),
        uniformity("sign_flip_uniform", "the sign-flip test", p - 0.5**n),
        rejections("t_rejections", "the paired 95% t interval without 0", excludes, np.isfinite(p)),
        uniformity("t_uniform", "the paired t test", t_p),
    ]


def rejections(name: str, test: str, rejected: NDArray[np.bool_], complete: NDArray[np.bool_]) -> Check:
    """Whether as many of these comparisons reject as of a true hypothesis do, by the exact binomial 95% band."""
    total, count = len(rejected), int(rejected[complete].sum())
    low, high = (int(bound) for bound in binom.interval(CONFIDENCE, total, ALPHA))
    return Check(
        name,
        f"an arm against itself, other seeds: how often rejects {test}",
        f"{low} to {high} of {total}",
        f"{count} of {int(complete.sum())}",
        bool(complete.all()) and low <= count <= high,
    )


def uniformity(name: str, test: str, p: Values) -> Check:
    """Whether the p-values are uniform on 0 … 1, by Kolmogorov and Smirnov's test at 5%."""
    complete = p[np.isfinite(p)]
    found = kstest(complete, "uniform") if len(complete) else None
    return Check(
        name,
        f"an arm against itself, other seeds: uniform p of {test}",
        f"Kolmogorov-Smirnov p >= {ALPHA:g}",
        "no p" if found is None else f"D = {found.statistic:.3f}, p = {found.pvalue:.3f}, n = {len(complete)}",
        found is not None and len(complete) == len(p) and float(found.pvalue) >= ALPHA,
    )


# Something differs


def caught(name: str, planted: str, results: Results, metric: str = "valid_accuracy") -> Check:
    """Whether the sign-flip test finds that the planted arm is worse, by all its planned pairs."""
    check([results], metric, "last")
    differences, planned, unproven = _differences(results, metric, "last")
    p = sign_flip_p(differences, np.random.default_rng(0)) if len(differences) else 1.0
    mean = float(differences.mean()) if len(differences) else float("nan")
    return Check(
        name,
        f"{planted} is caught as worse",
        f"{metric} lower, sign-flip p < {ALPHA:g}, n = {planned}",
        f"{mean:+.3f}, p = {p:.4f}, n = {len(differences)}" + _unproven(unproven),
        mean < 0 and p < ALPHA and len(differences) == planned and not unproven,
    )


def _differences(results: Results, metric: str, at: At) -> tuple[Values, int, int]:
    """The pairs' differences from the baseline, how many were planned, and how many pairs are not proven."""
    parameters, facts = read_runs([results], metric, at)
    arms = Arms(parameters, results.axis, results.baseline)
    found = pairs(parameters, facts, arms)
    planned = int(np.count_nonzero(arms.code != arms.baseline))
    if found.empty:
        return np.zeros(0), planned, 0
    differences = (found["value"] - found["value_base"]).to_numpy(dtype=np.float64)
    return differences, planned, int((found["weights"] | found["batches"]).sum())


def _unproven(count: int) -> str:
    return f"; {count} not proven to be pairs" if count else ""
