"""The network that `bnbench calibrate` trains: small, with everything random that a network here can have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from experiments.arguments import Flag
from runner.registry import network

if TYPE_CHECKING:
    from torch import nn


@network("calibration")
def calibration(*, label: Literal["a", "b"] = "a", frozen_gamma: Flag = False) -> nn.Module:  # noqa: ARG001
    """A small perceptron with batch norm and dropout, for tests of the harness itself.

    Source: none; it stands for no network. [N, 1, 28, 28] → [N, 10]; 12,762 parameters.

    label: ignored, so that two arms can train the very same thing.
    frozen_gamma: the norm layer's γ is 0 and not trained, so that no image can be told from another.
    """
    from torch import nn

    norm = nn.BatchNorm1d(16)
    if frozen_gamma:
        nn.init.zeros_(norm.weight).requires_grad_(False)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 16), norm, nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 10))
