"""Each arm at its own best learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from runner.analysis.best_lr import best_lr
from runner.analysis.claims.convergence import best_lrs
from runner.analysis.comparison import compare
from runner.analysis.records import ArmRow
from runner.reporting.notes import notes
from tests.analysis.planned import NAN, Planned, by_arm, difference, interval, one_epoch, sweep

# Each arm at its own best learning rate


def tuned(accuracy: Mapping[tuple[float, str], Sequence[float]], **changes: Any) -> list[ArmRow]:
    """The own-best rows of a sweep of these accuracies: (lr, arm) → one a seed."""
    runs = [run for (lr, arm), values in accuracy.items() for run in one_epoch({arm: values}, lr=lr, **changes)]
    return [row for row in compare([sweep(runs)]).rows if row.own_best_lr]


GRID = {
    **{(0.01, "none"): [0.5, 0.6], (0.1, "none"): [0.7, 0.8], (1.0, "none"): [0.2, 0.3]},
    **{(0.01, "bn"): [0.5, 0.5], (0.1, "bn"): [0.6, 0.6], (1.0, "bn"): [0.9, 0.7]},
}


def test_half_of_the_seeds_choose_each_arms_lr_and_the_others_are_compared() -> None:
    grid = {key: [*values, *(value - 0.05 * n for n, value in enumerate(values))] for key, values in GRID.items()}
    none, bn = tuned(grid)
    assert (none.arm, none.cell, none.own_best_lr, none.n) == ("none", {"lr": 0.1}, "inner", 2)
    assert (bn.arm, bn.cell, bn.own_best_lr, bn.n) == ("bn", {"lr": 1.0}, "edge", 2)
    assert [none.mean, bn.mean] == pytest.approx([(0.7 + 0.75) / 2, (0.9 + 0.65) / 2])
    assert none.difference is None
    assert (difference(bn).pairs, difference(bn).paired) == (2, True)
    expected = stats.ttest_1samp([0.2, -0.1], 0).confidence_interval()
    assert interval(bn) == (pytest.approx(0.05), pytest.approx(expected.low), pytest.approx(expected.high))


def test_the_only_seed_chooses_and_is_compared_and_the_table_says_so() -> None:
    runs = [run for (lr, arm), values in GRID.items() for run in one_epoch({arm: values[:1]}, lr=lr)]
    comparison = compare([sweep(runs)])
    best = [row for row in comparison.rows if row.own_best_lr]
    assert [(row.arm, row.cell["lr"], row.n) for row in best] == [("none", 0.1, 1), ("bn", 1.0, 1)]
    assert any(
        "The only seed chose it and is compared, so these rows look too good." in note for note in notes(comparison)
    )


def test_own_best_rows_follow_those_at_the_same_lr_and_count_no_run_twice() -> None:
    runs = [run for (lr, arm), values in GRID.items() for run in one_epoch({arm: values}, lr=lr)]
    runs[1] = replace(runs[1], status="failed")
    comparison = compare([sweep(runs)])
    assert [row.own_best_lr for row in comparison.rows] == [None] * 6 + ["inner", "edge"]
    assert comparison.statuses["ok"] + comparison.statuses["failed"] == 12
    assert [record["own_best_lr"] for record in comparison.records][-2:] == ["inner", "edge"]
    assert sum(row.difference is not None and row.difference.p_adjusted is not None for row in comparison.rows) == 2


def test_a_failed_run_leaves_its_seed_out_at_every_lr_in_the_table_and_in_claims() -> None:
    """At lr 0.01 seed 0 of `none` has failed: lrs are compared on seed 1 alone, where 1.0 is best and not 0.1."""
    grid = {**GRID, (1.0, "none"): [0.2, 0.9]}
    runs = [run for (lr, arm), values in grid.items() for run in one_epoch({arm: [*values, 0.5, 0.5]}, lr=lr)]
    results = sweep([replace(runs[0], status="failed"), *runs[1:]])
    none, bn = [row for row in compare([results]).rows if row.own_best_lr]
    assert (none.cell["lr"], bn.cell["lr"]) == (1.0, 1.0)
    results = replace(results, runs=results.runs.assign(epochs=1, evaluations_per_epoch=1))
    edge = "1, the edge of the grid: a rate beyond it may be better"
    assert best_lrs(results, "bn", selection_seeds=(0, 1)) == (f"best lr of none: {edge}", f"best lr of bn: {edge}")


def test_without_a_complete_seed_of_the_baseline_the_table_says_why_there_is_no_best_lr() -> None:
    grid = {key: [*values, *values] for key, values in GRID.items()}
    runs = [run for (lr, arm), values in grid.items() for run in one_epoch({arm: values}, lr=lr)]
    runs[0], runs[5] = replace(runs[0], status="failed"), replace(runs[5], status="failed")
    comparison = compare([sweep(runs)])
    assert not any(row.own_best_lr for row in comparison.rows)
    expected = "No best lr: of the first half of the seeds, none has a valid_accuracy of none at every lr."
    assert expected in notes(comparison)


def test_an_lr_at_which_every_run_failed_does_not_count() -> None:
    found = best_lr(pd.Series([NAN, NAN, 0.7, 0.5]), pd.Series([1.0, 1.0, 0.1, 0.1]), pd.Series([0, 1, 0, 1]))
    assert found == 0.1
    assert best_lr(pd.Series([NAN]), pd.Series([1.0]), pd.Series([0])) is None


def test_the_best_lr_is_chosen_by_validation_whatever_is_compared() -> None:
    runs = [
        replace(run, test_accuracy=lr / 2)
        for (lr, arm), values in GRID.items()
        for run in one_epoch({arm: [*values, *values]}, lr=lr)
    ]
    for metric, expected in (("test_accuracy", [0.05, 0.5]), ("valid_loss", [0.25, 0.2])):
        rows = [row for row in compare([sweep(runs)], metric=metric).rows if row.own_best_lr]
        assert [row.cell["lr"] for row in rows] == [0.1, 1.0]
        assert [row.mean for row in rows] == pytest.approx(expected)


def test_each_other_cell_has_its_own_best_lr() -> None:
    flipped = {(lr, "bn" if arm == "none" else "none"): values for (lr, arm), values in GRID.items()}
    runs = [
        run
        for width, grid in ((8, GRID), (16, flipped))
        for (lr, arm), values in grid.items()
        for run in one_epoch({arm: values}, lr=lr, width=width)
    ]
    rows = [row for row in compare([sweep(runs)]).rows if row.own_best_lr]
    assert [(row.cell["width"], row.arm, row.cell["lr"]) for row in rows] == [
        *((8, "none", 0.1), (8, "bn", 1.0)),
        *((16, "none", 1.0), (16, "bn", 0.1)),
    ]
    assert [row.block for row in rows[:2]] != [row.block for row in rows[2:]]
    assert rows[0].block == rows[1].block


def test_a_lr_at_which_runs_diverged_without_a_number_is_not_best_by_its_survivors() -> None:
    grid = {key: [*values, 0.5, 0.5] for key, values in GRID.items()}
    runs = [run for (lr, arm), values in grid.items() for run in one_epoch({arm: values}, lr=lr)]
    lost = next(i for i, run in enumerate(runs) if run.parameters["lr"] == 1 and run.parameters["network"] == "bn") + 1
    runs[lost] = replace(runs[lost], accuracy=[NAN], status="diverged")  # .9 and nothing is .45, not .9
    rows = [row for row in compare([sweep(runs)]).rows if row.own_best_lr]
    assert [row.cell["lr"] for row in rows] == [0.1, 0.1]


def test_there_is_no_own_best_without_several_lrs_a_contrast_or_a_baseline_that_ran() -> None:
    assert not tuned({key: values for key, values in GRID.items() if key[0] == 0.1})
    runs = [run for (lr, arm), values in GRID.items() for run in one_epoch({arm: values}, lr=lr)]
    for comparison in (
        compare([sweep(runs, axis=None, baseline=None)]),
        compare([sweep(runs, axis="lr", baseline=0.1)]),
        compare([sweep(runs)], group_by=["seed"]),
        compare([sweep([replace(r, status="failed") if r.parameters["network"] == "none" else r for r in runs])]),
    ):
        assert not [row for row in comparison.rows if row.own_best_lr]
        assert "own_best_lr" not in comparison.records[0]


def test_each_arm_at_its_own_best_lr_has_a_time_too() -> None:
    runs = [
        Planned({"lr": lr, "network": arm, "seed": seed}, [0.2, 0.4 + lr if arm == "none" else 0.9 - lr])
        for lr in (0.1, 0.2)
        for arm in ("none", "bn")
        for seed in (0, 1)
    ]
    rows = [row for row in compare([sweep(runs)], target=0.7).rows if row.own_best_lr]
    assert [(row.arm, row.cell["lr"]) for row in rows] == [("none", 0.2), ("bn", 0.1)]
    assert [row.to_target and row.to_target.reached for row in rows] == [0, 1]


def test_the_constant_guess_of_a_ruined_network_is_nobodys_best() -> None:
    ruined = Planned({"network": "bn", "seed": 0}, [0.25, 0.9], "diverged")
    never = Planned({"network": "bn", "seed": 1}, [0.125], "diverged")
    base = [Planned({"network": "none", "seed": seed}, [0.5, 0.5]) for seed in (0, 1)]
    result = sweep([*base, ruined, never])
    result.metrics.loc[[5, 6], "train_loss"] = NAN  # the last epochs of both
    row = by_arm(compare([result], at="best"))["bn"]
    assert row.n == 2
    assert row.mean == (0.25 + 0.125) / 2  # the second one's last epoch: it stays in
