"""A CNN of units with convolution, norm, pooling and activation, in every order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from experiments.arguments import Count
from experiments.networks.parts import Activation, Pool, check_size, normed, pool_layer
from experiments.norms import NormArgs, NormName
from runner.registry import network

if TYPE_CHECKING:
    from torch import nn

Order = Literal[
    "norm-pool-activation",
    "norm-activation-pool",
    "pool-norm-activation",
    "pool-activation-norm",
    "activation-norm-pool",
    "activation-pool-norm",
]


@network("conv_unit")
def conv_unit(
    *,
    order: Order = "norm-pool-activation",
    norm: NormName = "batch",
    norm_args: NormArgs = None,
    pool: Pool = "max",
    activation: Activation = "relu",
    units: Annotated[int, Field(strict=True, ge=1, le=4)] = 2,
    width: Count = 16,
    in_channels: int = 1,
    image_size: tuple[int, int] = (28, 28),
    classes: int = 10,
) -> nn.Module:
    """A CNN of units: convolution, then norm, pooling and activation in any order. One linear layer follows.

    Source: the unit-order notes, "a unit in the convolutional neural network: conv2D → batchnorm → pooling → ReLU; the
    last three's order …, inversion doesn't have much effect". Unit i has a 3×3 convolution to width · 2^(i−1) channels
    and halves the image. [N, 1, 28, 28] → [N, 10]; by default 20,586 parameters, 20,490 without norm.

    order: ReLU and maximum pooling commute, so with them two pairs of orders compute the same function.
    units: at most 4, because 28 pixels can be halved four times.
    Errors: ValueError where an image cannot be halved so often.
    """
    from torch import nn

    layers: list[nn.Module] = []
    check_size(image_size, 2**units)
    channels = in_channels
    for unit in range(units):
        filters = width * 2**unit
        convolution = nn.Conv2d(channels, filters, kernel_size=3, padding=1)
        convolve, normalise, activate = normed(convolution, norm, norm_args, activation)
        parts = {"norm": normalise, "pool": pool_layer(pool), "activation": activate}
        layers += [convolve, *(parts[part] for part in order.split("-"))]
        channels = filters
    pixels = (image_size[0] // 2**units) * (image_size[1] // 2**units)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * pixels, classes))
