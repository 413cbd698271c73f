"""Layers that were changed by hand: torch computes them, or there is an error, and never another layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from experiments.norms import build_norm
from runner.training.kernels.library import Library
from runner.training.kernels.program import program


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3))


def images() -> Tensor:
    return torch.randn(5, 2, 12, 12, generator=torch.Generator().manual_seed(1))


WEIGHTS = {
    "filter": (3, 2, 5, 5),
    "fewer inputs": (3, 1, 3, 3),
    "more outputs": (300, 2, 3, 3),
    "no outputs": (0, 2, 3, 3),
}


@pytest.mark.parametrize("shape", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("before", [True, False])
def test_weights_of_another_shape_are_torchs_or_an_error(shape: tuple[int, ...], before: bool, native: Library) -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3, bias=False))
    if before:
        net[0].weight = nn.Parameter(torch.randn(shape))
        assert not program(net, native).native
        return
    forward = program(net, native)
    net[0].weight = nn.Parameter(torch.randn(shape))
    with pytest.raises(RuntimeError, match="do not fit"):
        forward(images())


def test_a_bias_and_a_gamma_of_another_size(native: Library) -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    forward = program(net, native)
    net[0].bias = nn.Parameter(torch.randn(1))
    with pytest.raises(RuntimeError, match="do not fit"):
        forward(images())
    narrow = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    narrow[1].weight = nn.Parameter(torch.ones(1))
    assert program(narrow, native).others == ["1 BatchNorm2d"]


@pytest.mark.parametrize("own", [True, False], ids=["native", "torch"])
@pytest.mark.parametrize("where", [None, 0, 1, 2, 3, 4])
def test_a_replaced_forward_is_called(where: int | None, own: bool, native: Library) -> None:
    net = network()
    layer = net if where is None else net[where]
    original = layer.forward
    layer.forward = lambda x: original(x) + 1
    assert torch.allclose(program(net, native if own else None)(images()), net(images()), atol=1e-4)


Register = Callable[[Callable[..., None]], torch.utils.hooks.RemovableHandle]


@pytest.fixture(params=["register_module_forward_hook", "register_module_forward_pre_hook"])
def seen(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The classes of the layers that a hook on all modules has seen."""
    found: list[str] = []
    handle = getattr(torch_module, request.param)(lambda layer, *_: found.append(type(layer).__name__))
    yield found
    handle.remove()


def test_hooks_on_all_modules_see_every_layer(seen: list[str], native: Library) -> None:
    net = network()
    program(net, native)(images())
    assert {type(layer).__name__ for layer in net} <= set(seen)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_averages_without_a_count_move_as_in_torch(momentum: float | None, native: Library) -> None:
    ours, theirs = network(), network()
    for net in (ours, theirs):
        norm = net[1]
        assert isinstance(norm, nn.BatchNorm2d)
        norm.num_batches_tracked = None
        norm.momentum = momentum
    program(ours, native)(images())
    theirs(images())
    for (name, moved), (_, expected) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
        assert torch.allclose(moved, expected, atol=1e-6), name


@pytest.mark.parametrize("norm", ["ghost", "frozen", "renorm", "precise", "dyt", "hand_written"])
def test_other_norm_layers_are_not_taken_for_batch_norm(norm: str, native: Library) -> None:
    layer = build_norm(norm, 3, 2)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), layer, nn.Conv2d(3, 4, 3))
    made = program(net, native)
    assert made.others == [f"1 {type(layer).__name__}"]
    assert made.parts[1] is layer
