"""LeNet, as the chapter on batch normalization of d2l.ai has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.networks.parts import Activation, Pool, normed, pool_layer
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
) -> nn.Module:
    """LeNet with sigmoids and average pooling, and any norm before each sigmoid.

    Source: d2l.ai, "Batch Normalization" (its layer, which the d2l notes copy, is the norm `d2l`). LeNet is
    LeCun et al. 1998. [N, 1, 28, 28] → [N, 10]; 44,426 parameters without norm, 44,878 with γ and β.
    """
    from torch import nn

    return nn.Sequential(
        *normed(nn.Conv2d(1, 6, kernel_size=5), norm, norm_args, activation),
        pool_layer(pool),
        *normed(nn.Conv2d(6, 16, kernel_size=5), norm, norm_args, activation),
        pool_layer(pool),
        nn.Flatten(),
        *normed(nn.Linear(256, 120), norm, norm_args, activation),
        *normed(nn.Linear(120, 84), norm, norm_args, activation),
        nn.Linear(84, 10),
    )
