"""The stacked forms of the standard layers: R networks of one architecture as one.

Axes: B samples of a batch, R runs of a stack, F features, C channels. An activation is [B, R, …]: a layer's usual input
with the run axis second. So [B, R, C, H, W] is also the [B, R·C, H, W] of a grouped convolution, without a copy. Values
that all runs share (a validation batch) are [B, 1, …]. A parameter or buffer is [R, …].

A stacked form is a function `(layer, own, x, mode)`. `layer` is the first run's layer, read for its settings. `own` has
the stacked parameters and buffers by their names in the layer. `x` is the input. A layer without one is mapped over the
runs by `torch.vmap`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.config.jobs import Form
from runner.training.learners.deterministic_layers import EvenAdaptiveAvgPool2d, EvenAdaptiveMaxPool2d
from runner.training.learners.dropout import SeededDropout, dropped
from runner.training.learners.learner import leaves, named_tensors
from runner.training.learners.max_pooling import may_come_first
from runner.training.learners.stacked_convolutions import convolve

Own = Mapping[str, Tensor]


@dataclass(frozen=True)
class Mode:
    """How many runs there are, whether they train, and the keys [R] of their dropout masks (`training.dropout`)."""

    runs: int
    training: bool
    keys: Tensor


StackedForm = Callable[[Any, Own, Tensor, Mode], Tensor]
StackedLayer = tuple[StackedForm, nn.Module, Own]
"""A stacked form, its layer and the layer's tensors: one step of a stacked network."""


def program(network: nn.Module, tensors: Own, form: Form = "grouped") -> list[StackedLayer]:
    """The network's layers, each with its stacked form. Pooling comes before ReLU: it leaves less to compute.

    tensors: the network's stacked parameters and buffers by name.
    form: how its convolutions are computed.
    """
    forms = FORMS | {nn.Conv2d: _convolution(form)}
    steps: list[StackedLayer] = []
    for prefix, layer in leaves(network):
        own = {name: tensors[prefix + name] for name, _ in named_tensors(layer)}
        steps.append((forms.get(type(layer), _mapped), layer, own))
    for second in range(1, len(steps)):
        relu, pooling = steps[second - 1], steps[second]
        if may_come_first(pooling[1], relu[1]):
            steps[second - 1], steps[second] = pooling, relu
    return steps


def run(steps: Sequence[StackedLayer], x: Tensor, mode: Mode) -> Tensor:
    """Pass inputs [B, R or 1, …] through every layer. The outputs are [B, R, …]."""
    for apply, layer, own in steps:
        x = apply(layer, own, x, mode)
    return x


def mapped_layers(network: nn.Module) -> list[str]:
    """The names of the classes that have no stacked form, each once. (A stack replaces `nn.Dropout` first.)"""
    layers = [type(layer) for _, layer in leaves(network)]
    return list(dict.fromkeys(layer.__name__ for layer in layers if layer not in {*FORMS, nn.Dropout}))


def _per_run(x: Tensor, mode: Mode) -> Tensor:
    """Repeat for each run what the runs share, without a copy: [B, 1, …] to [B, R, …]."""
    return x.expand(-1, mode.runs, *x.shape[2:])


def _over_samples(x: Tensor, values: Tensor) -> Tensor:
    """A parameter [R, *features] shaped to broadcast against [B, R, …, *features]."""
    return values.view(len(values), *[1] * (x.dim() - 1 - values.dim()), *values.shape[1:])


def _over_channels(x: Tensor, values: Tensor) -> Tensor:
    """A parameter [R, C] shaped to broadcast against [B, R, C, …]."""
    return values.view(*values.shape, *[1] * (x.dim() - 3))


def _linear(_: nn.Linear, own: Own, x: Tensor, mode: Mode) -> Tensor:
    # [R, B, …, F]
    runs_first = _per_run(x, mode).transpose(0, 1)
    flat, weight = runs_first.flatten(1, -2), own["weight"].transpose(1, 2)
    y = torch.baddbmm(own["bias"].unsqueeze(1), flat, weight) if "bias" in own else torch.bmm(flat, weight)
    return torch.unflatten(y, 1, runs_first.shape[1:-1]).transpose(0, 1)


def _convolution(form: Form) -> StackedForm:
    def apply(layer: nn.Conv2d, own: Own, x: Tensor, _: Mode) -> Tensor:
        return convolve(form, layer, own, x)

    return apply


def _batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, own: Own, x: Tensor, mode: Mode) -> Tensor:
    """All runs' channels in one kernel, with nn.BatchNorm's rules for which statistics are used and averaged."""
    x = _per_run(x, mode)
    # These are views, so updates of the averages reach the buffers.
    flat = {name: tensor.flatten() for name, tensor in own.items()}
    mean, var = flat.get("running_mean"), flat.get("running_var")
    use_batch = mode.training or mean is None
    if mode.training and "num_batches_tracked" in own:
        own["num_batches_tracked"].add_(1)
    channels = x.flatten(1, 2)
    if use_batch and mean is not None and var is not None and layer.momentum is None:
        # `momentum=None` asks for the plain mean over all batches so far. Its weight stays on the device.
        axes = [axis for axis in range(channels.dim()) if axis != 1]
        new_var, new_mean = torch.var_mean(channels.detach(), axes, correction=1)
        weight = (1 / own["num_batches_tracked"][0]).to(mean.dtype)
        mean.lerp_(new_mean.to(mean.dtype), weight)
        var.lerp_(new_var.to(var.dtype), weight)
        mean = var = None
    gamma, beta = flat.get("weight"), flat.get("bias")
    y = F.batch_norm(channels, mean, var, gamma, beta, use_batch, layer.momentum or 0.0, layer.eps)
    return torch.unflatten(y, 1, x.shape[1:3])


def _layer_norm(layer: nn.LayerNorm, own: Own, x: Tensor, mode: Mode) -> Tensor:
    y = F.layer_norm(_per_run(x, mode), layer.normalized_shape, eps=layer.eps)
    y = y * _over_samples(y, own["weight"]) if "weight" in own else y
    return y + _over_samples(y, own["bias"]) if "bias" in own else y


def _group_norm(layer: nn.GroupNorm, own: Own, x: Tensor, mode: Mode) -> Tensor:
    x = _per_run(x, mode)
    y = F.group_norm(x.flatten(0, 1), layer.num_groups, eps=layer.eps).view_as(x)
    if "weight" in own:
        y = y * _over_channels(y, own["weight"]) + _over_channels(y, own["bias"])
    return y


def _pool(layer: nn.Module, _: Own, x: Tensor, __: Mode) -> Tensor:
    return torch.unflatten(layer(x.flatten(0, 1)), 0, x.shape[:2])


def _elementwise(layer: Callable[[Tensor], Tensor], _: Own, x: Tensor, __: Mode) -> Tensor:
    return layer(x)


def _flatten(layer: nn.Flatten, _: Own, x: Tensor, __: Mode) -> Tensor:
    if layer.start_dim < 1:
        raise ValueError("nn.Flatten over the batch axis has no stacked form")
    end = layer.end_dim + 1 if layer.end_dim > 0 else layer.end_dim
    return x.flatten(layer.start_dim + 1, end)


def _dropout(layer: SeededDropout, _: Own, x: Tensor, mode: Mode) -> Tensor:
    return dropped(_per_run(x, mode), layer.p, layer.layer, mode.keys) if mode.training else x


def _mapped(layer: nn.Module, own: Own, x: Tensor, mode: Mode) -> Tensor:
    """Any other module: `torch.vmap` maps it over its parameters, buffers and inputs."""
    layer.train(mode.training)

    def one(tensors: dict[str, Tensor], inputs: Tensor) -> Any:
        return torch.func.functional_call(layer, tensors, (inputs,))

    y: Tensor = torch.vmap(one, in_dims=(0, 1), out_dims=1)(dict(own), _per_run(x, mode))
    return y


FORMS: dict[type[nn.Module], StackedForm] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution("grouped"),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Flatten: _flatten,
    SeededDropout: _dropout,
    **dict.fromkeys([nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d], _pool),
    **dict.fromkeys([EvenAdaptiveAvgPool2d, EvenAdaptiveMaxPool2d], _pool),
    **dict.fromkeys([nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish], _elementwise),
    **dict.fromkeys([nn.Sigmoid, nn.Tanh, nn.Softplus, nn.LogSigmoid, nn.Identity], _elementwise),
    **dict.fromkeys([nn.ReLU6, nn.Hardtanh, nn.Hardswish], _elementwise),
}
"""The stacked forms of exactly these classes. A subclass has none, because it may compute something else."""
