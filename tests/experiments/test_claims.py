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
from runner.analysis.claims.claim import BUDGETS, Claim, chosen_claims, family, sweeps_of
from runner.analysis.claims.judge import evaluate
from runner.analysis.claims.trained import config_values
from runner.analysis.stats.verdicts import fewest_pairs
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
    assert all((claim.sentence, claim.source, claim.metric, claim.unit, claim.reason, claim.document.parameters))
    runs = {}
    for budget in BUDGETS:
        sweep = claim.sweep(budget)
        assert sweep.name == claim.sweep_name  # where its results are looked for
        assert sweep.axis is not None
        assert sweep.baseline is not None
        runs[budget] = len(sweep.runs)
        seeds = {run.seed for run in sweep.runs}
        assert len(seeds - set(claim.selection_seeds)) >= {"smoke": 2, "small": 10, "full": 20}[budget]
        assert bool(seeds & set(claim.selection_seeds)) == bool(claim.selection_seeds)
    assert runs["smoke"] < runs["small"] < runs["full"]
    assert {run.dataset for run in claim.sweep("smoke").runs} == {"digits"}  # needs no download


def test_a_claim_trains_as_its_document_did_and_without_a_ragged_batch(name: str) -> None:
    claim = built(name)
    values = config_values(claim.sweep("full").resolved)
    assert {key: values[key] for key in claim.document.parameters} == claim.document.parameters
    assert values["drop_last"]


def test_claims_that_share_a_config_share_its_runs() -> None:
    for budget in BUDGETS:
        sweeps: dict[str, list[str]] = {}
        for claim in chosen_claims():
            ids = [run.run_id for run in claim.sweep(budget).runs]
            assert sweeps.setdefault(claim.sweep_name, ids) == ids, (claim.name, budget)


def test_a_measure_finds_nothing_where_nothing_is(name: str, tmp_path: Path) -> None:
    claim = built(name)
    differences = claim.measure(world(claim, tmp_path, planted=False)).differences
    assert differences.shape[-1] == SEEDS
    assert np.isfinite(differences).all()
    assert np.abs(differences).max() < 1e-9


def test_a_measure_finds_what_is_planted(name: str, tmp_path: Path) -> None:
    claim = built(name)
    found = claim.measure(world(claim, tmp_path, planted=True))
    for part in found.parts():
        assert part.differences.shape == (SEEDS,)
        effect = claim.scale * part.estimate(claim.effect).interval().estimate
        if name == "no_exploding_gradients_sigmoid":  # Nothing explodes there.
            assert effect == 0
        elif claim.claimed == "equivalence":
            assert abs(effect) > claim.smallest_effect
        else:
            assert effect * claim.claimed >= claim.smallest_effect


def test_a_measure_misses_the_seed_of_a_failed_run(name: str, tmp_path: Path) -> None:
    claim = built(name)
    results = world(claim, tmp_path, planted=True)
    tested = ~results.runs["seed"].isin(list(claim.selection_seeds))
    first, last = results.runs.index[tested][[0, -1]]
    for run in (first, last):  # one of each arm; both have a seed of their own
        results.runs.loc[run, "status"] = "failed"
    differences = np.atleast_2d(claim.measure(results).differences)
    assert differences.shape[-1] == SEEDS
    missed = np.asarray(np.isnan(differences).any(axis=0))
    # Where a learning rate is chosen, the runs may be those of another rate.
    assert missed.any() or claim.selection_seeds
    assert not missed[1:-1].any()


def test_each_arm_is_judged_at_the_learning_rate_that_other_seeds_chose(tmp_path: Path) -> None:
    claim = built("faster_at_own_best_lr")
    results = world(claim, tmp_path, planted=False)
    runs = results.runs
    chooses = runs["seed"].isin(list(claim.selection_seeds))
    ours, theirs = ((runs["network.norm"] == arm) & (runs["lr"] == lr) for arm, lr in (("batch", 0.3), ("none", 1.0)))
    curves = pd.read_csv(tmp_path / "curves.csv")

    def of(chosen: pd.Series) -> pd.Series:
        return curves["run"].isin(runs.loc[chosen, "run"])

    curves.loc[of(chooses), "valid_accuracy"] = 0.5
    curves.loc[of(chooses & (ours | theirs)), "valid_accuracy"] = 0.6
    # The tested seeds are better at another rate, and must not choose it.
    curves.loc[of(~chooses & (runs["lr"] == 0.03)), "valid_accuracy"] = 0.9
    curves.loc[of(~chooses & ours) & (curves["step"] > 100), "valid_accuracy"] = 0.999
    curves.loc[of(~chooses & ours) & (curves["step"] <= 100), "valid_accuracy"] = 0.1
    gone = of(~chooses & theirs) & (curves["step"] > 400)
    curves.loc[of(~chooses & theirs), "valid_accuracy"] = 0.1
    runs.loc[~chooses & theirs, "status"] = "diverged"  # after the 40th of 100 readings
    curves[~gone].to_csv(tmp_path / "curves.csv", index=False)
    assert claim.remarks is not None
    assert claim.remarks(results) == (
        "best lr of none: 1, the edge of the grid: a rate beyond it may be better",
        "best lr of batch: 0.3",
    )
    found = claim.measure(results)
    # Batch norm at 0.3 is there at step 110; the other, diverged, counts as the whole 1000, and as censored.
    assert found.values == pytest.approx(np.full(SEEDS, 110))
    assert found.baseline == pytest.approx(np.full(SEEDS, 1000))
    assert (found.censored, found.bound) == ((0, SEEDS), "at most")
    area = built("larger_area_at_own_best_lr").measure(results)
    assert area.differences == pytest.approx(np.full(SEEDS, 90 * 0.899))  # 0.999 instead of 0.1


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
    # Both reach a loss of 0.2: batch norm at its last epoch, the other half-way between its second and third. An
    # accuracy is the median of the epoch and those beside it, here 0.7 at the last epoch, and 0.7 and 0.75.
    assert claim.measure(results).differences == pytest.approx(np.full(SEEDS, 100 * (0.7 - 0.725)))


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
    assert {finding.word for finding in found.values()} == {"NOT TESTED"}
    momentum = found["momentum_changes_evaluation_only"]
    assert momentum.differences == (0.0, 0.0)  # to the last bit


# A world made by hand


def write_readings(table: pd.DataFrame, path: Path) -> None:
    """With 0 in the columns that no claim reads."""
    columns = [*FIELDS[path.name], "run_id"]
    table.reindex(columns=columns).fillna(dict.fromkeys(set(columns) - set(table), 0)).to_csv(path, index=False)


def world(claim: Claim, folder: Path, *, planted: bool) -> Results:
    """The claim's own sweep as tables: arms alike, or batch norm with every virtue it is said to have."""
    seeds = [*list(claim.selection_seeds)[:1], *range(2000, 2000 + SEEDS)]
    sweep = config.load(claim.config, (f"grid.seed={seeds}",))
    parameters = [run.parameters for run in sweep.runs]
    runs = pd.DataFrame([{column: row.get(column) for column in sweep.columns} for row in parameters])
    facts = [_facts(run, _treated(run, sweep) if planted else None) for run in sweep.runs]
    metrics, curves, probes = [], [], []
    for number, (run, fact) in enumerate(zip(sweep.runs, facts, strict=True), start=1):
        metrics += [{"run": number, **row} for row in _epochs(run, fact)]
        curves += [{"run": number, **row, "run_id": run.run_id} for row in _readings(run, fact)]
        probes += [
            {"run": number, "epoch": run.epochs * (row["step"] == 100), **row, "run_id": run.run_id}
            for row in _probes(run, fact)
        ]
    write_readings(pd.DataFrame(curves), folder / "curves.csv")
    write_readings(pd.DataFrame(probes), folder / "probes.csv")
    facts_table = pd.DataFrame(
        {
            "run": range(1, len(facts) + 1),
            "status": ["diverged" if fact["diverged"] else "ok" for fact in facts],
            "test_accuracy": [fact["accuracy"] for fact in facts],
            "weights_hash": "w",
            "batches_hash": "b",
            "code_hash": "c",
            "code_digests": "",
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
    noise = (run.seed % 10 - (SEEDS - 1) / 2) / 1000
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
    """Low, then high, then in the last epoch the run's accuracy. In the second half every other one is lower."""
    readings = run.epochs * 10
    for reading in range(1, readings + 1):
        high = reading / readings >= fact["reached"]
        accuracy = fact["accuracy"] if 1 < run.epochs < reading / 10 + 1 else 0.999 if high else 0.1
        accuracy -= fact["jump"] if reading % 2 and reading > readings / 2 else 0
        yield {"epoch": reading / 10, "step": 10 * reading, "duration": 1.0 * reading, "valid_accuracy": accuracy}


def _probes(run: RunSpec, fact: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for layer in range(1, 32):
        explodes = fact["treated"] and run.network_args.get("activation") == "relu"
        slope = -0.5 if explodes else fact["vanishing"]
        value = math.exp(-slope * (31 - layer) / 3)
        yield {"step": 0, "layer": str(layer), "measure": "output_gradient_squared", "value": value}
    precise = {"layer": "", "measure": "precise_valid_accuracy"}
    yield {"step": 0, **precise, "value": 0.1}
    yield {"step": 10, **precise, "value": 0.1 + fact["gap"]}
    yield {"step": 100, **precise, "value": fact["accuracy"] - fact["gap"]}
    yield {"step": 100, "layer": "", "measure": "eval_train_loss", "value": fact["loss"]}
    for measure in ("moving_valid_accuracy", "batch_valid_accuracy_2", "batch_valid_accuracy_256"):
        gap = 0 if measure.startswith("moving") else fact["gap"]
        yield {"step": 100, "layer": "", "measure": measure, "value": fact["accuracy"] - gap}


def test_the_full_budget_has_the_seeds_to_show_a_sign() -> None:
    for name in registry.claim:
        seeds = {run.seed for run in built(name).sweep("full").runs} - set(built(name).selection_seeds)
        assert len(seeds) >= fewest_pairs(len(family(name))), name
