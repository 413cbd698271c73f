"""The quick pooling is nn.MaxPool2d to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from runner.training.learners.max_pooling import QuickMaxPool2d, quicken


def quick() -> nn.Module:
    module = nn.Sequential(nn.MaxPool2d(2))
    quicken(module)
    assert type(module[0]) is QuickMaxPool2d
    return module


@pytest.mark.parametrize("shape", [(5, 3, 8, 8), (1, 1, 2, 2), (4, 6, 7, 9), (2, 3, 2, 5), (3, 2, 1, 4), (2, 4, 4)])
@pytest.mark.parametrize("kind", ["normal", "ties", "relu", "nan", "double"])
def test_values_and_gradients_are_torchs(shape: tuple[int, ...], kind: str) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)))
    x = {
        "normal": x,
        "ties": x.sign(),
        "relu": x.relu(),
        "nan": x.masked_fill(x > 1.5, torch.nan),
        "double": x.double(),
    }[kind]
    if shape == (3, 2, 1, 4):
        with pytest.raises(RuntimeError, match="too small"):
            quick()(x)
        return

    def outcome(pool: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        y = pool(leaf)
        weight = torch.arange(y.numel(), dtype=x.dtype).view(y.shape).requires_grad_()
        (gradient,) = torch.autograd.grad((y * weight).nansum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(gradient.sum(), weight)
        return y.detach(), gradient.detach(), second

    for ours, theirs in zip(outcome(quick()), outcome(nn.MaxPool2d(2)), strict=True):
        assert torch.equal(ours.nan_to_num(7e7), theirs.nan_to_num(7e7))
    with torch.inference_mode():
        assert torch.equal(quick()(x).nan_to_num(7e7), nn.MaxPool2d(2)(x).nan_to_num(7e7))


def test_strided_inputs_and_vmap_are_torchs() -> None:
    x = torch.randn(3, 4, 6, 6)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(quick()(last), nn.MaxPool2d(2)(x))
    assert torch.equal(quick()(x.transpose(2, 3)), nn.MaxPool2d(2)(x.transpose(2, 3)))
    many = torch.randn(5, 3, 4, 6, 6)
    assert torch.equal(torch.vmap(quick())(many), torch.vmap(nn.MaxPool2d(2))(many))


def test_any_other_pooling_is_left_alone() -> None:
    others = [
        nn.MaxPool2d(3),
        nn.MaxPool2d(2, stride=1),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, return_indices=True),
        nn.AvgPool2d(2),
    ]
    network = nn.Sequential(*others)
    quicken(network)
    assert [type(module) for module in network] == [type(module) for module in others]
    spelt = nn.Sequential(nn.MaxPool2d(kernel_size=(2, 2), stride=(2, 2)))
    quicken(spelt)
    assert type(spelt[0]) is QuickMaxPool2d


def test_a_pooling_with_a_hook_keeps_it_and_one_in_two_places_is_replaced_in_both() -> None:
    hooked, shared, seen = nn.MaxPool2d(2), nn.MaxPool2d(2), []
    hooked.register_forward_hook(lambda *_: seen.append(1))
    network = nn.Sequential(shared, hooked, nn.Sequential(shared))
    quicken(network)
    network(torch.randn(2, 1, 8, 8))
    assert seen == [1]
    assert [type(module) for module in (network[0], network[1], network.get_submodule("2.0"))] == [
        QuickMaxPool2d,
        nn.MaxPool2d,
        QuickMaxPool2d,
    ]
