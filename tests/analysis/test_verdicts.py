"""Verdicts, the estimates that they judge, and the seeds that they need: against scipy, statsmodels and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from runner.analysis.stats.estimates import Estimate, MeanDifference, MedianDifference, RateDifference, RatioOfMeans
from runner.analysis.stats.intervals import rate_interval, ratio_interval
from runner.analysis.stats.robust import collapsed, hodges_lehmann, robust, trimmed_mean
from runner.analysis.stats.values import Events, Values
from runner.analysis.stats.verdicts import Needed, decide, fewest_pairs, judge, power, seeds_needed


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def spaced(mean: float, sd: float, n: int) -> Values:
    """`n` values of exactly this mean and SD, symmetric about the mean."""
    values = stats.norm.ppf((np.arange(n) + 0.5) / n)
    return np.asarray(mean + sd * (values - values.mean()) / values.std(ddof=1))


# Decisions


@pytest.mark.parametrize(
    ("mean", "sd", "word"),
    [
        (0.4, 0.2, "SUPERIOR"),
        (0.25, 0.2, "BETTER"),
        (0.05, 0.2, "EQUIVALENT"),
        (0.1, 0.1, "EQUIVALENT"),  # shown to be better, and by less than the smallest effect
        (-0.25, 0.2, "WORSE"),
        (-0.4, 0.2, "INFERIOR"),
        (0.15, 0.6, "UNDECIDED"),
    ],
)
def test_six_words(mean: float, sd: float, word: str) -> None:
    effect = MeanDifference(spaced(mean, sd, 12))
    assert decide(effect, 0.2, better=1) == word
    mirrored = {"SUPERIOR": "INFERIOR", "BETTER": "WORSE", "WORSE": "BETTER", "INFERIOR": "SUPERIOR"}
    assert decide(effect, 0.2, better=-1) == mirrored.get(word, word)


def test_the_words_are_those_of_t_tests_at_the_margins() -> None:
    generator = rng(3)
    for _ in range(200):
        differences = generator.normal(generator.uniform(-0.5, 0.5), 0.3, 10)
        word = decide(MeanDifference(differences), 0.2, better=1)
        above = stats.ttest_1samp(differences, 0.2, alternative="greater").pvalue < 0.025
        below = stats.ttest_1samp(differences, -0.2, alternative="less").pvalue < 0.025
        within = max(
            stats.ttest_1samp(differences, -0.2, alternative="greater").pvalue,
            stats.ttest_1samp(differences, 0.2, alternative="less").pvalue,
        )
        assert (word == "EQUIVALENT") == (within < 0.05)
        if word in ("SUPERIOR", "INFERIOR"):
            assert above or below


def test_few_pairs_decide_no_direction_and_a_family_needs_more() -> None:
    assert decide(MeanDifference(spaced(1, 0.1, 5)), 0.2, better=1) == "UNDECIDED"
    assert decide(MeanDifference(spaced(1, 0.1, 6)), 0.2, better=1) == "SUPERIOR"
    assert decide(MeanDifference(spaced(1, 0.1, 8)), 0.2, better=1, tests=10) == "UNDECIDED"
    assert decide(MeanDifference(spaced(1, 0.1, 9)), 0.2, better=1, tests=10) == "SUPERIOR"
    assert decide(MeanDifference(np.array([1.0])), 0.2, better=1) == "UNDECIDED"
    # 2 / 2ⁿ · tests is below .05 for the first time.
    for tests in (1, 2, 5, 10, 34, 1000):
        n = fewest_pairs(tests)
        assert 2 * tests / 2**n < 0.05 <= 2 * tests / 2 ** (n - 1)


@pytest.mark.parametrize(("effect", "better", "tests"), [(0.0, 1, 1), (float("nan"), 1, 1), (0.1, 0, 1), (0.1, 1, 0)])
def test_no_decision_without_a_size_a_sign_and_a_test(effect: float, better: int, tests: int) -> None:
    with pytest.raises(ValueError, match=r"must be above 0|needs a sign"):
        decide(MeanDifference(np.ones(6)), effect, better, tests)


@pytest.mark.parametrize(
    ("truth", "sd", "wrong", "share"),
    [
        (-0.2, 0.1, ("INFERIOR",), 0.025),
        (-0.2, 0.1, ("EQUIVALENT",), 0.05),
        (0.0, 1.0, ("SUPERIOR", "BETTER", "WORSE", "INFERIOR"), 0.05),
        (0.2, 0.1, ("SUPERIOR",), 0.025),
        (0.2, 0.1, ("EQUIVALENT",), 0.05),
    ],
)
def test_at_each_boundary_a_wrong_word_is_as_rare_as_it_should_be(
    truth: float, sd: float, wrong: tuple[str, ...], share: float
) -> None:
    samples = rng(7).normal(truth, sd, (3000, 12))
    words = [decide(MeanDifference(sample), 0.2, better=1) for sample in samples]
    low, high = stats.binom.interval(0.999, 3000, share)
    assert low <= sum(word in wrong for word in words) <= high


# Estimates


def test_each_estimate_has_the_p_of_its_test() -> None:
    generator = rng(2)
    arm, baseline = generator.normal(5, 1, 9), generator.normal(6, 1, 9)
    flips = float(
        stats.permutation_test(
            (arm - baseline,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", vectorized=True
        ).pvalue
    )
    found: list[tuple[Estimate, str, float]] = [
        (MeanDifference(arm - baseline), "sign-flip", flips),
        (RatioOfMeans(arm, baseline), "sign-flip", flips),
        (MedianDifference(arm - baseline), "signed-rank", float(stats.wilcoxon(arm - baseline).pvalue)),
        (RateDifference(arm > 5, baseline > 5), "McNemar", _binomial(arm > 5, baseline > 5)),
    ]
    for estimate, test, p in found:
        assert estimate.test == test
        assert estimate.p == pytest.approx(p)
        narrow, wide = estimate.interval(0.2), estimate.interval(0.01)
        assert (narrow.low or 0) > (wide.low or 0)


def _binomial(arm: Events, baseline: Events) -> float:
    only = sum(a and not b for a, b in zip(arm, baseline, strict=True))
    other = sum(b and not a for a, b in zip(arm, baseline, strict=True))
    return float(stats.binomtest(only, only + other).pvalue)


def test_a_ratio_is_fiellers_paired_or_not() -> None:
    generator = rng(4)
    baseline = generator.normal(10, 1, 14)
    arm = 0.7 * baseline + generator.normal(0, 1, 14)
    found = ratio_interval(arm, baseline, level=0.1)
    for end in (found.low, found.high):
        assert end is not None
        assert stats.ttest_1samp(arm - end * baseline, 0).pvalue == pytest.approx(0.1)
    apart = ratio_interval(arm, baseline[:9], paired=False)
    for end in (apart.low, apart.high):
        assert end is not None
        error = np.sqrt(arm.var(ddof=1) / 14 + end**2 * baseline[:9].var(ddof=1) / 9)
        t = (arm.mean() - end * baseline[:9].mean()) / error
        assert abs(t) == pytest.approx(stats.t.ppf(0.975, 8))
    assert ratio_interval(arm, np.array([0.1, 5, 0.2, 9, 0.1, 4, 0, 1, 0.2, 8, 0.3, 3, 0, 30.0])).low is None
    with pytest.raises(ValueError, match="a mean above 0"):
        ratio_interval(arm, -baseline)


@pytest.mark.parametrize(("only", "other", "n"), [(12, 0, 12), (0, 0, 12), (5, 1, 20), (3, 3, 30)])
def test_a_rate_difference_is_within_exact_intervals(only: int, other: int, n: int) -> None:
    arm = np.arange(n) < only
    baseline = (np.arange(n) >= only) & (np.arange(n) < only + other)
    found = rate_interval(arm, baseline)
    low, high = proportion_confint(only, n, alpha=0.025, method="beta")
    other_low, other_high = proportion_confint(other, n, alpha=0.025, method="beta")
    assert found.estimate == pytest.approx((only - other) / n)
    assert found.low == pytest.approx(low - other_high)
    assert found.high == pytest.approx(high - other_low)
    assert -1 <= (found.low or 0) < (found.high or 0) <= 1


# Robust estimates


@pytest.mark.parametrize("n", [6, 12, 30, 50, 80])
def test_hodges_lehmann_holds_what_the_signed_rank_test_does_not_reject(n: int) -> None:
    differences = rng(n).normal(0.3, 1, n)
    found = hodges_lehmann(differences)
    means = [(a + b) / 2 for i, a in enumerate(differences) for b in differences[i:]]
    assert found.estimate == pytest.approx(np.median(means))
    assert found.low is not None
    assert found.high is not None

    def p(shift: float) -> float:
        below, above = ((differences - shift) * sign for sign in (-1, 1))
        ranks = stats.rankdata(np.abs(above))
        smaller = int(min(ranks[below > 0].sum(), ranks[above > 0].sum()))
        if n <= 50:
            return float(stats.wilcoxon(above, method="exact").pvalue)
        # With many pairs: the normal distribution with a correction for continuity.
        sd = np.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return float(2 * stats.norm.cdf((smaller + 0.5 - n * (n + 1) / 4) / sd))

    for end, outside in ((found.low, -1e-9), (found.high, 1e-9)):
        assert p(end + outside) <= 0.05 < p(end - outside)


def test_many_pairs_give_the_same_without_a_list_of_all_means(monkeypatch: pytest.MonkeyPatch) -> None:
    for differences in (rng(1).normal(0.3, 1, 300), np.round(rng(2).normal(0, 1, 300), 1), np.full(20, 1e-300)):
        listed = hodges_lehmann(differences)
        with monkeypatch.context() as patch:
            patch.setattr("runner.analysis.stats.robust.LISTED", 0)
            found = hodges_lehmann(differences)
        for name in ("estimate", "low", "high"):
            assert getattr(found, name) == pytest.approx(getattr(listed, name), rel=1e-12, abs=1e-15)


def test_five_pairs_have_no_signed_rank_interval() -> None:
    assert hodges_lehmann(np.arange(5.0)).low is None
    assert hodges_lehmann(np.arange(6.0)).low == 0


@pytest.mark.parametrize("n", [3, 5, 10, 31])
def test_the_trimmed_mean_is_scipys(n: int) -> None:
    differences = rng(n).standard_t(2, n)
    found = trimmed_mean(differences)
    assert found.estimate == pytest.approx(stats.trim_mean(differences, 0.2))
    for end in (found.low, found.high):
        assert end is not None
        # Yuen's test of two samples, where the second has a spread that is far too small to matter.
        other = end + 1e-9 * rng(1).normal(0, 1, 10_000)
        test = stats.ttest_ind(differences, other - other.mean() + end, equal_var=False, trim=0.2)
        assert test.pvalue == pytest.approx(0.05, abs=1e-6)


def test_a_collapse_is_far_from_the_bulk_on_the_bad_side() -> None:
    values = np.array([0.97, 0.98, 0.97, 0.11, 0.96, 0.98])
    assert collapsed(values, better=1).tolist() == [False, False, False, True, False, False]
    assert not collapsed(values, better=-1).any()
    assert not collapsed(rng().normal(0, 1, 10_000), better=1).any()
    assert not collapsed(np.array([1.0, 1.0, 1.0, 0.0]), better=1).any()  # no spread to judge by


def test_a_mixture_with_rare_collapses_is_no_verdict_about_the_mean() -> None:
    """The pairs gain .3, but 10% of them lose 2.7: the mean is 0."""
    generator = rng(11)
    words = []
    for _ in range(100):
        fallen = generator.random(12) < 0.1
        arm = 50 + generator.normal(0.3, 0.05, 12) - 3.0 * fallen
        baseline = np.full(12, 50.0) + generator.normal(0, 0.01, 12)
        found = robust(arm, baseline, 1)
        word = judge(MeanDifference(arm - baseline), found, 0.1, better=1)
        assert (found.collapsed.estimate > 0) == fallen.any()
        words.append((bool(fallen.any()), word))
    # Where a collapse is among the pairs, the mean and the bulk disagree, and nothing is said about the mean.
    assert {word for fallen, word in words if fallen} == {"WITHHELD"}
    assert {word for fallen, word in words if not fallen} == {"SUPERIOR"}


def test_normal_differences_keep_their_verdict() -> None:
    samples = rng(5).normal(0.2, 0.3, (500, 12))
    found = [judge(MeanDifference(sample), robust(sample, np.zeros(12), 1), 0.2, better=1) for sample in samples]
    assert found.count("WITHHELD") == 0


# Power and seeds


def test_power_is_that_of_statsmodels() -> None:
    for effect in (0, 0.1, 0.5, 1, 3):
        for n in (2, 6, 20, 300):
            for alpha in (0.05, 0.025, 0.0025):
                expected = TTestPower().power(effect, n, alpha, alternative="larger")
                assert power(effect, n, alpha) == pytest.approx(expected, abs=1e-9)
    assert [power(effect, 100_000, 0.0001) for effect in (1.0, 30.0, 1e6)] == [1, 1, 1]
    for effect, n in ((-1.0, 10), (float("nan"), 10), (1.0, 1)):
        with pytest.raises(ValueError, match="needs an effect"):
            power(effect, n, 0.05)


def test_as_many_seeds_as_are_needed_decide_four_times_in_five() -> None:
    pilot = spaced(0.2, 0.25, 8)
    needed = seeds_needed(pilot, 0.05).seeds
    assert needed is not None
    samples = rng(9).normal(0.2, 0.25, (1000, needed))
    words = [decide(MeanDifference(sample), 0.05, better=1) for sample in samples]
    assert 0.75 < sum(word != "UNDECIDED" for word in words) / 1000 < 0.87


def test_the_number_needed_is_that_of_the_nearest_verdict() -> None:
    # A large effect with a small smallest effect: the pairs that can reject at all, not hundreds.
    assert seeds_needed(np.array([-20, -33, -31, -22.0]), 0.2, tests=10) == Needed(9, 9, 9)
    # No effect: the pairs that show equivalence.
    flat = seeds_needed(spaced(0.0, 1.0, 12), 0.5)
    assert flat.seeds is not None
    both = 2 * TTestPower().power(0.5, flat.seeds, 0.05, alternative="larger") - 1
    before = 2 * TTestPower().power(0.5, flat.seeds - 1, 0.05, alternative="larger") - 1
    assert before < 0.8 <= both
    assert flat.low is not None
    assert flat.high is not None
    assert flat.low < flat.seeds < flat.high
    assert seeds_needed(spaced(1e-9, 1.0, 12), 1e-6) == Needed(None, None, None)
    assert seeds_needed(np.full(4, 0.3), 0.1) == Needed(6, 6, 6)


@pytest.mark.parametrize("mean", [0.35, 0.6])
def test_a_claim_of_equivalence_is_decided_by_so_many_seeds(mean: float) -> None:
    """0.35 is within 0.5, and a direction alone decides nothing; 0.6 is beyond 0.5, and that decides."""
    needed = seeds_needed(spaced(mean, 0.2, 30), 0.5, equivalence=True).seeds
    assert needed is not None
    samples = np.random.default_rng(0).normal(mean, 0.2, (4000, needed))
    half = stats.t.ppf(0.95 if mean < 0.5 else 0.975, needed - 1) * samples.std(axis=1, ddof=1) / needed**0.5
    low, high = samples.mean(axis=1) - half, samples.mean(axis=1) + half
    decided = (high < 0.5) & (low > -0.5) if mean < 0.5 else low > 0.5
    assert 0.78 < decided.mean() < 0.86
