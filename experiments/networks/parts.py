"""What several networks are made of, by name. Norm layers are in experiments.norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Activation = Literal["relu", "sigmoid", "tanh", "gelu", "silu", "identity"]
Pool = Literal["max", "average"]


def activation_layer(name: Activation) -> nn.Module:
    from torch import nn

    layers: dict[Activation, type[nn.Module]] = {
        "relu": nn.ReLU,
        "sigmoid": nn.Sigmoid,
        "tanh": nn.Tanh,
        "gelu": nn.GELU,
        "silu": nn.SiLU,
        "identity": nn.Identity,
    }
    return layers[name]()


def pool_layer(name: Pool) -> nn.Module:
    """Halves height and width, rounding down."""
    from torch import nn

    return nn.MaxPool2d(2) if name == "max" else nn.AvgPool2d(2)
