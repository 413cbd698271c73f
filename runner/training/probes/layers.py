"""The probes `gradients` and `activations`: what passes through each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn import functional as F

from runner.training.networks import is_norm
from runner.training.probes.probe import Look, ProbeValues


def gradients(network: nn.Module, look: Look) -> ProbeValues:
    """Per layer, the squared norm of the loss's gradient by the layer's output and by its weight, in training mode."""
    network.train()
    with outputs_of(network, lambda module: not is_norm(module)) as outputs:
        loss = F.cross_entropy(network(look.batch.images), look.batch.labels)
        loss.backward()
    found: ProbeValues = {}
    for layer, output in outputs.items():
        if output.grad is not None:
            found[layer, "output_gradient_squared"] = output.grad.double().square().sum().item()
        weight = getattr(network.get_submodule(layer), "weight", None)
        if isinstance(weight, Tensor) and weight.grad is not None:
            found[layer, "weight_gradient_squared"] = weight.grad.double().square().sum().item()
    return found


def activations(network: nn.Module, look: Look) -> ProbeValues:
    """Per layer, mean and SD of its output in training mode; of a ReLU the share of units that are 0 on all samples."""
    network.train()
    with outputs_of(network) as outputs:
        network(look.batch.images)
    found: ProbeValues = {}
    for layer, output in outputs.items():
        values = output.detach().double()
        found[layer, "mean"], found[layer, "sd"] = values.mean().item(), values.std(correction=0).item()
        if isinstance(network.get_submodule(layer), nn.ReLU):
            found[layer, "dead_share"] = (values.flatten(1) == 0).all(dim=0).double().mean().item()
    return found


@contextmanager
def outputs_of(network: nn.Module, wanted: Callable[[nn.Module], bool] = lambda _: True) -> Iterator[dict[str, Tensor]]:
    """Layer's name → its output in the forward pass that follows, for the modules without children."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            if isinstance(output, Tensor):  # a recurrent layer returns a tuple
                if output.requires_grad:
                    output.retain_grad()
                outputs[name] = output

        return hook

    leaves = {name: module for name, module in network.named_modules() if name and not list(module.children())}
    handles = [module.register_forward_hook(keep(name)) for name, module in leaves.items() if wanted(module)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
