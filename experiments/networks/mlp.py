"""Multilayer perceptrons with any depth, width, activation and initialisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from experiments.arguments import Count, Flag, Positive
from experiments.networks.parts import Activation, normed
from experiments.norms import NormArgs, NormName
from runner.registry import network

if TYPE_CHECKING:
    from torch import nn

Init = Literal["default", "he", "xavier", "normal"]


@network("mlp")
def mlp(
    *,
    hidden: Annotated[Sequence[Count], Field(min_length=1)] = (100, 100, 100),
    activation: Activation = "relu",
    norm: NormName = "none",
    norm_args: NormArgs = None,
    norm_position: Literal["before", "after"] = "before",
    init: Init = "default",
    std: Positive = 0.05,
    bias: Flag = True,
    dropout: Annotated[float, Field(strict=True, ge=0, lt=1)] = 0.0,
    in_channels: int = 1,
    image_size: tuple[int, int] = (28, 28),
    classes: int = 10,
) -> nn.Module:
    """A multilayer perceptron with any hidden layers, activation and initialisation, and any norm.

    Source: with `activation: sigmoid, init: normal` it is the network of Ioffe & Szegedy 2015, section 4.1 (three
    hidden layers of 100; the paper does not give the standard deviation). [N, 1, 28, 28] → [N, 10]; by default 99,710
    parameters, 100,310 with γ and β.

    norm_position: whether the norm stands before or after the activation.
    init: how weights are drawn: torch's default, He's normal (gain √2), Glorot's normal, or N(0, std²). All but the
        default set biases to 0.
    std: the standard deviation for `init: normal`.
    bias: whether the linear layers have biases. They are drawn, so the weights of a seed differ with and without them.
    """
    from torch import nn

    layers: list[nn.Module] = [nn.Flatten()]
    inputs = in_channels * math.prod(image_size)
    for width in hidden:
        linear = _linear(inputs, width, bias, init, std)
        parts = normed(linear, norm, norm_args, activation)
        layers += parts if norm_position == "before" else [parts[0], parts[2], parts[1]]
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers, _linear(inputs, classes, bias, init, std))


def _linear(inputs: int, outputs: int, bias: bool, init: Init, std: float) -> nn.Linear:
    from torch import nn

    layer = nn.Linear(inputs, outputs, bias=bias)
    if init == "he":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    elif init == "xavier":
        nn.init.xavier_normal_(layer.weight)
    elif init == "normal":
        nn.init.normal_(layer.weight, std=std)
    if bias and init != "default":
        nn.init.zeros_(layer.bias)
    return layer
