"""Layers that several networks use, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from experiments.norms import NormArgs, build_norm

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
    """A layer that halves height and width, rounding down."""
    from torch import nn

    return nn.MaxPool2d(2) if name == "max" else nn.AvgPool2d(2)


def check_size(image_size: tuple[int, int], smallest: int) -> None:
    """Errors: ValueError where an image (height, width) has fewer rows or columns than a network needs."""
    if min(image_size) < smallest:
        height, width = image_size
        raise ValueError(f"images of {height}×{width} pixels are too small; the smallest size is {smallest}×{smallest}")


def normed(
    layer: nn.Linear | nn.Conv2d, norm: str, norm_args: NormArgs, activation: Activation = "relu"
) -> list[nn.Module]:
    """A layer, the norm layer for its outputs, and an activation."""
    from torch import nn

    features, dims = (layer.out_features, 1) if isinstance(layer, nn.Linear) else (layer.out_channels, 2)
    return [layer, build_norm(norm, features, dims, norm_args), activation_layer(activation)]
