"""Weight standardization, with group normalization (Qiao et al. 2019)."""

from typing import Any

import torch
from torch import Tensor, nn


def standardized(weight: Tensor, eps: float = 1e-5) -> Tensor:
    """Weights whose values have mean 0 and variance 1 for each output channel.

    Source: Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization",
    where they define Ŵ = WS(W): Ŵᵢⱼ = (Wᵢⱼ - μᵢ) / σᵢ, with μᵢ and σᵢ over all weights of output i. σᵢ² is the biased
    variance. The paper adds eps to σᵢ; here it is under the root, as in batch norm.

    >>> rows = standardized(torch.tensor([[1.0, 3.0], [2.0, 8.0]]))
    >>> rows.round(decimals=3)
    tensor([[-1.,  1.],
            [-1.,  1.]])
    """
    rows = weight.flatten(1)
    mean, variance = rows.mean(1, keepdim=True), rows.var(1, keepdim=True, correction=0)
    result: Tensor = ((rows - mean) / torch.sqrt(variance + eps)).view_as(weight)
    return result


class StandardizedConv2d(nn.Conv2d):
    """A convolution that standardizes its weights in each forward pass."""

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = self._conv_forward(input, standardized(self.weight), self.bias)
        return result


class StandardizedLinear(nn.Linear):
    """A linear layer that standardizes its weights in each forward pass."""

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, standardized(self.weight), self.bias)


class StandardizedGroupNorm(nn.GroupNorm):
    """Group normalization that wants the weights of the layer before it to be standardized."""

    def follow(self, layer: Any) -> nn.Module:
        """The layer before this one, with the same parameters, so that it standardizes its weights.

        Errors: ValueError where it is neither a 2d convolution nor a linear layer.
        """
        bias = layer.bias is not None
        new: nn.Conv2d | nn.Linear
        if type(layer) is nn.Conv2d:
            sizes = layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding
            others = layer.dilation, layer.groups, bias, layer.padding_mode
            new = StandardizedConv2d(*sizes, *others, device="meta")  # type: ignore[arg-type]
        elif type(layer) is nn.Linear:
            new = StandardizedLinear(layer.in_features, layer.out_features, bias, device="meta")
        else:
            raise ValueError(f"weight standardization is for Conv2d and Linear, not {type(layer).__name__}")
        new.weight, new.bias = layer.weight, layer.bias
        return new.train(layer.training)
