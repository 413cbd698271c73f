"""The tutorial's two networks ("Batch Norm in PyTorch"), as it lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.registry import network

if TYPE_CHECKING:
    from torch import nn


@network("no_batch_norm")
def no_batch_norm() -> nn.Module:
    """The tutorial's network1: two convolutions and three linear layers, no norm.

    Source: the tutorial, "Adding batch normalization to a CNN". [N, 1, 28, 28] → [N, 10]; 32,998 parameters, drawn in
    the tutorial's order, so that seed 50 gives its very weights.
    """
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(in_channels=1, out_channels=6, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=2, stride=2),
        nn.Conv2d(in_channels=6, out_channels=12, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=2, stride=2),
        nn.Flatten(start_dim=1),
        nn.Linear(in_features=12 * 4 * 4, out_features=120),
        nn.ReLU(),
        nn.Linear(in_features=120, out_features=60),
        nn.ReLU(),
        nn.Linear(in_features=60, out_features=10),
    )


@network("batch_norm")
def batch_norm() -> nn.Module:
    """The tutorial's network2: network1 with a norm after the first pooling and after the first linear layer's ReLU.

    Source: the tutorial, "Adding batch normalization to a CNN". [N, 1, 28, 28] → [N, 10]; 33,250 parameters. The norm
    follows the ReLU, not precedes it as in the paper. Shares its other weights with `no_batch_norm` of the same seed.
    """
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(in_channels=1, out_channels=6, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=2, stride=2),
        nn.BatchNorm2d(6),
        nn.Conv2d(in_channels=6, out_channels=12, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=2, stride=2),
        nn.Flatten(start_dim=1),
        nn.Linear(in_features=12 * 4 * 4, out_features=120),
        nn.ReLU(),
        nn.BatchNorm1d(120),
        nn.Linear(in_features=120, out_features=60),
        nn.ReLU(),
        nn.Linear(in_features=60, out_features=10),
    )
