"""p, effects, verdicts and divergence of a comparison's rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from runner.analysis.comparison import compare
from runner.analysis.records import ArmRow, Difference
from runner.analysis.stats.verdicts import Verdict, seeds_needed
from runner.errors import UserError
from runner.reporting.sentences import sentences
from runner.reporting.tables import render
from runner.storage.results import Results
from tests.analysis.planned import NAN, Planned, by_arm, difference, interval, one_epoch, sweep

# p, effects, verdicts


def judged(row: ArmRow) -> Verdict:
    found = difference(row).verdict
    assert found is not None
    return found


def test_p_is_the_sign_flip_tests_and_adjusted_over_the_rows() -> None:
    generator = np.random.default_rng(2)
    arms = {arm: generator.normal(0.9 + shift, 0.01, 8) for arm, shift in (("none", 0), ("bn", 0.02), ("ln", 0.004))}
    rows = by_arm(compare([sweep(one_epoch({arm: values.tolist() for arm, values in arms.items()}))]))
    p = [
        stats.permutation_test(
            (arms[arm] - arms["none"],), lambda x, axis: x.mean(axis=axis), permutation_type="samples", vectorized=True
        ).pvalue
        for arm in ("bn", "ln")
    ]
    assert p[0] < p[1] < 1
    assert [difference(rows[arm]).p for arm in ("bn", "ln")] == pytest.approx(p)
    assert [difference(rows[arm]).p_adjusted for arm in ("bn", "ln")] == pytest.approx([min(2 * p[0], p[1]), p[1]])
    values = arms["bn"] - arms["none"]
    assert difference(rows["bn"]).dz == pytest.approx(values.mean() / values.std(ddof=1))
    assert difference(rows["bn"]).improvement == np.mean(values > 0)


def test_a_smallest_effect_brings_bonferroni_and_verdicts() -> None:
    arms = {
        "none": [0.5] * 8,
        "superior": [0.52, 0.53] * 4,
        "better": [0.506, 0.507, 0.506, 0.502] * 2,
        "inferior": [0.48, 0.47] * 4,
        "same": [0.5, 0.501] * 4,
        "who knows": [0.46, 0.55] * 4,
    }
    comparison = compare([replace(sweep(one_epoch(arms)), smallest_effect=0.005)])
    rows = by_arm(comparison)
    assert [judged(rows[arm]) for arm in list(arms)[1:]] == [
        *("SUPERIOR", "BETTER", "INFERIOR", "EQUIVALENT", "UNDECIDED"),
    ]
    needed = difference(rows["who knows"]).needed
    assert needed == seeds_needed(np.array([-0.04, 0.05] * 4), 0.005, tests=5)
    # Bonferroni: each p counts for five rows.
    assert difference(rows["better"]).p == 2 / 2**8
    assert difference(rows["better"]).p_adjusted == pytest.approx(5 * 2 / 2**8)
    values = np.array(arms["better"]) - 0.5
    expected = stats.ttest_1samp(values, 0).confidence_interval(1 - 0.05 / 5)
    together = difference(rows["better"]).simultaneous
    assert together
    assert (together.low, together.high) == pytest.approx((expected.low, expected.high))
    record = comparison.records[5]
    assert (record["verdict"], record["p_adjustment"], record["test"]) == ("UNDECIDED", "Bonferroni", "sign-flip")
    assert needed
    assert record["seeds_needed"] == needed.seeds
    assert "verdict" not in compare([sweep(one_epoch(arms))]).records[1]


def test_a_collapse_withholds_the_means_verdict_and_both_parts_are_shown() -> None:
    """Two of twelve runs without batch norm collapse: the mean says nothing, though ten pairs agree."""
    generator = np.random.default_rng(1)
    none, bn = (generator.normal(mean, 0.001, 12) for mean in (0.97, 0.98))
    none[[3, 8]] = 0.2
    comparison = compare([replace(sweep(one_epoch({"none": none.tolist(), "bn": bn.tolist()})), smallest_effect=0.002)])
    assert judged(by_arm(comparison)["bn"]) == "WITHHELD"
    text = " ".join(render(comparison, "md").split())
    kept = np.delete(bn - none, [3, 8])
    ends = stats.ttest_1samp(kept, 0).confidence_interval()
    assert "bn: a few extreme pairs move the mean; the mean's verdict is withheld. Mean +13.8" in text
    assert "collapsed runs: bn 0% [0, 24], none 17% [5, 45]; p 0.500 (McNemar, exact)." in text
    shown = f"{100 * kept.mean():+.2f} [{100 * ends.low:+.2f}, {100 * ends.high:+.2f}] pp"
    assert f"Mean of the pairs without a collapsed run: {shown}." in text


def test_an_interaction_is_a_contrast_of_contrasts_of_each_seed() -> None:
    generator = np.random.default_rng(6)
    luck = generator.normal(0, 0.05, 8)
    accuracies = {
        (lr, arm): 0.5 + luck + gain + generator.normal(0, 0.001, 8)
        for lr, arm, gain in ((0.1, "none", 0), (0.1, "bn", 0.01), (1.0, "none", -0.2), (1.0, "bn", 0.0))
    }
    runs = [run for (lr, arm), values in accuracies.items() for run in one_epoch({arm: values.tolist()}, lr=lr)]
    comparison = compare([replace(sweep(runs), smallest_effect=0.005)], interaction="lr")
    (row,) = comparison.rows
    values = (accuracies[1.0, "bn"] - accuracies[1.0, "none"]) - (accuracies[0.1, "bn"] - accuracies[0.1, "none"])
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert (row.arm, row.cell, row.n) == ("bn", {"lr": 1.0}, 8)
    assert interval(row) == (pytest.approx(values.mean()), pytest.approx(expected.low), pytest.approx(expected.high))
    assert difference(row).p == 2 / 2**8
    assert difference(row).verdict is None
    record = comparison.records[0]
    assert (record["interaction"], record["reference"], record["mean"]) == ("lr", 0.1, None)
    text = render(comparison, "md")
    assert "difference of each network to the baseline none, minus that at lr 0.1, with its 95% interval" in text
    assert "No best lr" not in text
    for parameter, message in (("lrr", "unknown parameter 'lrr'"), ("network", "unknown parameter 'network'")):
        with pytest.raises(UserError, match=message):
            compare([sweep(runs)], interaction=parameter)
    with pytest.raises(UserError, match="only the arm and the seed differ here"):
        compare([sweep(one_epoch({"none": [0.5], "bn": [0.5]}))], interaction="lr")
    with pytest.raises(UserError, match="needs a contrast"):
        compare([sweep(runs, axis=None, baseline=None)], interaction="lr")


def test_pairs_that_are_exactly_equal_are_named() -> None:
    runs = one_epoch({"none": [0.5, 0.6, 0.7], "same": [0.5, 0.6, 0.7], "bn": [0.6, 0.6, 0.7]})
    text = render(compare([sweep(runs)]), "md")
    assert "same: every pair is exactly equal, so the two arms may compute the same." in text
    assert "bn: every pair" not in text


def test_a_smallest_effect_is_one_of_accuracy() -> None:
    result = replace(sweep(one_epoch({"none": [0.5] * 6, "bn": [0.7] * 6})), smallest_effect=0.005)
    assert judged(by_arm(compare([result]))["bn"]) == "SUPERIOR"
    comparison = compare([result], metric="valid_loss")
    assert comparison.smallest_effect is None
    assert difference(by_arm(comparison)["bn"]).verdict is None
    # Less loss is an improvement.
    assert difference(by_arm(comparison)["bn"]).improvement == 1


def test_results_with_other_smallest_effects_are_not_one_table() -> None:
    one = sweep(one_epoch({"none": [0.5], "bn": [0.5]}), name="a")
    other = replace(one, name="b", smallest_effect=0.002)
    with pytest.raises(UserError, match=r"network against none; .*network against none, smallest effect 0\.002"):
        compare([one, other])


def test_one_pair_has_no_p_and_no_verdict_to_speak_of() -> None:
    result = replace(sweep(one_epoch({"none": [0.5], "bn": [0.75]})), smallest_effect=0.005)
    found = difference(by_arm(compare([result]))["bn"])
    assert (found.p, found.p_adjusted, found.dz, found.improvement) == (None, None, None, 1)
    assert (found.verdict, found.needed) == ("UNDECIDED", None)


def test_no_spread_has_a_p_and_a_verdict() -> None:
    result = replace(sweep(one_epoch({"none": [0.5] * 6, "bn": [0.75] * 6, "same": [0.5] * 6})), smallest_effect=0.005)
    rows = by_arm(compare([result]))
    assert (difference(rows["bn"]).p, difference(rows["bn"]).dz) == (2 / 2**6, None)
    assert judged(rows["bn"]) == "UNDECIDED"  # .03125 times two rows
    # An interval without width, of too few pairs to reject, shows nothing.
    assert (difference(rows["same"]).p, judged(rows["same"])) == (1, "UNDECIDED")
    more = replace(sweep(one_epoch({"none": [0.5] * 7, "bn": [0.75] * 7, "same": [0.5] * 7})), smallest_effect=0.005)
    assert [judged(row) for row in compare([more]).rows if row.difference] == ["SUPERIOR", "EQUIVALENT"]


def test_rounding_does_not_decide_at_the_smallest_effect() -> None:
    """Six pairs that are all 5 of 1,000 images better, at any level: the same word."""
    words = set()
    for level in range(100, 990, 31):
        arms = {"none": [level / 1000] * 6, "bn": [(level + 5) / 1000] * 6}
        words.add(judged(by_arm(compare([replace(sweep(one_epoch(arms)), smallest_effect=0.005)]))["bn"]))
    assert words == {"BETTER"}


def test_pairs_that_share_a_streams_seed_have_no_interval_and_no_p() -> None:
    runs = [
        Planned({"network": arm, "seed_weights": weights, "seed_batches": batches}, [0.5 + gain + weights / 10])
        for arm, gain in (("none", 0), ("bn", 0.1))
        for weights in (0, 1)
        for batches in range(6)
    ]
    result = replace(sweep(runs), smallest_effect=0.005)
    comparison = compare([result])
    found = difference(by_arm(comparison)["bn"])
    assert (found.pairs, found.p, found.verdict) == (12, None, None)
    assert interval(by_arm(comparison)["bn"]) == (pytest.approx(0.1), None, None)
    assert "so there is no interval, no p and no verdict" in render(comparison, "md")


def test_a_seed_that_lacks_a_run_is_left_out_of_a_pooled_row() -> None:
    """At lr 0.01 six of eight baseline runs failed: a mean over what is left would compare other learning rates."""
    gains = {0.1: 0.04, 0.01: -0.04}
    runs = [run for lr, gain in gains.items() for run in one_epoch({"none": [0.9] * 8, "bn": [0.9 + gain] * 8}, lr=lr)]
    failed = [
        r.parameters["lr"] == 0.01 and r.parameters["network"] == "none" and r.parameters["seed"] > 1 for r in runs
    ]
    runs = [replace(run, status="failed") if fails else run for run, fails in zip(runs, failed, strict=True)]
    comparison = compare([sweep(runs)], group_by=[])
    assert "bn: 2 of 8 seeds count; the others lack runs that are averaged here." in render(comparison, "md")
    rows = by_arm(comparison)
    assert (rows["none"].n, rows["bn"].n, difference(rows["bn"]).pairs) == (2, 8, 2)
    assert interval(rows["bn"])[0] == pytest.approx(0)


@pytest.mark.parametrize(("arms", "seeds"), [(2, 6), (11, 9)])
def test_with_too_few_seeds_the_headline_says_how_many_to_run(arms: int, seeds: int) -> None:
    """A row of −26 pp with four seeds is not "no difference": four seeds can never reach p < .05."""
    names = ["none", *(f"arm{n}" for n in range(arms - 1))]
    values = {name: [0.9 - 0.26 * (name != "none") + seed / 100 for seed in range(4)] for name in names}
    comparison = compare([replace(sweep(one_epoch(values)), smallest_effect=0.005)])
    headline = sentences(comparison)[0]
    assert headline.startswith(
        f"Too few seeds to compare arm0 with none (4 seeds cannot reach p < .05 here; run {seeds}): validation "
        "accuracy -26.00"
    )
    assert f"4 seeds cannot reach p < .05 here; run {seeds}." in render(comparison, "table")
    # Without verdicts, p of all rows may be adjusted by 1.
    assert "run 6." in render(compare([sweep(one_epoch(values))]), "table")
    # The observed difference is large, so the fewest pairs that can reject would do.
    found = [row.difference.needed for row in comparison.rows if row.difference]
    assert {needed.seeds for needed in found if needed} == {seeds}


def test_what_is_not_paired_has_welchs_p_and_no_verdict() -> None:
    a, b = [0.9, 0.92, 0.95], [0.8, 0.9, 0.81]
    runs = one_epoch({"none": b, "bn": a})
    runs[5] = replace(runs[5], weights="other")
    found = difference(by_arm(compare([replace(sweep(runs), smallest_effect=0.005)]))["bn"])
    assert found.p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert (found.dz, found.improvement, found.verdict) == (None, None, None)


def test_p_does_not_depend_on_what_else_is_in_the_table() -> None:
    generator = np.random.default_rng(4)
    values = {arm: generator.normal(0.9, 0.01, 40).tolist() for arm in ("none", "other", "bn")}
    alone = compare([sweep(one_epoch({arm: values[arm] for arm in ("none", "bn")}))])
    assert difference(by_arm(alone)["bn"]).p == difference(by_arm(compare([sweep(one_epoch(values))]))["bn"]).p


# Divergence


def diverging(none: str, bn: str) -> Results:
    """A run per letter: d diverged, o ok, f failed."""
    statuses = {"d": "diverged", "o": "ok", "f": "failed"}
    runs = [
        Planned({"network": arm, "seed": seed}, [NAN if letter == "d" else 0.5], statuses[letter])
        for arm, letters in (("none", none), ("bn", bn))
        for seed, letter in enumerate(letters)
    ]
    return sweep(runs)


def test_divergence_has_wilsons_interval_and_mcnemars_p() -> None:
    comparison = compare([diverging("dddddodf", "ooooodoo")])
    none, bn = by_arm(comparison).values()
    assert none.divergence is not None
    assert bn.divergence is not None
    expected = stats.binomtest(6, 7).proportion_ci(method="wilson")  # the failed run tells nothing
    share = none.divergence.share
    assert share.estimate == pytest.approx(6 / 7)
    assert share.low == pytest.approx(expected.low)
    assert share.high == pytest.approx(expected.high)
    assert none.divergence.p is None
    # Pairs that disagree: five and a sixth one way, one the other.
    assert bn.divergence.p == pytest.approx(stats.binomtest(1, 7).pvalue)
    assert comparison.records[1]["diverged_p"] == bn.divergence.p
    assert comparison.records[0]["diverged_share"] == share.estimate


def test_all_diverged_and_none_ended() -> None:
    rows = by_arm(compare([diverging("ddd", "ddd")]))
    assert rows["bn"].divergence is not None
    assert (rows["bn"].divergence.share.estimate, rows["bn"].divergence.p) == (1, 1)
    assert rows["bn"].difference == Difference(0, 0, 0, None)
    rows = by_arm(compare([diverging("fff", "ooo")]))
    assert rows["none"].divergence is None
    assert rows["bn"].divergence is not None
    assert (rows["bn"].divergence.share.estimate, rows["bn"].divergence.p) == (0, None)


def test_unproven_pairs_have_no_mcnemar() -> None:
    runs = [Planned({"network": arm, "seed": 0}, [0.5], weights=arm) for arm in ("none", "bn")]
    found = by_arm(compare([sweep(runs)]))["bn"].divergence
    assert found is not None
    assert found.p is None
