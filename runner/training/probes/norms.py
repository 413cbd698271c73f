"""The probe `norms`: the numbers of every norm layer beside those of a batch."""

import torch
from torch import Tensor, nn

from runner.training.norm_trace import is_norm
from runner.training.probes.layers import recorded, spread
from runner.training.probes.probe import Look, ProbeValues

NORM_NAMES = {
    "gamma": ("gamma", "weight"),
    "beta": ("beta", "bias"),
    "running_mean": ("moving_mean", "running_mean"),
    "running_var": ("moving_var", "running_var"),
}
"""What a norm layer may call its arrays: names in hand-written layers, and torch's. The last one counts."""

NormState = dict[str, Tensor]
"""A norm layer's γ, β and moving averages before a batch, and the batch's own statistics, float64 [F], by name.

Arrays that the layer does not have are left out. `batch_mean` and `batch_var` are there where the layer keeps averages
per channel. `batch_var` is what a layer normalises with: it is divided by the number of values.
"""


def gaps(state: NormState) -> tuple[float, float] | None:
    """How far the batch is from the averages: (gap of the means, gap of the variances).

    Both are root mean squares over features. The means differ in moving standard deviations, the variances in the
    logarithm of their ratio. None where there is no batch or no average.
    """
    if not {"running_mean", "running_var", "batch_mean", "batch_var"} <= state.keys():
        return None
    tiny = torch.finfo(torch.float32).tiny
    var = state["running_var"].clamp(min=tiny)
    ratio = (state["batch_var"].clamp(min=tiny) / var).log()
    distance = (state["batch_mean"] - state["running_mean"]).square() / var
    return distance.mean().sqrt().item(), ratio.square().mean().sqrt().item()


def norm_states(network: nn.Module, images: Tensor | None) -> dict[str, NormState]:
    """The state of every norm layer by its name, with a batch [N, …] in training mode where there is one.

    Hand over a copy, because the batch changes the network.
    """
    layers = {name: module for name, module in network.named_modules() if is_norm(module)}
    states = {name: _own_state(layer) for name, layer in layers.items()}
    if images is None:
        return states
    network.train()
    # Not no_grad: some hand-written layers take that as the sign of evaluation.
    network.requires_grad_(False)
    with recorded(layers) as (inputs, _):
        network(images)
    for name, x in inputs.items():
        state = states[name]
        averages = [state[key] for key in ("running_mean", "running_var") if key in state]
        if [len(average) for average in averages] == [x.shape[1]] * 2:
            by_channel = x.detach().transpose(0, 1).flatten(1).double()
            state["batch_mean"] = by_channel.mean(dim=1)
            state["batch_var"] = by_channel.var(dim=1, correction=0)
    return states


def _own_state(norm: nn.Module) -> NormState:
    arrays = {key: getattr(norm, name).detach() for key, name in tensor_names(norm).items()}
    return {key: array.clone().double().flatten() for key, array in arrays.items()}


def tensor_names(norm: nn.Module) -> dict[str, str]:
    """What the layer calls those arrays of `NORM_NAMES` that it has as tensors."""
    named = [(key, name) for key, names in NORM_NAMES.items() for name in names]
    return {key: name for key, name in named if isinstance(getattr(norm, name, None), Tensor)}


def norms(network: nn.Module, look: Look) -> ProbeValues:
    """Per norm layer, γ, β and the moving averages (mean and SD over features), and how far a batch is from them.

    The gap of the means is in moving standard deviations, that of the variances is the root mean squared log ratio.
    """
    values: ProbeValues = {}
    for layer, state in norm_states(network, look.batch.images).items():
        distance = gaps(state)
        for key in NORM_NAMES:
            if key in state and (distance or key in ("gamma", "beta")):
                values |= spread(layer, f"{key}_", state[key])
        if distance:
            values[layer, "mean_gap"], values[layer, "var_gap"] = distance
    return values
