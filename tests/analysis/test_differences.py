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
from runner.storage.results import Results
from tests.analysis.planned import NAN, Planned, by_arm, difference, one_epoch, sweep

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


def test_a_smallest_effect_fixed_beforehand_brings_holm_and_verdicts() -> None:
    arms = {
        "none": [0.5] * 8,
        "better": [0.52, 0.53] * 4,
        "worse": [0.48, 0.47] * 4,
        "same": [0.5, 0.501] * 4,
        "who knows": [0.46, 0.55] * 4,
    }
    comparison = compare([replace(sweep(one_epoch(arms)), smallest_effect=0.005)])
    rows = by_arm(comparison)
    assert [judged(rows[arm]).word for arm in list(arms)[1:]] == ["SUPPORTED", "REFUTED", "EQUIVALENT", "INCONCLUSIVE"]
    assert judged(rows["who knows"]).seeds == seeds_needed(0.005, float(np.std([-0.04, 0.05] * 4, ddof=1)))
    # Holm: the two of 2/2^8 count for four; the others' are theirs times two, and no less than that.
    assert difference(rows["better"]).p == 2 / 2**8
    assert difference(rows["better"]).p_adjusted == pytest.approx(4 * 2 / 2**8)
    record = comparison.records[4]
    assert (record["verdict"], record["p_adjustment"]) == ("INCONCLUSIVE", "Holm")
    assert record["seeds_needed"] == judged(rows["who knows"]).seeds
    assert "verdict" not in compare([sweep(one_epoch(arms))]).records[1]


def test_a_smallest_effect_is_one_of_accuracy() -> None:
    result = replace(sweep(one_epoch({"none": [0.5] * 6, "bn": [0.7] * 6})), smallest_effect=0.005)
    assert judged(by_arm(compare([result]))["bn"]).word == "SUPPORTED"
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
    assert found.verdict == Verdict("INCONCLUSIVE")


def test_no_spread_has_a_p_and_a_verdict() -> None:
    result = replace(sweep(one_epoch({"none": [0.5] * 6, "bn": [0.75] * 6, "same": [0.5] * 6})), smallest_effect=0.005)
    rows = by_arm(compare([result]))
    assert (difference(rows["bn"]).p, difference(rows["bn"]).dz) == (2 / 2**6, None)
    assert judged(rows["bn"]).word == "INCONCLUSIVE"  # Holm: .0625
    assert (difference(rows["same"]).p, judged(rows["same"]).word) == (1, "EQUIVALENT")


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
