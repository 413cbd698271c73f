"""A run's id says what is trained. A parameter that is added later changes no id of before."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from runner.config.reader import load
from runner.config.run_spec import LATER, SEEDS, SWAP, RunSpec

CONFIGS = Path(__file__).parent.parent.parent / "configs"

# The first run's id, and a digest of all ids, as the version before `deterministic` gave them.
BEFORE = {
    "quickstart": ("62cc9539acb0", "96524859de08febf"),
    "tutorial": ("27f0c44a8613", "5e0b9bf2a63dcee7"),
    "d2l_vgg": ("ab0f5bb5de4a", "6e4188b3e31bcc06"),
    "unit_orders": ("3bebc91656b3", "307faccc89d92aa8"),
    "calibration/different_seeds": ("1ae27a58b415", "5bddfcb6a7c5c917"),
    "claims/learning_rates": ("256f37cdc568", "c135641921165018"),
    "claims/gradients": ("1ee47a350488", "4def4de4640930e5"),
}


THEN = {
    "quickstart": (
        *("fixed.dataset=digits", "fixed.lr=0.01", "fixed.epochs=5", "fixed.evaluations_per_epoch=1"),
        "grid={network: [no_batch_norm, batch_norm], seed: {range: 10}}",
    ),
    "claims/learning_rates": (
        "fixed.drop_last=false",
        "fixed.train_samples=null",
        "grid.seed={range: 20}",
    ),
    "claims/gradients": ("fixed.drop_last=false", "fixed.validate_on=held_out", "grid.seed={range: 20}"),
}
"""Config → what it said then."""


@pytest.mark.parametrize("name", BEFORE)
def test_ids_are_those_of_before(name: str) -> None:
    ids = [run.run_id for run in load(CONFIGS / f"{name}.yaml", THEN.get(name, ())).runs]
    assert (ids[0], hashlib.sha256(" ".join(ids).encode()).hexdigest()[:16]) == BEFORE[name]


def test_a_later_parameter_is_part_of_the_id_where_it_is_not_at_its_default() -> None:
    run = RunSpec(network="lenet")
    assert run.changed(deterministic=True).run_id == run.run_id
    assert run.changed(deterministic=False).run_id != run.run_id
    assert run.parameters["deterministic"] is True  # a column of the tables all the same


def test_only_later_parameters_are_left_out() -> None:
    assert set(LATER) == {"deterministic", *SWAP, "augment", "crop_padding", "split", "subset", *SEEDS[1:]}
    run = RunSpec(network="lenet")
    for name, value in {"epochs": 11, "shuffle": False, "share_batches": True, "precision": "bf16"}.items():
        assert run.changed(**{name: value}).run_id != run.run_id
