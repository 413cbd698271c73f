"""A program: the parts that compute a network. They give what the network itself gives, except for rounding.

A part is a function of the output of the part before it. Most parts are the network's own layers. Layers of an
`nn.Sequential` that native kernels can compute are one part, so that activations stay in blocks between them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from runner.training.kernels.blocks import Convolution, Norm, average_pool, from_blocks, to_blocks
from runner.training.kernels.library import Library
from runner.training.learners.learner import has_hooks, named_tensors
from runner.training.learners.max_pooling import halves, may_come_first

LARGEST_FILTER = 7

ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus)
"""Layers that can work on blocks, because they treat each number by itself."""

BlockLayer = Callable[[Tensor, int], Tensor]
"""A function of blocks and of the number of images in them."""


@dataclass(frozen=True)
class Named:
    """A layer of a network, with its name."""

    name: str
    layer: nn.Module

    def __str__(self) -> str:
        return f"{self.name} {type(self.layer).__name__}".strip()


@dataclass
class Native:
    """Layers that are computed on blocks, one after the other. Images [N, C, H, W] in and out."""

    library: Library
    layers: list[BlockLayer] = field(default_factory=list)

    def __call__(self, images: Tensor) -> Tensor:
        x = to_blocks(images, self.library.lanes)
        for layer in self.layers:
            x = layer(x, len(images))
        return from_blocks(x, len(images))


@dataclass(frozen=True)
class Program:
    """The parts of a network, and the names of the layers that are computed on blocks, and of the others."""

    parts: Sequence[Callable[[Tensor], Tensor]]
    native: Sequence[str]
    others: Sequence[str]

    def __call__(self, images: Tensor) -> Tensor:
        x = images
        for part in self.parts:
            x = part(x)
        return x


def program(network: nn.Module, library: Library | None) -> Program:
    """The program of a network. With `library`, its kernels compute the layers that they can compute.

    A maximum pooling after a ReLU comes first: the values and gradients are the same, and ReLU has fewer values. Layers
    with hooks stay as they are, because a hook may look at any output.

    >>> network = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    >>> images = torch.randn(2, 4)
    >>> torch.equal(program(network, None)(images), network(images))
    True
    """
    layers = [each for each in _layers(network) if has_hooks(each.layer) or type(each.layer) is not nn.Identity]
    names = list(map(str, layers))
    for second in range(1, len(layers)):
        relu, pooling = layers[second - 1 : second + 1]
        if may_come_first(pooling.layer, relu.layer) and not has_hooks(relu.layer) and not has_hooks(pooling.layer):
            layers[second - 1 : second + 1] = pooling, relu
    if library is None:
        return Program([each.layer for each in layers], [], names)
    parts: list[Callable[[Tensor], Tensor]] = []
    others: set[str] = set()
    while layers:
        last = parts[-1] if parts else None
        block_layer, count = _block_layer(library, layers, isinstance(last, Native))
        if block_layer is None:
            parts.append(layers[0].layer)
            others.add(str(layers[0]))
        else:
            if not isinstance(last, Native):
                last = Native(library)
                parts.append(last)
            last.layers.append(block_layer)
        del layers[:count]
    return Program(parts, [name for name in names if name not in others], [name for name in names if name in others])


def _block_layer(library: Library, layers: Sequence[Named], blocked: bool) -> tuple[BlockLayer | None, int]:
    """What computes the first of these layers on blocks, and how many of them it computes; None where nothing does.

    blocked: whether the layers get blocks. If they do not, only a convolution is worth making blocks.
    """
    first, *others = [each.layer for each in layers[:3]]
    if has_hooks(first):
        return None, 1
    count = 1
    if pool := bool(others) and halves(others[0]) and not has_hooks(others[0]):
        count += 1
        del others[0]
    if relu := bool(others) and type(others[0]) is nn.ReLU and not has_hooks(others[0]):
        count += 1
    if type(first) is nn.Conv2d and _is_plain(first):
        return Convolution(library, first, relu, pool), count
    if blocked and type(first) is nn.BatchNorm2d and _is_float32(first) and _has_a_number_per_channel(first):
        return Norm(library, first, relu, pool), count
    if blocked and type(first) is nn.AvgPool2d and _averages_by_two(first):
        return average_pool, 1
    if blocked and type(first) in ELEMENTWISE:
        return lambda x, _: first(x), 1
    return None, 1


def _is_plain(layer: nn.Conv2d) -> bool:
    """Whether the kernels can compute a convolution."""
    return (
        len({*layer.kernel_size}) == 1
        and layer.kernel_size[0] <= LARGEST_FILTER
        and (isinstance(layer.padding, str) or len({*layer.padding}) == 1)
        and (layer.padding != "same" or layer.kernel_size[0] % 2 == 1)
        and (*layer.stride, *layer.dilation, layer.groups) == (1, 1, 1, 1, 1)
        and layer.padding_mode == "zeros"
        and layer.weight.shape == (layer.out_channels, layer.in_channels, *layer.kernel_size)
        and _is_float32(layer)
    )


def _has_a_number_per_channel(norm: nn.BatchNorm2d) -> bool:
    return all(parameter.shape == (norm.num_features,) for parameter in norm.parameters())


def _averages_by_two(layer: nn.AvgPool2d) -> bool:
    settings = layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, layer.divisor_override
    return settings == (2, 2, 0, False, None)


def _is_float32(layer: nn.Module) -> bool:
    tensors = dict(named_tensors(layer))
    tensors.pop("num_batches_tracked", None)
    return all(tensor.dtype == torch.float32 for tensor in tensors.values())


def _layers(network: nn.Module, name: str = "") -> list[Named]:
    """The layers in their order. The layers of an `nn.Sequential` without hooks come one by one."""
    if type(network) is not nn.Sequential or has_hooks(network):
        return [Named(name, network)]
    # `named_children` would leave out a layer's second place.
    children = network._modules.items()
    return [layer for child, module in children for layer in _layers(module, f"{name}.{child}".strip("."))]
