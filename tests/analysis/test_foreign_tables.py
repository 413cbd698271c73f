"""A table of another tool is compared by the same code as a sweep: the same numbers give the same answers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from runner.analysis.comparison import compare
from runner.analysis.records import Comparison
from runner.errors import UserError
from runner.storage.foreign import table
from runner.storage.foreign.question import Question
from runner.storage.results import Results
from runner.storage.results import load as load_sweep

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "results/reference"

Write = Callable[[str, str], Path]

EXACT = ("n", "mean", "sd", "pairs", "difference", "low", "high", "interval", "p", "dz", "probability_of_improvement")

RMSE = """\
method,fold,rmse
ridge,1,2.25
forest,1,2.0
ridge,2,1.5
forest,2,1.0
ridge,3,3.0
forest,3,3.125
ridge,4,2.5
forest,4,2.125
ridge,5,1.75
forest,5,1.5
ridge,6,2.0
forest,6,1.25
"""

BY_FOLD = Question("method", (), "ridge", ("fold",), "rmse")


def one(comparison: Comparison, arm: str) -> dict[str, object]:
    (record,) = (record for record in comparison.records if record[comparison.axis or ""] == arm)
    return record


@pytest.mark.parametrize("metric", ["valid_accuracy", "valid_loss"])
@pytest.mark.parametrize("name", ["tutorial", "notebook_mlp", "notebook_cnn"])
def test_the_same_numbers_give_the_same_digits_as_a_sweep(name: str, metric: str) -> None:
    sweep = load_sweep(REFERENCE / name)
    expected = compare([sweep], metric=metric)
    differing = [key for key in sweep.parameters if sweep.runs[key].nunique() > 1 and key != sweep.axis]
    share = metric == "valid_accuracy"
    asked = Question(sweep.axis or "", (), str(sweep.baseline), tuple(differing), metric, share=share)
    foreign = table.load(REFERENCE / name / "metrics.csv", asked)
    found = compare([foreign], group_by=expected.cell_columns)
    both = list(zip(found.records, (expected._record(row) for row in expected.planned_rows), strict=True))
    assert len(both) > 1
    for got, wanted in both:
        assert {key: got[key] for key in EXACT} == {key: wanted[key] for key in EXACT}
        assert got["p_adjusted"] == wanted["p_adjusted"] or len(expected.rows) > len(both)
        assert got["paired"] in (None, f"by {', '.join(differing)}; equal starting points not proven")
        assert wanted["paired"] in (None, "yes")


def test_a_small_table_against_scipy_and_every_sign_flip(write: Write) -> None:
    found = one(compare([table.load(write("r.csv", RMSE), BY_FOLD)]), "forest")
    ridge, forest = np.array([2.25, 1.5, 3.0, 2.5, 1.75, 2.0]), np.array([2.0, 1.0, 3.125, 2.125, 1.5, 1.25])
    interval = stats.ttest_rel(forest, ridge).confidence_interval(0.95)
    assert [found[key] for key in ("difference", "low", "high")] == pytest.approx(
        [(forest - ridge).mean(), interval.low, interval.high], rel=1e-12
    )
    sums = [abs(float(np.dot(signs, forest - ridge))) for signs in product((1, -1), repeat=6)]
    assert found["p"] == sum(total >= abs((forest - ridge).sum()) - 1e-12 for total in sums) / 2**6
    assert found["probability_of_improvement"] == 5 / 6  # five of the six folds have a lower error
    assert found["better"] == "lower"


def test_the_wide_form_is_the_long_form(write: Write) -> None:
    long = compare([table.load(write("long.csv", RMSE), BY_FOLD)])
    rows = [line.split(",") for line in RMSE.splitlines()[1:]]
    folds = dict.fromkeys(fold for _, fold, _ in rows)
    lines = [",".join([fold, *(value for _, other, value in rows if other == fold)]) for fold in folds]
    path = write("wide.csv", "\n".join(["fold,ridge,forest", *lines]))
    wide = compare([table.load(path, Question("", ("ridge", "forest"), "ridge", ("fold",), "rmse"))])
    for key in EXACT:
        assert one(wide, "forest")[key] == one(long, "forest")[key]
    unnamed = compare([table.load(path, Question("", ("ridge", "forest"), "ridge"))])
    assert one(unnamed, "forest")["paired"] == "by line; equal starting points not proven"
    assert one(unnamed, "forest")["p"] == one(long, "forest")["p"]


@pytest.mark.parametrize(
    ("better", "effect", "word"),
    [(None, 0.1, "SUPERIOR"), ("lower", 0.1, "SUPERIOR"), ("higher", 0.1, "INFERIOR"), (None, 9.0, "EQUIVALENT")],
)
def test_the_verdict_knows_which_direction_is_better(
    write: Write, better: str | None, effect: float, word: str
) -> None:
    rows = "".join(f"ridge,{n},{2 + n / 16}\nforest,{n},{1.5 + n / 32}\n" for n in range(8))
    asked = Question("method", (), "ridge", ("fold",), "rmse", better, smallest_effect=effect)  # type: ignore[arg-type]
    comparison = compare([table.load(write("r.csv", "method,fold,rmse\n" + rows), asked)])
    assert one(comparison, "forest")["verdict"] == word


def test_cells_only_where_they_are_asked_for(write: Write) -> None:
    text = "method,data,seed,score\n"
    text += "".join(f"{m},{d},{s},{s + (m == 'b') / 4}\n" for m in "ab" for d in "xy" for s in range(3))
    result = table.load(write("t.csv", text), Question("method", (), "a", ("seed", "data"), "score"))
    pooled = compare([result])
    assert (pooled.cell_columns, one(pooled, "b")["pairs"]) == ((), 6)
    apart = compare([result], group_by=["data"])
    assert [(record["data"], record["pairs"]) for record in apart.records if record["method"] == "b"] == [
        ("x", 3),
        ("y", 3),
    ]


def test_what_a_table_does_not_have_is_not_claimed(write: Write) -> None:
    result = table.load(write("r.csv", RMSE), BY_FOLD)
    record = one(compare([result]), "forest")
    assert [record[key] for key in ("weights_differ", "batches_differ", "diverged_share", "at")] == [None] * 3 + [""]
    for arguments, said in [
        ({"at": "best"}, "rmse is measured once, at the end: it has no epoch best"),
        ({"target": 1.0}, "rmse is measured once, at the end: it has no time to a target"),
        ({"metric": "rsme"}, "unknown metric 'rsme'; did you mean 'rmse'? allowed: rmse"),
    ]:
        with pytest.raises(UserError, match=said.replace("?", r"\?")):
            compare([result], **arguments)  # type: ignore[arg-type]


def test_no_column_of_a_table_hides_one_of_the_comparison(write: Write) -> None:
    effect = Question("method", (), "ridge", ("fold",), "rmse", smallest_effect=0.1)
    record = one(compare([table.load(write("r.csv", RMSE), effect)]), "forest")
    assert set(record) - {"method"} <= set(table.OF_RECORDS)
    for name in ("failed", "p", "run"):
        path = write("s.csv", RMSE.replace("method", name))
        with pytest.raises(UserError, match=f"rename column '{name}'"):
            table.load(path, Question(name, (), "ridge", ("fold",), "rmse"))
    path = write("t.csv", RMSE.replace("rmse", "failed"))  # A metric may have such a name.
    assert table.load(path, Question("method", (), "ridge", ("fold",), "failed")).runs["failed"].notna().all()


def test_runs_without_a_partner_do_not_count_as_pairs(write: Write) -> None:
    path = write("r.csv", RMSE + "forest,7,1\nridge,8,\nforest,8,1\n")
    result: Results = table.load(path, BY_FOLD)
    comparison = compare([result])
    record = one(comparison, "forest")
    assert (record["n"], record["pairs"], one(comparison, "ridge")["missing"]) == (8, 6, 1)
    assert record["p"] == one(compare([table.load(write("s.csv", RMSE), BY_FOLD)]), "forest")["p"]
