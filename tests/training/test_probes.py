"""Readings within an epoch and probes: right, and without any effect on the run."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
import torch
from click.testing import Result
from torch import nn
from torch.nn import functional as F

from runner import factories, registry
from runner.config.jobs import Job
from runner.config.run_spec import ProbeName, RunSpec
from runner.storage.rows import CurveRow, EpochRow, ProbeRow, RunResult
from runner.training.data.preprocessing import RunData, prepare
from runner.training.evaluation import evaluate
from runner.training.loop import reading_steps
from runner.training.norm_trace import is_norm
from runner.training.options import TrainingOptions
from runner.training.probes.probe import SAMPLES, Look
from runner.training.probes.registry import PROBES, probe_values
from runner.training.train import train

RUN = RunSpec(network="batch_norm", dataset="digits", device="cpu", batch_size=100, epochs=2)
NAMES = get_args(ProbeName)


@pytest.fixture
def data() -> RunData:
    return prepare("digits", Path(), "normal", "held_out", None, torch.device("cpu"))


def numbers(run: RunSpec) -> list[tuple[float, ...]]:
    rows = [row for row in train(Job((run,)), TrainingOptions()) if isinstance(row, EpochRow)]
    return [(row.step, row.train_loss, row.train_accuracy, row.valid_loss, row.valid_accuracy) for row in rows]


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ("batch_norm", {}),
        ("mlp", {"dropout": 0.3, "norm": "batch"}),
        ("lenet", {"norm": "d2l"}),
        ("lenet", {"norm": "notebook"}),
        ("conv_unit", {"norm": "group", "width": 2}),
        ("no_batch_norm", {}),
    ],
)
def test_a_run_is_the_same_with_and_without_being_looked_at(network: str, arguments: dict[str, object]) -> None:
    run = RUN.changed(network=network, network_args=arguments, train_samples=100, batch_size=25, epochs=1)
    looked_at = numbers(run.changed(evaluations_per_epoch=2, probes=NAMES))
    for seen, unseen in zip(looked_at, numbers(run), strict=True):
        assert seen[0] == unseen[0]
        assert seen[1] == pytest.approx(unseen[1], rel=1e-12)  # the same sum, its terms grouped by reading
        assert seen[2:] == unseen[2:]


@pytest.mark.parametrize(
    ("batches", "readings", "steps"), [(13, 1, {13}), (10, 5, {2, 4, 6, 8, 10}), (13, 3, {5, 9, 13}), (2, 10, {1, 2})]
)
def test_readings_are_spread_evenly_and_end_with_the_epoch(batches: int, readings: int, steps: set[int]) -> None:
    assert reading_steps(batches, readings) == steps


def test_the_last_reading_of_an_epoch_is_the_epochs_row() -> None:
    events = list(train(Job((RUN.changed(evaluations_per_epoch=4),)), TrainingOptions()))
    curves = [event for event in events if isinstance(event, CurveRow)]
    rows = [event for event in events if isinstance(event, EpochRow)]
    assert [round(curve.epoch, 6) for curve in curves[:4]] == [round(step / 13, 6) for step in (4, 7, 10, 13)]
    for row, last in zip(rows, curves[3::4], strict=True):
        assert (row.step, row.epoch, row.valid_loss, row.valid_accuracy) == (
            *(last.step, last.epoch, last.valid_loss, last.valid_accuracy),
        )
    sizes = [400, 300, 300, 250]  # 4 + 3 + 3 batches of 100, then 2 of 100 and one of 50
    mean = sum(size * curve.train_loss for size, curve in zip(sizes, curves[:4], strict=True)) / 1250
    assert mean == pytest.approx(rows[0].train_loss, rel=1e-12)
    durations = [curve.duration for curve in curves]
    assert durations == sorted(durations)
    assert durations[-1] == pytest.approx(sum(row.epoch_duration for row in rows))


def test_gradients_are_autograds(data: RunData) -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(784, 20), nn.Linear(20, 10)
    network = nn.Sequential(nn.Flatten(), first, nn.Tanh(), last)
    found = probe_values(network, Look(data, 0.1), ["gradients"])
    images, labels = data.train.images[:SAMPLES], data.train.labels[:SAMPLES]
    hidden = first(images.flatten(1))
    logits = last(torch.tanh(hidden))
    wanted = torch.autograd.grad(F.cross_entropy(logits, labels), [hidden, logits, first.weight])
    assert found["1", "output_gradient_squared"] == pytest.approx(wanted[0].square().sum().item(), rel=1e-4)
    assert found["3", "output_gradient_squared"] == pytest.approx(wanted[1].square().sum().item(), rel=1e-4)
    assert found["1", "weight_gradient_squared"] == pytest.approx(wanted[2].square().sum().item(), rel=1e-4)


def test_activations_and_dead_relus(data: RunData) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(784, 4)
    with torch.no_grad():
        linear.bias[1] = -1e6  # this unit is dead
    network = nn.Sequential(nn.Flatten(), linear, nn.ReLU(), nn.Linear(4, 10))
    found = probe_values(network, Look(data, 0.1), ["activations"])
    values = linear(data.train.images[:SAMPLES].flatten(1)).relu()
    assert found["2", "dead_share"] == 0.25
    assert found["2", "mean"] == pytest.approx(values.mean().item(), rel=1e-5)
    assert found["2", "sd"] == pytest.approx(values.std(correction=0).item(), rel=1e-5)


def test_the_gap_between_batch_and_moving_averages(data: RunData) -> None:
    norm = nn.BatchNorm2d(1, momentum=1.0)
    network = nn.Sequential(norm, nn.Flatten(), nn.Linear(784, 10))
    network(data.train.images[:SAMPLES])  # the moving averages are now this batch's
    found = probe_values(network, Look(data, 0.1), ["norms"])
    assert found["0", "mean_gap"] == pytest.approx(0, abs=1e-6)
    assert found["0", "var_gap"] == pytest.approx(0, abs=1e-4)
    assert (found["0", "gamma_mean"], found["0", "beta_mean"]) == (1, 0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean += 2 * norm.running_var.sqrt()
    norm.running_var *= 4
    found = probe_values(network, Look(data, 0.1), ["norms"])
    assert found["0", "mean_gap"] == pytest.approx(1, rel=1e-3)  # two old deviations are one new
    assert found["0", "var_gap"] == pytest.approx(1.3863, rel=1e-3)  # log 4


def test_a_layer_that_asks_for_gradients_is_in_training_mode_too(data: RunData) -> None:
    """The layer of the d2l notes takes no_grad as evaluation: the layers after it would see another batch."""
    torch.manual_seed(0)
    network = registry.network["mlp"](hidden=[30, 30], norm="d2l")
    found = probe_values(network, Look(data, 0.1), ["norms"])
    first, second = (
        module for module in network.modules() if isinstance(module, nn.Linear) and module.out_features == 30
    )
    h = first(data.train.images[:SAMPLES].flatten(1))
    x = second(((h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()).relu())
    layer = [name for name, module in network.named_modules() if is_norm(module)][1]
    assert found[layer, "mean_gap"] == pytest.approx(x.mean(0).square().mean().sqrt().item(), rel=1e-4)  # from 0, SD 1


def test_precise_averages_are_torchs_update_bn(data: RunData) -> None:
    torch.manual_seed(0)
    network = registry.network["batch_norm"]()
    theirs = copy.deepcopy(network)
    torch.optim.swa_utils.update_bn(data.train.images.split(1000), theirs)
    loss, accuracy = evaluate(theirs, data.valid)
    found = probe_values(network, Look(data, 0.1), ["precise"])
    assert found["", "precise_valid_loss"] == pytest.approx(loss, rel=1e-6)
    assert found["", "precise_valid_accuracy"] == accuracy


@pytest.mark.parametrize("norm", ["hand_written", "notebook"])
def test_precise_averages_of_hand_written_layers(data: RunData, norm: str) -> None:
    network = registry.network["notebook_mlp"](norm=norm)
    found = probe_values(network, Look(data, 0.1), ["precise"])
    images = network[1](data.train.images.flatten(1))
    batches = images.split(1000)
    mean = torch.stack([batch.mean(0) for batch in batches]).mean(0)
    correction = 1 if norm == "hand_written" else 0
    var = torch.stack([batch.var(0, correction=correction) for batch in batches]).mean(0)
    with torch.no_grad():
        network[2].running_mean.copy_(mean)
        network[2].running_var.copy_(var)
    assert found["", "precise_valid_accuracy"] == pytest.approx(evaluate(network, data.valid)[1], abs=1 / 250)


@pytest.mark.parametrize("norm", ["batch", "notebook"])
def test_the_statistics_of_batches_at_test_time(data: RunData, norm: str) -> None:
    torch.manual_seed(0)
    network = registry.network["mlp"](hidden=[30, 30], norm=norm, dropout=0.5)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for images, labels in zip(data.train.images.split(50), data.train.labels.split(50), strict=True):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    found = probe_values(network, Look(data, 0.1), ["batch_statistics"])
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    norms = [module for module in network.modules() if is_norm(module)]
    for size in (2, 8, 64, 256):
        correct = 0
        for start in range(0, 250, size):
            h = data.valid.images[start : start + size].flatten(1)
            for layer, normalise in zip(linear, norms, strict=False):
                h = layer(h)
                h = (h - h.mean(0)) / (h.var(0, correction=0) + 1e-5).sqrt()
                h = (h * normalise.get_parameter("weight") + normalise.get_parameter("bias")).relu()
            correct += int((linear[-1](h).argmax(1) == data.valid.labels[start : start + size]).sum())
        # A tie in rounding may tip a sample or two.
        assert found["", f"batch_valid_accuracy_{size}"] == pytest.approx(correct / 250, abs=2 / 250)
    assert found["", "moving_valid_accuracy"] == evaluate(network, data.valid)[1]
    assert found["", "batch_valid_accuracy_2"] < found["", "batch_valid_accuracy_256"]


def test_train_accuracy_is_the_evaluated_one(data: RunData) -> None:
    network = registry.network["batch_norm"]()
    found = probe_values(network, Look(data, 0.1), ["train"])
    loss, accuracy = evaluate(copy.deepcopy(network), data.train)
    assert (found["", "eval_train_loss"], found["", "eval_train_accuracy"]) == (loss, accuracy)


def test_curvature_against_the_whole_hessian(data: RunData) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 10))
    found = probe_values(network, Look(data, 0.5), ["curvature"])
    images, labels = data.train.images[:SAMPLES], data.train.labels[:SAMPLES]
    inputs = network[1](network[0](images))
    weight, bias = (p.detach().clone() for p in network[2].parameters())

    def loss(flat: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(inputs @ flat[:40].view(10, 4).T + flat[40:], labels)

    flat = torch.cat([weight.flatten(), bias])
    hessian = torch.autograd.functional.hessian(loss, flat)
    assert isinstance(hessian, torch.Tensor)
    assert found["", "hessian_eigenvalue"] == pytest.approx(torch.linalg.eigvalsh(hessian)[-1].item(), rel=0.05)
    gradient = torch.func.grad(loss)
    change = (gradient(flat) - gradient(flat - 0.5 * gradient(flat))).norm().item()
    assert found["", "gradient_change"] == pytest.approx(change, rel=1e-3)
    assert found["", "probe_loss"] == pytest.approx(loss(flat).item(), rel=1e-5)


def test_a_sweep_writes_curves_and_probes_and_resumes_them(
    bnbench: Callable[..., Result], write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    text = (
        "name: p\nfixed: {dataset: digits, network: batch_norm, epochs: 2, batch_size: 250, device: cpu, "
        "evaluations_per_epoch: 2, probes: [norms, train]}\ngrid: {seed: [0, 1]}\n"
    )
    path = write("p.yaml", text)
    options = ("--executor", "inline", "-q", "--out")
    assert bnbench("run", path, *options, tmp_path / "a").exit_code == 0
    curves, probes = (pd.read_csv(tmp_path / "a/p" / name) for name in ("curves.csv", "probes.csv"))
    assert list(curves.epoch) == [0.6, 1.0, 1.6, 2.0] * 2
    assert list(curves.run) == [1] * 4 + [2] * 4
    assert sorted(set(probes.epoch)) == [0.0, 0.6, 1.0, 1.6, 2.0]  # 0: before the first step
    assert set(probes.measure) >= {"gamma_mean", "running_var_mean", "mean_gap", "eval_train_accuracy"}
    assert set(probes.loc[probes.measure == "gamma_mean", "layer"]) == {3, 10}
    assert bnbench("run", path, *options, tmp_path / "b", "--set", "grid.seed=[1]").exit_code == 0
    assert bnbench("run", path, *options, tmp_path / "b", "--resume").exit_code == 0
    columns = [name for name in curves.columns if name != "duration"]
    assert curves[columns].equals(pd.read_csv(tmp_path / "b/p/curves.csv")[columns])
    assert (tmp_path / "a/p/probes.csv").read_bytes() == (tmp_path / "b/p/probes.csv").read_bytes()


def test_every_probe_can_be_asked_for() -> None:
    assert set(NAMES) == set(PROBES)


@pytest.mark.parametrize("name", NAMES)
def test_contract_of_every_probe(name: ProbeName) -> None:
    data = prepare("digits", Path(), "normal", "held_out", 100, torch.device("cpu"))
    assert factories.summary(PROBES[name])
    for network in ("batch_norm", "no_batch_norm"):
        built = registry.network[network]()
        before = {key: value.clone() for key, value in built.state_dict().items()}
        state = torch.get_rng_state()
        found = probe_values(built, Look(data, 0.1), [name])
        assert all(isinstance(value, float) for value in found.values())
        assert all(torch.equal(before[key], value) for key, value in built.state_dict().items())
        assert torch.equal(state, torch.get_rng_state())
        assert all(parameter.grad is None for parameter in built.parameters())


def test_rows_of_a_run_end_with_its_result() -> None:
    *_, last = train(Job((RUN.changed(probes=("train",), epochs=1),)), TrainingOptions())
    assert isinstance(last, RunResult)
    assert any(
        isinstance(event, ProbeRow)
        for event in train(Job((RUN.changed(probes=("train",), epochs=1),)), TrainingOptions())
    )
