"""The notebook's two networks ("批标准化"), with any norm in the place of its batch norm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.norms import NormArgs, NormName, build_norm
from runner.registry import network

if TYPE_CHECKING:
    from torch import nn


@network("notebook_mlp")
def notebook_mlp(*, norm: NormName = "none", norm_args: NormArgs = None) -> nn.Module:
    """The notebook's MLP, 784-100-10, with any norm before the ReLU.

    Source: the notebook, `multi_network` (norm: notebook) and `no_bn_net` (norm: none). [N, 1, 28, 28] → [N, 10];
    79,510 parameters without norm, 79,710 with γ and β.
    """
    from torch import nn

    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 100),
        build_norm(norm, 100, 1, norm_args),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


@network("notebook_cnn")
def notebook_cnn(*, norm: NormName = "none", norm_args: NormArgs = None) -> nn.Module:
    """The notebook's CNN, two convolutions and one linear layer, with any norm before each ReLU.

    Source: the notebook, `conv_bn_net` (norm: batch) and `conv_no_bn_net` (norm: none). [N, 1, 28, 28] → [N, 10];
    6,486 parameters without norm, 6,530 with γ and β.
    """
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        build_norm(norm, 6, 2, norm_args),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(6, 16, 5),
        build_norm(norm, 16, 2, norm_args),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
        nn.Flatten(),
        nn.Linear(400, 10),
    )
