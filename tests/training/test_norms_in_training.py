"""Norm layers for which the learner does something: `precise` before an evaluation, `frozen` at an epoch's start."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from experiments.norms import build_norm
from runner import registry
from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.storage.rows import EpochRow, Event, ProbeRow, RunResult
from runner.training.averages import reestimate
from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData, prepare
from runner.training.evaluation import evaluate
from runner.training.learners.learner import Learner
from runner.training.learners.solo import Solo
from runner.training.learners.stack import Stack
from runner.training.networks import build_network
from runner.training.options import TrainingOptions
from runner.training.probes.norms import norm_states
from runner.training.settings import settings_of
from runner.training.train import train

RUN = RunSpec(
    network="mlp",
    network_args={"hidden": [20, 20], "norm": "precise"},
    dataset="digits",
    device="cpu",
    optimizer="sgd",
    lr=0.1,
    batch_size=100,
    epochs=3,
)
LEARNERS = {"alone": 1, "stacked": 3}


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    with settings_of(RUN):
        yield


@pytest.fixture
def data() -> RunData:
    return prepare("digits", Path(), "normal", "held_out", None, torch.device("cpu"))


def learner_of(run: RunSpec, count: int, data: RunData) -> Learner:
    runs = [run.changed(seed=seed) for seed in range(count)]
    networks = [build_network(each) for each in runs]
    return Solo(run, networks[0], data, "torch") if count == 1 else Stack(runs, networks, data)


def with_norm(norm: str, run: RunSpec = RUN, **norm_args: object) -> RunSpec:
    return run.changed(network_args={**run.network_args, "norm": norm, "norm_args": norm_args})


def events(*runs: RunSpec) -> list[Event]:
    return list(
        train(Job(runs, "grouped" if len(runs) > 1 else None), TrainingOptions(kernels="torch", save_weights=True))
    )


def losses(found: list[Event], run: RunSpec, name: str) -> list[float]:
    return [getattr(row, name) for row in found if isinstance(row, EpochRow) and row.run_id == run.run_id]


def weights(found: list[Event], run: RunSpec) -> dict[str, Tensor]:
    (packed,) = [event.weights for event in found if isinstance(event, RunResult) and event.run_id == run.run_id]
    state: dict[str, Tensor] = torch.load(io.BytesIO(packed or b""), weights_only=True)
    return state


# precise


@pytest.mark.parametrize("count", LEARNERS.values(), ids=LEARNERS)
def test_precise_averages_are_torchs_update_bn(count: int, data: RunData) -> None:
    """The oracle is the same network with torch's own layers. It is asked after each of two epochs."""
    learner = learner_of(RUN, count, data)
    learner.begin_epoch(1)
    for _ in range(2):
        for index in torch.arange(len(data.train)).split(100):
            learner.step(index.unsqueeze(0))
        learner.reestimate()
        found = learner.evaluate(data.valid)
        for number in range(count):
            member = learner.member(number)
            theirs = build_network(with_norm("batch"))
            parameters = {name: value for name, value in member.state_dict().items() if "running" not in name}
            theirs.load_state_dict(parameters, strict=False)
            torch.optim.swa_utils.update_bn(data.train.images.split(1000), theirs)
            expected = dict(theirs.named_buffers())
            for name, average in member.named_buffers():
                torch.testing.assert_close(average, expected[name], rtol=1e-4, atol=1e-5)
            assert found[number] == pytest.approx(evaluate(theirs, data.valid), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("count", LEARNERS.values(), ids=LEARNERS)
def test_precise_trains_as_batch_norm_does(count: int) -> None:
    """The re-estimation has no influence on training: not on batches, dropout masks or weights."""
    runs = [[with_norm(norm, RUN).changed(seed=seed) for seed in range(count)] for norm in ("precise", "hand_written")]
    for each in runs:
        for number, run in enumerate(each):
            each[number] = run.changed(network_args={**run.network_args, "dropout": 0.3}, evaluations_per_epoch=2)
    precise, batch = (events(*each) for each in runs)
    for ours, theirs in zip(*runs, strict=True):
        assert losses(precise, ours, "train_loss") == losses(batch, theirs, "train_loss")
        assert losses(precise, ours, "valid_loss") != losses(batch, theirs, "valid_loss")
        after = weights(batch, theirs)
        for name, value in weights(precise, ours).items():
            if "running" not in name and "tracked" not in name:
                assert torch.equal(value, after[name])
    hashes = [[event.batches_hash for event in found if isinstance(event, RunResult)] for found in (precise, batch)]
    assert hashes[0] == hashes[1]


def test_a_stacked_precise_run_is_the_run_alone() -> None:
    runs = [RUN.changed(seed=seed, network_args={**RUN.network_args, "dropout": 0.3}) for seed in range(3)]
    stacked = events(*runs)
    for run in runs:
        assert losses(stacked, run, "valid_loss") == pytest.approx(losses(events(run), run, "valid_loss"), rel=1e-4)


class Moody(nn.Module):
    """It has a precise norm, one that keeps its own averages, a counter, and a dropout that draws from torch."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 8), build_norm("precise", 8, 1), nn.Dropout(0.5), nn.BatchNorm1d(8)
        )
        self.last = nn.Linear(8, 10)
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        y: Tensor = self.last(self.layers(images))
        return y


def test_reestimation_changes_nothing_but_the_layers_that_ask(data: RunData) -> None:
    registry.network("moody")(lambda: Moody())
    run = RUN.changed(network="moody", network_args={})
    learner = learner_of(run, 1, data)
    network: Any = learner.member(0)
    learner.begin_epoch(1)
    learner.step(torch.arange(50).unsqueeze(0))
    before, stream = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    images = data.train.images.clone()
    learner.reestimate()
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.equal(data.train.images, images)
    assert network.calls == 1
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    changed = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
    averages = "running_mean", "running_var", "num_batches_tracked"
    assert changed == [f"layers.2.{name}" for name in averages]


@pytest.mark.parametrize("count", LEARNERS.values(), ids=LEARNERS)
def test_a_last_batch_of_one_image_is_left_out(count: int, data: RunData) -> None:
    """Its statistics would have no variance."""
    images = data.train.images[:1].expand(1001, -1, -1, -1) * torch.arange(1001).view(-1, 1, 1, 1) / 1000
    train = Split(images, data.train.labels[:1].expand(1001))
    learner = learner_of(RUN, count, replace(data, train=train))
    learner.reestimate()
    tracked = [buffer for name, buffer in learner.member(0).named_buffers() if name.endswith("tracked")]
    assert [int(number) for number in tracked] == [1, 1]


def test_a_training_set_of_one_image_is_averaged_over(data: RunData) -> None:
    network = nn.Sequential(build_norm("precise", 1, 2), nn.Flatten())
    reestimate(network, [network[0]], data.train[:1])
    assert float(network.get_buffer("0.running_mean")) == pytest.approx(float(data.train.images[0].mean()), rel=1e-5)


# frozen


@pytest.mark.parametrize("count", LEARNERS.values(), ids=LEARNERS)
def test_frozen_statistics_stay_those_of_the_last_epoch_before(count: int) -> None:
    """After one epoch of three, the averages are those of a run of one epoch, and the weights are not."""
    run = with_norm("frozen", after=1)
    long, short, never = (
        [each.changed(seed=seed) for seed in range(count)]
        for each in (run, run.changed(epochs=1), with_norm("frozen", after=3))
    )
    found, first, unfrozen = events(*long), events(*short), events(*never)
    for ours, theirs, other in zip(long, short, never, strict=True):
        end, one = weights(found, ours), weights(first, theirs)
        for name, value in end.items():
            kept = "running" in name or "tracked" in name
            assert torch.equal(value, one[name]) == kept, name
        train_losses, plain = (losses(each, r, "train_loss") for each, r in ((found, ours), (unfrozen, other)))
        assert train_losses[0] == plain[0]
        assert train_losses[1] != plain[1]


def test_inspection_sees_what_a_frozen_layer_passes_on(data: RunData) -> None:
    """That it is frozen is saved with the weights: the layer after it gets what it got in training."""
    run = with_norm("frozen")
    network: Any = build_network(run)
    network.load_state_dict(weights(events(run), run))
    images = data.train.images[:50]
    states = norm_states(copy.deepcopy(network), images)
    with torch.no_grad():
        hidden = network[4](network.eval()[:4](images))
    torch.testing.assert_close(states["5"]["batch_mean"], hidden.double().mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states["5"]["batch_var"], hidden.double().var(0, correction=0), rtol=1e-5, atol=1e-5)


# every norm


@pytest.mark.parametrize("norm", ["ghost", "frozen", "renorm", "precise", "dyt"])
def test_probes_work(norm: str) -> None:
    probes = ("norms", "batch_statistics", "precise", "gradients", "activations")
    run = with_norm(norm).changed(probes=probes, epochs=2)
    rows = [event for event in events(run) if isinstance(event, ProbeRow)]
    measures = {row.measure for row in rows if row.epoch == 2}
    assert {"gamma_mean", "beta_sd", "precise_valid_accuracy", "batch_valid_accuracy_8"} <= measures
    assert ("mean_gap" in measures) == ("running_mean_mean" in measures) == (norm != "dyt")
    last = {row.measure: row.value for row in rows if row.epoch == 2 and not row.layer}
    if norm == "precise":
        # The averages are already precise.
        assert last["precise_valid_accuracy"] == last["moving_valid_accuracy"]
    if norm == "frozen":
        # The statistics of a batch are not used any more.
        assert last["batch_valid_accuracy_2"] == last["moving_valid_accuracy"]
        # For the probe, the layer averages anew.
        assert last["precise_valid_accuracy"] > 0.5
