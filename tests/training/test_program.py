"""A network as a program: with torch's kernels, pooling before ReLU gives the network's own numbers, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner import registry
from runner.training.data.datasets import load
from runner.training.kernels.program import program

registry.load_plugins()

POOLED: dict[str, dict[str, Any]] = {"no_batch_norm": {}, "batch_norm": {}, "notebook_cnn": {}, "vgg": {"width": 2}}


@pytest.mark.data
@pytest.mark.parametrize("name", POOLED)
def test_twenty_steps_of_pooling_first_are_the_networks_own_bits(name: str, real_data: Path) -> None:
    data = load("fashion_mnist", real_data).train[:640]
    images = data.images.float() / 255

    def trained(pooling_first: bool) -> list[Tensor]:
        torch.manual_seed(3)
        network = registry.network[name](**POOLED[name])
        forward = program(network, None) if pooling_first else network
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        losses = []
        for index in torch.arange(640).split(32):
            optimizer.zero_grad()
            loss = F.cross_entropy(forward(images[index]), data.labels[index])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        return [torch.stack(losses), *network.state_dict().values(), *gradients]

    for ours, theirs in zip(trained(True), trained(False), strict=True):
        assert torch.equal(ours, theirs)


def test_pooling_moves_only_where_nothing_else_sees_what_relu_gives() -> None:
    def order(network: nn.Sequential) -> list[type]:
        return [type(part) for part in program(network, None).parts]

    assert order(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))) == [nn.MaxPool2d, nn.ReLU]
    assert order(nn.Sequential(nn.Sigmoid(), nn.MaxPool2d(2))) == [nn.Sigmoid, nn.MaxPool2d]
    for hooked in (0, 1):
        network = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
        network[hooked].register_forward_hook(lambda *_: None)
        assert order(network) == [nn.ReLU, nn.MaxPool2d]


def test_a_layer_in_two_places_is_called_twice() -> None:
    double = nn.Linear(3, 3)
    network = nn.Sequential(double, nn.Tanh(), double)
    images = torch.randn(4, 3)
    assert torch.equal(program(network, None)(images), network(images))
