"""Each random stream has a seed of its own: weights, batches, dropout, which samples are held out, which are drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from runner import registry
from runner.config.jobs import Job
from runner.config.run_spec import SEEDS, RunSpec
from runner.storage.rows import EpochRow, RunResult
from runner.training.data.preprocessing import data_of, held_out_split
from runner.training.learners.solo import Solo
from runner.training.learners.stack import Stack
from runner.training.loop import batch_orders
from runner.training.networks import build_network
from runner.training.options import TrainingOptions
from runner.training.settings import settings_of
from runner.training.train import train
from tests.conftest import Bnbench
from tests.training.awkward import RUN as SMALL
from tests.training.test_resume_exactly import check

registry.load_plugins()
CPU = torch.device("cpu")
RUN = RunSpec(
    network="mlp",
    network_args={"hidden": [12], "dropout": 0.3},
    dataset="digits",
    device="cpu",
    batch_size=64,
    epochs=2,
)
DRAWN = RUN.changed(split="drawn", subset="drawn", train_samples=300)
ROWS = "train_loss", "train_accuracy", "valid_loss", "valid_accuracy"


def events(*runs: RunSpec) -> tuple[dict[str, list[tuple[float, ...]]], dict[str, RunResult]]:
    """(the readings of each run's epochs, each run's result). Several runs train as a stack."""
    job = Job(runs, "grouped" if len(runs) > 1 else None)
    rows: dict[str, list[tuple[float, ...]]] = {run.run_id: [] for run in runs}
    results = {}
    for event in train(job, TrainingOptions(kernels="torch")):
        if isinstance(event, EpochRow):
            rows[event.run_id].append(tuple(getattr(event, name) for name in ROWS))
        elif isinstance(event, RunResult):
            results[event.run_id] = event
    return rows, results


def seen(run: RunSpec) -> tuple[Any, ...]:
    """What each stream decides: starting weights, batches, dropout masks, held-out samples, training samples."""
    data = data_of([run], Path(), CPU)
    [order], _ = batch_orders([run], data, 1)
    with settings_of(run):
        network = build_network(run)
        solo = Solo(run, network, data)
        solo.begin_epoch(1)
    weights = next(network.parameters()).detach().flatten().tolist()
    own = data.of(0)
    return weights, order.tolist(), solo.keys.tolist(), own.valid.images.sum().item(), own.train.labels.tolist()


def test_each_stream_has_its_own_seed_and_seed_is_short_for_all() -> None:
    base = seen(DRAWN)
    for name, moved in {
        "seed_weights": [0],
        "seed_batches": [1],
        "seed_dropout": [2],
        "seed_split": [1, 3, 4],  # other samples are left to train on, too
        "seed_subset": [1, 4],
        "seed": [0, 1, 2, 3, 4],
    }.items():
        other = seen(DRAWN.changed(**{name: 5}))
        assert [index for index in range(5) if base[index] != other[index]] == moved, name
    written_out = DRAWN.changed(**dict.fromkeys(SEEDS[1:], 5))
    assert seen(written_out) == seen(DRAWN.changed(seed=5))
    assert written_out.run_id != DRAWN.changed(seed=5).run_id


def test_what_is_drawn_is_a_random_choice_of_what_is_not_held_out() -> None:
    runs = [DRAWN.changed(seed_subset=seed) for seed in range(400)]
    data = data_of(runs, Path(), CPU)
    assert data.own_train is not None
    assert data.own_valid is not None
    kept, held_out = held_out_split(len(data.train), 0)
    assert data.own_train.shape == (400, 300)
    for own, valid in zip(data.own_train, data.own_valid, strict=True):
        assert (own.diff() > 0).all()
        assert not torch.isin(own, held_out).any()
        assert torch.equal(valid, held_out)
    # Each sample is in a subset with probability 300/1250: 96 of 400 times, with an SD of 8.5.
    counts = torch.bincount(data.own_train.flatten(), minlength=len(data.train))[kept].double()
    assert counts.mean() == pytest.approx(96)
    assert counts.std() == pytest.approx(8.5, abs=0.6)


def test_the_fixed_split_and_the_first_samples_are_what_they_were() -> None:
    """Seed 0 draws the fixed split, so the two spellings train the same, to the bit."""
    (fixed,) = events(RUN)[0].values()
    (drawn,) = events(RUN.changed(split="drawn", seed_split=0))[0].values()
    assert drawn == fixed
    (other,) = events(RUN.changed(split="drawn", seed_split=1))[0].values()
    assert other != fixed


def test_a_run_on_drawn_samples_is_a_run_on_a_data_set_of_these_samples() -> None:
    run = DRAWN.changed(seed=3)
    data = data_of([run], Path(), CPU)
    own = data.of(0)
    orders, _ = batch_orders([run], data, 1)
    plain, _ = batch_orders([run], own, 1)
    with settings_of(run):
        ours, theirs = (Solo(run, build_network(run), each, "torch") for each in (data, own))
        for learner, order in ((ours, orders), (theirs, plain)):
            learner.begin_epoch(1)
            for batch in order.split(64, dim=1):
                learner.step(batch)
        assert torch.equal(ours.reading(), theirs.reading())
        assert ours.evaluate(data.valid, data.own_valid) == theirs.evaluate(own.valid)


@pytest.mark.parametrize("norm", ["none", "precise"])
def test_a_stack_of_runs_with_drawn_samples_is_its_solo_runs(norm: str) -> None:
    """They share the images on the device, and each has its own batches, held-out samples, flips and probes."""
    arguments = {"hidden": [12], "dropout": 0.3, "norm": norm}
    base = DRAWN.changed(network_args=arguments, augment=["flip"], lr=1e-3, probes=["train"])
    different: Sequence[dict[str, Any]] = [{}, {"seed": 3}, {"seed_subset": 3}, {"seed_split": 3, "seed_dropout": 1}]
    runs = [base.changed(**each) for each in different]
    together, results = events(*runs)
    digests = set()
    for run in runs:
        alone, own = events(run)
        for ours, theirs in zip(together[run.run_id], alone[run.run_id], strict=True):
            assert ours[::2] == pytest.approx(theirs[::2], rel=1e-4)
            # Of 300 and of 250 images, rounding can decide one.
            assert ours[1::2] == pytest.approx(theirs[1::2], abs=0.005)
        result = results[run.run_id]
        assert result.trained_as == "stack of 4"
        assert result.batches_hash == own[run.run_id].batches_hash
        digests.add(result.batches_hash)
    assert len(digests) == 4


def test_a_stack_sees_each_runs_own_images_to_the_bit() -> None:
    runs = [DRAWN.changed(seed=seed) for seed in range(3)]
    data = data_of(runs, Path(), CPU)
    orders, digests = batch_orders(runs, data, 1)
    with settings_of(RUN):
        stack = Stack(runs, [build_network(run) for run in runs], data)
    assert stack.data.train.images.shape[0] == 1500  # once, not once for each run
    for number, run in enumerate(runs):
        own = data_of([run], Path(), CPU)
        [order], [digest] = batch_orders([run], own, 1)
        assert torch.equal(orders[number], order)
        assert digests[number] == digest
        assert torch.equal(data.of(number).valid.images, own.of(0).valid.images)


def test_shared_batches_and_a_dataloader_take_the_drawn_samples() -> None:
    shared = [DRAWN.changed(seed=seed, share_batches=True) for seed in (1, 2)]
    data = data_of(shared, Path(), CPU)
    assert data.own_train is not None
    orders, digests = batch_orders(shared, data, 1)
    for order, own in zip(orders, data.own_train, strict=True):
        assert torch.equal(order.sort().values, own)
    assert digests[0] != digests[1]  # their order is the same, but not what they see
    run = DRAWN.changed(seed=4, network_args={"hidden": [12]}, epochs=1)
    (loaded,), (indexed,) = (events(run.changed(num_workers=n))[0].values() for n in (1, 0))
    assert loaded == indexed


def test_both_arms_of_a_pair_see_the_same() -> None:
    """`batches_hash` has the samples themselves, so it proves the pair also where they are drawn."""
    arms = [DRAWN.changed(seed=2, network_args={"hidden": [12], "norm": norm}) for norm in ("none", "batch")]
    first, second = (next(iter(events(run)[1].values())) for run in arms)
    assert (first.weights_hash, first.batches_hash) == (second.weights_hash, second.batches_hash)


@pytest.mark.parametrize("count", [1, 3])
def test_a_resumed_run_gives_the_same_bytes(count: int, tmp_path: Path) -> None:
    run = SMALL.changed(network="mlp", network_args=RUN.network_args, split="drawn", subset="drawn", augment=["flip"])
    check(tmp_path, *(run.changed(seed=5, seed_subset=seed) for seed in range(count)))


def test_a_seed_without_its_stream_is_an_error(bnbench: Bnbench, write: Callable[[str, str], Path]) -> None:
    text = "name: s\nfixed: {network: lenet, dataset: digits, KEYS}\n"
    for keys, fault in {
        "seed_split: 1": "seed_split belongs to split 'drawn'; this run has split 'fixed'",
        "seed_subset: 1, train_samples: 9": "seed_subset belongs to subset 'drawn'; this run has subset 'first'",
        "subset: drawn": "subset 'drawn' needs train_samples: how many samples are drawn",
        "split: drawn, validate_on: test": "split 'drawn' belongs to validate_on 'held_out'",
        "seed_batches: 1, share_batches: true": "with share_batches, every run uses seed 0's batch order",
        "seed_weights: -1": "seed_weights",
    }.items():
        done = bnbench("validate", write("s.yaml", text.replace("KEYS", keys)))
        assert done.exit_code == 2
        assert fault in done.stderr
