"""What a comparison says of hand-made tables: numbers by hand or by scipy, and every way a sweep can be incomplete."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from runner.analysis.comparison import compare
from runner.analysis.records import Difference
from runner.errors import UserError
from runner.storage.results import Results
from tests.analysis.planned import NAN, Planned, by_arm, difference, interval, one_epoch, sweep

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
    with pytest.raises(UserError, match=r"more than one row of run 3, epoch 1"):
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
