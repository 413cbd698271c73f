"""A stacked run is its solo run: the oracle is the network itself under torch's own optimizers."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from runner import registry
from runner.config.jobs import Job, Trial
from runner.config.run_spec import RunSpec
from runner.storage.rows import EpochRow, ProbeRow, RunResult, Shortfall, StackPlan
from runner.training.data.batches import batch_order
from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData, prepare
from runner.training.learners.solo import Solo
from runner.training.learners.stack import Stack, cross_entropy
from runner.training.learners.stack_check import bytes_per_run, obstacle
from runner.training.networks import build_network
from runner.training.options import TrainingOptions
from runner.training.settings import settings_of
from runner.training.train import train
from runner.training.trial import try_stack

CPU = torch.device("cpu")

RUN = RunSpec(network="batch_norm", dataset="digits", device="cpu", batch_size=100, epochs=2)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    registry.load_plugins()  # before the networks are listed
    if "network" in metafunc.fixturenames:
        metafunc.parametrize("network", [name for name in registry.network if not name.startswith("stack_test")])


# Optimizers

OPTIMIZERS = {
    "sgd": RUN.changed(optimizer="sgd", lr=0.05),
    "sgd with momentum": RUN.changed(optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adam": RUN.changed(lr=1e-3),
    "adam with L2": RUN.changed(lr=1e-3, weight_decay=1e-2),
    "adamw": RUN.changed(optimizer="adamw", lr=1e-3, weight_decay=0.1),
    "on a schedule": RUN.changed(optimizer="sgd", lr=0.05, lr_schedule="cosine"),
}


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    with settings_of(RUN):
        yield


def worst(runs: Sequence[RunSpec], dtype: torch.dtype, steps: int = 20, *, together: bool = False) -> float:
    """The largest relative difference of a training loss over the first steps of a stack and of its runs alone.

    Every tenth batch is a ragged one. `together`: each step starts from the stack's weights, so that one step's
    rounding is not grown by the next ones.
    """
    data = in_precision(prepare("digits", Path(), "normal", "held_out", None, CPU), dtype)
    alone = [build_network(run).to(dtype) for run in runs]
    stack = Stack(runs, [copy.deepcopy(network) for network in alone], data)
    solos = [Solo(run, network, data) for run, network in zip(runs, alone, strict=True)]
    found = 0.0
    for step in range(steps):
        if step in (0, steps // 2):
            stack.begin_epoch(2 * step // steps + 1)
        index = torch.stack(
            [batch_order(run, len(data.train), step + 1)[: 11 if step % 10 == 9 else 32] for run in runs]
        )
        stack.step(index)
        ours = stack.reading()
        for number, solo in enumerate(solos):
            if step in (0, steps // 2):
                solo.begin_epoch(2 * step // steps + 1)
            solo.step(index[number : number + 1])
            theirs = solo.reading()[0]
            assert ours[number, 1:].tolist() == theirs[1:].tolist() or dtype == torch.float32
            found = max(found, abs(float(ours[number, 0] / theirs[0]) - 1))
            if together:
                solo.network.load_state_dict(stack.member(number).state_dict())
    return found


def in_precision(data: RunData, dtype: torch.dtype) -> RunData:
    def cast(split: Split) -> Split:
        return Split(split.images.to(dtype), split.labels)

    return replace(data, train=cast(data.train), valid=cast(data.valid))


def members(run: RunSpec, count: int) -> list[RunSpec]:
    """Runs that differ in seed and learning rate."""
    return [run.changed(seed=seed, lr=run.lr / (1 + seed % 2)) for seed in range(count)]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_stacked_optimizer_is_torchs(name: str, count: int) -> None:
    runs = members(OPTIMIZERS[name].changed(network="notebook_mlp"), count)
    assert worst(runs, torch.float64) < 1e-10
    assert worst(runs, torch.float32) < 1e-5


def test_momentum_and_weight_decay_are_each_runs_own() -> None:
    base = RUN.changed(network="notebook_mlp", optimizer="sgd", lr=0.05)
    runs = [base, base.changed(momentum=0.9), base.changed(weight_decay=0.1), base.changed(momentum=0.5, seed=3)]
    assert worst(runs, torch.float64) < 1e-10


# Networks


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group", "notebook", "d2l"])
def test_every_norm_of_a_network_is_stacked(norm: str) -> None:
    for network in ("notebook_mlp", "notebook_cnn"):
        run = RUN.changed(network=network, network_args={"norm": norm}, optimizer="sgd", lr=0.01)
        assert worst(members(run, 3), torch.float64, 10) < 1e-10


@pytest.mark.parametrize(
    ("norm", "norm_args"),
    [("ghost", {"size": 10}), ("frozen", {}), ("renorm", {"warm_up": 3, "ramp": 10}), ("precise", {}), ("dyt", {})],
)
def test_norms_that_change_while_they_train_are_stacked(norm: str, norm_args: dict[str, object]) -> None:
    """The second epoch begins at step 10, and some batches are smaller."""
    arguments = {"norm": norm, "norm_args": norm_args}
    for network in ("notebook_mlp", "lenet"):
        assert (
            obstacle(build_network(RUN.changed(network=network, network_args=arguments)), torch.randn(8, 1, 28, 28), 10)
            is None
        )
    run = RUN.changed(network="notebook_mlp", network_args=arguments, optimizer="sgd", lr=0.01)
    assert worst(members(run, 3), torch.float64) < 1e-10


def test_a_stacked_network_is_the_network(network: str) -> None:
    """Every registered network. In float32 from the stack's weights at each step.

    Left to itself, one rounding that turns a ReLU or a maximum is grown by every step after it (by another thread
    count, too); in float64 it comes later than 20 steps.
    """
    narrow = {"vgg": {"width": 2}, "conv_unit": {"width": 4}}  # the same layers, sooner done
    run = RUN.changed(network=network, network_args=narrow.get(network, {}), optimizer="sgd", lr=0.01)
    # The networks of libraries normalise single pixels of few images, which makes a rounding grow within ten steps.
    # They are also large.
    library = network in ("torchvision", "timm")
    count, steps = (2, 10) if library else (3, 20)
    assert worst(members(run, count), torch.float64, steps, together=library) < 1e-10
    assert worst(members(run, count), torch.float32, steps, together=True) < 1e-5


def test_a_stacked_runs_dropout_masks_are_its_own() -> None:
    """One mask that differed would be far from rounding."""
    run = RUN.changed(network="mlp", network_args={"dropout": 0.3, "norm": "batch"}, optimizer="sgd", lr=0.01)
    assert worst(members(run, 3), torch.float64) < 1e-10


@pytest.mark.parametrize("count", [1, 10])
def test_a_stack_of_any_size_is_its_runs(count: int) -> None:
    assert worst(members(RUN.changed(optimizer="sgd"), count), torch.float64) < 1e-10


# Training


def together(runs: Sequence[RunSpec]) -> Job:
    return Job(tuple(runs), "grouped" if len(runs) > 1 else None)


def events(job: Sequence[RunSpec]) -> tuple[dict[str, list[EpochRow]], dict[str, RunResult]]:
    rows: dict[str, list[EpochRow]] = {run.run_id: [] for run in job}
    results: dict[str, RunResult] = {}
    for event in train(together(job), TrainingOptions()):
        if isinstance(event, EpochRow):
            assert event.run_id not in results
            rows[event.run_id].append(event)
        elif isinstance(event, RunResult):
            assert event.run_id not in results
            results[event.run_id] = event
    for run_id, result in results.items():
        assert result.rows == tuple(rows[run_id])
        assert [row.epoch for row in result.rows] == list(range(1, len(result.rows) + 1))
    return rows, results


def test_a_job_trains_as_a_stack_and_its_rows_are_the_solo_ones() -> None:
    job = members(RUN.changed(network="mlp", network_args={"dropout": 0.3}, lr=1e-3), 3)
    rows, results = events(job)
    for run in job:
        alone, own = events([run])
        for ours, theirs in zip(rows[run.run_id], alone[run.run_id], strict=True):
            for name in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy"):
                assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-4)
            assert (ours.epoch, ours.step) == (theirs.epoch, theirs.step)
        result, expected = results[run.run_id], own[run.run_id]
        assert result.trained_as == "stack of 3"
        assert expected.trained_as == "alone"
        for name in ("status", "parameter_count", "weights_hash", "batches_hash"):
            assert getattr(result, name) == getattr(expected, name)
        assert result.test_accuracy == pytest.approx(expected.test_accuracy)


def test_a_run_does_not_depend_on_its_stack() -> None:
    runs = members(RUN.changed(network="mlp", network_args={"dropout": 0.3}, lr=1e-3), 5)
    five, two = events(runs)[0], events([runs[3], runs[1]])[0]
    for run in (runs[1], runs[3]):
        assert [row.train_loss for row in two[run.run_id]] == pytest.approx(
            [row.train_loss for row in five[run.run_id]], rel=1e-6
        )


@pytest.mark.parametrize("name", ["batch_norm", "notebook_mlp", "conv_unit"])
def test_a_diverging_run_leaves_its_stack_alone(name: str) -> None:
    tame = RUN.changed(network=name, optimizer="sgd", lr=0.01, epochs=3, train_samples=200)
    wild = tame.changed(seed=1, lr=1e30)
    job = [tame, wild, tame.changed(seed=2)]
    rows, results = events(job)
    without, _ = events([tame, tame.changed(seed=1), tame.changed(seed=2)])
    assert [results[run.run_id].status for run in job] == ["ok", "diverged", "ok"]
    assert len(rows[wild.run_id]) == 1
    for run in (job[0], job[2]):
        assert len(rows[run.run_id]) == 3
        assert [row.valid_loss for row in rows[run.run_id]] == [row.valid_loss for row in without[run.run_id]]


def test_a_network_that_fails_for_one_seed_fails_one_run() -> None:
    @registry.network("stack_test_bad_seed")
    def bad_seed() -> nn.Module:
        if torch.initial_seed() == 3:
            raise ValueError("three")
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    job = [RUN.changed(network="stack_test_bad_seed", seed=seed) for seed in range(6)]
    _, results = events(job)
    assert [results[run.run_id].status for run in job] == ["ok", "ok", "ok", "failed", "ok", "ok"]
    assert results[job[3].run_id].error == "ValueError: three"
    assert {results[run.run_id].trained_as for run in job if run.seed != 3} == {
        f"stack of 5: the network of run {job[3].run_id} cannot be built (planned: one stack of 6)"
    }


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_stack_that_runs_out_of_memory_is_halved(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    step = Stack.step
    begun: list[int] = []

    def begin(self: Stack, number: int) -> None:
        begun.append(number)
        self.optimizer.begin_epoch(number)

    def small_memory(self: Stack, batch: Any) -> None:
        if len(self.runs) > 3 and begun[-1] == epoch:
            raise torch.OutOfMemoryError("no room")
        step(self, batch)

    monkeypatch.setattr(Stack, "step", small_memory)
    monkeypatch.setattr(Stack, "begin_epoch", begin)
    job = [RUN.changed(network="notebook_mlp", seed=seed) for seed in range(5)]
    _, results = events(job)
    assert [results[run.run_id].status for run in job] == ["ok"] * 5
    assert [len(results[run.run_id].rows) for run in job] == [2] * 5
    reason = "out of memory (planned: one stack of 5)"
    assert Counter(result.trained_as for result in results.values()) == {
        f"stack of 2: {reason}": 2,
        f"stack of 3: {reason}": 3,
    }


def plan(runs: Sequence[RunSpec], most: int = 100) -> StackPlan:
    (found,) = try_stack(Trial(tuple(runs), most), TrainingOptions())
    return found


def test_a_stack_has_room_in_the_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    job = [RUN.changed(seed=seed) for seed in range(7)]
    data = prepare("digits", Path("data"), "normal", "held_out", None, CPU)
    each = bytes_per_run(build_network(RUN), data.train.images, max(RUN.batch_size, 333))
    assert each > 6 * 4 * 33_250
    monkeypatch.setattr("runner.training.trial.free_memory", lambda _: 3 * each)
    assert plan(job).size == 3
    assert plan(job, most=2).size == 2
    (shared,) = try_stack(Trial(tuple(job), most=100, sharing=3), TrainingOptions())
    assert shared.size == 1


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(self.drop(x), self.drop(x))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


UNSTACKABLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "random": (Noisy, "random"),
    "branching": (Branching, "vmap"),
    "dropout in a module of one's own": (Dropping, "random"),
    "random for a channel": (lambda: nn.Dropout1d(0.5), "random"),
}


@pytest.mark.parametrize("name", UNSTACKABLE)
def test_what_cannot_be_stacked_trains_alone_and_says_why(name: str) -> None:
    build, reason = UNSTACKABLE[name]

    @registry.network("stack_test_unstackable")
    def unstackable() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Unflatten(1, (1, 10)), build(), nn.Flatten())

    assert reason in plan([RUN.changed(network="stack_test_unstackable", seed=seed) for seed in range(2)]).obstacle


def test_obstacles_that_can_be_seen() -> None:
    images = torch.randn(8, 1, 28, 28)
    tied = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 784, bias=False), nn.Linear(784, 784, bias=False), nn.Linear(784, 10)
    )
    tied[2].weight = tied[1].weight
    assert obstacle(tied, images, 10) == "two layers share a parameter"
    for kind in ("forward", "full_backward"):
        hooked = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        getattr(hooked[1], f"register_{kind}_hook")(lambda *_: None)
        assert obstacle(hooked, images, 10) == "a layer has hooks"
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).requires_grad_(False)
    assert obstacle(frozen, images, 10) == "it has no trainable parameter"
    unused = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    unused.register_parameter("spare", nn.Parameter(torch.ones(1)))
    assert obstacle(unused, images, 10) is not None
    wrong = obstacle(nn.Sequential(nn.Flatten(), nn.Linear(784, 12)), images, 10)
    assert wrong is not None
    assert "must return [8, 10] logits" in wrong


class OtherGradient(torch.autograd.Function):
    """Its gradient has another sign in a stack."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * 3

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 3

    @staticmethod
    def vmap(_: Any, in_dims: Any, x: Tensor) -> tuple[Tensor, int]:
        return x.detach() * 6 - x * 3, in_dims[0]


class Tripled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return OtherGradient.apply(x)  # type: ignore[no-any-return]


def test_another_gradient_is_an_obstacle() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), Tripled())
    assert obstacle(network, torch.randn(8, 1, 28, 28), 10) == "stacked, a parameter has another gradient"


def test_bfloat16_and_the_plain_mean_of_all_batches() -> None:
    @registry.network("stack_test_cumulative")
    def cumulative() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10, momentum=None))

    job = members(RUN.changed(network="stack_test_cumulative", precision="bf16", epochs=1), 2)
    rows, results = events(job)
    assert {result.trained_as for result in results.values()} == {"stack of 2"}
    for run in job:
        (ours,), (theirs,) = rows[run.run_id], events([run])[0][run.run_id]
        assert ours.valid_loss == pytest.approx(theirs.valid_loss, rel=2e-2)


def test_a_stack_that_failed_leaves_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs train alone after it. On a GPU there would be no room for both."""
    monkeypatch.setenv("BNBENCH_STRICT", "0")
    stacks = []

    def fail(stack: Stack, _: int) -> None:
        stacks.append(weakref.ref(stack))
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Stack, "begin_epoch", fail)
    job = together([RUN.changed(train_samples=200, epochs=1, seed=seed) for seed in range(2)])
    alone = [event for event in train(job, TrainingOptions()) if not gone(stacks)]
    assert all(isinstance(event, Shortfall) for event in alone)
    assert gone(stacks)


def gone(stacks: Sequence[weakref.ref[Stack]]) -> bool:
    gc.collect()
    return bool(stacks) and all(stack() is None for stack in stacks)


@pytest.mark.parametrize(
    ("name", "arguments", "probe"),
    [("notebook_mlp", {"norm": "batch"}, "norms"), ("mlp", {"dropout": 0.3}, "gradients")],
)
def test_probes_of_a_stacked_run_are_its_own(name: str, arguments: dict[str, object], probe: str) -> None:
    """Their dropout masks, too."""
    job = members(RUN.changed(network=name, network_args=arguments, optimizer="sgd", probes=(probe,)), 2)
    stacked = [event for event in train(together(job), TrainingOptions()) if isinstance(event, ProbeRow)]
    parts = [together([run]) for run in job]
    alone = [event for part in parts for event in train(part, TrainingOptions()) if isinstance(event, ProbeRow)]

    def key(row: ProbeRow) -> tuple[Any, ...]:
        return row.run_id, row.step, row.layer, row.measure

    assert sorted(map(key, stacked)) == sorted(map(key, alone))
    values = {key(row): row.value for row in alone}
    for row in stacked:
        assert row.value == pytest.approx(values[key(row)], rel=1e-3, abs=1e-5)


def test_share_batches_gives_every_seed_the_same_batches() -> None:
    job = [RUN.changed(network="notebook_mlp", seed=seed, share_batches=True) for seed in range(3)]
    rows, results = events(job)
    assert len({result.batches_hash for result in results.values()}) == 1
    assert (
        results[job[0].run_id].batches_hash
        == events([RUN.changed(network="notebook_mlp")])[1].popitem()[1].batches_hash
    )
    for run in job[1:]:
        (alone,) = events([run])[0].values()
        losses = [row.train_loss for row in rows[run.run_id]]
        assert losses == pytest.approx([row.train_loss for row in alone], rel=1e-4)


def test_bfloat16_is_another_arithmetic_of_the_same_run() -> None:
    run = RUN.changed(network="notebook_mlp", optimizer="sgd", lr=0.05)
    (full,), (half,), stacked = (
        list(events(job)[0].values())
        for job in ([run], [run.changed(precision="bf16")], members(run.changed(precision="bf16"), 2))
    )
    assert half[-1].train_loss != full[-1].train_loss
    assert half[-1].train_loss == pytest.approx(full[-1].train_loss, rel=0.02)
    assert stacked[0][-1].train_loss == pytest.approx(half[-1].train_loss, rel=0.02)


def test_twenty_stacked_and_twenty_solo_runs_end_alike() -> None:
    """Final accuracies: Kolmogorov–Smirnov of the two samples, and a t test of the pairs."""
    run = RUN.changed(network="notebook_cnn", optimizer="sgd", lr=0.05, train_samples=400)
    job = [run.changed(seed=seed) for seed in range(20)]
    together = events(job)[1]
    alone = {run.run_id: events([run])[1][run.run_id] for run in job}
    ours, theirs = ([float(found[run.run_id].test_accuracy or 0) for run in job] for found in (together, alone))
    assert stats.ks_2samp(ours, theirs).pvalue > 0.05
    assert math.isnan(p := stats.ttest_rel(ours, theirs).pvalue) or p > 0.05  # NaN: all pairs equal


def test_the_loss_is_each_runs_own() -> None:
    logits, labels = torch.randn(6, 3, 10), torch.randint(0, 10, (3, 6))
    for run in range(3):
        assert cross_entropy(logits, labels)[run] == pytest.approx(float(F.cross_entropy(logits[:, run], labels[run])))
