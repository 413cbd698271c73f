"""Layers that `swap_norm` puts around a norm layer, or in its place, where the network needs it."""

import math

from torch import Tensor, nn


class Reshaped(nn.Module):
    """A norm layer for inputs that are neither [N, F] nor [N, C, H, W].

    last: the features are the last axis, as in [N, L, F]; the layer gets [N·L, F]. Otherwise they are axis 1, as in
    [N, C, L]; the layer gets [N, C, L, 1].

    >>> import torch
    >>> Reshaped(nn.BatchNorm1d(3), last=True)(torch.ones(2, 5, 3)).shape
    torch.Size([2, 5, 3])
    """

    is_norm = True
    eps = math.nan
    """NaN equals nothing. nn.TransformerEncoderLayer would compute layer norms itself if the eps of both were equal."""

    def __init__(self, norm: nn.Module, *, last: bool) -> None:
        super().__init__()
        self.norm, self.last = norm, last

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2) if self.last else x.flatten(2).unsqueeze(-1)
        result: Tensor = self.norm(flat)
        return result.view(x.shape)


class Copied(nn.Module):
    """The place of a norm layer that has gone: the input, copied, because the next layer may work in place."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


def copying(layer: nn.Module) -> nn.Module:
    """A layer that returns another tensor than it gets, which an operation in place may change."""
    if isinstance(layer, Reshaped) and isinstance(layer.norm, nn.Identity):
        return Reshaped(Copied(), last=layer.last)
    return Copied() if isinstance(layer, nn.Identity) else layer
