"""LeNet, as the chapter on batch normalization of d2l.ai has it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from experiments.networks.parts import Activation, Pool, check_size, normed, pool_layer
from experiments.norms import NormArgs, NormName
from runner.registry import network

if TYPE_CHECKING:
    from torch import nn


@network("lenet")
def lenet(
    *,
    norm: NormName = "none",
    norm_args: NormArgs = None,
    activation: Activation = "sigmoid",
    pool: Pool = "average",
    in_channels: int = 1,
    image_size: tuple[int, int] = (28, 28),
    classes: int = 10,
) -> nn.Module:
    """LeNet with sigmoids and average pooling, and any norm before each sigmoid.

    Source: d2l.ai, "Batch Normalization" (its layer, which the d2l notes copy, is the norm `d2l`). LeNet is
    LeCun et al. 1998. [N, 1, 28, 28] → [N, 10]; 44,426 parameters without norm, 44,878 with γ and β.

    Errors: ValueError for images of less than 16×16 pixels.
    """
    from torch import nn

    check_size(image_size, 16)
    pixels = math.prod(((side - 4) // 2 - 4) // 2 for side in image_size)
    return nn.Sequential(
        *normed(nn.Conv2d(in_channels, 6, kernel_size=5), norm, norm_args, activation),
        pool_layer(pool),
        *normed(nn.Conv2d(6, 16, kernel_size=5), norm, norm_args, activation),
        pool_layer(pool),
        nn.Flatten(),
        *normed(nn.Linear(16 * pixels, 120), norm, norm_args, activation),
        *normed(nn.Linear(120, 84), norm, norm_args, activation),
        nn.Linear(84, classes),
    )
