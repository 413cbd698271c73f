"""VGG-11, narrow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.arguments import Count
from experiments.norms import NormArgs, NormName, build_norm
from runner.registry import network

if TYPE_CHECKING:
    from torch import nn

STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))
"""VGG-11's convolutions by stage, in multiples of the first one's 64 channels."""


@network("vgg")
def vgg(*, norm: NormName = "none", norm_args: NormArgs = None, width: Count = 16) -> nn.Module:
    """VGG-11 with a quarter of its channels and one linear layer, any norm before each ReLU.

    Source: Simonyan & Zisserman 2015, configuration A, which the third document shows; `width` is the first stage's
    channels (64 in the paper). [N, 1, 28, 28] → [N, 10]; at width 16: 578,122 parameters without norm, 579,498
    with γ and β. The first convolution pads 28×28 to 32×32, so that the five stages see 32-16-8-4-2 and pool to 1: at
    28-14-7-3-1 the last stage's filters would see nothing but padding around one pixel.
    """
    from torch import nn

    layers: list[nn.Module] = []
    channels = 1
    for stage in STAGES:
        for multiple in stage:
            layers += [
                nn.Conv2d(channels, multiple * width, kernel_size=3, padding=1 if layers else 3),
                build_norm(norm, multiple * width, 2, norm_args),
                nn.ReLU(),
            ]
            channels = multiple * width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, 10))
