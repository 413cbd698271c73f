"""Norm layers of unusual networks: replaced as the network means them, or named."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from runner import registry
from runner.config.run_spec import RunSpec
from runner.training.networks import change_norms
from runner.training.norm_swap import follow, swap_norms

registry.load_plugins()
SIZE = (1, 8, 8)


class PreActivation(nn.Module):
    """A residual block that normalises first. Its ReLU works in place or not: the network computes the same."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.stem, self.conv, self.bn = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.branch = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(inplace))
        self.relu = nn.ReLU(inplace)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        x = x + self.conv(self.relu(self.bn(x)))
        return x + self.conv(self.branch(x))


@pytest.mark.parametrize("name", ["none", "group"])
def test_an_operation_in_place_after_a_norm_layer_changes_nothing_else(name: str) -> None:
    results = []
    for inplace in (True, False):
        torch.manual_seed(0)
        network, _ = swap_norms(PreActivation(inplace), SIZE, name, {})
        results.append(network(torch.randn(2, *SIZE, generator=torch.Generator().manual_seed(1))))
    assert torch.equal(*results)


class OwnLayerNorm(nn.LayerNorm):
    """As timm has one: the same as nn.LayerNorm."""


class LayerNorm2d(nn.LayerNorm):
    """As torchvision has one: over the channels of [N, C, H, W]."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Tokens(nn.Module):
    def __init__(self, kind: type[nn.LayerNorm], features: int) -> None:
        super().__init__()
        self.embed, self.norm = nn.Linear(8, features), kind(features)

    def forward(self, x: Tensor) -> Any:
        return self.norm(self.embed(x.squeeze(1)))


def test_subclasses_of_layer_norm_keep_their_axis() -> None:
    for kind in (nn.LayerNorm, OwnLayerNorm):
        network = Tokens(kind, 5)
        x = torch.randn(3, *SIZE)
        expected = network(x)
        swapped, change = swap_norms(network, SIZE, "layer", {})
        assert not change.left
        assert_close(swapped(x), expected)
    images = nn.Sequential(nn.Conv2d(1, 5, 3), LayerNorm2d(5))
    assert isinstance(swap_norms(images, SIZE, "batch", {})[0][1], nn.BatchNorm2d)  # type: ignore[index]
    with pytest.raises(ValueError, match="layer 'norm' \\(it is not clear which axis holds its features\\)"):
        swap_norms(Tokens(OwnLayerNorm, 8), SIZE, "batch", {})


class Listed(nn.Module):
    """It calls its batch norm through a list, too, so that a new one would not be called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 10)
        self.steps = [self.conv, self.bn]

    def forward(self, x: Tensor) -> Any:
        for step in self.steps:
            x = step(x)
        return self.head(x.mean((2, 3)))


@pytest.fixture
def checked() -> Callable[..., Any]:
    """What the check before the training says of a network."""

    def check(make: Callable[[], nn.Module], name: str, **fields: Any) -> Any:
        with registry.network.temporary():
            registry.network("odd")(lambda: make())
            return change_norms(RunSpec(network="odd", dataset="digits", swap_norm=name, **fields))

    return check


def test_a_norm_layer_that_stays_in_a_list_is_an_error(checked: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"still calls old norm layers \(batch_norm in the network\)"):
        checked(Listed, "none")


def test_a_transformers_layer_computes_the_new_norm_in_evaluation_too(checked: Callable[..., Any]) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(28, 2, 16, dropout=0.0, batch_first=True)
            self.head = nn.Linear(28, 10)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.layer(x.squeeze(1)).mean(1))

    assert checked(Encoder, "batch").replaced == ["layer.norm1", "layer.norm2"]
    network: Any = swap_norms(Encoder(), (1, 28, 28), "rms", {})[0]
    x = torch.randn(4, 1, 28, 28)
    with torch.no_grad():
        assert_close(network.eval()(x), network.train()(x))


def test_tokens_and_signals_in_place() -> None:
    class Residual(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.embed, self.norm, self.relu = nn.Linear(8, 6), nn.LayerNorm(6), nn.ReLU(inplace)

        def forward(self, x: Tensor) -> Any:
            x = self.embed(x.squeeze(1))
            return x + self.relu(self.norm(x))

    results = []
    for inplace in (True, False):
        torch.manual_seed(0)
        network, _ = swap_norms(Residual(inplace), SIZE, "none", {})
        results.append(network(torch.ones(2, *SIZE)))
    assert torch.equal(*results)


class OwnNorm(nn.Module):
    is_norm = True

    def __init__(self, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Any:
        return self.scale * x / x.norm(dim=-1, keepdim=True)


def test_the_axis_of_a_norm_layer_of_ones_own_is_that_of_its_parameters() -> None:
    network = nn.Sequential(nn.Flatten(1, 2), nn.Linear(8, 6), OwnNorm(6))
    swapped: Any = swap_norms(network, SIZE, "batch", {})[0]
    assert swapped[2].norm.num_features == 6
    with pytest.raises(ValueError, match="it is not clear which axis"):
        swap_norms(nn.Sequential(nn.Flatten(1, 2), OwnNorm(1)), SIZE, "batch", {})


def test_weights_are_standardized_for_every_layer_that_a_norm_follows() -> None:
    shared = nn.GroupNorm(1, 4)
    network: Any = nn.Sequential(nn.Conv2d(1, 4, 3), shared, nn.Conv2d(4, 4, 3), shared)
    swapped: Any = swap_norms(network, SIZE, "weight_standardization", {})[0]
    follow(swapped, SIZE)
    assert [type(swapped[index]).__name__ for index in (0, 2)] == ["StandardizedConv2d"] * 2
    tokens: Any = swap_norms(Tokens(nn.LayerNorm, 6), SIZE, "weight_standardization", {})[0]
    follow(tokens, SIZE)
    assert type(tokens.embed).__name__ == "StandardizedLinear"


def test_a_norm_layer_whose_layer_is_missing_is_named() -> None:
    """Not only where there is none for any norm layer: a half of the weights would be a silent other arm."""
    alone = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(1, 4), nn.PixelShuffle(2), nn.GroupNorm(1, 1))
    swapped, _ = swap_norms(alone, SIZE, "weight_standardization", {})
    with pytest.raises(ValueError, match="layer '3': no convolution or linear layer with as many features"):
        follow(swapped, SIZE)


def test_hooks_and_names_that_begin_alike() -> None:
    hooked = nn.BatchNorm2d(4)
    hooked.register_forward_hook(lambda _module, _input, output: output * 0.5)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=nn.Conv2d(1, 4, 3), bn1=hooked, bn10=nn.BatchNorm2d(4))
    change = swap_norms(nn.Sequential(layers), SIZE, "group", {})[1]
    assert str(change) == "replaced 1 norm layer; not replaced: layer 'bn1' (it has hooks)"
    assert change.replaced == ["bn10"]


def test_gamma_that_starts_at_0_or_is_frozen_stays_so() -> None:
    network: Any = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    nn.init.zeros_(network[1].weight)
    network[2].requires_grad_(False)
    swapped: Any = swap_norms(network, SIZE, "group", {})[0]
    assert torch.equal(swapped[1].weight, torch.zeros(4))
    assert [p.requires_grad for p in swapped[1:].parameters()] == [True, True, False, False]


@pytest.mark.parametrize("inplace", [True, False])
def test_where_norms_are_put_does_not_depend_on_operations_in_place(inplace: bool) -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(inplace), nn.BatchNorm2d(4))
    change = swap_norms(network, SIZE, "none", {}, insert={"after": ["Conv2d"], "skip_last": False})[1]
    assert (change.replaced, change.inserted, change.biases) == (["2"], ["0"], [])


def test_a_head_that_is_called_twice_is_the_last_layer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.first = nn.Linear(64, 64), nn.Linear(64, 64)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.first(self.head(x.flatten(1))))

    change = swap_norms(Twice(), SIZE, "batch", {}, insert={"after": ["Linear"], "skip_last": True})[1]
    assert change.inserted == ["first"]


def test_a_network_that_cannot_be_copied_says_so() -> None:
    class Uncopied(nn.Module):
        def __deepcopy__(self, _: Any) -> Any:
            raise RuntimeError("one of a kind")

    with pytest.raises(ValueError, match="in a copy of the network, and RuntimeError: one of a kind"):
        swap_norms(Uncopied(), SIZE, "batch", {})


def test_batch_norm_of_signals_stays_where_batch_norm_is_asked_for() -> None:
    class Signals(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv1d(8, 4, 3), nn.BatchNorm1d(4, momentum=0.01)

        def forward(self, x: Tensor) -> Any:
            return F.relu(self.bn(self.conv(x.squeeze(1))))

    network: Any = swap_norms(Signals(), SIZE, "batch", {})[0]
    assert network.bn.momentum == 0.01
