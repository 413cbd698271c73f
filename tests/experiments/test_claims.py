"""Every registered claim, unasked: it can be planned on every budget, and its measure finds what is planted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from runner import registry
from runner.analysis.claims.claim import BUDGETS, Claim, chosen_claims, sweeps_of
from runner.analysis.claims.judge import evaluate
from runner.config import reader as config
from runner.config.run_spec import RunSpec
from runner.config.sweep import Sweep
from runner.execution.driver import run_sweeps
from runner.execution.options import Options
from runner.storage.results import Results
from runner.storage.tables import FIELDS, RUN_FIELDS

SEEDS = 4


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    registry.load_plugins()  # before the claims are listed
    if "name" in metafunc.fixturenames:
        metafunc.parametrize("name", list(registry.claim))


def built(name: str) -> Claim:
    found: Claim = registry.claim[name](name)
    return found


def test_a_claim_can_be_planned_on_every_budget(name: str) -> None:
    claim = built(name)
    assert claim.name == name
    assert claim.smallest_effect > 0
    assert all((claim.sentence, claim.source, claim.metric, claim.unit))
    runs = {}
    for budget in BUDGETS:
        sweep = claim.sweep(budget)
        assert sweep.name == claim.sweep_name  # where its results are looked for
        assert sweep.axis is not None
        assert sweep.baseline is not None
        runs[budget] = len(sweep.runs)
        seeds = {run.seed for run in sweep.runs}
        assert len(seeds) >= {"smoke": 2, "small": 10, "full": 20}[budget]
    assert runs["smoke"] < runs["small"] < runs["full"]
    assert {run.dataset for run in claim.sweep("smoke").runs} == {"digits"}  # needs no download


def test_claims_that_share_a_config_share_its_runs() -> None:
    for budget in BUDGETS:
        sweeps: dict[str, list[str]] = {}
        for claim in chosen_claims():
            ids = [run.run_id for run in claim.sweep(budget).runs]
            assert sweeps.setdefault(claim.sweep_name, ids) == ids, (claim.name, budget)


def test_a_measure_finds_nothing_where_nothing_is(name: str, tmp_path: Path) -> None:
    claim = built(name)
    differences = claim.measure(world(claim, tmp_path, planted=False))
    assert differences.shape[-1] == SEEDS
    assert np.isfinite(differences).all()
    assert np.abs(differences).max() < 1e-9


def test_a_measure_finds_what_is_planted(name: str, tmp_path: Path) -> None:
    claim = built(name)
    differences = np.atleast_2d(claim.measure(world(claim, tmp_path, planted=True)))
    assert differences.shape[-1] == SEEDS
    for part in differences:
        if claim.claimed == "equivalence":
            assert abs(part.mean()) > claim.smallest_effect
        else:
            assert part.mean() * claim.claimed >= claim.smallest_effect


def test_a_measure_misses_the_seed_of_a_failed_run(name: str, tmp_path: Path) -> None:
    claim = built(name)
    results = world(claim, tmp_path, planted=True)
    for run in (0, len(results.runs) - 1):  # one of each arm; both have a seed of their own
        results.runs.loc[run, "status"] = "failed"
    differences = np.atleast_2d(claim.measure(results))
    assert differences.shape[-1] == SEEDS
    assert np.isnan(differences).any()
    assert np.isfinite(differences[..., 1:-1]).all()


def test_each_arm_is_judged_at_its_own_best_learning_rate(tmp_path: Path) -> None:
    claim = built("faster_at_own_best_lr")
    results = world(claim, tmp_path, planted=False)
    runs = results.runs
    ours, theirs = ((runs["network.norm"] == arm) & (runs["lr"] == lr) for arm, lr in (("batch", 0.3), ("none", 1.0)))
    best = results.metrics["run"].isin(runs.loc[ours | theirs, "run"])
    results.metrics.loc[best, "valid_accuracy"] += 0.1
    curves = pd.read_csv(tmp_path / "curves.csv")
    fast = curves["run"].isin(runs.loc[ours, "run"])
    curves.loc[fast & (curves["step"] > 100), "valid_accuracy"] = 0.999
    gone = curves["run"].isin(runs.loc[theirs, "run"]) & (curves["step"] > 400)
    runs.loc[theirs, "status"] = "diverged"  # after the 40th of 50 readings
    curves[~gone].to_csv(tmp_path / "curves.csv", index=False)
    assert claim.remarks is not None
    assert claim.remarks(results) == ("best lr of none: 1 (edge of the grid)", "best lr of batch: 0.3")
    # Batch norm at 0.3 is there at step 110; the other, diverged, counts as the whole 500.
    assert claim.measure(results) == pytest.approx(np.full(SEEDS, -78))
    area = built("larger_area_at_own_best_lr").measure(results)
    assert area == pytest.approx(np.full(SEEDS, 100 * (40 - 21) / 50 * 0.899))  # 0.999 instead of 0.1


def test_accuracy_is_compared_at_the_lowest_loss_both_reach(tmp_path: Path) -> None:
    claim = built("better_generalisation_at_matched_loss")
    results = world(claim, tmp_path, planted=False)
    epochs = {"none": [(0.5, 0.6), (0.3, 0.7), (0.1, 0.8)], "batch": [(0.6, 0.4), (0.4, 0.5), (0.2, 0.9)]}
    rows = [
        {"run": run, "step": step, "eval_train_loss": loss, "valid_accuracy": accuracy}
        for run, arm in zip(results.runs["run"], results.runs["network.norm"], strict=True)
        for step, (loss, accuracy) in enumerate(epochs[arm], start=1)
    ]
    table = pd.DataFrame(rows)
    results = replace(results, metrics=table.drop(columns="eval_train_loss"))
    probes = table.melt(["run", "step"], ["eval_train_loss"], "measure").assign(layer="")
    write_readings(probes, tmp_path / "probes.csv")
    # Both reach a loss of 0.2: batch norm at its last epoch, the other half-way between its second and third.
    assert claim.measure(results) == pytest.approx(np.full(SEEDS, 100 * (0.9 - 0.75)))


def test_claims_run_end_to_end(tmp_path: Path) -> None:
    """One sweep for six claims, on the digits."""
    chosen = [claim for claim in chosen_claims() if claim.sweep_name in ("notebook_mlp_mnist", "momentum")]
    assert len(chosen) == 7
    options = Options(out=tmp_path, executor="inline", quiet=True)
    assert run_sweeps(sweeps_of(chosen, "smoke"), options, print) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["momentum", "notebook_mlp_mnist"]
    found = {finding.claim.name: finding for finding in evaluate(chosen, tmp_path)}
    # Whether a target is reached before the shortest run ends is the clock's to say, not this test's.
    assert found.pop("faster_in_seconds_notebook_mlp").planned == 2
    assert {(finding.n, finding.planned) for finding in found.values()} == {(2, 2)}
    assert not any(finding.notes for finding in found.values())
    momentum = found["momentum_changes_evaluation_only"]
    assert momentum.word == "EQUIVALENT"
    assert momentum.differences == (0.0, 0.0)  # to the last bit


# A world made by hand


def write_readings(table: pd.DataFrame, path: Path) -> None:
    """With 0 in the columns that no claim reads."""
    columns = [*FIELDS[path.name], "run_id"]
    table.reindex(columns=columns).fillna(dict.fromkeys(set(columns) - set(table), 0)).to_csv(path, index=False)


def world(claim: Claim, folder: Path, *, planted: bool) -> Results:
    """The claim's own sweep as tables: arms alike, or batch norm with every virtue it is said to have."""
    sweep = config.load(claim.config, (f"grid.seed={{range: {SEEDS}}}",))
    parameters = [run.parameters for run in sweep.runs]
    runs = pd.DataFrame([{column: row.get(column) for column in sweep.columns} for row in parameters])
    facts = [_facts(run, _treated(run, sweep) if planted else None) for run in sweep.runs]
    metrics, curves, probes = [], [], []
    for number, (run, fact) in enumerate(zip(sweep.runs, facts, strict=True), start=1):
        metrics += [{"run": number, **row} for row in _epochs(run, fact)]
        curves += [{"run": number, **row, "run_id": run.run_id} for row in _readings(run, fact)]
        probes += [{"run": number, **row, "run_id": run.run_id} for row in _probes(fact)]
    write_readings(pd.DataFrame(curves), folder / "curves.csv")
    write_readings(pd.DataFrame(probes), folder / "probes.csv")
    facts_table = pd.DataFrame(
        {
            "run": range(1, len(facts) + 1),
            "status": ["diverged" if fact["diverged"] else "ok" for fact in facts],
            "test_accuracy": [fact["accuracy"] for fact in facts],
            "weights_hash": "w",
            "batches_hash": "b",
        }
    ).reindex(columns=list(RUN_FIELDS))
    return Results(
        folder=folder,
        name=sweep.name,
        axis=sweep.axis,
        baseline=sweep.baseline,
        parameters=sweep.columns,
        grid_keys=sweep.grid_keys,
        metrics=pd.DataFrame(metrics),
        runs=pd.concat([facts_table, runs], axis=1),
    )


def _treated(run: RunSpec, sweep: Sweep) -> bool:
    value = run.parameters[sweep.axis or ""]
    return bool(value == "batch" if sweep.axis == "network.norm" else value != sweep.baseline)


def _facts(run: RunSpec, treated: bool | None) -> dict[str, Any]:
    """What becomes of a run: `treated` None, nothing depends on the arm."""
    noise = (run.seed - (SEEDS - 1) / 2) / 1000
    accuracy = 0.8 + noise
    if treated is True:
        accuracy += 0.02 * math.log2(run.batch_size)
    if treated is False:
        accuracy += 10 * noise
        hard = run.lr > 0.1 or run.network_args.get("std", 0.05) != 0.05
        accuracy -= 0.3 if hard else 0.0
    return {
        "treated": treated,
        "accuracy": accuracy,
        "diverged": treated is False and run.lr == 3.0,
        "reached": 0.2 if treated else 0.6,
        "jump": 0.1 if treated is False else 0.0,
        "vanishing": {True: 0.05, False: 1.0, None: 0.3}[treated],
        "loss": 0.1 if treated else 0.2,
        "gap": 0.02 if treated else 0.0,
    }


def _epochs(run: RunSpec, fact: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for epoch in range(1, run.epochs + 1):
        accuracy = fact["accuracy"] - (fact["jump"] if epoch == run.epochs - 1 else 0)
        yield {
            "epoch": epoch,
            "step": 100 * epoch,
            "train_loss": fact["loss"] / epoch + run.seed,
            "valid_loss": 1.0,
            "train_accuracy": 0.5,
            "valid_accuracy": accuracy,
            "run_duration": 1.0 * epoch,
        }


def _readings(run: RunSpec, fact: dict[str, Any]) -> Iterator[dict[str, Any]]:
    readings = run.epochs * 10
    for reading in range(1, readings + 1):
        high = reading / readings >= fact["reached"]
        yield {"step": 10 * reading, "duration": 1.0 * reading, "valid_accuracy": 0.999 if high else 0.1}


def _probes(fact: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for layer in range(1, 32):
        value = math.exp(-fact["vanishing"] * (31 - layer) / 3)
        yield {"step": 0, "layer": str(layer), "measure": "output_gradient_squared", "value": value}
    precise = {"layer": "", "measure": "precise_valid_accuracy"}
    yield {"step": 0, **precise, "value": 0.1}
    yield {"step": 10, **precise, "value": 0.1 + fact["gap"]}
    yield {"step": 100, **precise, "value": fact["accuracy"] - fact["gap"]}
    yield {"step": 100, "layer": "", "measure": "eval_train_loss", "value": fact["loss"]}
    for measure in ("moving_valid_accuracy", "batch_valid_accuracy_2", "batch_valid_accuracy_256"):
        gap = 0 if measure.startswith("moving") else fact["gap"]
        yield {"step": 100, "layer": "", "measure": measure, "value": fact["accuracy"] - gap}


def test_the_small_budget_has_the_seeds_to_reject_after_holm() -> None:
    chosen = chosen_claims()
    for claim in chosen:
        seeds = {run.seed for run in claim.sweep("small").runs}
        assert 2 ** (1 - len(seeds)) * len(chosen) < 0.05, claim.name
