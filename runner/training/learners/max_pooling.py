"""Maximum pooling over 2×2 on a CPU. It gives torch's own numbers in a fifth of torch's time.

torch's kernel compares one value at a time. It took more than a third of a LeNet's step at batch 1000. This one
compares whole rows. Values, gradients and the positions of the maxima (the first in a window, row by row) are the same.
`may_come_first` says which pooling can be moved before a ReLU.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.training.learners.learner import has_hooks

SETTINGS = {"kernel_size": 2, "stride": 2, "padding": 0, "dilation": 1, "ceil_mode": False, "return_indices": False}


def quicken(network: nn.Module) -> None:
    """Replace every `nn.MaxPool2d(2)` of the network by the quick form; layers with hooks stay as they are."""
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if name and halves(module) and not has_hooks(module):
            network.set_submodule(name, QuickMaxPool2d(2))


def halves(module: nn.Module) -> bool:
    """Whether a layer is `nn.MaxPool2d(2)`, or its quick form."""
    plain = type(module) in (nn.MaxPool2d, QuickMaxPool2d)
    return plain and all(getattr(module, key) in (value, (value, value)) for key, value in SETTINGS.items())


def may_come_first(pooling: nn.Module, relu: nn.Module) -> bool:
    """Whether these two layers are a ReLU and a maximum pooling after it that give the same in the other order.

    In both orders, a window gives its maximum, or 0 where no value is positive. In the second case it has no gradient.
    Pooling first leaves ReLU a quarter of the values. The sign of a zero may differ. A dilated window can lie outside
    the image: its maximum is -∞, which ReLU would change. The caller makes sure that neither layer has hooks.

    >>> may_come_first(nn.MaxPool2d(2), nn.ReLU()), may_come_first(nn.AvgPool2d(2), nn.ReLU())
    (True, False)
    """
    plain = type(relu) is nn.ReLU and type(pooling) in (nn.MaxPool2d, QuickMaxPool2d)
    return plain and not pooling.return_indices and pooling.dilation in (1, (1, 1))


class QuickMaxPool2d(nn.MaxPool2d):
    """`nn.MaxPool2d(2)`, computed in another order."""

    def forward(self, x: Tensor) -> Tensor:
        quick = x.dim() == 4 and min(x.shape[2:]) >= 2 and x.is_contiguous()
        pooled: Tensor = _MaxPool.apply(x)[0] if quick else super().forward(x)
        return pooled


class _MaxPool(torch.autograd.Function):
    """Images [N, C, H, W] to their maxima [N, C, H/2, W/2] and the positions of these; None without gradients."""

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor | None]:
        # Like torch, leave out an odd last row or column.
        H, W = (size // 2 * 2 for size in x.shape[2:])
        left, right = x[:, :, :H, 0:W:2], x[:, :, :H, 1:W:2]
        larger = torch.maximum(left, right)
        upper, lower = larger[:, :, 0::2], larger[:, :, 1::2]
        if not x.requires_grad:
            return torch.maximum(upper, lower), None
        # The comparisons are strict because torch takes the first of equal values. Arithmetic on bytes is far faster
        # than torch.where.
        further = (right > left).view(torch.uint8)
        down = (lower > upper).view(torch.uint8)
        above, below = further[:, :, 0::2], further[:, :, 1::2]
        windows = torch.arange(0, H, 2).unsqueeze(1) * x.shape[3] + torch.arange(0, W, 2)
        column = above + (below - above) * down
        positions = down.to(torch.int64).mul_(x.shape[3]).add_(windows).add_(column)
        return torch.maximum(upper, lower), positions

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Any, ...]) -> None:
        if output[1] is not None:
            ctx.mark_non_differentiable(output[1])
            ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, positions = ctx.saved_tensors
        return torch.ops.aten.max_pool2d_with_indices_backward(
            gradients[0].contiguous(), x, [2, 2], [2, 2], [0, 0], [1, 1], False, positions
        )

    @staticmethod
    def vmap(_: Any, in_dims: tuple[int], x: Tensor) -> tuple[Any, Any]:
        """Use torch's own pooling where a network maps its layers."""
        mapped = x.movedim(in_dims[0], 0)
        pooled = F.max_pool2d(mapped.flatten(0, 1), 2)
        return (pooled.unflatten(0, mapped.shape[:2]), None), (0, None)
