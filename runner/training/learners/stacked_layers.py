"""The stacked forms of the standard layers: R networks of one architecture as one.

Axes: B samples of a batch, R runs of a stack, F features, C channels. An activation is [B, R, …]: a layer's usual input
with the run axis second, so that [B, R, C, H, W] is, without a copy, the [B, R·C, H, W] of a grouped convolution. What
all runs share (a validation batch) is [B, 1, …]. A parameter or buffer is [R, …].

A form is a function `(layer, own, x, mode)`: the first run's layer for its settings, its stacked parameters and buffers
by their names in the layer, the input, and the mode. A layer without a form is mapped over the runs by `torch.vmap`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Own = Mapping[str, Tensor]


@dataclass(frozen=True)
class Mode:
    """How many runs, whether they train, and each one's generator of random numbers."""

    runs: int
    training: bool
    generators: Sequence[torch.Generator] = ()


Form = Callable[[Any, Own, Tensor, Mode], Tensor]
FORMS: dict[type[nn.Module], Form] = {}

StackedLayer = tuple[Form, nn.Module, Own]
"""A form, its layer and its tensors: one line of a stacked network."""


def form(*layers: type[nn.Module]) -> Callable[[Form], Form]:
    """Declare the stacked form of exactly these classes; a subclass may compute something else."""

    def declare(function: Form) -> Form:
        FORMS.update(dict.fromkeys(layers, function))
        return function

    return declare


def program(network: nn.Module, tensors: Own) -> list[StackedLayer]:
    """A network as its layers' forms in order; `tensors` are its stacked parameters and buffers by name."""
    return [
        (FORMS.get(type(layer), _mapped), layer, {key[len(name) :]: tensors[key] for key in _names(layer, name)})
        for name, layer in leaves(network)
    ]


def run(steps: Sequence[StackedLayer], x: Tensor, mode: Mode) -> Tensor:
    """Inputs [B, R or 1, …] through every layer: outputs [B, R, …]."""
    for step, layer, own in steps:
        x = step(layer, own, x, mode)
    return x


def leaves(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """A network's layers in order, those of an `nn.Sequential` one by one; each with the prefix of its tensors."""
    if type(network) is not nn.Sequential:
        yield prefix, network
        return
    for name, child in network.named_children():
        yield from leaves(child, f"{prefix}{name}.")


def mapped_layers(network: nn.Module) -> list[str]:
    """The names of the classes that have no stacked form, each once."""
    return list(dict.fromkeys(type(layer).__name__ for _, layer in leaves(network) if type(layer) not in FORMS))


def _names(layer: nn.Module, prefix: str) -> list[str]:
    return [prefix + name for named in (layer.named_parameters(), layer.named_buffers()) for name, _ in named]


def _of_all(x: Tensor, mode: Mode) -> Tensor:
    """What the runs share, once for each: [B, 1, …] → [B, R, …]."""
    return x.expand(-1, mode.runs, *x.shape[2:])


def _over_samples(x: Tensor, values: Tensor) -> Tensor:
    """A parameter [R, *features] shaped to broadcast against [B, R, …, *features]."""
    return values.view(len(values), *[1] * (x.dim() - 1 - values.dim()), *values.shape[1:])


def _over_channels(x: Tensor, values: Tensor) -> Tensor:
    """A parameter [R, C] shaped to broadcast against [B, R, C, …]."""
    return values.view(*values.shape, *[1] * (x.dim() - 3))


@form(nn.Linear)
def _linear(_: nn.Linear, own: Own, x: Tensor, mode: Mode) -> Tensor:
    by_run = _of_all(x, mode).transpose(0, 1)  # [R, B, …, F]
    flat, weight = by_run.flatten(1, -2), own["weight"].transpose(1, 2)
    y = torch.baddbmm(own["bias"].unsqueeze(1), flat, weight) if "bias" in own else torch.bmm(flat, weight)
    stacked: Tensor = y.unflatten(1, by_run.shape[1:-1]).transpose(0, 1)
    return stacked


@form(nn.Conv2d)
def _conv(layer: nn.Conv2d, own: Own, x: Tensor, mode: Mode) -> Tensor:
    shared = x.shape[1] == 1 and layer.groups == 1  # one dense convolution with the filters of all runs
    x = x if shared else _of_all(x, mode)
    groups = 1 if shared else mode.runs * layer.groups
    weight, bias = own["weight"].flatten(0, 1), own["bias"].flatten() if "bias" in own else None
    images, padding = x.flatten(1, 2), layer.padding
    if layer.padding_mode != "zeros":
        images = F.pad(images, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
        padding = (0, 0)
    y = F.conv2d(images, weight, bias, layer.stride, padding, layer.dilation, groups)
    stacked: Tensor = y.unflatten(1, (mode.runs, -1))
    return stacked


@form(nn.BatchNorm1d, nn.BatchNorm2d)
def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, own: Own, x: Tensor, mode: Mode) -> Tensor:
    """All runs' channels in one kernel; nn.BatchNorm's own rules for which statistics are used and averaged."""
    x = _of_all(x, mode)
    flat = {name: tensor.flatten() for name, tensor in own.items()}  # of a buffer a view: updates reach it
    weight, bias = flat.get("weight"), flat.get("bias")
    mean, var = flat.get("running_mean"), flat.get("running_var")
    batch = mode.training or mean is None
    if mode.training and "num_batches_tracked" in own:
        own["num_batches_tracked"].add_(1)
    channels = x.flatten(1, 2)
    if batch and mean is not None and var is not None and layer.momentum is None:
        _average(channels.detach(), mean, var, own["num_batches_tracked"])
        mean = var = None
    y = F.batch_norm(channels, mean, var, weight, bias, batch, layer.momentum or 0.0, layer.eps)
    stacked: Tensor = y.unflatten(1, x.shape[1:3])
    return stacked


def _average(channels: Tensor, mean: Tensor, var: Tensor, batches: Tensor) -> None:
    """`momentum=None`: the plain mean over all batches so far, its weight left on the device."""
    over = [axis for axis in range(channels.dim()) if axis != 1]
    new_var, new_mean = torch.var_mean(channels, over, correction=1)
    mean.lerp_(new_mean, (1 / batches[0]).to(mean.dtype))
    var.lerp_(new_var, (1 / batches[0]).to(var.dtype))


@form(nn.LayerNorm)
def _layer_norm(layer: nn.LayerNorm, own: Own, x: Tensor, mode: Mode) -> Tensor:
    y = F.layer_norm(_of_all(x, mode), layer.normalized_shape, eps=layer.eps)
    y = y * _over_samples(y, own["weight"]) if "weight" in own else y
    return y + _over_samples(y, own["bias"]) if "bias" in own else y


@form(nn.GroupNorm)
def _group_norm(layer: nn.GroupNorm, own: Own, x: Tensor, mode: Mode) -> Tensor:
    x = _of_all(x, mode)
    y = F.group_norm(x.flatten(0, 1), layer.num_groups, eps=layer.eps).view_as(x)
    if "weight" in own:
        y = y * _over_channels(y, own["weight"]) + _over_channels(y, own["bias"])
    return y


@form(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
def _pool(layer: nn.Module, _: Own, x: Tensor, __: Mode) -> Tensor:
    y: Tensor = layer(x.flatten(0, 1))
    stacked: Tensor = y.unflatten(0, x.shape[:2])
    return stacked


@form(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Hardtanh)
@form(nn.ReLU6, nn.Hardswish, nn.Mish, nn.LogSigmoid, nn.Identity)
def _elementwise(layer: nn.Module, _: Own, x: Tensor, __: Mode) -> Tensor:
    y: Tensor = layer(x)
    return y


@form(nn.Flatten)
def _flatten(layer: nn.Flatten, _: Own, x: Tensor, __: Mode) -> Tensor:
    if layer.start_dim < 1:
        raise ValueError("nn.Flatten over the batch axis has no stacked form")
    stacked: Tensor = x.flatten(layer.start_dim + 1, layer.end_dim + 1 if layer.end_dim > 0 else layer.end_dim)
    return stacked


@form(nn.Dropout)
def _dropout(layer: nn.Dropout, _: Own, x: Tensor, mode: Mode) -> Tensor:
    """Each run's mask from its own generator: what a run drops does not depend on its stack."""
    if not mode.training or layer.p == 0:
        return x
    if layer.p == 1:
        return x * 0
    x = _of_all(x, mode)
    keep = 1 - layer.p
    shape = (x.shape[0], *x.shape[2:])
    masks = [x.new_empty(shape).bernoulli_(keep, generator=generator).div_(keep) for generator in mode.generators]
    return x * torch.stack(masks, dim=1)


def _mapped(layer: nn.Module, own: Own, x: Tensor, mode: Mode) -> Tensor:
    """Any other module, as `torch.vmap` maps it over its parameters, buffers and inputs."""
    layer.train(mode.training)

    def one(tensors: dict[str, Tensor], inputs: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(layer, tensors, (inputs,))
        return output

    y: Tensor = torch.vmap(one, in_dims=(0, 1), out_dims=1)(dict(own), _of_all(x, mode))
    return y
