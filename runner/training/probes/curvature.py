"""The probe `curvature`: how the loss bends around the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.training.probes.probe import Look, ProbeValues

POWER_ITERATIONS = 20


def curvature(network: nn.Module, look: Look) -> ProbeValues:
    """The loss, its largest Hessian eigenvalue (by power iteration) and its gradient predictiveness.

    Predictiveness is ‖∇L(w) − ∇L(w − lr ∇L(w))‖ (Santurkar et al. 2018, section 3.1). Training mode.
    """
    network.train()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def gradient(create_graph: bool = False) -> tuple[Tensor, Sequence[Tensor]]:
        loss = F.cross_entropy(network(look.batch.images), look.batch.labels)
        return loss, torch.autograd.grad(loss, parameters, create_graph=create_graph)

    loss, first = gradient(create_graph=True)
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(g.shape, generator=generator).to(g.device) for g in first]
    eigenvalue = 0.0
    for _ in range(POWER_ITERATIONS):
        length = torch.sqrt(sum((v.square().sum() for v in vector), torch.zeros((), device=loss.device)))
        vector = [v / length for v in vector]
        product = torch.autograd.grad(first, parameters, vector, retain_graph=True)
        eigenvalue = float(sum((v * p).sum().item() for v, p in zip(vector, product, strict=True)))
        vector = [p.detach() for p in product]
    with torch.no_grad():
        for parameter, g in zip(parameters, first, strict=True):
            parameter.sub_(g, alpha=look.lr)
    _, second = gradient()
    change = sum((a.detach() - b).double().square().sum().item() for a, b in zip(first, second, strict=True))
    return {
        ("", "probe_loss"): loss.item(),
        ("", "hessian_eigenvalue"): eigenvalue,
        ("", "gradient_change"): change**0.5,
    }
