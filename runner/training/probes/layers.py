"""The probes `gradients`, `activations` and `histograms`: numbers of each layer."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from runner.storage.histograms import BINS, Histogram
from runner.training.norm_trace import is_norm
from runner.training.probes.probe import Look, ProbeValues

Tensors = dict[str, Tensor]


def gradients(network: nn.Module, look: Look) -> ProbeValues:
    """Per layer, the squared norm of the loss's gradient by the layer's output and by its weight, in training mode."""
    layers = {name: layer for name, layer in leaves(network).items() if not is_norm(layer)}
    with recorded(layers) as (_, outputs):
        look.loss(network).backward()
    values: ProbeValues = {}
    for name, output in outputs.items():
        weight = getattr(layers[name], "weight", None)
        for part, tensor in (("output", output), ("weight", weight)):
            if isinstance(tensor, Tensor) and tensor.grad is not None:
                squares = tensor.grad.double().square()
                values[name, f"{part}_gradient_squared"] = squares.sum().item()
    return values


def activations(network: nn.Module, look: Look) -> ProbeValues:
    """Per layer, mean and SD of its output in training mode; for a ReLU, the share of units that are always 0."""
    layers = leaves(network)
    with recorded(layers) as (_, outputs):
        network(look.batch.images)
    values: ProbeValues = {}
    for name, output in outputs.items():
        values |= spread(name, "", output)
        if isinstance(layers[name], nn.ReLU):
            dead = (output.flatten(1) == 0).all(dim=0)
            values[name, "dead_share"] = dead.double().mean().item()
    return values


def histograms(network: nn.Module, look: Look) -> ProbeValues:
    """Per parameter, its values and the loss's gradient by it, in training mode, counted in 32 bins from low to high.

    Values that are not finite are in no bin.
    """
    look.loss(network).backward()
    values: ProbeValues = {}
    for path, parameter in network.named_parameters():
        layer, _, name = path.rpartition(".")
        for label, tensor in ((name, parameter), (f"{name}_gradient", parameter.grad)):
            if tensor is not None:
                measures = _histogram(tensor.detach()).values_by_name(label)
                values |= {(layer, measure): value for measure, value in measures.items()}
    return values


def _histogram(values: Tensor) -> Histogram:
    values = values[values.isfinite()].double().cpu()
    low, high = (values.min().item(), values.max().item()) if len(values) else (0.0, 0.0)
    if low == high:
        # All values are equal, such as γ at the start: take a range around them.
        half = max(0.5, abs(low) / 1e6)
        low, high = low - half, high + half
    return Histogram(low, high, tuple(torch.histc(values, BINS, low, high).tolist()))


def spread(layer: str, prefix: str, values: Tensor) -> ProbeValues:
    """Mean and SD of the values, as measures of the layer."""
    values = values.detach().double()
    mean, sd = values.mean(), values.std(correction=0)
    return {(layer, f"{prefix}mean"): mean.item(), (layer, f"{prefix}sd"): sd.item()}


def leaves(network: nn.Module) -> dict[str, nn.Module]:
    """The modules without children, by name."""
    return {name: module for name, module in network.named_modules() if name and not list(module.children())}


@contextmanager
def recorded(modules: Mapping[str, nn.Module]) -> Iterator[tuple[Tensors, Tensors]]:
    """(inputs, outputs) of the modules by name. A forward pass within the block fills them."""
    names = {module: name for name, module in modules.items()}
    inputs: Tensors = {}
    outputs: Tensors = {}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...], output: object) -> None:
        if arguments:
            inputs[names[module]] = arguments[0]
        # A recurrent layer returns a tuple, not a tensor.
        if isinstance(output, Tensor):
            if output.requires_grad:
                output.retain_grad()
            outputs[names[module]] = output

    with ExitStack() as hooks:
        for module in names:
            hooks.enter_context(module.register_forward_hook(keep))
        yield inputs, outputs
