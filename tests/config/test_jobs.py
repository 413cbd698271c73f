"""Which runs train together."""

from __future__ import annotations

from runner.config.jobs import STACKABLE, expected_stacks
from runner.config.run_spec import SEEDS, RunSpec

BASE = RunSpec(network="batch_norm", dataset="digits", device="cpu")
DIFFERENT = {
    **dict.fromkeys(SEEDS, 7),
    "lr": 0.5,
    "momentum": 0.9,
    "weight_decay": 0.1,
    "lr_schedule": "cosine",
    "lr_step": 3,
    "lr_gamma": 0.5,
}


def test_runs_that_differ_in_what_a_stack_can_hold_are_one_stack() -> None:
    assert set(DIFFERENT) == set(STACKABLE)
    base = BASE.changed(split="drawn", subset="drawn", train_samples=100)
    runs = [base, *(base.changed(**{name: value}) for name, value in DIFFERENT.items())]
    assert expected_stacks(runs, "on", workers=1) == [tuple(runs)]


def test_anything_else_parts_them() -> None:
    for change in (
        {"network": "no_batch_norm"},
        {"network_args": {"norm": "batch"}},
        {"batch_size": 7},
        {"optimizer": "sgd"},
        {"epochs": 3},
        {"split": "drawn"},
        {"precision": "bf16"},
    ):
        assert len(expected_stacks([BASE, BASE.changed(**change)], "on", workers=1)) == 2, change


def test_auto_stacks_on_cuda_alone() -> None:
    for device, count in (("cpu", 2), ("cuda", 1), ("cuda:1", 1)):
        pair = [BASE.changed(device=device, seed=seed) for seed in range(2)]
        assert len(expected_stacks(pair, "auto", workers=1)) == count
        assert len(expected_stacks(pair, "off", workers=1)) == 2


def test_a_data_loader_serves_one_run() -> None:
    assert len(expected_stacks([BASE.changed(num_workers=1, seed=seed) for seed in range(2)], "on", workers=1)) == 2


def test_every_run_is_in_one_job_and_every_worker_has_one() -> None:
    runs = [BASE.changed(network=name, seed=seed) for seed in range(11) for name in ("batch_norm", "no_batch_norm")]
    for workers in range(1, 6):
        found = expected_stacks(runs, "on", workers)
        assert sorted(run.run_id for job in found for run in job) == sorted(run.run_id for run in runs)
        assert len(found) >= workers
        sizes = [len(job) for job in found]
        assert max(sizes) - min(sizes) <= 1
        assert found[0][0] == runs[0]
