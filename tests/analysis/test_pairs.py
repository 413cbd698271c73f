"""Pairs, cells and the columns that make them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from runner.analysis.comparison import compare
from runner.analysis.records import Difference
from runner.errors import UserError
from tests.analysis.planned import NAN, Planned, by_arm, difference, interval, one_epoch, sweep

# Pairs


def test_other_seeds_are_no_pairs() -> None:
    runs = [
        *(Planned({"network": "none", "seed": seed}, [0.5]) for seed in (0, 1)),
        *(Planned({"network": "bn", "seed": seed}, [0.5]) for seed in (2, 3)),
    ]
    assert difference(by_arm(compare([sweep(runs)]))["bn"]) == Difference(0, 0, 0, None)


@pytest.mark.parametrize(
    ("weights", "batches", "status", "expected"),
    [
        ("w0", "s0e1 s0e2", "ok", (0, 0)),
        ("w0", "s0e1", "diverged", (0, 0)),  # fewer epochs, the same as far as they go
        ("w0", "", "diverged", (0, 0)),  # diverged in the first: nothing to differ in
        ("w1", "s0e1 s0e2", "ok", (1, 0)),
        ("w0", "s0e1 s0e3", "ok", (0, 1)),
        ("w0", "s0e2", "diverged", (0, 1)),
        ("w0", "s0e", "diverged", (0, 1)),  # a digest is compared whole
        ("w1", "s0e3 s0e2", "ok", (1, 1)),
        ("", "s0e1 s0e2", "ok", (1, 0)),  # no hash proves nothing
        ("w0", "", "ok", (0, 1)),
    ],
)
def test_pairs_are_proven_by_hash(weights: str, batches: str, status: str, expected: tuple[int, int]) -> None:
    for one, other in (("none", "bn"), ("bn", "none")):
        runs = [
            Planned({"network": one, "seed": 0}, [0.5, 0.6]),
            Planned({"network": other, "seed": 0}, [0.5, 0.6], status, weights=weights, batches=batches),
        ]
        found = difference(by_arm(compare([sweep(runs)]))["bn"])
        assert (found.weights_differ, found.batches_differ) == expected
        assert found.paired == (expected == (0, 0))


def test_rows_that_pool_two_versions_of_the_code_are_not_proven_pairs() -> None:
    """The plugin was edited between two learning rates: neither their mean nor their difference is of one network."""
    runs = [
        replace(run, code=code)
        for lr, code in ((0.1, "old"), (1.0, "new"))
        for run in one_epoch({"none": [0.5, 0.6, 0.7], "bn": [0.6, 0.6, 0.8]}, lr=lr)
    ]
    assert [difference(row).paired for row in compare([sweep(runs)]).rows if row.difference][:2] == [True, True]
    choices: tuple[dict[str, Any], ...] = ({"group_by": []}, {"interaction": "lr"})
    for options in choices:
        (row,) = [row for row in compare([sweep(runs)], **options).rows if row.difference]
        assert (difference(row).paired, difference(row).code_differs) == (False, 3)
    one, *others = one_epoch({"none": [0.5] * 6, "bn": [0.6] * 6})
    seed_0 = [replace(run, code="old") if run.parameters["seed"] == 0 else run for run in (one, *others)]
    assert difference(by_arm(compare([sweep(seed_0)]))["bn"]).code_differs == 1


def test_two_runs_without_hashes_are_not_proven_a_pair() -> None:
    runs = [Planned({"network": arm, "seed": 0}, [0.5], weights="", batches="") for arm in ("none", "bn")]
    found = difference(by_arm(compare([sweep(runs)]))["bn"])
    assert (found.pairs, found.weights_differ, found.batches_differ, found.paired) == (1, 1, 1, False)


@pytest.mark.parametrize(
    ("axis", "parameter"),
    [
        ("network", "network.eps"),
        ("network", "network.norm_args.eps"),
        ("network.norm", "network.norm_args.eps"),
        ("network.norm", "network.norm.eps"),
    ],
)
def test_a_parameter_of_one_arm_alone_does_not_break_pairs(axis: str, parameter: str) -> None:
    runs = [
        *(Planned({axis: "none", "seed": seed}, [0.5]) for seed in (0, 1)),
        *(Planned({axis: "bn", parameter: 1e-5, "seed": seed}, [0.75]) for seed in (0, 1)),
    ]
    comparison = compare([sweep(runs, axis=axis)])
    assert difference(by_arm(comparison)["bn"]).pairs == 2
    assert (comparison.cell_columns, comparison.variant_columns) == ((), ())


def test_a_parameter_that_is_not_the_axis_own_does_break_pairs() -> None:
    runs = [
        Planned({"network.norm": "none", "network.width": 8, "seed": 0}, [0.5]),
        Planned({"network.norm": "bn", "seed": 0}, [0.75]),
    ]
    comparison = compare([sweep(runs, axis="network.norm")])
    assert comparison.cell_columns == ("network.width",)
    assert difference(by_arm(comparison)["bn"]).pairs == 0


def test_a_parameter_both_arms_have_must_be_equal_though_a_third_has_none() -> None:
    runs = [
        *(Planned({"network": arm, "network.w": w, "seed": 0}, [w / 10]) for arm in ("none", "bn") for w in (1, 3)),
        Planned({"network": "bare", "seed": 0}, [0.5]),
    ]
    comparison = compare([sweep(runs)])
    assert comparison.variant_columns == ("network.w",)
    rows = {(row.arm, row.variant["network.w"]): row for row in comparison.rows}
    assert difference(rows["bn", 3.0]).pairs == 1
    assert interval(rows["bn", 3.0])[0] == pytest.approx(0)
    # The third arm's one run has both of the baseline's for a partner: their mean, once.
    assert difference(rows["bare", None]).pairs == 1
    assert interval(rows["bare", None])[0] == pytest.approx(0.5 - 0.2)


def test_variants_of_an_arm_are_each_compared_with_the_same_baseline() -> None:
    runs = [
        *(Planned({"network": "none", "seed": seed}, [0.5]) for seed in (0, 1)),
        *(
            Planned({"network": "bn", "network.eps": eps, "seed": seed}, [accuracy])
            for eps, accuracy in ((1e-5, 0.75), (1e-3, 0.25))
            for seed in (0, 1)
        ),
    ]
    rows = compare([sweep(runs)]).rows
    assert [(row.arm, row.variant["network.eps"], row.n) for row in rows] == [
        ("none", None, 2),
        ("bn", 1e-5, 2),
        ("bn", 1e-3, 2),
    ]
    assert [interval(row)[0] for row in rows[1:]] == [0.25, -0.25]
    assert list(compare([sweep(runs)]).records[1])[:2] == ["network", "network.eps"]
    assert [(row.n, row.ok, row.pooled) for row in compare([sweep(runs)], group_by=[]).rows] == [
        *((2, 2, False), (2, 4, True)),
    ]


# Cells, columns, order


def test_only_what_differs_makes_a_column() -> None:
    runs = [
        run
        for momentum in (1.0, 0.1)
        for run in one_epoch({"bn": [0.5, 0.5], "none": [0.5, 0.5]}, momentum=momentum, threads=1)
    ]
    comparison = compare([sweep(runs)])
    assert comparison.cell_columns == ("momentum",)
    assert comparison.constant == {"threads": 1}
    # Cells in the sweep's order, the baseline first in each.
    order = [(row.cell["momentum"], row.arm) for row in comparison.rows]
    assert order == [(1.0, "none"), (1.0, "bn"), (0.1, "none"), (0.1, "bn")]


def test_group_by_averages_over_what_it_does_not_name_and_keeps_the_pairs() -> None:
    runs = [
        run
        for momentum, width in ((0.1, 8), (0.1, 16), (1.0, 8))
        for run in one_epoch(
            {"none": [momentum / 10, momentum / 5], "bn": [momentum / 10 + 0.25, momentum / 5 + 0.5]},
            momentum=momentum,
            width=width,
        )
    ]
    comparison = compare([sweep(runs)], group_by=["momentum"])
    assert comparison.cell_columns == ("momentum",)
    # Each seed counts once, with its mean over the two widths.
    assert [(row.cell["momentum"], row.n, difference(row).pairs) for row in comparison.rows if row.difference] == [
        (0.1, 2, 2),
        (1.0, 2, 2),
    ]
    assert interval(comparison.rows[1])[0] == pytest.approx(0.375)
    assert interval(comparison.rows[1])[1] == pytest.approx(stats.ttest_1samp([0.25, 0.5], 0).confidence_interval().low)
    assert [row.n for row in compare([sweep(runs)], group_by=["network"]).rows] == [2, 2]
    assert [row.n for row in compare([sweep(runs)], group_by=["seed", "width"]).rows] == [1] * 8
    with pytest.raises(UserError, match="unknown column 'widht'; did you mean 'width'"):
        compare([sweep(runs)], group_by=["widht"])


def test_an_arm_that_failed_at_one_lr_is_compared_at_the_other_alone() -> None:
    # A difference of all means would compare bn at lr .1 with the baseline at both.
    runs = [
        *one_epoch({"none": [0.5, 0.625], "bn": [0.75, 0.875]}, lr=0.1),
        *one_epoch({"none": [0.0, 0.0], "bn": [0.0, 0.0]}, lr=1.0),
    ]
    runs = [replace(run, weights="x") if run.parameters["network"] == "bn" else run for run in runs]
    runs[6:] = [replace(run, status="failed") for run in runs[6:]]
    row = by_arm(compare([sweep(runs)], group_by=[]))["bn"]
    assert (row.n, row.ok, row.planned, difference(row).pairs, difference(row).paired) == (2, 2, 4, 2, False)
    assert interval(row)[0] == 0.25


def test_without_a_contrast_there_are_cells_only() -> None:
    runs = [run for lr in (0.1, 1.0) for run in one_epoch({"none": [0.25, 0.75]}, lr=lr)]
    comparison = compare([sweep(runs, axis=None, baseline=None)])
    assert [(row.cell, row.arm, row.n, row.mean) for row in comparison.rows] == [
        ({"lr": 0.1}, None, 2, 0.5),
        ({"lr": 1.0}, None, 2, 0.5),
    ]
    assert all(row.difference is None for row in comparison.rows)
    assert "difference" not in comparison.records[0]


def test_two_folders_are_told_apart_and_never_paired_with_each_other() -> None:
    first = sweep(one_epoch({"none": [0.5, 0.5], "bn": [0.75, 0.75]}), name="a")
    second = sweep(one_epoch({"none": [0.25], "bn": [0.75]}, momentum=0.1), name="b")
    rows = compare([first, second]).rows
    assert [(row.cell["results"], row.arm, row.n) for row in rows] == [
        ("a", "none", 2),
        ("a", "bn", 2),
        ("b", "none", 1),
        ("b", "bn", 1),
    ]
    assert [interval(row)[0] for row in rows if row.difference] == [0.25, 0.5]
    assert compare([first, second]).cell_columns == ("results", "momentum")
    together = by_arm(compare([first, second], group_by=[]))["bn"]
    # Only seed 0 is in both folders. The mean of seed 1 would be that of one momentum.
    assert (together.n, together.ok, difference(together).pairs) == (1, 3, 1)
    assert interval(together)[0] == pytest.approx((0.25 + 0.5) / 2)
    assert [row.n for row in compare([first, second], group_by=["results"]).rows] == [2, 2, 1, 1]
    with pytest.raises(UserError, match="unknown column 'results'"):
        compare([first], group_by=["results"])


def test_folders_of_one_name_are_told_apart_by_path() -> None:
    first = sweep(one_epoch({"none": [0.5]}))
    second = replace(first, folder=Path("elsewhere/study"))
    assert [row.cell["results"] for row in compare([first, second]).rows] == ["results/study", "elsewhere/study"]
    with pytest.raises(UserError, match="the same results are given twice"):
        compare([first, first])


def test_sort_by_any_column_with_nothing_last() -> None:
    runs = [
        *one_epoch({"none": [0.5, 0.5], "bn": [0.75, 0.75]}, momentum=0.1),
        *one_epoch({"none": [0.25, 0.25], "bn": [0.125, 0.125]}, momentum=1.0),
    ]

    def order(sort: str) -> list[Any]:
        return [record[sort.removeprefix("-")] for record in compare([sweep(runs)], sort=sort).records]

    assert order("mean") == [0.125, 0.25, 0.5, 0.75]
    assert order("-mean") == [0.75, 0.5, 0.25, 0.125]
    assert order("difference") == [-0.125, 0.25, None, None]
    assert order("-difference") == [0.25, -0.125, None, None]
    assert order("network") == ["bn", "bn", "none", "none"]
    with pytest.raises(UserError, match="unknown column 'men'; did you mean 'mean'"):
        order("men")


def test_records_are_plain_and_can_be_json() -> None:
    runs = one_epoch({"none": [0.5, 0.25], "bn": [0.75, NAN]}, lr=np.float64(0.1), width=np.int64(3))
    record = compare([sweep(runs)], group_by=["lr", "width"]).records[1]
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record == {
        **{"lr": 0.1, "width": 3, "network": "bn", "metric": "valid_accuracy", "at": "last"},
        **{"n": 1, "ok": 2, "planned": 2, "mean": 0.75, "sd": None},
        **{"pairs": 1, "difference": 0.25, "low": None, "high": None, "interval": None},
        **{"paired": "yes", "weights_differ": 0, "batches_differ": 0, "code_differs": 0},
        **{"p": None, "test": None, "p_adjusted": None, "p_adjustment": None, "tests": 1},
        **{"dz": None, "probability_of_improvement": 1.0},
        **{"hodges_lehmann": 0.25, "hodges_lehmann_low": None, "hodges_lehmann_high": None},
        **{"trimmed_mean": 0.25, "trimmed_mean_low": None, "trimmed_mean_high": None},
        **{"collapsed_share": 0.0, "collapsed_share_low": 0.0, "collapsed_share_high": pytest.approx(0.79, abs=0.01)},
        **{"baseline_collapsed_share": 0.0, "baseline_collapsed_share_low": 0.0},
        **{"baseline_collapsed_share_high": pytest.approx(0.79, abs=0.01), "collapsed_p": 1.0},
        **{"without_collapse": None, "without_collapse_low": None, "without_collapse_high": None},
        **{"diverged": 0, "failed": 0, "oom": 0, "timeout": 0, "interrupted": 0, "missing": 0},
        **{"diverged_share": 0.0, "diverged_share_low": 0.0, "diverged_share_high": pytest.approx(0.6576, abs=1e-4)},
        **{"diverged_p": 1.0, "warnings": None},
    }


@pytest.mark.parametrize(
    ("values", "baseline"),
    [
        (["none", "bn"], "none"),
        ([1, 8], 1),
        ([0.1, 1.0], 0.1),
        ([False, True], False),
        (["[1, 2]", "[3]"], [1, 2]),
        (["false", "[3]"], False),
        ([None, "bn"], None),
    ],
)
def test_the_baseline_is_found_as_the_table_writes_it(values: list[Any], baseline: object) -> None:
    runs = [Planned({"x": value, "seed": 0}, [0.5]) for value in values[::-1]]
    rows = compare([sweep(runs, axis="x", baseline=baseline)]).rows
    assert [row.arm for row in rows] == values
    assert [row.difference is None for row in rows] == [True, False]


def test_runs_pooled_against_one_baseline_run_are_one_pair() -> None:
    runs = [
        *(Planned({"network": "none", "seed": seed}, [0.5]) for seed in (0, 1)),
        *(
            Planned({"network": "bn", "network.eps": eps, "seed": seed}, [0.6 + eps])
            for eps in (0.0, 0.1)
            for seed in (0, 1)
        ),
    ]
    row = by_arm(compare([sweep(runs)], group_by=[]))["bn"]
    assert (row.n, row.ok, difference(row).pairs) == (2, 4, 2)
    assert interval(row)[0] == pytest.approx(0.15)


def test_a_run_in_two_folders_is_not_counted_twice() -> None:
    first = sweep(one_epoch({"none": [0.5], "bn": [0.75]}))
    second = replace(first, folder=Path("elsewhere/study"))
    assert len(compare([first, second]).rows) == 4
    with pytest.raises(UserError, match="2 runs are in more than one of these folders"):
        compare([first, second], group_by=[])
