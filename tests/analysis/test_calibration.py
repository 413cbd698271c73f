"""The checks of the harness fail where it is wrong, and hold through the real pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from scipy.stats import permutation_test, ttest_rel

from runner.analysis import calibration
from runner.analysis.calibration import caught, comparisons, different_seeds, same_seed, uniformity
from runner.analysis.stats.values import Values
from runner.errors import UserError
from runner.storage.results import Results


def results(axis: str, arms: dict[str, tuple[range, Values]]) -> Results:
    """A sweep of one epoch: arm → its seeds and each metric's value; the first arm is the baseline."""
    parts = [pd.DataFrame({axis: arm, "seed": list(seeds), "value": values}) for arm, (seeds, values) in arms.items()]
    runs = pd.concat(parts, ignore_index=True)
    runs["run"] = range(1, len(runs) + 1)
    names = (*calibration.EPOCH_METRICS, "test_loss", "test_accuracy")
    runs = runs.assign(status="ok", weights_hash="w", batches_hash="b", **dict.fromkeys(names, runs["value"]))
    metrics = runs[["run", *calibration.EPOCH_METRICS]].assign(epoch=1)
    return Results(Path("hand"), "hand", axis, next(iter(arms)), (axis, "seed"), (axis, "seed"), metrics, runs)


def aa(shift: float = 0.0, count: int = 200) -> Results:
    """Both arms drawn from one normal distribution, the second one shifted."""
    values = np.random.default_rng(1).normal(size=(2, count * 10))
    return results(
        "arm", {"a": (range(count * 10), values[0]), "b": (range(5000, 5000 + count * 10), values[1] + shift)}
    )


def verdicts(table: pd.DataFrame) -> dict[str, bool]:
    return {check.check: check.passed for check in different_seeds(table)}


def test_an_honest_harness_passes() -> None:
    checks = different_seeds(comparisons(aa()))
    assert all(check.passed for check in checks), checks
    assert checks[0].expected == "4 to 16 of 200"  # the exact binomial band
    assert len(comparisons(aa())) == 200


def test_a_comparison_is_scipys() -> None:
    table = aa(0.5, count=3)
    ours = table.runs.loc[table.runs["arm"] == "b", "value"].to_numpy()[10:20]
    theirs = table.runs.loc[table.runs["arm"] == "a", "value"].to_numpy()[10:20]
    row = comparisons(table).iloc[1]
    differences: Any = ours - theirs
    test = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=10**6)
    assert row["p"] == pytest.approx(test.pvalue)
    assert row["t_p"] == pytest.approx(ttest_rel(ours, theirs).pvalue)
    assert row["difference"] == pytest.approx(np.mean(ours - theirs))
    assert (row["seeds"], row["baseline_seeds"]) == ("5010..5019", "10..19")


def test_arms_that_differ_reject_too_often() -> None:
    assert not any(verdicts(comparisons(aa(shift=0.5))).values())


def test_too_few_rejections_are_caught_too() -> None:
    table = comparisons(aa()).assign(p=np.linspace(0.06, 1, 200), low=-1.0, high=1.0)
    found = verdicts(table)
    assert not found["sign_flip_rejections"]
    assert not found["t_rejections"]


@pytest.mark.parametrize("power", [0.7, 1.5])
def test_a_biased_p_is_caught(power: float) -> None:
    """By its distribution, though rejections may be within their band."""
    uniform = (np.arange(200) + 0.5) / 200
    assert uniformity("x", "x", uniform).passed
    assert not uniformity("x", "x", uniform**power).passed


def test_a_discrete_p_is_uniform() -> None:
    """Each of the 512 p-values that 10 pairs can have, once."""
    p = np.arange(1, 513) / 512
    assert uniformity("x", "x", p - 0.5**10).measured.startswith("D = 0.001")


def test_a_run_without_result_passes_nothing() -> None:
    table = aa()
    table.runs.loc[0, "status"] = "failed"
    assert not any(verdicts(comparisons(table)).values())


def test_arms_that_share_a_seed_are_refused() -> None:
    with pytest.raises(UserError, match="no seed twice"):
        comparisons(results("arm", {"a": (range(10), np.arange(10.0)), "b": (range(9, 19), np.arange(10.0))}))


SAME = {"a": (range(10), np.arange(10.0)), "b": (range(10), np.arange(10.0))}


def test_the_same_seed_has_to_give_exactly_zero() -> None:
    same = results("arm", SAME)
    assert same_seed(same).passed
    assert same_seed(same).measured == "60 of 60, largest 0"
    same.runs.loc[15, "test_loss"] = np.nextafter(5.0, 6)
    assert not same_seed(same).passed


@pytest.mark.parametrize(("column", "value"), [("weights_hash", "other"), ("status", "failed")])
def test_the_same_seed_needs_every_pair_proven(column: str, value: str) -> None:
    same = results("arm", SAME)
    same.runs.loc[15, column] = value
    assert not same_seed(same).passed


@pytest.mark.parametrize(("shift", "passed"), [(-3.0, True), (3.0, False), (0.0, False)])
def test_a_planted_effect_is_caught_with_its_sign(shift: float, passed: bool) -> None:
    values = np.random.default_rng(2).normal(size=(2, 10))
    table = results("arm", {"a": (range(10), values[0]), "b": (range(10), values[1] + shift)})
    assert caught("x", "x", table).passed is passed
    missing = replace(table, runs=table.runs.assign(status=["ok"] * 19 + ["failed"]))
    assert not caught("x", "x", missing).passed


def test_through_the_pipeline(bnbench: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three comparisons instead of 200, one epoch instead of two; then again, from what lies there."""
    configs = tmp_path / "configs"
    configs.mkdir()
    for file in calibration.CONFIGS.glob("*.yaml"):
        text = file.read_text(encoding="utf-8").replace("epochs: 2", "epochs: 1")
        text = text.replace("[0, 2000]", "[0, 30]").replace("[2000, 4000]", "[2000, 2030]")
        (configs / file.name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(calibration, "CONFIGS", configs)
    arguments = ("calibrate", "--out", tmp_path, "--executor", "inline")
    first = bnbench(*arguments)
    assert first.exit_code == 0, first.stdout
    assert "[2/4] different_seeds: 60 runs" in first.stderr
    assert first.stdout.count("  pass\n") == 7
    again = bnbench(*arguments, "-q", "--format", "csv")
    folder = tmp_path / "calibration"
    assert again.stdout == (folder / "calibration.csv").read_text(encoding="utf-8")
    assert len(pd.read_csv(folder / "aa.csv")) == 3

    table = folder / "same_seed/metrics.csv"
    lines = table.read_text(encoding="utf-8").splitlines()
    cells = lines[-1].split(",")
    cells[lines[0].split(",").index("train_loss")] = "0.5"
    table.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n", encoding="utf-8")
    wrong = bnbench(*arguments, "-q")
    assert wrong.exit_code == 1
    assert wrong.stdout.count("FAIL\n") == 1
