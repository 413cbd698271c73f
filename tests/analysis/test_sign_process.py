"""The sign e-process: its wealth by an integral, its errors by exact probabilities, and its verdicts by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.integrate import quad

from runner.analysis.stats.sign_process import decide, fewest, log_wealth, median_interval
from runner.analysis.stats.values import Values

DRAWS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Values]] = {
    "normal": lambda generator, shape: generator.normal(size=shape),
    "skewed": lambda generator, shape: np.exp(generator.normal(size=shape)) - 1,
    "with ties": lambda generator, shape: np.round(generator.normal(size=shape)),
}
"""Differences whose median is 0."""


@pytest.mark.parametrize(("above", "n"), [(0, 3), (5, 8), (7, 7), (20, 31)])
def test_the_wealth_is_an_integral_over_bets(above: int, n: int) -> None:
    def stake(p: float) -> float:
        density = 2 / (math.pi * math.sqrt(p * (1 - p)))  # Beta(½, ½) above ½
        return density * (2 * p) ** above * (2 * (1 - p)) ** (n - above)

    assert math.exp(log_wealth(above, n)) == pytest.approx(quad(stake, 0.5, 1)[0], rel=1e-6)


def test_a_fair_pair_does_not_change_the_wealth_on_average() -> None:
    for n, above in ((1, 0), (9, 4), (9, 8), (40, 31)):
        after = [math.exp(log_wealth(above + one, n + 1)) for one in (0, 1)]
        assert np.mean(after) == pytest.approx(math.exp(log_wealth(above, n)))
        assert after[0] < after[1]  # So a median below c makes it smaller.


@pytest.mark.parametrize("level", [0.025, 0.05])
def test_the_chance_of_ever_rejecting_a_true_hypothesis(level: float) -> None:
    """Exactly: the walk of the number of differences above c, whose median is c, over 500 looks."""
    chances, rejected = np.ones(1), 0.0
    for n in range(1, 501):
        chances = (np.append(chances, 0) + np.append(0, chances)) / 2
        if needed := fewest(n, level):
            rejected += chances[needed:].sum()
            chances[needed:] = 0
    assert level / 4 < rejected <= level


def test_the_interval_holds_what_is_not_rejected() -> None:
    differences = np.round(np.random.default_rng(2).normal(0.3, 1, size=23), 1)
    interval, threshold = median_interval(differences), math.log(40)
    for c in np.linspace(-3, 3, 601).round(2):
        counts = [int((side * differences > side * c).sum()) for side in (1, -1)]
        rejected = any(log_wealth(count, 23) >= threshold for count in counts)
        assert rejected != (interval.low <= c <= interval.high), c


def verdicts(differences: Values, effect: float) -> list[str]:
    return [decide(differences[: n + 1], effect) for n in range(len(differences))]


@pytest.mark.parametrize("kind", DRAWS)
@pytest.mark.parametrize(
    ("median", "wrong"),
    [(0.0, {"SUPERIOR", "BETTER", "WORSE", "INFERIOR"}), (1.0, {"EQUIVALENT", "WORSE", "INFERIOR"})],
)
def test_looking_after_every_pair_is_wrong_at_most_5_percent_of_the_time(
    kind: str, median: float, wrong: set[str]
) -> None:
    """The smallest effect is 1: at a median of 1, SUPERIOR is no error, as EQUIVALENT is none below it."""
    differences = DRAWS[kind](np.random.default_rng(5), (200, 60)) + median
    errors = sum(not wrong.isdisjoint(verdicts(row, 1.0)) for row in differences)
    superior = sum("SUPERIOR" in verdicts(row, 1.0) for row in differences)
    assert errors <= 10
    assert superior <= 5  # .025 from below the smallest effect


def test_an_effect_is_found_and_its_sign_follows_the_metric() -> None:
    differences = np.random.default_rng(0).normal(3, 1, size=40)
    assert verdicts(differences, 1.0)[:7] == ["UNDECIDED"] * 6 + ["SUPERIOR"]
    assert decide(differences, 1.0, better=-1) == decide(-differences, 1.0) == "INFERIOR"
    assert decide(differences, 3.0) == "BETTER"
    assert decide(differences, 9.0) == "EQUIVALENT"


def test_a_difference_that_equals_a_boundary_counts_against_both_verdicts() -> None:
    assert decide(np.full(20, 0.04 - 0.035), 0.005) == "BETTER"  # The difference is 0.005000000000000004.
    assert decide(np.zeros(20), 0.005) == "EQUIVALENT"
