"""Learners on torch's meta device, which has shapes and no values: what would mix devices there would on CUDA.

Reading a value, such as `.item()`, raises there as well. The places where a learner may read copy to the CPU first, and
only that copy is replaced here. (`precision: bf16` is not tested: autocast refuses the meta device.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from runner import registry
from runner.config.run_spec import RunSpec
from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData, prepare
from runner.training.learners import solo
from runner.training.learners.deterministic_layers import EvenAdaptiveAvgPool2d
from runner.training.learners.learner import Learner, State
from runner.training.learners.solo import Solo
from runner.training.learners.stack import Stack
from runner.training.networks import build_network
from runner.training.settings import settings_of

META = torch.device("meta")
RUN = RunSpec(network="batch_norm", dataset="digits", device="cpu", batch_size=16)

NARROW: dict[str, dict[str, object]] = {"vgg": {"width": 2}, "conv_unit": {"width": 4}}
OPTIMIZERS = {
    "sgd": RUN.changed(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=1e-3),
    "adam": RUN.changed(optimizer="adam", augment=("flip", "crop")),
    "adamw": RUN.changed(optimizer="adamw", weight_decay=0.1),
}


def networks() -> list[tuple[str, dict[str, object]]]:
    """Every registered network; a CNN with every registered norm layer; dropout."""
    registry.load_plugins()
    plain = [(name, NARROW.get(name, {})) for name in registry.network]
    normed: list[tuple[str, dict[str, object]]] = [("notebook_cnn", {"norm": name}) for name in registry.norm]
    return [*plain, *normed, ("mlp", {"dropout": 0.3, "norm": "batch"})]


NETWORKS = networks()
STACKS = [
    (network, arguments, optimizer, count)
    for number, (network, arguments) in enumerate(NETWORKS)
    # Each network has two of the optimizers, one in a stack of one run. Each pair occurs.
    for count, turn in ((1, 0), (3, 1))
    for optimizer in [sorted(OPTIMIZERS)[(number + turn) % 3]]
]


def name_of(case: tuple[str, dict[str, object], str, int]) -> str:
    network, arguments, optimizer, count = case
    return "-".join([network, *map(str, arguments.values()), optimizer, str(count)])


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    with settings_of(RUN):
        yield


@pytest.fixture
def data() -> RunData:
    """Twenty samples of the digits without their values."""
    here = prepare("digits", Path(), "normal", "held_out", 20, torch.device("cpu"))

    def there(split: Split) -> Split:
        return Split(split.images.to(META), split.labels.to(META))

    return replace(here, train=there(here.train), valid=there(here.valid[:20]))


@pytest.fixture
def _readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy from the meta device to the CPU has the value 1 everywhere."""
    copy = Tensor.cpu

    def readable(tensor: Tensor) -> Tensor:
        return torch.ones_like(tensor, device="cpu") if tensor.is_meta else copy(tensor)

    monkeypatch.setattr(Tensor, "cpu", readable)


def devices_of(states: Sequence[State]) -> set[str]:
    kept = [tensor for state in states for own in state.optimizer.values() for tensor in own.values()]
    return {tensor.device.type for tensor in kept + [tensor for state in states for tensor in state.tensors.values()]}


def trained(learner: Learner, count: int) -> None:
    """A full batch, a ragged one and one that all runs share, and all that a loop asks of a learner."""
    learner.begin_epoch(1)
    for shape in ((count, 16), (count, 4), (1, 16)):
        learner.step(torch.zeros(shape, dtype=torch.int64, device=META))
    assert learner.reading().shape == (count, 3)


@pytest.mark.usefixtures("_readable")
@pytest.mark.parametrize("case", STACKS, ids=name_of)
def test_a_stack_keeps_to_its_device(case: Any, data: RunData) -> None:
    network, arguments, optimizer, count = case
    base = OPTIMIZERS[optimizer].changed(network=network, network_args=arguments)
    runs = [base.changed(seed=seed) for seed in range(count)]
    stack = Stack(runs, [build_network(run) for run in runs], data)
    trained(stack, count)
    assert stack.evaluate(data.valid) == [(1.0, 1.0)] * count
    tensors = [*stack.tensors.values(), *stack.moving, *stack.member(count - 1).parameters()]
    assert {tensor.device for tensor in tensors} == {META}
    states = stack.states()
    assert len(states) == count
    assert devices_of(states) == {"cpu"}
    stack.restore(states)
    stack.step(torch.zeros((count, 16), dtype=torch.int64, device=META))


@pytest.mark.usefixtures("_readable")
def test_adaptive_pooling_is_made_deterministic_where_the_device_is_no_cpu(data: RunData) -> None:
    @registry.network("pooled")
    def pooled() -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(49, 10))

    run = RUN.changed(network="pooled", optimizer="sgd")
    stack = Stack([run], [build_network(run)], data)
    assert isinstance(stack.template[0], EvenAdaptiveAvgPool2d)  # type: ignore[index]
    assert isinstance(stack.program[0][1], EvenAdaptiveAvgPool2d)
    trained(stack, 1)


UNFUSED: dict[str, Callable[..., Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


@pytest.mark.usefixtures("_readable")
@pytest.mark.parametrize(("network", "arguments"), NETWORKS)
def test_a_run_alone_keeps_to_its_device(
    network: str, arguments: dict[str, object], data: RunData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With torch's plain optimizers: the fused ones refuse the meta device."""

    def unfused(run: RunSpec, module: nn.Module) -> Optimizer:
        return UNFUSED[run.optimizer](module.parameters(), lr=run.lr)

    monkeypatch.setattr(solo, "make_optimizer", unfused)
    monkeypatch.setattr(Tensor, "tolist", lambda tensor: [1.0] * len(tensor))
    optimizer = sorted(OPTIMIZERS)[len(network) % 3]
    run = OPTIMIZERS[optimizer].changed(network=network, network_args=arguments)
    learner = Solo(run, build_network(run), data)
    assert not any(type(layer) is nn.AdaptiveAvgPool2d for layer in learner.network.modules())
    trained(learner, 1)
    assert learner.evaluate(data.valid) == [(1.0, 1.0)]
    assert {tensor.device for tensor in learner.member(0).parameters()} == {META}
    states = learner.states()
    assert devices_of(states) == {"cpu"}
    learner.restore(states)
