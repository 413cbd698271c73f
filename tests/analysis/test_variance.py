"""Variance components: the oracles are planted components, and the formulas of textbooks written out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from runner.analysis.comparison import compare
from runner.analysis.stats.components import MeanSquare, component, line, mean_squares, sd_interval
from runner.analysis.variance import Variance, variance
from runner.errors import UserError
from runner.reporting.tables import render
from tests.analysis.planned import Planned, sweep
from tests.conftest import Bnbench

Table = NDArray[np.float64]


def planted(random: np.random.Generator, shape: Sequence[int], sds: dict[tuple[int, ...], float]) -> Table:
    """A crossed table of effects with these standard deviations."""
    total = np.zeros(shape)
    for effect, sd in sds.items():
        total = total + random.normal(0, sd, [n if axis in effect else 1 for axis, n in enumerate(shape)])
    return total


def estimated(table: Table, effect: tuple[int, ...]) -> float:
    squares = mean_squares(table)
    return sum(factor * squares[other].value for other, factor in component(effect, table.shape).items())


def test_mean_squares_are_those_of_a_two_way_table() -> None:
    table = np.random.default_rng(1).normal(size=(4, 6))
    a, b = table.shape
    mean, rows, columns = table.mean(), table.mean(axis=1), table.mean(axis=0)
    rest = [(table[i, j] - rows[i] - columns[j] + mean) ** 2 for i, j in product(range(a), range(b))]
    expected = {
        (0,): (b * sum((rows - mean) ** 2) / (a - 1), a - 1),
        (1,): (a * sum((columns - mean) ** 2) / (b - 1), b - 1),
        (0, 1): (sum(rest) / ((a - 1) * (b - 1)), (a - 1) * (b - 1)),
    }
    found = mean_squares(table)
    assert found.keys() == expected.keys()
    for effect, (value, freedom) in expected.items():
        assert found[effect].value == pytest.approx(value)
        assert found[effect].freedom == freedom
    assert estimated(table, (0,)) == pytest.approx((expected[0,][0] - expected[0, 1][0]) / b)


def test_planted_components_of_three_sources_are_recovered_without_bias() -> None:
    sds = {(0,): 0.5, (1,): 0.3, (0, 1): 0.4, (1, 2): 0.3, (0, 1, 2): 0.2}
    random = np.random.default_rng(2)
    tables = [planted(random, (5, 4, 3), sds) for _ in range(600)]
    for effect in mean_squares(tables[0]):
        found = np.array([estimated(table, effect) for table in tables])
        error = found.std(ddof=1) / np.sqrt(len(found))
        assert abs(found.mean() - sds.get(effect, 0.0) ** 2) < 3.5 * error, effect


def test_one_source_has_the_chi_square_interval_of_a_variance() -> None:
    values = np.random.default_rng(3).normal(size=12)
    found = sd_interval([(1.0, line(values))])
    ends = [np.sqrt(11 * values.var(ddof=1) / stats.chi2.ppf(tail, 11)) for tail in (0.975, 0.025)]
    assert (found.estimate, found.low, found.high) == pytest.approx((values.std(ddof=1), *ends))
    with pytest.raises(ValueError, match="one value has no variance"):
        line(values[:1])


def test_the_interval_of_a_main_effect_covers_it() -> None:
    """95% of 300 intervals have an SD of 1.3% around 95%."""
    random, covered = np.random.default_rng(4), 0
    for _ in range(300):
        table = planted(random, (8, 8), {(0,): 0.5, (1,): 0.4, (0, 1): 0.6})
        squares = mean_squares(table)
        found = sd_interval([(factor, squares[effect]) for effect, factor in component((0,), (8, 8)).items()])
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.5 <= found.high
    assert 0.91 <= covered / 300 <= 0.99
    assert sd_interval([(0.5, MeanSquare(1.0, 4)), (-0.5, MeanSquare(2.0, 4))]).estimate == 0


def runs(seeds: Sequence[dict[str, int]], accuracy: Callable[..., float], **others: Any) -> list[Planned]:
    """A run of each arm for each of these seeds. `accuracy` takes the arm (0: baseline) and the seeds."""
    return [
        Planned({"network": arm, "seed": 0, **others, **each}, [accuracy(number, **each)])
        for number, arm in enumerate(("none", "bn"))
        for each in seeds
    ]


def flat(_arm: int, **_seeds: int) -> float:
    return 0.8


def rising(arm: int, **seeds: int) -> float:
    return 0.8 + arm / 100 + sum(seeds.values()) / 100


def found_in(result: Variance) -> dict[tuple[Any, str, str], float]:
    return {(row.arm, row.of, row.source): row.sd.estimate for row in result.rows}


def test_what_both_arms_share_is_no_source_of_their_difference() -> None:
    """Weights move both arms alike, batches move the second arm twice as far."""
    w, b = [0.01, -0.02, 0.03, 0.0, 0.015], [0.02, 0.0, -0.01, 0.005]

    def accuracy(arm: int, seed_weights: int, seed_batches: int) -> float:
        return 0.8 + w[seed_weights] + (1 + arm) * b[seed_batches]

    crossed = [{"seed_weights": i, "seed_batches": j} for i, j in product(range(5), range(4))]
    found = variance(sweep(runs(crossed, accuracy)))
    assert {row.design for row in found.rows} == {"crossed"}
    assert found_in(found) == pytest.approx(
        {
            ("none", "runs", "weights"): np.std(w, ddof=1),
            ("none", "runs", "batches"): np.std(b, ddof=1),
            ("none", "runs", "interactions"): 0,
            ("none", "runs", "all sources"): np.hypot(np.std(w, ddof=1), np.std(b, ddof=1)),
            ("bn", "runs", "weights"): np.std(w, ddof=1),
            ("bn", "runs", "batches"): 2 * np.std(b, ddof=1),
            ("bn", "runs", "interactions"): 0,
            ("bn", "runs", "all sources"): np.hypot(np.std(w, ddof=1), 2 * np.std(b, ddof=1)),
            ("bn", "difference", "weights"): 0,
            ("bn", "difference", "batches"): np.std(b, ddof=1),
            ("bn", "difference", "interactions"): 0,
            ("bn", "difference", "all sources"): np.std(b, ddof=1),
        },
        abs=1e-8,
    )


def test_one_at_a_time_and_all_together() -> None:
    random = np.random.default_rng(5)
    w, b, s = random.normal(0, [[0.01], [0.02], [0.005]], (3, 40))

    def accuracy(arm: int, **seeds: int) -> float:
        all_of = {"seed_weights": 0, "seed_batches": 0, "seed_subset": 0, **seeds}
        if "seed" in seeds:
            all_of |= dict.fromkeys(all_of, seeds["seed"])
        return float(0.8 + w[all_of["seed_weights"]] + b[all_of["seed_batches"]] + arm * s[all_of["seed_subset"]])

    lines = [{f"seed_{name}": seed} for name in ("weights", "batches", "subset") for seed in range(40)]
    planned = runs([*lines, *({"seed": seed} for seed in range(1, 40))], accuracy, subset="drawn", seed_dropout=0)
    found = variance(sweep(planned))
    sds = found_in(found)
    assert sds["none", "runs", "weights"] == pytest.approx(np.std(w, ddof=1))
    assert sds["none", "runs", "batches"] == pytest.approx(np.std(b, ddof=1))
    assert sds["none", "runs", "subset"] == pytest.approx(0, abs=1e-12)
    assert sds["none", "runs", "weights, batches, subset"] == pytest.approx(np.std(w + b, ddof=1))
    assert sds["none", "runs", "sum of the sources"] == pytest.approx(np.hypot(np.std(w, ddof=1), np.std(b, ddof=1)))
    assert sds["bn", "difference", "subset"] == pytest.approx(np.std(s, ddof=1))
    assert {row.seeds for row in found.rows} == {40, None}


def test_a_plain_sweep_of_seeds_has_one_source_and_what_is_fixed_is_none() -> None:
    planned = runs([{"seed": seed} for seed in range(6)], rising, split="fixed")
    (row, *_) = variance(sweep(planned)).rows
    assert (row.design, row.source, row.seeds) == ("together", "weights, batches, dropout", 6)
    assert row.sd.estimate == pytest.approx(np.std(np.arange(6) / 100, ddof=1))
    shared = runs([{"seed": seed} for seed in range(6)], flat, share_batches=True)
    assert variance(sweep(shared)).rows[0].source == "weights, dropout"


def test_what_a_design_does_not_allow_is_said() -> None:
    crossed = [{"seed_weights": i, "seed_batches": j} for i, j in product(range(3), range(3))]
    planned = runs(crossed, flat)
    planned[0] = Planned(planned[0].parameters, status="failed")
    found = variance(sweep(planned))
    assert {(row.arm, row.of) for row in found.rows} == {("bn", "runs")}
    assert found.notes == (
        "none, runs: 1 of 9 runs have no value, so the crossed table is not complete",
        "bn, difference: 1 of 9 runs have no value, so the crossed table is not complete",
    )
    planned = runs([*crossed[:6], *crossed[7:]], flat)
    with pytest.raises(UserError, match=r"weights and batches are neither crossed .* nor one at a time"):
        variance(sweep(planned))
    with pytest.raises(UserError, match="all runs have the same seeds"):
        variance(sweep(runs([{"seed": 0}], flat)))
    unproven = [Planned(run.parameters, run.accuracy, weights=str(n)) for n, run in enumerate(runs(crossed, rising))]
    assert variance(sweep(unproven)).notes == ("bn: 9 of 9 pairs are not proven, so differences are left out",)


def test_a_comparison_says_that_pairs_share_seeds() -> None:
    crossed = [{"seed_weights": i, "seed_batches": j} for i, j in product(range(4), range(3))]
    comparison = compare([sweep(runs(crossed, rising))])
    assert comparison.cell_columns == ()  # seeds repeat a measurement, so they make no cell
    text = " ".join(render(comparison).split())
    assert "The 12 combinations of seeds have only 4 of weights, 3 of batches: pairs that share a seed are not" in text
    plain = compare([sweep(runs([{"seed": seed} for seed in range(6)], rising))])
    assert "share a seed" not in render(plain)


def test_the_command_from_a_config_to_the_table(
    bnbench: Bnbench, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    config = write(
        "s.yaml",
        "contrast: {axis: network.norm, baseline: none}\n"
        "fixed: {network: mlp, network.hidden: [8], dataset: digits, device: cpu, epochs: 1,"
        " train_samples: 100, subset: drawn}\n"
        "grid: {network.norm: [none, batch], seed_weights: [null, 7], seed_subset: {range: 3}}\n",
    )
    assert bnbench("run", config, "--out", tmp_path, "--executor", "inline", "-q").exit_code == 0
    done = bnbench("variance", tmp_path / "s")
    assert done.exit_code == 0, done.output
    lines = [" ".join(text.split()) for text in done.stdout.splitlines()]
    assert lines[2] == "network.norm of source seeds SD [95%] design"
    assert [text.split()[:4] for text in lines[3:5]] == [
        ["none", "runs", "weights", "2"],
        ["none", "runs", "subset", "3"],
    ]
    records = json.loads(bnbench("variance", tmp_path / "s", "--metric", "test_loss", "--format", "json").stdout)
    assert len(records) == 12
    assert records[0]["metric"] == "test_loss"
    assert bnbench("variance", tmp_path / "s", "--at", "epoch=9").exit_code == 2
    assert "seed_weights cannot be the axis" in bnbench("plan", config, "--set", "contrast.axis=seed_weights").stderr
