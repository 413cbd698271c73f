"""The two networks of the tutorial (see docs/sources.md)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from experiments.networks.parts import check_size
from runner.registry import network

if TYPE_CHECKING:
    from torch import nn


@network("no_batch_norm")
def no_batch_norm(*, in_channels: int = 1, image_size: tuple[int, int] = (28, 28), classes: int = 10) -> nn.Module:
    """A small CNN with two convolutions and three linear layers, without norm (the tutorial's network1).

    Source: the tutorial, "Adding batch normalization to a CNN". [N, 1, 28, 28] → [N, 10]; 32,998 parameters. They are
    drawn in the tutorial's order, so seed 50 gives the same weights as there.

    Errors: ValueError for images of less than 16×16 pixels.
    """
    return _cnn(in_channels, image_size, classes, with_norm=False)


@network("batch_norm")
def batch_norm(*, in_channels: int = 1, image_size: tuple[int, int] = (28, 28), classes: int = 10) -> nn.Module:
    """The CNN of `no_batch_norm` with batch norm after the first pooling and after the first linear layer's ReLU.

    Source: the tutorial, "Adding batch normalization to a CNN" (its network2). [N, 1, 28, 28] → [N, 10]; 33,250
    parameters. The norm follows the ReLU; in the paper it precedes it. The other weights are those of `no_batch_norm`
    with the same seed.

    Errors: ValueError for images of less than 16×16 pixels.
    """
    return _cnn(in_channels, image_size, classes, with_norm=True)


def _cnn(in_channels: int, image_size: tuple[int, int], classes: int, *, with_norm: bool) -> nn.Module:
    from torch import nn

    check_size(image_size, 16)
    pixels = math.prod(((side - 4) // 2 - 4) // 2 for side in image_size)
    layers = [
        nn.Conv2d(in_channels=in_channels, out_channels=6, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=2, stride=2),
        nn.BatchNorm2d(6),
        nn.Conv2d(in_channels=6, out_channels=12, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=2, stride=2),
        nn.Flatten(start_dim=1),
        nn.Linear(in_features=12 * pixels, out_features=120),
        nn.ReLU(),
        nn.BatchNorm1d(120),
        nn.Linear(in_features=120, out_features=60),
        nn.ReLU(),
        nn.Linear(in_features=60, out_features=classes),
    ]
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    return nn.Sequential(*(layer for layer in layers if with_norm or not isinstance(layer, norms)))
