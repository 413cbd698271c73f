"""The two networks of the notebook (see docs/sources.md), with any norm in place of its batch norm."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from experiments.networks.parts import check_size, normed
from experiments.norms import NormArgs, NormName
from runner.registry import network

if TYPE_CHECKING:
    from torch import nn


@network("notebook_mlp")
def notebook_mlp(
    *,
    norm: NormName = "none",
    norm_args: NormArgs = None,
    in_channels: int = 1,
    image_size: tuple[int, int] = (28, 28),
    classes: int = 10,
) -> nn.Module:
    """A perceptron with one hidden layer, 784-100-10, and any norm before its ReLU.

    Source: the notebook, `multi_network` (norm: notebook) and `no_bn_net` (norm: none). [N, 1, 28, 28] → [N, 10];
    79,510 parameters without norm, 79,710 with γ and β.
    """
    from torch import nn

    pixels = in_channels * math.prod(image_size)
    return nn.Sequential(nn.Flatten(), *normed(nn.Linear(pixels, 100), norm, norm_args), nn.Linear(100, classes))


@network("notebook_cnn")
def notebook_cnn(
    *,
    norm: NormName = "none",
    norm_args: NormArgs = None,
    in_channels: int = 1,
    image_size: tuple[int, int] = (28, 28),
    classes: int = 10,
) -> nn.Module:
    """A small CNN with two convolutions and one linear layer, and any norm before each ReLU.

    Source: the notebook, `conv_bn_net` (norm: batch) and `conv_no_bn_net` (norm: none). [N, 1, 28, 28] → [N, 10];
    6,486 parameters without norm, 6,530 with γ and β.

    Errors: ValueError for images of less than 12×12 pixels.
    """
    from torch import nn

    check_size(image_size, 12)
    pixels = math.prod((side // 2 - 4) // 2 for side in image_size)
    return nn.Sequential(
        *normed(nn.Conv2d(in_channels, 6, 3, padding=1), norm, norm_args),
        nn.MaxPool2d(2, 2),
        *normed(nn.Conv2d(6, 16, 5), norm, norm_args),
        nn.MaxPool2d(2, 2),
        nn.Flatten(),
        nn.Linear(16 * pixels, classes),
    )
