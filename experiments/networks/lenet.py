"""LeNet as d2l.ai's chapter on batch normalization has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.networks.parts import Activation, Pool, activation_layer, pool_layer
from experiments.norms import NormArgs, NormName, build_norm
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
    """LeNet with sigmoids and average pooling, any norm before each sigmoid.

    Source: d2l.ai, "Batch Normalization", whose layer the third document copies (norm: d2l); LeNet is LeCun et al.
    1998. [N, 1, 28, 28] → [N, 10]; 44,426 parameters without norm, 44,878 with γ and β.
    """
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=5),
        build_norm(norm, 6, 2, norm_args),
        activation_layer(activation),
        pool_layer(pool),
        nn.Conv2d(6, 16, kernel_size=5),
        build_norm(norm, 16, 2, norm_args),
        activation_layer(activation),
        pool_layer(pool),
        nn.Flatten(),
        nn.Linear(256, 120),
        build_norm(norm, 120, 1, norm_args),
        activation_layer(activation),
        nn.Linear(120, 84),
        build_norm(norm, 84, 1, norm_args),
        activation_layer(activation),
        nn.Linear(84, 10),
    )
