"""Layers whose activations are blocks of images: [blocks, C, H, W, lanes] (kernels.cpp has a picture).

Each has a class that holds the torch layer, and an `autograd.Function` that calls the kernels. C is channels, H rows,
W columns. Lanes without an image hold finite numbers, and their gradients are 0.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from runner.training.kernels.library import Library, Sizes

TOGETHER = 400_000
"""The backward pass handles as many blocks at once as fit into this many bytes, a part of a core's L2 cache."""

TILE_ROWS = 6
"""The most outputs of a tile (`MAX_A` in kernels.cpp)."""


def to_blocks(images: Tensor, lanes: int) -> Tensor:
    """Images [N, C, H, W] as blocks.

    >>> from_blocks(to_blocks(torch.ones(20, 3, 4, 5), lanes=16), images=20).shape
    torch.Size([20, 3, 4, 5])
    """
    if images.dim() != 4 or images.dtype != torch.float32:
        raise RuntimeError(f"a convolution of float32 images [N, C, H, W] got {images.dtype} {list(images.shape)}")
    # Zeros in place of the images that the last block lacks.
    full = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -len(images) % lanes))
    blocked: Tensor = full.unflatten(0, (-1, lanes)).movedim(1, -1).contiguous()
    return blocked


def from_blocks(blocked: Tensor, images: int) -> Tensor:
    """Blocks as this many images [N, C, H, W]."""
    return blocked.movedim(-1, 1).flatten(0, 1)[:images]


@dataclass(frozen=True)
class _Plan:
    """The sizes of a convolution, the size of its outputs, and how many numbers of scratch it needs in each pass."""

    sizes: Sizes
    rows: int
    columns: int
    forward: int
    backward: int


class Convolution:
    """An `nn.Conv2d`, and the ReLU and the 2×2 maximum pooling that follow it, if they do."""

    def __init__(self, library: Library, layer: nn.Conv2d, relu: bool, pool: bool) -> None:
        self.library, self.layer, self.relu, self.pool = library, layer, relu, pool
        self.shape = layer.out_channels, layer.in_channels, *layer.kernel_size
        self.filter, self.padding = layer.kernel_size[0], padding_of(layer)

    def __call__(self, x: Tensor, images: int) -> Tensor:
        weight, bias = self.layer.weight, self.layer.bias
        if weight.shape != self.shape or (bias is not None and bias.shape != self.shape[:1]):
            raise RuntimeError(f"{self.layer} has weights {list(weight.shape)}, which do not fit")
        if x.shape[1] != self.layer.in_channels:
            raise RuntimeError(f"{self.layer} got images of {x.shape[1]} channels")
        plan = self._plan(images, x.shape[2], x.shape[3], x.requires_grad)
        y: Tensor = _Convolution.apply(x, weight, bias, self, plan)
        return y

    def _plan(self, images: int, rows: int, columns: int, dx: bool) -> _Plan:
        """dx: whether the gradient of the input is needed."""
        C, outputs, lanes = self.layer.in_channels, self.layer.out_channels, self.library.lanes
        H, W = rows + 2 * self.padding, columns + 2 * self.padding
        H_out, W_out, stride = H - self.filter + 1, W - self.filter + 1, 2 if self.pool else 1
        if min(H_out, W_out) < stride:
            raise RuntimeError(f"{self.layer}: images of {rows}×{columns} are too small")
        border = max(self.filter - 1 - self.padding, 0) if dx else 0
        padded = C * H * W * lanes if self.padding else 0
        block = padded + outputs * (H_out + 2 * border) * (W_out + 2 * border) * lanes
        group = max(1, min(-(-images // lanes), TOGETHER // (4 * block)))
        sizes = Sizes(images, C, rows, columns, outputs, self.filter, self.padding, self.relu, self.pool, group)
        forward = padded + 2 * TILE_ROWS * W_out * lanes
        return _Plan(sizes, H_out // stride, W_out // stride, forward, group * block)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: Convolution, plan: _Plan) -> Tensor:
        x, weight, bias = x.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
        shape = len(x), plan.sizes.outputs, plan.rows, plan.columns, x.shape[4]
        y = x.new_empty(shape)
        places = torch.empty(shape, dtype=torch.int8) if layer.relu or layer.pool else None
        layer.library.call("convolution", plan.sizes, x, weight, bias, y, places, x.new_empty(plan.forward))
        ctx.layer, ctx.plan = layer, plan
        ctx.save_for_backward(x, weight, places)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, places = ctx.saved_tensors
        plan, needs = ctx.plan, ctx.needs_input_grad
        dx = torch.empty_like(x) if needs[0] else None
        dw, db = torch.zeros_like(weight), x.new_zeros(plan.sizes.outputs) if needs[2] else None
        scratch, gradient = x.new_empty(plan.backward), gradient.contiguous()
        call = ctx.layer.library.call
        call("convolution_backward", plan.sizes, x, weight, gradient, places, dw, db, dx, scratch)
        return dx, dw, db, None, None


class Norm:
    """An `nn.BatchNorm2d`, and the ReLU and the 2×2 maximum pooling that follow it, if they do."""

    def __init__(self, library: Library, layer: nn.BatchNorm2d, relu: bool, pool: bool) -> None:
        self.library, self.layer, self.relu, self.pool = library, layer, relu, pool

    def __call__(self, x: Tensor, images: int) -> Tensor:
        layer, C = self.layer, x.shape[1]
        if layer.num_features != C:
            raise RuntimeError(f"{layer} got images of {C} channels")
        sizes = Sizes(images, *x.shape[1:4], relu=self.relu, pool=self.pool)
        mean, var = layer.running_mean, layer.running_var
        if layer.training or mean is None or var is None:
            x, count = x.contiguous(), images * x.shape[2] * x.shape[3]
            if count == 1:
                raise ValueError(f"Expected more than 1 value per channel when training; {layer} got one")
            mean, var = x.new_empty(2, C)
            self.library.call("statistics", sizes, x, mean, var)
            if layer.training and layer.track_running_stats:
                self._update(mean, var, count)
        else:
            sizes.fixed = True
        inverse = torch.rsqrt(var + layer.eps)
        y: Tensor = _Norm.apply(x, layer.weight, layer.bias, mean, inverse, self, sizes)
        return y

    @torch.no_grad()
    def _update(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Move the layer's averages towards a batch's mean and biased variance [C] over `count` values."""
        layer = self.layer
        if layer.running_mean is None or layer.running_var is None:
            return
        batches = layer.num_batches_tracked
        if batches is not None:
            batches.add_(1)
        plain_mean = 0.0 if batches is None else 1 / float(batches)
        weight = plain_mean if layer.momentum is None else layer.momentum
        layer.running_mean.lerp_(mean, weight)
        layer.running_var.lerp_(var * (count / (count - 1)), weight)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor | None,
        beta: Tensor | None,
        mean: Tensor,
        inverse: Tensor,
        layer: Norm,
        sizes: Sizes,
    ) -> Tensor:
        x = x.contiguous()
        scale = inverse if gamma is None else inverse * gamma
        shift = -mean * scale if beta is None else beta - mean * scale
        step = 2 if layer.pool else 1
        shape = *x.shape[:2], sizes.rows // step, sizes.columns // step, x.shape[4]
        if min(shape) < 1:
            raise RuntimeError(f"images of {sizes.rows}×{sizes.columns} are too small for maximum pooling")
        y = x.new_empty(shape)
        places = torch.empty(shape, dtype=torch.int8) if layer.relu or layer.pool else None
        layer.library.call("normalise", sizes, x, scale, shift, y, places)
        ctx.layer, ctx.sizes = layer, sizes
        ctx.save_for_backward(x, mean, inverse, scale, places)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, mean, inverse, scale, places = ctx.saved_tensors
        gradient, dx = gradient.contiguous(), torch.empty_like(x)
        dgamma, dbeta = x.new_empty(2, x.shape[1])
        ctx.layer.library.call(
            "normalise_backward",
            ctx.sizes,
            x,
            mean,
            inverse,
            scale,
            gradient,
            places,
            dgamma,
            dbeta,
            dx,
            x.new_empty(x[0, 0].numel()),
        )
        needs = ctx.needs_input_grad
        return dx, dgamma if needs[1] else None, dbeta if needs[2] else None, None, None, None, None


def average_pool(x: Tensor, _: int) -> Tensor:
    """Average pooling over 2×2."""
    return F.avg_pool3d(x, (2, 2, 1))


def padding_of(layer: nn.Conv2d) -> int:
    """How many zeros are put around the images."""
    if isinstance(layer.padding, str):
        return layer.kernel_size[0] // 2 if layer.padding == "same" else 0
    return layer.padding[0]
