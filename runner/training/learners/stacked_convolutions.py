"""The convolution of R runs, in three forms with equal results. Which one is fast depends on the device: `choice.py`.

Axes as in `stacked_layers.py`: images [B, R, C, H, W], or [B, 1, C, H, W] where all runs see the same ones; weights
[R, O, C, h, w]; outputs [B, R, O, H', W'].
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.config.jobs import Form

Convolution = Callable[[nn.Conv2d, Tensor, Tensor | None, Tensor, Any], Tensor]
"""(the layer, stacked weights, stacked biases or None, images, zeros around them) to the outputs."""


def convolve(form: Form, layer: nn.Conv2d, own: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Convolve each run's images with its own filters. `layer` has the settings, `own` the stacked tensors.

    >>> layers = [nn.Conv2d(1, 6, 5) for _ in range(3)]
    >>> own = {name: torch.stack([getattr(layer, name) for layer in layers]) for name in ("weight", "bias")}
    >>> x = torch.randn(8, 3, 1, 28, 28)
    >>> found = convolve("loop", layers[0], own, x)
    >>> found.shape, torch.allclose(found[:, 2], layers[2](x[:, 2]), atol=1e-5)
    (torch.Size([8, 3, 6, 24, 24]), True)
    """
    weight, bias = own["weight"], own.get("bias")
    images, padding = _padded(layer, x)
    if x.shape[1] == 1 and layer.groups == 1:
        # One dense convolution has the filters of all runs. No other form does less work.
        return _as_one(layer, weight, bias, images.flatten(1, 2), padding, groups=1)
    images = images.expand(-1, len(weight), -1, -1, -1)
    return _FORMS[form](layer, weight, bias, images, padding)


def _padded(layer: nn.Conv2d, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The images, and the zeros that a convolution still has to add around them."""
    if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return x, layer.padding
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    images = F.pad(x.flatten(0, 1), layer._reversed_padding_repeated_twice, mode=mode)
    return torch.unflatten(images, 0, x.shape[:2]), (0, 0)


def _as_one(layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, images: Tensor, padding: Any, groups: int) -> Tensor:
    bias = None if bias is None else bias.flatten()
    y = F.conv2d(images, weight.flatten(0, 1), bias, layer.stride, padding, layer.dilation, groups)
    return torch.unflatten(y, 1, weight.shape[:2])


def _grouped(layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, images: Tensor, padding: Any) -> Tensor:
    """One convolution whose groups are the runs."""
    return _as_one(layer, weight, bias, images.flatten(1, 2), padding, len(weight) * layer.groups)


def _loop(layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, images: Tensor, padding: Any) -> Tensor:
    """One dense convolution per run."""
    # The gradient of `unbind` is one `stack`. The gradient of an index per run would fill R tensors of R runs.
    biases = [None] * len(weight) if bias is None else bias.unbind()
    settings = layer.stride, padding, layer.dilation, layer.groups
    parts = zip(images.unbind(1), weight.unbind(), biases, strict=True)
    return torch.stack([F.conv2d(own, filters, shift, *settings) for own, filters, shift in parts], dim=1)


def _unfold(layer: nn.Conv2d, weight: Tensor, bias: Tensor | None, images: Tensor, padding: Any) -> Tensor:
    """One batched matrix product with the windows of all images, G groups of channels each for themselves."""
    runs, filters, groups = *weight.shape[:2], layer.groups
    settings = zip(images.shape[-2:], layer.kernel_size, layer.dilation, padding, layer.stride, strict=True)
    height, width = ((size + 2 * pad - gap * (kernel - 1) - 1) // step + 1 for size, kernel, gap, pad, step in settings)
    # On CUDA, torch launches one kernel for each image. So all images are the channels of a single one.
    windows = F.unfold(images.flatten(0, 2).unsqueeze(0), layer.kernel_size, layer.dilation, padding, layer.stride)
    # [B, R·G, values of a window, windows]
    windows = windows.view(len(images), runs * groups, -1, height * width)
    y = weight.reshape(runs * groups, filters // groups, -1) @ windows
    y = y.view(len(images), runs, filters, height, width)
    # Under autocast, a float32 bias would make the sum float32.
    return y if bias is None else y + bias.to(y.dtype)[:, :, None, None]


_FORMS: dict[Form, Convolution] = {"grouped": _grouped, "loop": _loop, "unfold": _unfold}
