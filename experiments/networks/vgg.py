"""VGG-11 with fewer channels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from experiments.arguments import Count
from experiments.networks.parts import normed
from experiments.norms import NormArgs, NormName
from runner.registry import network

if TYPE_CHECKING:
    from torch import nn

STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))
"""The convolutions of VGG-11 by stage: their channels in multiples of the first one's."""


@network("vgg")
def vgg(
    *,
    norm: NormName = "none",
    norm_args: NormArgs = None,
    width: Count = 16,
    in_channels: int = 1,
    image_size: tuple[int, int] = (28, 28),
    classes: int = 10,
) -> nn.Module:
    """VGG-11 with a quarter of its channels and one linear layer, and any norm before each ReLU.

    Source: Simonyan & Zisserman 2015, configuration A, which the d2l notes show. [N, 1, 28, 28] → [N, 10]; at
    width 16: 578,122 parameters without norm, 579,498 with γ and β.

    The first convolution pads a smaller image to 32×32 (33 where its side is odd), so that the sizes of the five stages
    are 32-16-8-4-2 and the last pooling gives one pixel. With 28-14-7-3-1 the filters of the last stage would see one
    pixel and padding.

    width: channels of the first stage; 64 in the paper.
    """
    from torch import nn

    layers: list[nn.Module] = []
    channels = in_channels
    enlarged = [max(0, math.ceil((32 - side) / 2)) for side in image_size]
    first = (1 + enlarged[0], 1 + enlarged[1])
    for stage in STAGES:
        for multiple in stage:
            convolution = nn.Conv2d(channels, multiple * width, kernel_size=3, padding=1 if layers else first)
            layers += normed(convolution, norm, norm_args)
            channels = multiple * width
        layers.append(nn.MaxPool2d(2))
    pixels = math.prod((side + 2 * more) // 32 for side, more in zip(image_size, enlarged, strict=True))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * pixels, classes))
