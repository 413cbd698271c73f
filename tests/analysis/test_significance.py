"""p-values against full enumeration, the binomial, scipy's and statsmodels' own, arithmetic by hand, and simulation."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from statsmodels.stats.weightstats import DescrStatsW

from runner.analysis.stats.significance import (
    benjamini_hochberg,
    equivalence_p,
    mcnemar_p,
    sign_flip_p,
    welch_p,
)

NAN, INF = float("nan"), float("inf")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def enumerated_p(differences: list[Fraction]) -> float:
    """The sign-flip p by all 2^n sums, in exact arithmetic."""
    observed = abs(sum(differences, Fraction()))
    sums = [
        abs(sum((sign * d for sign, d in zip(signs, differences, strict=True)), Fraction()))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return sum(total >= observed for total in sums) / len(sums)


# Sign flips


@pytest.mark.parametrize("n", [1, 2, 5, 6, 11])
@pytest.mark.parametrize("grid", [10, 10_000])
def test_sign_flips_are_all_counted_ties_included(n: int, grid: int) -> None:
    # Accuracies of so many samples tie often, and .3 − .1 is not .2 in floating point.
    for seed in range(10):
        whole = rng(seed).integers(-grid // 2, grid // 2, (2, n)).tolist()
        exact = [Fraction(a, grid) - Fraction(b, grid) for a, b in zip(*whole, strict=True)]
        floating = np.array([a / grid - b / grid for a, b in zip(*whole, strict=True)])
        assert sign_flip_p(floating, rng()) == enumerated_p(exact)


def test_sign_flips_are_scipys_where_nothing_ties() -> None:
    differences = rng(3).normal(0.4, 1, 12)
    expected = scipy_stats.permutation_test(
        (differences,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", vectorized=True
    )
    assert sign_flip_p(differences, rng()) == pytest.approx(expected.pvalue, rel=1e-12)


@pytest.mark.parametrize("n", [24, 30])
def test_many_pairs_are_counted_exactly_too(n: int) -> None:
    # Equal differences: the sum of the signs is binomial.
    differences = np.full(n, 0.003)
    differences[:8] *= -1
    expected = 2 * scipy_stats.binom.cdf(8, n, 0.5)
    assert sign_flip_p(differences, rng()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("n", "negative"), [(31, 10), (40, 13), (101, 45)])
def test_drawn_sign_flips_are_close_to_the_binomial(n: int, negative: int) -> None:
    differences = np.full(n, 0.003)
    differences[:negative] *= -1
    expected = 2 * scipy_stats.binom.cdf(negative, n, 0.5)
    found = sign_flip_p(differences, rng(1))
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 9999) + 1e-4)
    assert found == sign_flip_p(differences, rng(1))
    assert found != sign_flip_p(differences, rng(2))  # the generator is used


@pytest.mark.parametrize(
    ("n", "p"), [(31, 0.7317), (100, 0.1573), (257, 0.0031), (1_000, 0.0031), (32_769, 0.4533), (40_001, 0.1373)]
)
def test_a_drawn_p_stays_as_it_is_and_needs_little_memory(n: int, p: float) -> None:
    # Committed verdicts depend on it. The values are those of all signs drawn at once, which took 0.8 GB for 40,001.
    differences = rng(n).normal(0.1 if n <= 1_000 else 0.005, 1, n)
    tracemalloc.start()
    found = sign_flip_p(differences, rng())
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == p
    assert used < 100e6


@pytest.mark.parametrize("n", [1, 5, 6, 30, 40])
def test_the_smallest_p_there_is(n: int) -> None:
    expected = 1e-4 if n > 30 else 2 / 2**n
    assert sign_flip_p(np.full(n, 0.1), rng()) == pytest.approx(expected)
    assert sign_flip_p(np.full(n, -1e-200), rng()) == pytest.approx(expected)
    assert sign_flip_p(np.zeros(n), rng()) == 1


@pytest.mark.parametrize(("n", "rejections"), [(6, 1 / 32), (10, 0.048828125), (35, 0.05)])
def test_sign_flips_reject_a_true_hypothesis_as_often_as_they_say(n: int, rejections: float) -> None:
    # Continuous symmetric differences: p is uniform on multiples of 2/2^n. Laplace, so that no t test would do.
    draws = 2000 if n < 30 else 500
    generator = rng(n)
    rejected = sum(sign_flip_p(generator.laplace(0, 1, n), generator) <= 0.05 for _ in range(draws))
    assert abs(rejected - draws * rejections) <= 4 * math.sqrt(draws * rejections * (1 - rejections))


# Welch, TOST


def test_welch_is_scipys() -> None:
    a, b = rng().normal(0, 1, 7), rng(1).normal(1, 3, 12)
    assert welch_p(a, b) == pytest.approx(scipy_stats.ttest_ind(a, b, equal_var=False).pvalue, rel=1e-9)


def test_welch_without_spread() -> None:
    flat = np.array([0.1 + 0.2, 0.3, 0.3])  # equal but for the last bit
    assert welch_p(flat, np.array([0.3, 0.3])) == 1
    assert welch_p(flat, np.array([0.4, 0.4])) == 0
    one_sided = welch_p(np.array([0.0, 1.0, 2.0]), np.array([0.5, 0.5]))
    assert one_sided == pytest.approx(scipy_stats.ttest_1samp([0.0, 1.0, 2.0], 0.5).pvalue)


@pytest.mark.parametrize("shift", [-0.4, 0.0, 0.3, 2.0])
def test_equivalence_is_the_larger_of_two_one_sided_tests(shift: float) -> None:
    differences = rng(5).normal(0, 0.5, 12) + shift
    above = scipy_stats.ttest_1samp(differences, -0.5, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(differences, 0.5, alternative="less").pvalue
    assert equivalence_p(differences, 0.5) == pytest.approx(max(above, below), rel=1e-9)
    # and the 90% interval's word, by another route
    low, high = DescrStatsW(differences).tconfint_mean(alpha=0.1)
    assert (equivalence_p(differences, 0.5) < 0.05) == (low > -0.5 and high < 0.5)


def test_equivalence_without_spread() -> None:
    assert equivalence_p(np.full(4, 0.1), 0.5) == 0
    assert equivalence_p(np.full(4, -0.5), 0.5) == 1
    assert equivalence_p(np.zeros(2), 1e-9) == 0


# McNemar


@pytest.mark.parametrize(("only", "only_base", "both"), [(5, 0, 2), (0, 5, 0), (3, 4, 1), (0, 0, 6), (1, 9, 0)])
def test_mcnemar_is_the_binomial_of_the_pairs_that_disagree(only: int, only_base: int, both: int) -> None:
    events = [True] * only + [False] * only_base + [True] * both + [False] * 3
    baseline = [False] * only + [True] * only_base + [True] * both + [False] * 3
    disagree = only + only_base
    expected = scipy_stats.binomtest(only, disagree).pvalue if disagree else 1.0
    assert mcnemar_p(events, baseline) == pytest.approx(expected)


# Many p


def test_benjamini_hochberg_by_hand() -> None:
    # sorted .01 .02 .03 .5 × 4/1 4/2 4/3 4/4 = .04 .04 .04 .5; then .005 × 2, .9
    assert benjamini_hochberg(np.array([0.03, 0.01, 0.5, 0.02])) == pytest.approx([0.04, 0.04, 0.5, 0.04])
    assert benjamini_hochberg(np.array([0.9, 0.005])) == pytest.approx([0.9, 0.01])


def test_one_p_is_its_own_and_none_are_none() -> None:
    assert benjamini_hochberg(np.array([0.03])) == pytest.approx([0.03])
    assert len(benjamini_hochberg(np.zeros(0))) == 0


# What has no answer


@pytest.mark.parametrize("bad", [[], [NAN, 1.0, 2.0], [1.0, INF, 2.0], [[1.0], [2.0]]])
def test_no_number_is_refused_by_every_test(bad: list[float]) -> None:
    values, good = np.array(bad), np.array([1.0, 2.0, 4.0])
    calls: list[Callable[[], float]] = [
        lambda: sign_flip_p(values, rng()),
        lambda: welch_p(values, good),
        lambda: welch_p(good, values),
        lambda: equivalence_p(values, 1.0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"needs \d or more values|not finite|one dimension"):
            call()


def test_too_few_values_are_refused() -> None:
    one, two = np.array([1.0]), np.array([1.0, 2.0])
    with pytest.raises(ValueError, match="needs 2 or more values, got 1"):
        welch_p(one, two)
    with pytest.raises(ValueError, match="needs 2 or more values, got 1"):
        equivalence_p(one, 1.0)


@pytest.mark.parametrize("margin", [0.0, -1.0, NAN, INF])
def test_a_margin_is_above_zero(margin: float) -> None:
    with pytest.raises(ValueError, match="the margin must be above 0 and finite"):
        equivalence_p(np.array([1.0, 2.0]), margin)


@pytest.mark.parametrize("p", [[-0.1, 0.5], [1.1], [NAN, 0.5]])
def test_a_p_value_is_a_probability(p: list[float]) -> None:
    with pytest.raises(ValueError, match=r"between 0 and 1|not finite"):
        benjamini_hochberg(np.array(p))


@pytest.mark.parametrize(("events", "baseline"), [([], []), ([True], [True, False]), ([[True]], [[True]])])
def test_mcnemar_needs_pairs(events: list[bool], baseline: list[bool]) -> None:
    with pytest.raises(ValueError, match="needs one pair or more"):
        mcnemar_p(events, baseline)


def test_arrays_are_left_as_they_are() -> None:
    differences: NDArray[np.float64] = rng().normal(0, 1, 8)
    before = differences.copy()
    sign_flip_p(differences, rng())
    assert (differences == before).all()
