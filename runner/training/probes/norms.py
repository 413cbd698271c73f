"""The probe `norms`: every norm layer's numbers beside those of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from runner.training.networks import is_norm
from runner.training.probes.probe import Look, ProbeValues

NORM_NAMES = {
    "gamma": ("weight", "gamma"),
    "beta": ("bias", "beta"),
    "running_mean": ("running_mean", "moving_mean"),
    "running_var": ("running_var", "moving_var"),
}
"""What a norm layer may call its numbers: torch's names, and those of hand-written layers."""


@dataclass(frozen=True)
class NormState:
    """A norm layer's γ, β and moving averages before a batch, and the batch's own statistics, float64 [F].

    None where the layer has none; the batch's are None where it keeps no averages per channel. `batch_var` is what a
    layer normalises with: divided by the number of values.
    """

    gamma: Tensor | None
    beta: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    batch_mean: Tensor | None = None
    batch_var: Tensor | None = None

    @property
    def gaps(self) -> tuple[float, float] | None:
        """How far the batch is from the averages, as root mean squares over features.

        Of the means in the moving standard deviations, of the variances their log ratio.
        """
        mean, var, batch_mean, batch_var = self.running_mean, self.running_var, self.batch_mean, self.batch_var
        if mean is None or var is None or batch_mean is None or batch_var is None:
            return None
        tiny = torch.finfo(torch.float32).tiny
        ratio = (batch_var.clamp(min=tiny) / var.clamp(min=tiny)).log()
        distance = (batch_mean - mean).square() / var.clamp(min=tiny)
        return distance.mean().sqrt().item(), ratio.square().mean().sqrt().item()


def norm_states(network: nn.Module, images: Tensor | None) -> dict[str, NormState]:
    """Every norm layer by its name, and what a batch [N, …] is there in training mode; without one, its values alone.

    The network is changed by it: hand over a copy.
    """
    layers = {name: module for name, module in network.named_modules() if is_norm(module)}
    states = {name: _norm_state(module) for name, module in layers.items()}
    if images is None:
        return states
    network.train()
    network.requires_grad_(False)  # Not no_grad: some hand-written layers take that as the sign of evaluation.
    with _inputs(layers) as inputs:
        network(images)
    for name, given in inputs.items():
        mean, var = states[name].running_mean, states[name].running_var
        if mean is not None and var is not None and len(mean) == len(var) == given.shape[1]:
            x = given.transpose(0, 1).flatten(1).double()
            states[name] = replace(states[name], batch_mean=x.mean(dim=1), batch_var=x.var(dim=1, correction=0))
    return states


def _norm_state(module: nn.Module) -> NormState:
    """Before a batch: copies."""
    found = {}
    for part, names in NORM_NAMES.items():
        tensors = [value for name in names if isinstance(value := getattr(module, name, None), Tensor)]
        found[part] = tensors[0].detach().clone().double().flatten() if tensors else None
    return NormState(**found)


def norms(network: nn.Module, look: Look) -> ProbeValues:
    """Per norm layer, γ, β and the moving averages (mean and SD over features), and how far a batch is from them.

    The gap of the means is in the moving standard deviations, that of the variances the root mean squared log ratio.
    """
    found: ProbeValues = {}
    for layer, state in norm_states(network, look.batch.images).items():
        gaps = state.gaps
        for name in ("gamma", "beta", *(("running_mean", "running_var") if gaps else ())):
            if (values := getattr(state, name)) is not None:
                found |= _spread(layer, name, values)
        if gaps:
            found[layer, "mean_gap"], found[layer, "var_gap"] = gaps
    return found


def _spread(layer: str, name: str, values: Tensor) -> ProbeValues:
    values = values.detach().double()
    return {(layer, f"{name}_mean"): values.mean().item(), (layer, f"{name}_sd"): values.std(correction=0).item()}


@contextmanager
def _inputs(layers: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Layer's name → its input in the forward pass that follows."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs[name] = args[0].detach()

        return hook

    handles = [module.register_forward_pre_hook(keep(name)) for name, module in layers.items()]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()
