"""Adaptive pooling in its deterministic form is torch's, value for value and gradient for gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from runner.training.cuda_guard import findings
from runner.training.learners.deterministic_layers import make_deterministic
from runner.training.learners.stacked_layers import mapped_layers

POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
SIZES: list[tuple[Any, bool]] = [  # for images of 12×8, and whether all windows have one size
    (1, True),
    (2, True),
    (4, True),
    ((3, 2), True),
    ((None, 4), True),
    ((12, 8), True),
    (3, False),
    ((5, 4), False),
    ((None, 3), False),
    (16, False),
]


def replaced(layer: nn.Module) -> nn.Module:
    network = nn.Sequential(layer)
    make_deterministic(network)
    assert type(network[0]) is not type(layer)
    return network[0]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(("size", "even"), SIZES)
@pytest.mark.parametrize("shape", [(5, 3, 12, 8), (3, 12, 8)])
def test_values_and_gradients_are_torchs(pool: type[Any], size: Any, even: bool, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).round(decimals=1)  # ties

    def outcome(layer: nn.Module) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        (gradient,) = torch.autograd.grad((y * torch.arange(y.numel()).view(y.shape)).sum(), leaf)
        return y.detach(), gradient

    for ours, theirs in zip(outcome(replaced(pool(size))), outcome(pool(size)), strict=True):
        assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    network = nn.Sequential(nn.Conv2d(1, 3, 1), pool(size), nn.Flatten(), nn.LazyLinear(10))
    images = torch.rand(4, 1, 12, 8)
    network(images)
    assert bool(findings(network, images, torch.arange(4))) is not even


def test_indices_and_other_layers_are_left_to_torch() -> None:
    x = torch.randn(2, 3, 12, 8)
    values, indices = replaced(nn.AdaptiveMaxPool2d(4, return_indices=True))(x)
    assert torch.equal(values.flatten(), x.flatten(2).gather(2, indices.flatten(2)).flatten())
    hooked = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.AdaptiveAvgPool1d(4))
    hooked[0].register_forward_hook(lambda *_: None)
    before = list(hooked)
    make_deterministic(hooked)
    assert list(hooked) == before


def test_a_stack_has_a_form_for_them() -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.AdaptiveMaxPool2d(2))
    make_deterministic(network)
    assert mapped_layers(network) == []
