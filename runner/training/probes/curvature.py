"""The probe `curvature`: how the loss bends around the weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from runner.training.networks import trainable
from runner.training.probes.probe import Look, ProbeValues

POWER_ITERATIONS = 20


def curvature(network: nn.Module, look: Look) -> ProbeValues:
    """The loss, its largest Hessian eigenvalue (by power iteration) and its gradient predictiveness.

    Predictiveness is ‖∇L(w) − ∇L(w − lr ∇L(w))‖ (Santurkar et al. 2018, section 3.1). Training mode.
    """
    loss = look.loss(network)
    found = torch.autograd.grad(loss, every := trainable(network), create_graph=True, allow_unused=True)
    # A layer that is not used has no gradient, and does not change the loss.
    used = [(parameter, g) for parameter, g in zip(every, found, strict=True) if g is not None]
    parameters, gradient = [parameter for parameter, _ in used], [g for _, g in used]
    eigenvalue = _largest_eigenvalue(gradient, parameters)
    with torch.no_grad():
        for parameter, g in zip(parameters, gradient, strict=True):
            parameter.sub_(g, alpha=look.lr)
    moved = torch.autograd.grad(look.loss(network), parameters, materialize_grads=True)
    pairs = zip(gradient, moved, strict=True)
    change = sum((a.detach() - b).double().square().sum().item() for a, b in pairs)
    return {
        ("", "probe_loss"): loss.item(),
        ("", "hessian_eigenvalue"): eigenvalue,
        ("", "gradient_change"): change**0.5,
    }


def _largest_eigenvalue(gradient: Sequence[Tensor], parameters: Sequence[Tensor]) -> float:
    """The largest eigenvalue, in magnitude, of the gradient's derivative by the parameters."""
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(g.shape, generator=generator).to(g.device) for g in gradient]
    eigenvalue = 0.0
    for _ in range(POWER_ITERATIONS):
        zero = torch.zeros((), device=vector[0].device)
        length = sum((v.square().sum() for v in vector), zero).sqrt()
        vector = [v / length for v in vector]
        product = torch.autograd.grad(gradient, parameters, vector, retain_graph=True)
        pairs = zip(vector, product, strict=True)
        eigenvalue = float(sum((v * p).sum().item() for v, p in pairs))
        vector = [p.detach() for p in product]
    return eigenvalue
