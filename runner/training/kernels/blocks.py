"""Layers whose activations are blocks of images: [blocks, C, H, W, lanes] (kernels.cpp has a picture).

Each has a class that knows the torch layer, and an `autograd.Function` that calls the kernels. C is channels, H rows,
W columns. Lanes without an image hold finite numbers, and their gradients are 0.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from runner.training.kernels.library import Layer, Library

TOGETHER = 400_000
"""A convolution's gradients are added up over as many blocks as fit into this many bytes of a processor's cache."""


def to_blocks(library: Library, images: Tensor) -> Tensor:
    """Images [N, C, H, W] as blocks."""
    if images.dim() != 4 or images.dtype != torch.float32:
        raise RuntimeError(f"a convolution of float32 images [N, C, H, W] got {images.dtype} {list(images.shape)}")
    blocked: Tensor = _ToBlocks.apply(images, library)
    return blocked


def from_blocks(library: Library, blocked: Tensor, images: int) -> Tensor:
    """Blocks as this many images [N, C, H, W]."""
    plain: Tensor = _FromBlocks.apply(blocked, images, library)
    return plain


def _blocked(library: Library, images: Tensor) -> Tensor:
    blocks = images.new_empty(-(-len(images) // library.lanes), *images.shape[1:], library.lanes)
    library.call("to_blocks", Layer(*images.shape), images.contiguous(), blocks)
    return blocks


def _plain(library: Library, blocked: Tensor, images: int) -> Tensor:
    plain = blocked.new_empty(images, *blocked.shape[1:-1])
    library.call("from_blocks", Layer(*plain.shape), blocked.contiguous(), plain)
    return plain


class _ToBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, library: Library) -> Tensor:
        ctx.library, ctx.images = library, len(images)
        return _blocked(library, images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _plain(ctx.library, gradient, ctx.images), None


class _FromBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, blocked: Tensor, images: int, library: Library) -> Tensor:
        ctx.library = library
        return _plain(library, blocked, images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _blocked(ctx.library, gradient), None, None


class Convolution:
    """An `nn.Conv2d`, and the ReLU and the 2×2 maximum pooling that follow it, if they do."""

    def __init__(self, library: Library, layer: nn.Conv2d, relu: bool, pool: bool) -> None:
        self.library, self.layer, self.relu, self.pool = library, layer, relu, pool
        self.kernel, self.padding = layer.kernel_size[0], padding_of(layer)
        self.sizes = cache(self._sizes)

    def __call__(self, x: Tensor, images: int) -> Tensor:
        if x.shape[1] != self.layer.in_channels:
            raise RuntimeError(f"{self.layer} got images of {x.shape[1]} channels")
        y: Tensor = _Convolution.apply(
            x, self.layer.weight, self.layer.bias, self, self.sizes(images, *x.shape[2:4], x.requires_grad)
        )
        return y

    def output(self, rows: int, columns: int) -> tuple[int, int]:
        """The height and width of the outputs."""
        step = 2 if self.pool else 1
        H, W = ((size + 2 * self.padding - self.kernel + 1) // step for size in (rows, columns))
        if min(H, W) < 1:
            raise RuntimeError(f"{self.layer}: images of {rows}×{columns} are too small")
        return H, W

    def _sizes(self, images: int, rows: int, columns: int, dx: bool) -> tuple[Layer, int, int]:
        """The kernel's sizes, and the numbers that it needs as scratch, forward and backward."""
        C, outputs, lanes = self.layer.in_channels, self.layer.out_channels, self.library.lanes
        border = max(self.kernel - 1 - self.padding, 0) if dx else 0
        H, W = rows + 2 * self.padding, columns + 2 * self.padding
        H_out, W_out = H - self.kernel + 1, W - self.kernel + 1
        padded = C * H * W * lanes if self.padding else 0
        block = padded + outputs * (H_out + 2 * border) * (W_out + 2 * border) * lanes
        group = max(1, min(-(-images // lanes), TOGETHER // (4 * block)))
        sizes = Layer(images, C, rows, columns, outputs, self.kernel, self.padding, self.relu, self.pool, group)
        return sizes, padded + 2 * 6 * W_out * lanes, group * block


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: Convolution, plan: Any) -> Tensor:
        sizes, scratch, _ = plan
        x, weight, bias = x.contiguous(), weight.contiguous(), None if bias is None else bias.contiguous()
        shape = len(x), sizes.outputs, *layer.output(sizes.rows, sizes.columns), x.shape[4]
        y = x.new_empty(shape)
        places = torch.empty(shape, dtype=torch.int8) if layer.relu or layer.pool else None
        layer.library.call(
            "convolution",
            sizes,
            x,
            weight,
            bias,
            y,
            places,
            x.new_empty(scratch),
        )
        ctx.layer, ctx.plan = layer, plan
        ctx.save_for_backward(x, weight, places)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight, places = ctx.saved_tensors
        sizes, _, scratch = ctx.plan
        gradient = gradient.contiguous()
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dw, db = torch.zeros_like(weight), x.new_zeros(sizes.outputs) if ctx.needs_input_grad[2] else None
        taps = torch.empty(dw[0].numel(), dtype=torch.int64)
        ctx.layer.library.call(
            "convolution_backward",
            sizes,
            x,
            weight,
            gradient,
            places,
            dw,
            db,
            dx,
            taps,
            x.new_empty(scratch),
        )
        return dx, dw, db, None, None


class Norm:
    """An `nn.BatchNorm2d`, and the ReLU and the 2×2 maximum pooling that follow it, if they do."""

    def __init__(self, library: Library, layer: nn.BatchNorm2d, relu: bool, pool: bool) -> None:
        self.library, self.layer, self.relu, self.pool = library, layer, relu, pool

    def __call__(self, x: Tensor, images: int) -> Tensor:
        layer, C = self.layer, x.shape[1]
        if layer.num_features != C:
            raise RuntimeError(f"{layer} got images of {C} channels")
        sizes = Layer(images, *x.shape[1:4], relu=self.relu, pool=self.pool)
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
        if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
            return
        layer.num_batches_tracked.add_(1)
        weight = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
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
        sizes: Layer,
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
