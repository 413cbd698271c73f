"""The probe `histograms`: parameters and their gradients, counted in bins."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.storage.histograms import BINS, Histogram
from runner.training.probes.probe import Look, ProbeValues


def histograms(network: nn.Module, look: Look) -> ProbeValues:
    """Per parameter, its values and the loss's gradient by it, in training mode, counted in 32 bins from low to high.

    Values that are not finite are in no bin.
    """
    network.train()
    F.cross_entropy(network(look.batch.images), look.batch.labels).backward()
    found: ProbeValues = {}
    for path, parameter in network.named_parameters():
        layer, _, name = path.rpartition(".")
        for label, values in ((name, parameter), (f"{name}_gradient", parameter.grad)):
            if values is not None:
                measures = _histogram(values.detach()).values_by_name(label)
                found |= {(layer, measure): value for measure, value in measures.items()}
    return found


def _histogram(values: Tensor) -> Histogram:
    values = values[values.isfinite()].double().cpu()
    low, high = (values.min().item(), values.max().item()) if len(values) else (0.0, 0.0)
    if low == high:  # all values are one, such as γ at the start: a range around it
        half = max(0.5, abs(low) / 1e6)
        low, high = low - half, high + half
    counts = torch.histc(values, BINS, low, high)
    return Histogram(low, high, tuple(counts.tolist()))
