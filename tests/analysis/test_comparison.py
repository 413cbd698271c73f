"""What a comparison says of hand-made tables: numbers by hand or by scipy, and every way a sweep can be incomplete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from runner.analysis.comparison import compare
from runner.analysis.records import Comparison, Difference, Row
from runner.analysis.stats.verdicts import Verdict, seeds_needed
from runner.errors import UserError
from runner.storage.results import Results

NAN = float("nan")
METRICS = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy", "epoch_duration", "run_duration")


@dataclass(frozen=True)
class Planned:
    """One planned run: its parameters, and valid_accuracy per epoch; valid_loss is 1 − that."""

    parameters: Mapping[str, Any]
    accuracy: Sequence[float] = ()
    status: str = "ok"
    weights: str | None = None  # default: a hash of the seed alone, as for arms that share their layers
    batches: str | None = None  # default: a digest per epoch, of the seed alone
    test_accuracy: float = NAN


def sweep(
    runs: Sequence[Planned], *, axis: str | None = "network", baseline: object = "none", name: str = "study"
) -> Results:
    """`Results` as they are loaded: the parameters are those of any run, empty where a run has none."""
    parameters = tuple(dict.fromkeys(key for run in runs for key in run.parameters))
    epochs, ends = [], []
    for number, run in enumerate(runs, 1):
        seed, count = run.parameters.get("seed", 0), len(run.accuracy)
        of_run = [*(run.parameters.get(key) for key in parameters), f"{name}{number}"]
        for epoch, value in enumerate(run.accuracy, 1):
            epochs.append([number, epoch, 60 * epoch, 1 - value, value, 1 - value, value, 0.5, 0.5 * epoch, *of_run])
        weights = f"w{seed}" if run.weights is None else run.weights
        digests = " ".join(f"s{seed}e{epoch}" for epoch in range(1, count + 1))
        hashes = [weights or None, (digests if run.batches is None else run.batches) or None]
        ends.append([number, run.status, count, 1 - run.test_accuracy, run.test_accuracy, *hashes, *of_run])
    metrics = pd.DataFrame(epochs, columns=["run", "epoch", "step", *METRICS, *parameters, "run_id"])
    columns = ["run", "status", "epochs_trained", "test_loss", "test_accuracy", "weights_hash", "batches_hash"]
    table = pd.DataFrame(ends, columns=[*columns, *parameters, "run_id"])
    return Results(Path("results") / name, name, axis, baseline, parameters, parameters, metrics, table)


def one_epoch(arms: Mapping[str, Sequence[float]], **parameters: Any) -> list[Planned]:
    """A run per arm and seed: {"none": [.90, .91], "bn": [.92, .93]} makes two pairs."""
    return [
        Planned({**parameters, "network": arm, "seed": seed}, [accuracy])
        for arm, accuracies in arms.items()
        for seed, accuracy in enumerate(accuracies)
    ]


def by_arm(comparison: Comparison) -> dict[object, Row]:
    assert len({row.arm for row in comparison.rows}) == len(comparison.rows)
    return {row.arm: row for row in comparison.rows}


def difference(row: Row) -> Difference:
    assert row.difference is not None
    return row.difference


def interval(row: Row) -> tuple[Any, Any, Any]:  # Any: mypy does not see that a number equals an approximate one
    found = difference(row).interval
    assert found is not None
    return found.estimate, found.low, found.high


# Numbers


def test_three_pairs_by_hand() -> None:
    rows = by_arm(compare([sweep(one_epoch({"none": [0.5, 0.6, 0.7], "bn": [0.6, 0.8, 1.0]}))]))
    assert [row.n for row in rows.values()] == [3, 3]
    assert [row.mean for row in rows.values()] == pytest.approx([0.6, 0.8])
    assert [row.sd for row in rows.values()] == pytest.approx([0.1, 0.2])
    # differences .1 .2 .3: mean .2, SD .1, half width 4.302653 × .1 / √3
    half = 4.302652729911275 * 0.1 / 3**0.5
    assert interval(rows["bn"]) == (pytest.approx(0.2), pytest.approx(0.2 - half), pytest.approx(0.2 + half))
    assert difference(rows["bn"]).paired
    assert difference(rows["bn"]).pairs == 3
    assert rows["none"].difference is None


def test_each_cell_is_scipys_paired_test_whatever_the_order_of_the_rows() -> None:
    generator = np.random.default_rng(0)
    points: list[tuple[object, object]] = [(lr, arm) for lr in (0.1, 0.01) for arm in ("none", "bn", "ln")]
    values = {point: generator.normal(0.9, 0.01, 10) for point in points}
    runs = [
        Planned({"lr": lr, "network": arm, "seed": seed}, [0.0, accuracy])
        for (lr, arm), accuracies in values.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    shuffled = [runs[index] for index in generator.permutation(len(runs))]
    result = sweep(shuffled)
    result = replace(result, metrics=result.metrics.sample(frac=1, random_state=0))
    rows = {(row.cell["lr"], row.arm): row for row in compare([result]).planned_rows}
    assert set(rows) == set(values)
    for (lr, arm), row in rows.items():
        assert row.mean == pytest.approx(values[lr, arm].mean())
        assert row.sd == pytest.approx(values[lr, arm].std(ddof=1))
        if arm != "none":
            expected = stats.ttest_rel(values[lr, arm], values[lr, "none"]).confidence_interval()
            assert interval(row)[1:] == (pytest.approx(expected.low), pytest.approx(expected.high))


@pytest.mark.parametrize("differs", ["weights", "batches"])
def test_unpaired_means_are_welchs(differs: str) -> None:
    a, b = [0.9, 0.92, 0.95], [0.8, 0.9, 0.81]
    runs = one_epoch({"none": b, "bn": a})
    runs[5] = replace(runs[5], **{differs: "other"})  # type: ignore[arg-type]
    row = by_arm(compare([sweep(runs)]))["bn"]
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    assert not difference(row).paired
    counts = {"weights": difference(row).weights_differ, "batches": difference(row).batches_differ}
    assert counts == {"weights": 0, "batches": 0, differs: 1}
    assert difference(row).pairs == 3
    assert interval(row)[1:] == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert interval(row)[1] != pytest.approx(stats.ttest_rel(a, b).confidence_interval().low)


def test_one_pair_has_a_difference_and_no_interval() -> None:
    rows = by_arm(compare([sweep(one_epoch({"none": [0.5], "bn": [0.75]}))]))
    assert (rows["bn"].mean, rows["bn"].sd) == (0.75, None)
    assert interval(rows["bn"]) == (0.25, None, None)
    assert difference(rows["bn"]).paired


def test_no_spread_is_an_interval_of_no_width() -> None:
    rows = by_arm(compare([sweep(one_epoch({"none": [0.5, 0.5, 0.5], "bn": [0.75, 0.75, 0.75]}))]))
    assert rows["bn"].sd == 0
    assert interval(rows["bn"]) == (0.25, 0.25, 0.25)


# Which epoch


@pytest.mark.parametrize(
    ("metric", "at", "expected"),
    [
        ("valid_accuracy", "last", 0.5),
        ("valid_accuracy", "best", 0.75),
        ("valid_accuracy", 1, 0.25),
        ("valid_loss", "last", 0.5),
        ("valid_loss", "best", 0.25),
        ("run_duration", "last", 1.5),
        ("step", 2, 120),
    ],
)
def test_the_epoch_is_chosen(metric: str, at: Any, expected: float) -> None:
    result = sweep([Planned({"network": "none", "seed": 0}, [0.25, 0.75, 0.5])])
    assert compare([result], metric=metric, at=at).rows[0].mean == expected


def test_nan_never_ranks_best_and_is_not_skipped_as_the_last() -> None:
    result = sweep(
        [
            Planned({"network": "none", "seed": 0}, [0.25, 0.75, NAN], "diverged"),
            Planned({"network": "none", "seed": 1}, [NAN, NAN, NAN], "diverged"),
            Planned({"network": "none", "seed": 2}, [0.25, 0.5, 0.5]),
        ]
    )
    best = {metric: compare([result], metric=metric, at="best").rows[0] for metric in ("valid_accuracy", "valid_loss")}
    assert (best["valid_accuracy"].n, best["valid_accuracy"].mean) == (2, 0.625)
    assert (best["valid_loss"].n, best["valid_loss"].mean) == (2, 0.375)
    last = compare([result]).rows[0]
    assert (last.n, last.ok, last.planned, last.mean) == (1, 1, 3, 0.5)


def test_infinite_loss_is_not_a_value() -> None:
    runs = one_epoch({"none": [0.5, float("-inf")]})
    row = compare([sweep(runs)], metric="valid_loss").rows[0]
    assert (row.n, row.mean, row.planned) == (1, 0.5, 2)


def test_a_diverged_run_stays_where_it_ended() -> None:
    result = sweep(
        [
            Planned({"network": "none", "seed": 0}, [0.5, 0.6, 0.75]),
            Planned({"network": "none", "seed": 1}, [0.6, 0.25], "diverged"),
        ]
    )
    for at in ("last", 3):
        row = compare([result], at=at).rows[0]
        assert (row.n, row.mean, row.statuses) == (2, 0.5, {"ok": 1, "diverged": 1})


def test_a_run_that_is_shorter_than_the_epoch_has_no_value_there() -> None:
    result = sweep(
        [
            Planned({"network": "none", "seed": 0, "epochs": 2}, [0.5, 0.75]),
            Planned({"network": "none", "seed": 1, "epochs": 1}, [0.25]),
        ]
    )
    rows = compare([result], at=2).rows
    assert [(row.cell["epochs"], row.n, row.ok, row.mean) for row in rows] == [(2, 1, 1, 0.75), (1, 0, 1, None)]


def test_the_test_sets_numbers_come_from_the_runs_table() -> None:
    runs = [replace(run, test_accuracy=0.5 + seed / 4) for seed, run in enumerate(one_epoch({"none": [0.1, 0.2]}))]
    assert compare([sweep(runs)], metric="test_accuracy").rows[0].mean == 0.625
    assert compare([sweep(runs)], metric="test_loss").rows[0].mean == 0.375
    with pytest.raises(UserError, match="test_accuracy is measured once, at the end: it has no epoch best"):
        compare([sweep(runs)], metric="test_accuracy", at="best")
    with pytest.raises(UserError, match="test_accuracy is empty: no run has read the test set"):
        compare([sweep(one_epoch({"none": [0.1]}))], metric="test_accuracy")


# Runs that are not ok


def test_runs_that_did_not_end_are_counted_and_not_averaged() -> None:
    runs = one_epoch({"none": [0.5, 0.5, 0.5, 0.5, 0.5, 0.5], "bn": [0.75] * 6})
    for index, status in enumerate(("failed", "oom", "timeout", "interrupted", "missing"), 6):
        runs[index] = replace(runs[index], accuracy=[0.0], status=status)
    comparison = compare([sweep(runs)])
    row = by_arm(comparison)["bn"]
    assert (row.n, row.ok, row.planned, row.mean) == (1, 1, 6, 0.75)
    assert row.statuses == {"ok": 1, "failed": 1, "oom": 1, "timeout": 1, "interrupted": 1, "missing": 1}
    assert difference(row).pairs == 1
    expected = {"ok": 7, "diverged": 0, "failed": 1, "oom": 1, "timeout": 1, "interrupted": 1, "missing": 1}
    assert comparison.statuses == expected
    assert {name: comparison.records[1][name] for name in expected} == {**expected, "ok": 1}
    assert comparison.records[1]["planned"] == 6


def test_a_failed_run_takes_its_pair_along() -> None:
    runs = one_epoch({"none": [0.1, 0.2, 0.3], "bn": [0.2, 0.4, 0.6]})
    runs[0] = replace(runs[0], status="failed")
    row = by_arm(compare([sweep(runs)]))["bn"]
    assert (row.n, difference(row).pairs) == (3, 2)
    assert interval(row)[0] == pytest.approx(0.25)


def test_a_sweep_that_has_not_begun_is_a_table_of_nothing() -> None:
    runs = [replace(run, accuracy=(), status="missing") for run in one_epoch({"none": [0, 0], "bn": [0, 0]})]
    rows = compare([sweep(runs)]).rows
    assert [(row.n, row.ok, row.planned, row.mean, row.sd) for row in rows] == [(0, 0, 2, None, None)] * 2
    assert rows[1].difference == Difference(0, 0, 0, None)


def test_all_diverged_without_a_number() -> None:
    runs = [replace(run, status="diverged") for run in one_epoch({"none": [NAN, NAN], "bn": [NAN, NAN]})]
    for at in ("last", "best", 1):
        rows = compare([sweep(runs)], at=at).rows
        assert [(row.n, row.planned, row.mean) for row in rows] == [(0, 2, None)] * 2
        assert rows[1].difference == Difference(0, 0, 0, None)


def test_an_arm_missing_from_one_cell_leaves_a_row_without_pairs() -> None:
    runs = [
        *one_epoch({"none": [0.5, 0.5], "bn": [0.75, 0.75]}, momentum=0.1),
        *one_epoch({"bn": [0.25, 0.25]}, momentum=1.0),
    ]
    rows = compare([sweep(runs)]).rows
    assert [(row.cell["momentum"], row.arm) for row in rows] == [(0.1, "none"), (0.1, "bn"), (1.0, "bn")]
    assert rows[2].difference == Difference(0, 0, 0, None)
    assert rows[2].mean == 0.25


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
    assert [row.n for row in compare([sweep(runs)], group_by=[]).rows] == [2, 4]


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
    assert [(row.cell["momentum"], row.n, difference(row).pairs) for row in comparison.rows if row.difference] == [
        (0.1, 4, 4),
        (1.0, 2, 2),
    ]
    assert interval(comparison.rows[1])[0] == pytest.approx(0.375)
    assert interval(comparison.rows[1])[1] == pytest.approx(
        stats.ttest_1samp([0.25, 0.25, 0.5, 0.5], 0).confidence_interval().low
    )
    assert [row.n for row in compare([sweep(runs)], group_by=["network"]).rows] == [6, 6]
    assert [row.n for row in compare([sweep(runs)], group_by=["seed", "width"]).rows] == [2, 2, 2, 2, 1, 1, 1, 1]
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
    assert (together.n, difference(together).pairs) == (3, 3)
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
        **{"paired": "yes", "weights_differ": 0, "batches_differ": 0},
        **{"p": None, "p_adjusted": None, "p_adjustment": None, "dz": None, "probability_of_improvement": 1.0},
        **{"diverged": 0, "failed": 0, "oom": 0, "timeout": 0, "interrupted": 0, "missing": 0},
        **{"diverged_share": 0.0, "diverged_share_low": 0.0, "diverged_share_high": pytest.approx(0.6576, abs=1e-4)},
        **{"diverged_p": 1.0},
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


# p, effects, verdicts


def judged(row: Row) -> Verdict:
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


# Each arm at its own best learning rate


def tuned(accuracy: Mapping[tuple[float, str], Sequence[float]], **changes: Any) -> list[Row]:
    """The own-best rows of a sweep of these accuracies: (lr, arm) → one a seed."""
    runs = [run for (lr, arm), values in accuracy.items() for run in one_epoch({arm: values}, lr=lr, **changes)]
    return [row for row in compare([sweep(runs)]).rows if row.own_best_lr]


GRID = {
    **{(0.01, "none"): [0.5, 0.6], (0.1, "none"): [0.7, 0.8], (1.0, "none"): [0.2, 0.9]},
    **{(0.01, "bn"): [0.5, 0.5], (0.1, "bn"): [0.6, 0.6], (1.0, "bn"): [0.9, 0.7]},
}


def test_each_arm_is_compared_at_its_own_best_lr() -> None:
    none, bn = tuned(GRID)
    assert (none.arm, none.cell, none.own_best_lr, none.n) == ("none", {"lr": 0.1}, "inner", 2)
    assert (bn.arm, bn.cell, bn.own_best_lr, bn.n) == ("bn", {"lr": 1.0}, "edge", 2)
    assert [none.mean, bn.mean] == pytest.approx([0.75, 0.8])
    assert none.difference is None
    assert (difference(bn).pairs, difference(bn).paired) == (2, True)
    expected = stats.ttest_1samp([0.2, -0.1], 0).confidence_interval()
    assert interval(bn) == (pytest.approx(0.05), pytest.approx(expected.low), pytest.approx(expected.high))


def test_own_best_rows_follow_those_at_the_same_lr_and_count_no_run_twice() -> None:
    runs = [run for (lr, arm), values in GRID.items() for run in one_epoch({arm: values}, lr=lr)]
    runs[0] = replace(runs[0], status="failed")
    comparison = compare([sweep(runs)])
    assert [row.own_best_lr for row in comparison.rows] == [None] * 6 + ["inner", "edge"]
    assert comparison.statuses["ok"] + comparison.statuses["failed"] == 12
    assert [record["own_best_lr"] for record in comparison.records][-2:] == ["inner", "edge"]
    assert sum(row.difference is not None and row.difference.p_adjusted is not None for row in comparison.rows) == 3


def test_the_best_lr_is_chosen_by_validation_whatever_is_compared() -> None:
    runs = [
        replace(run, test_accuracy=lr / 2)
        for (lr, arm), values in GRID.items()
        for run in one_epoch({arm: values}, lr=lr)
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
    runs = [run for (lr, arm), values in GRID.items() for run in one_epoch({arm: values}, lr=lr)]
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


# Steps and seconds to a target


def to_target(curves: Mapping[str, Sequence[Planned]], target: float, **changes: Any) -> dict[object, Row]:
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
    assert bn.steps.ratio.high == pytest.approx(0.5)  # both halved
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


def test_each_arm_at_its_own_best_lr_has_a_time_too() -> None:
    runs = [
        Planned({"lr": lr, "network": arm, "seed": seed}, [0.2, 0.4 + lr if arm == "none" else 0.9 - lr])
        for lr in (0.1, 0.2)
        for arm in ("none", "bn")
        for seed in (0, 1)
    ]
    rows = [row for row in compare([sweep(runs)], target=0.7).rows if row.own_best_lr]
    assert [(row.arm, row.cell["lr"]) for row in rows] == [("none", 0.2), ("bn", 0.1)]
    assert [row.to_target and row.to_target.reached for row in rows] == [0, 2]


@pytest.mark.parametrize("target", [0.0, -1.0, 90.0, NAN, float("inf")])
def test_an_accuracy_of_no_meaning_is_no_target(target: float) -> None:
    with pytest.raises(UserError, match=r"is no valid_accuracy; allowed: a fraction above 0, such as 0\.9"):
        to_target(CURVES, target)
    if not np.isfinite(target):
        with pytest.raises(UserError, match="allowed: a finite number"):
            to_target(CURVES, target, metric="valid_loss")


def test_the_test_set_has_no_time_to_a_target() -> None:
    runs = [replace(run, test_accuracy=0.5) for run in one_epoch({"none": [0.5], "bn": [0.5]})]
    with pytest.raises(UserError, match="no time to a target"):
        compare([sweep(runs)], metric="test_accuracy", target=0.5)


# What cannot be compared


def test_a_missing_baseline_arm() -> None:
    with pytest.raises(UserError, match="no run is of the baseline arm network: none; the arms are bn, ln"):
        compare([sweep(one_epoch({"bn": [0.5], "ln": [0.5]}))])


def test_an_unknown_metric_names_the_close_one_and_no_parameter() -> None:
    with pytest.raises(UserError, match="unknown metric 'valid_acuracy'; did you mean 'valid_accuracy'") as raised:
        compare([sweep(one_epoch({"none": [0.5]}, lr=0.1))], metric="valid_acuracy")
    assert "lr" not in str(raised.value).split("allowed: ")[1].split(", ")
    with pytest.raises(UserError, match="unknown metric 'lr'"):
        compare([sweep(one_epoch({"none": [0.5]}, lr=0.1))], metric="lr")


@pytest.mark.parametrize("at", [0, 2, 100])
def test_an_epoch_nobody_reached(at: int) -> None:
    with pytest.raises(UserError, match=f"no run has an epoch {at}: the last one reached is 1"):
        compare([sweep(one_epoch({"none": [0.5]}))], at=at)


def test_an_epoch_that_is_a_word() -> None:
    with pytest.raises(UserError, match="unknown epoch 'lats'; did you mean 'last'"):
        compare([sweep(one_epoch({"none": [0.5]}))], at="lats")  # type: ignore[arg-type]


def test_duplicated_rows_are_refused() -> None:
    result = sweep(one_epoch({"none": [0.5, 0.5], "bn": [0.5, 0.5]}))
    twice = replace(result, metrics=pd.concat([result.metrics, result.metrics.iloc[[2]]]))
    with pytest.raises(UserError, match=r"more than one row of run 3, epoch 1 \(1 rows too many in all\)"):
        compare([twice])
    twice = replace(result, runs=pd.concat([result.runs, result.runs.iloc[[2]]]))
    with pytest.raises(UserError, match=r"runs\.csv has more than one row of a run"):
        compare([twice])


@pytest.mark.parametrize(("axis", "baseline"), [("network.norm", "none"), ("network", "bn"), (None, None)])
def test_different_contrasts_are_not_one_table(axis: str | None, baseline: object) -> None:
    one = sweep(one_epoch({"none": [0.5], "bn": [0.5]}), name="a")
    other = replace(one, name="b", axis=axis, baseline=baseline)
    with pytest.raises(UserError, match=r"contrast different things: .*network against none"):
        compare([one, other])


def test_nothing_to_compare() -> None:
    with pytest.raises(UserError, match="no results to compare"):
        compare([])
    result = sweep(one_epoch({"none": [0.5]}))
    with pytest.raises(UserError, match="holds no runs"):
        compare([replace(result, runs=result.runs.iloc[:0])])
    with pytest.raises(UserError, match="unknown column 'netwrok'; did you mean 'network'"):
        compare([replace(result, axis="netwrok")])


def test_a_million_rows() -> None:
    runs, epochs = 20_000, 50
    number = np.arange(runs)
    table = pd.DataFrame(
        {
            "run": number + 1,
            "run_id": [f"id{n}" for n in number],
            "status": "ok",
            "weights_hash": [f"w{seed}" for seed in number // 2 % 100],
            "batches_hash": [f"b{seed}" for seed in number // 2 % 100],
            "network": np.where(number % 2, "bn", "none"),
            "seed": number // 2 % 100,
            "width": number // 200,
        }
    )
    metrics = pd.DataFrame({"run": np.repeat(number + 1, epochs), "epoch": np.tile(np.arange(epochs) + 1, runs)})
    metrics["valid_accuracy"] = np.where(metrics["run"] % 2, 0.25, 0.75)
    columns = ("network", "seed", "width")
    comparison = compare([Results(Path("r"), "r", "network", "none", columns, columns, metrics, table)])
    assert len(comparison.rows) == 200
    assert all(interval(row)[0] == 0.5 and difference(row).pairs == 100 for row in comparison.rows if row.difference)


def test_the_constant_guess_of_a_ruined_network_is_nobodys_best() -> None:
    ruined = Planned({"network": "bn", "seed": 0}, [0.25, 0.9], "diverged")
    never = Planned({"network": "bn", "seed": 1}, [0.125], "diverged")
    base = [Planned({"network": "none", "seed": seed}, [0.5, 0.5]) for seed in (0, 1)]
    result = sweep([*base, ruined, never])
    result.metrics.loc[[5, 6], "train_loss"] = NAN  # the last epochs of both
    row = by_arm(compare([result], at="best"))["bn"]
    assert row.n == 2
    assert row.mean == (0.25 + 0.125) / 2  # the second one's last epoch: it stays in


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
    assert row.n == 4
    assert difference(row).pairs == 2
    assert interval(row)[0] == pytest.approx(0.15)


def test_a_run_in_two_folders_is_not_counted_twice() -> None:
    first = sweep(one_epoch({"none": [0.5], "bn": [0.75]}))
    second = replace(first, folder=Path("elsewhere/study"))
    assert len(compare([first, second]).rows) == 4
    with pytest.raises(UserError, match="2 runs stand in more than one of these folders"):
        compare([first, second], group_by=[])
