"""The small network that `bnbench calibrate` trains. It has batch norm, dropout and random starting weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from experiments.arguments import Flag
from runner.registry import network

if TYPE_CHECKING:
    from torch import nn


@network("calibration")
def calibration(
    *,
    label: Literal["a", "b"] = "a",  # noqa: ARG001
    frozen_gamma: Flag = False,
    in_channels: int = 1,
    image_size: tuple[int, int] = (28, 28),
    classes: int = 10,
) -> nn.Module:
    """A small perceptron with batch norm and dropout, for tests of the harness itself.

    Source: none. [N, 1, 28, 28] → [N, 10]; 12,762 parameters.

    label: ignored, so that two arms can train the same network.
    frozen_gamma: whether the norm layer's γ is 0 and not trained, so that the outputs do not depend on the image.
    """
    from torch import nn

    norm = nn.BatchNorm1d(16)
    if frozen_gamma:
        nn.init.zeros_(norm.weight).requires_grad_(False)
    first, last = nn.Linear(in_channels * math.prod(image_size), 16), nn.Linear(16, classes)
    return nn.Sequential(nn.Flatten(), first, norm, nn.ReLU(), nn.Dropout(0.1), last)
