"""Steps and seconds to a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from runner.analysis.comparison import compare
from runner.analysis.records import ArmRow
from runner.errors import UserError
from runner.reporting.tables import render
from tests.analysis.planned import NAN, Planned, by_arm, one_epoch, sweep

# Steps and seconds to a target


def to_target(curves: Mapping[str, Sequence[Planned]], target: float, **changes: Any) -> dict[object, ArmRow]:
    return by_arm(compare([sweep([run for runs in curves.values() for run in runs])], target=target, **changes))


def curve(arm: str, seed: int, accuracy: Sequence[float], status: str = "ok") -> Planned:
    return Planned({"network": arm, "seed": seed}, accuracy, status)


CURVES = {
    "none": [curve("none", 0, [0.1, 0.5, 0.6, 0.9]), curve("none", 1, [0.1, 0.2, 0.3, 0.4])],
    "bn": [curve("bn", 0, [0.6, 0.1, 0.6, 0.9]), curve("bn", 1, [NAN, 0.6, 0.5, 0.5])],
}


def test_steps_to_a_target_by_hand() -> None:
    # 60 steps and half a second an epoch: none 120 and never (240), bn 60 and 120.
    rows = to_target(CURVES, 0.5)
    none, bn = rows["none"].to_target, rows["bn"].to_target
    assert none is not None
    assert none.steps is not None
    assert bn is not None
    assert bn.steps is not None
    assert bn.seconds is not None
    assert (none.n, none.reached, none.steps.mean, none.steps.ratio) == (2, 1, 180, None)
    assert (bn.n, bn.reached, bn.steps.mean, bn.seconds.mean) == (2, 2, 90, 0.75)
    assert bn.steps.difference is not None
    assert bn.steps.ratio is not None
    expected = stats.ttest_1samp([-60, -120], 0).confidence_interval()
    assert bn.steps.difference.estimate == -90
    assert bn.steps.difference.low == pytest.approx(expected.low)
    assert bn.steps.ratio.estimate == pytest.approx(0.5)
    assert bn.steps.ratio.high is None  # Two pairs do not exclude that the baseline's mean is 0.
    # One run of the baseline never got there, so the true ratio may be smaller.
    assert (bn.steps.bound, bn.seconds.bound) == ("at most", "at most")
    record = compare([sweep([*CURVES["none"], *CURVES["bn"]])], target=0.5).records[1]
    assert (record["target"], record["reached"], record["followed"]) == (0.5, 2, 2)
    assert (record["steps_to_target"], record["steps_difference"]) == (90, -90)
    assert record["seconds_ratio"] == pytest.approx(0.5)
    assert "reached" not in compare([sweep([*CURVES["none"], *CURVES["bn"]])]).records[1]


def test_a_loss_is_reached_from_above() -> None:
    rows = to_target(CURVES, 0.5, metric="valid_loss")  # the loss is 1 − the accuracy
    assert rows["none"].to_target == to_target(CURVES, 0.5)["none"].to_target


def test_the_horizon_is_what_every_ok_run_of_the_cell_got_to() -> None:
    shorter = {"none": CURVES["none"], "bn": [replace(run, accuracy=run.accuracy[:2]) for run in CURVES["bn"]]}
    rows = to_target(shorter, 0.9)
    assert [row.to_target and row.to_target.reached for row in rows.values()] == [0, 0]
    assert [row.to_target and row.to_target.steps for row in rows.values()] == [None, None]  # equal times: no finding
    one_there = {**shorter, "bn": [curve("bn", 0, [0.1, 0.95]), *shorter["bn"][1:]]}
    assert [row.to_target and row.to_target.reached for row in to_target(one_there, 0.9).values()] == [0, 1]
    found = to_target(one_there, 0.9)["none"].to_target
    assert found is not None
    assert found.steps is not None
    assert found.steps.mean == 120


def test_a_diverged_run_never_reached_and_a_failed_one_does_not_count() -> None:
    curves = {
        "none": CURVES["none"],
        "bn": [curve("bn", 0, [0.9, NAN], "diverged"), curve("bn", 1, [0.9], "failed"), curve("bn", 2, [0.9] * 4)],
    }
    found = to_target(curves, 0.5)["bn"].to_target
    assert found is not None
    assert found.steps is not None
    assert (found.n, found.reached, found.steps.mean) == (2, 1, (240 + 60) / 2)


@pytest.mark.parametrize(
    ("none", "bn", "bound", "cell"),
    [
        ([0.1, 0.1, 0.9], [0.1, 0.9, 0.9], "exact", "0.67"),
        ([0.1, 0.1, 0.1], [0.1, 0.9, 0.9], "at most", "≤ 0.67"),
        ([0.1, 0.9, 0.9], [0.1, 0.1, 0.1], "at least", "≥ 1.50"),
    ],
)
def test_a_ratio_with_runs_that_never_arrive_is_a_bound(
    none: list[float], bn: list[float], bound: str, cell: str
) -> None:
    """An arm whose baseline never reaches the target is faster by an unknown factor: not by 1.00 [1.00, 1.00]."""
    runs = [curve(arm, seed, values) for arm, values in (("none", none), ("bn", bn)) for seed in range(3)]
    comparison = compare([sweep(runs)], target=0.5)
    assert comparison.records[1]["steps_ratio_is"] == bound
    text = render(comparison, "md")
    ratio = next(line for line in text.splitlines() if line.startswith("| bn") and "/3 |" in line)
    assert f"| {cell}" in ratio
    assert ("runs of the baseline did not reach the target" in text) == (bound == "at most")


def test_where_runs_of_both_arms_never_arrive_nothing_is_known_of_the_ratio() -> None:
    runs = [
        *(curve("none", seed, [0.1, 0.9 if seed else 0.1]) for seed in range(3)),
        *(curve("bn", seed, [0.9 if seed < 2 else 0.1] * 2) for seed in range(3)),
    ]
    comparison = compare([sweep(runs)], target=0.5)
    assert comparison.records[1]["steps_ratio_is"] == "unknown"
    text = render(comparison, "md")
    assert "–: runs of both did not reach the target" in text
    assert "| bn | 2/3 | 80 | – |" in text


def test_the_same_runs_have_the_same_seconds_in_every_row() -> None:
    """At its own best lr an arm stands in one cell with other runs. Its seconds are those of its own row."""
    slow = [(lr, arm, seed) for lr in (0.1, 0.2) for arm in ("none", "bn") for seed in (0, 1)]
    runs = [Planned({"lr": lr, "network": arm, "seed": seed}, [0.2, 0.3 + lr]) for lr, arm, seed in slow]
    result = sweep([*runs[:6], *(replace(run, accuracy=[0.2, 0.9]) for run in runs[6:])])
    longer = result.metrics["run"] <= 2
    result.metrics.loc[longer, "run_duration"] *= 7
    rows = compare([result], target=0.8).rows
    means = [row.to_target.seconds.mean for row in rows if row.to_target and row.to_target.seconds]
    assert means == [1.0, 1.0, 1.0, 1.0]  # At lr 0.1 nobody arrives.


def test_the_ratio_is_fiellers() -> None:
    """The ends r of Fieller's interval are where a t test of arm − r · baseline is at 5%."""
    none, bn = [3, 4, 5, 4], [2, 2, 3, 3]
    runs = [
        curve(arm, seed, [0.0] * (epoch - 1) + [0.9] * (6 - epoch))
        for arm, epochs in (("none", none), ("bn", bn))
        for seed, epoch in enumerate(epochs)
    ]
    found = by_arm(compare([sweep(runs)], target=0.5))["bn"].to_target
    assert found
    assert found.steps
    assert found.steps.ratio
    assert found.steps.ratio.estimate == pytest.approx(10 / 16)
    for end in (found.steps.ratio.low, found.steps.ratio.high):
        assert end is not None
        assert stats.ttest_1samp(np.array(bn) - end * np.array(none), 0).pvalue == pytest.approx(0.05)


def test_no_run_that_ended_well_leaves_no_horizon() -> None:
    diverged = {arm: [replace(run, status="diverged") for run in runs] for arm, runs in CURVES.items()}
    for row in to_target(diverged, 0.5).values():
        assert row.to_target is not None
        assert (row.to_target.n, row.to_target.steps) == (0, None)


def test_times_of_what_is_not_paired_are_welchs() -> None:
    curves = {"none": CURVES["none"], "bn": [replace(run, weights="other") for run in CURVES["bn"]]}
    found = to_target(curves, 0.5)["bn"].to_target
    assert found is not None
    assert found.steps is not None
    assert found.steps.difference is not None
    expected = stats.ttest_ind([60, 120], [120, 240], equal_var=False).confidence_interval()
    assert found.steps.difference.low == pytest.approx(expected.low)


@pytest.mark.parametrize("target", [0.0, -1.0, 90.0, NAN, float("inf")])
def test_an_accuracy_of_no_meaning_is_no_target(target: float) -> None:
    with pytest.raises(UserError, match=r"is not a valid_accuracy; allowed: a fraction above 0, such as 0\.9"):
        to_target(CURVES, target)
    if not np.isfinite(target):
        with pytest.raises(UserError, match="allowed: a finite number"):
            to_target(CURVES, target, metric="valid_loss")


def test_the_test_set_has_no_time_to_a_target() -> None:
    runs = [replace(run, test_accuracy=0.5) for run in one_epoch({"none": [0.5], "bn": [0.5]})]
    with pytest.raises(UserError, match="no time to a target"):
        compare([sweep(runs)], metric="test_accuracy", target=0.5)
