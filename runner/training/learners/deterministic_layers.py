"""Adaptive pooling for CUDA, in a form that is deterministic there.

On CUDA, the backward pass of torch's adaptive pooling adds in a random order, and torch refuses it where results must
be deterministic. Where the output's size divides the input's, all windows have one size and do not overlap. Then
ordinary pooling computes the same, and its backward pass is deterministic.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from runner.training.learners.learner import has_hooks


def make_deterministic(network: nn.Module) -> None:
    """Replace the network's adaptive pooling layers over images by the even forms. Layers with hooks stay as they are.

    >>> network = nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Flatten())
    >>> make_deterministic(network)
    >>> network[0]
    EvenAdaptiveAvgPool2d(output_size=7)
    """
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if not name or has_hooks(module):
            continue
        if type(module) is nn.AdaptiveAvgPool2d:
            network.set_submodule(name, EvenAdaptiveAvgPool2d(module.output_size))
        elif type(module) is nn.AdaptiveMaxPool2d:
            network.set_submodule(name, EvenAdaptiveMaxPool2d(module.output_size, module.return_indices))


def even_window(x: Tensor, output_size: Any) -> tuple[int, int] | None:
    """The window of ordinary pooling that pools x [..., H, W] to this size; None where the windows differ in size.

    output_size: n, or (rows, columns); None in its place keeps the input's rows or columns.
    """
    sizes = output_size if isinstance(output_size, tuple) else (output_size, output_size)
    rows, columns = (given if size is None else size for size, given in zip(sizes, x.shape[-2:], strict=True))
    H, W = x.shape[-2:]
    return None if H % rows or W % columns else (H // rows, W // columns)


class EvenAdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """`nn.AdaptiveAvgPool2d`, by ordinary pooling where all windows have one size."""

    def forward(self, input: Tensor) -> Tensor:
        window = even_window(input, self.output_size)
        # To 1×1, torch takes the mean, which is deterministic.
        if window is None or window == tuple(input.shape[-2:]):
            return super().forward(input)
        return F.avg_pool2d(input, window)


class EvenAdaptiveMaxPool2d(nn.AdaptiveMaxPool2d):
    """`nn.AdaptiveMaxPool2d`, by ordinary pooling where all windows have one size."""

    def forward(self, input: Tensor) -> Any:
        window = even_window(input, self.output_size)
        if window is None or self.return_indices:
            return super().forward(input)
        return F.max_pool2d(input, window)
