"""Multilayer perceptrons of any depth, width, activation and initialisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from experiments.arguments import Count, Flag, Positive
from experiments.networks.parts import Activation, activation_layer
from experiments.norms import NormArgs, NormName, build_norm
from runner.registry import network

if TYPE_CHECKING:
    from torch import nn

Init = Literal["default", "he", "xavier", "normal"]
Dropout = Annotated[float, Field(strict=True, ge=0, lt=1)]


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
    dropout: Dropout = 0.0,
) -> nn.Module:
    """A multilayer perceptron with any hidden layers, activation, initialisation, and norm before or after it.

    Source: with `activation: sigmoid, init: normal` the network of Ioffe & Szegedy 2015, section 4.1 (three hidden
    layers of 100; they do not give the standard deviation). [N, 1, 28, 28] → [N, 10]; by default 99,710 parameters,
    100,310 with γ and β.

    norm_position: before or after the activation.
    init: of every weight: torch's own, He's normal (gain √2), Glorot's normal, or N(0, std²); all but torch's own set
        biases to 0. `std` counts where `init` is normal.
    bias: of the linear layers. Biases are drawn, so with and without them the weights of one seed differ.
    """
    from torch import nn

    layers: list[nn.Module] = [nn.Flatten()]
    inputs = 784
    for width in hidden:
        layers.append(_linear(inputs, width, bias, init, std))
        normalise, activate = build_norm(norm, width, 1, norm_args), activation_layer(activation)
        layers += [normalise, activate] if norm_position == "before" else [activate, normalise]
        if dropout:
            layers.append(nn.Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers, _linear(inputs, 10, bias, init, std))


def _linear(inputs: int, outputs: int, bias: bool, init: Init, std: float) -> nn.Linear:
    from torch import nn

    layer = nn.Linear(inputs, outputs, bias=bias)
    match init:
        case "default":
            return layer
        case "he":
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        case "xavier":
            nn.init.xavier_normal_(layer.weight)
        case "normal":
            nn.init.normal_(layer.weight, std=std)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer
