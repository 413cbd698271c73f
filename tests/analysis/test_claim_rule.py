"""Power and verdicts of claims against closed forms and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from runner.analysis.claims.rule import Verdict, power, seeds_needed, verdict
from runner.analysis.stats.significance import equivalence_p
from runner.analysis.stats.values import Values

NAN, INF = float("nan"), float("inf")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def spaced(mean: float, sd: float, n: int) -> Values:
    """`n` values of exactly this mean and SD."""
    values = scipy_stats.norm.ppf((np.arange(n) + 0.5) / n)
    return np.asarray(mean + sd * (values - values.mean()) / values.std(ddof=1))


# Power


@pytest.mark.parametrize(("effect", "n"), [(1.0, 10), (0.5, 20), (0.3, 40), (2.0, 4)])
def test_power_is_the_share_of_simulated_tests_that_find_the_effect(effect: float, n: int) -> None:
    draws = 4000
    values = rng(n).normal(effect, 1, (draws, n))
    t = values.mean(axis=1) / values.std(axis=1, ddof=1) * math.sqrt(n)
    found = np.mean(t > scipy_stats.t.ppf(0.975, n - 1))
    expected = power(effect, n)
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / draws))


def test_power_from_nothing_to_everything() -> None:
    assert power(0, 10) == pytest.approx(0.025)
    large = [power(effect, n) for effect in (5.0, 7.3, 50.0, 1e9, INF) for n in (6, 20, 100_000)]
    assert large == pytest.approx([1.0] * len(large), abs=1e-6)
    for effect, n in ((-1.0, 10), (NAN, 10), (1.0, 1)):
        with pytest.raises(ValueError, match="needs an effect of 0 or more"):
            power(effect, n)


@pytest.mark.parametrize(("dz", "expected"), [(1.0, 10), (0.66, 20), (0.53, 30)])
def test_the_seeds_needed_are_the_first_of_enough_power(dz: float, expected: int) -> None:
    needed = seeds_needed(0.02 * dz, 0.02)
    assert needed is not None
    assert power(dz, needed) >= 0.8 > power(dz, needed - 1)
    assert abs(needed - expected) <= 1  # the protocol's table, to two digits of d


def test_seeds_needed_at_the_ends() -> None:
    assert seeds_needed(0.1, 0.0) == 6
    assert seeds_needed(1.0, 1e-12) == 6
    assert seeds_needed(1e-9, 1.0) is None
    for effect, sd in ((0.0, 1.0), (-1.0, 1.0), (NAN, 1.0), (INF, 1.0), (1.0, -1.0), (1.0, NAN), (1.0, INF)):
        with pytest.raises(ValueError, match="must be"):
            seeds_needed(effect, sd)


# Verdicts


@pytest.mark.parametrize(
    ("mean", "sign", "p", "expected"),
    [
        (0.010, 1, 0.01, "SUPPORTED"),
        (-0.010, -1, 0.01, "SUPPORTED"),
        (-0.010, 1, 0.01, "REFUTED"),
        (0.010, -1, 0.01, "REFUTED"),
        (0.005, 1, 0.01, "SUPPORTED"),  # as large as the smallest effect
        (0.010, 1, 0.05, "INCONCLUSIVE"),  # p must be below
        (0.004, 1, 0.01, "INCONCLUSIVE"),  # there, but too small, and not proven to be
        (0.001, 1, 0.01, "EQUIVALENT"),  # there, and proven too small
        (0.000, 1, 0.90, "EQUIVALENT"),
    ],
)
def test_the_rule(mean: float, sign: int, p: float, expected: str) -> None:
    assert verdict(spaced(mean, 0.004, 12), 0.005, sign, p).word == expected


def test_rounding_does_not_make_a_large_effect_small() -> None:
    difference = 0.04 - 0.035
    assert difference < 0.005
    assert verdict(np.full(8, difference), 0.005, 1, 0.01).word == "SUPPORTED"


def test_an_open_verdict_says_how_many_seeds_would_find_the_smallest_effect() -> None:
    found = verdict(spaced(0.002, 0.02, 10), 0.01, 1, 0.7)
    assert found == Verdict("INCONCLUSIVE", seeds_needed(0.01, 0.02))
    assert found.seeds == 34


def test_with_seeds_enough_for_the_effect_it_is_the_margin_that_takes_more() -> None:
    # SD .01, margin .01: 10 seeds find the effect, 40 are there, and .0095 is neither below nor above it.
    found = verdict(spaced(0.0095, 0.01, 40), 0.01, 1, 0.001)
    assert found.word == "INCONCLUSIVE"
    assert found.seeds is not None
    # (z.95 + z.80)² (SD / room)² = 6.18 × 400
    assert found.seeds == pytest.approx(2473, rel=0.01)
    settled = [rng(seed).normal(0.0095, 0.01, found.seeds) for seed in range(200)]
    equivalent = np.mean([equivalence_p(values, 0.01) < 0.05 for values in settled])
    assert equivalent == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 200))


def test_more_is_always_more_than_there_is() -> None:
    # Adjusted for many rows, a p can miss where the pairs alone would do.
    assert verdict(spaced(0.02, 0.01, 20), 0.01, 1, 0.2) == Verdict("INCONCLUSIVE", 21)


def test_one_pair_or_no_spread() -> None:
    assert verdict(np.array([0.3]), 0.01, 1, 1.0) == Verdict("INCONCLUSIVE")
    assert verdict(np.zeros(3), 0.01, 1, 1.0) == Verdict("EQUIVALENT")
    assert verdict(np.full(3, 0.02), 0.01, 1, 0.25) == Verdict("INCONCLUSIVE", 6)
    assert verdict(np.full(6, 0.02), 0.01, 1, 0.03125) == Verdict("SUPPORTED")


def test_a_verdict_on_nothing_is_refused() -> None:
    good = np.array([0.1, 0.2])
    for differences in (np.zeros(0), np.array([NAN, 0.1]), np.array([INF, 0.1])):
        with pytest.raises(ValueError, match=r"needs 1 or more values|not finite"):
            verdict(differences, 0.01, 1, 0.5)
    for effect, sign, p in ((0.0, 1, 0.5), (NAN, 1, 0.5), (0.01, 0, 0.5), (0.01, 1, NAN), (0.01, 1, 1.5)):
        with pytest.raises(ValueError, match=r"must be above 0|needs a sign"):
            verdict(good, effect, sign, p)
