"""The probe `histograms`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from runner.training.data.preprocessing import prepare
from runner.training.probes.probe import SAMPLES, Look
from runner.training.probes.registry import probe_values

# The probe


def test_the_histograms_are_counts_of_values_and_of_autograds_gradients() -> None:
    data = prepare("digits", Path(), "normal", "held_out", None, torch.device("cpu"))
    torch.manual_seed(0)
    layer = nn.Linear(784, 10)
    network = nn.Sequential(nn.Flatten(), layer)
    found = probe_values(network, Look(data, 0.1), ["histograms"])
    loss = F.cross_entropy(network(data.train.images[:SAMPLES]), data.train.labels[:SAMPLES])
    gradient = torch.autograd.grad(loss, layer.weight)[0]
    for name, values in (("weight", layer.weight.detach()), ("weight_gradient", gradient)):
        counts, edges = np.histogram(values.double().numpy(), 32)
        assert (found["1", f"{name}_low"], found["1", f"{name}_high"]) == pytest.approx((edges[0], edges[-1]), rel=1e-4)
        bins = [found["1", f"{name}_bin_{index:02}"] for index in range(32)]
        assert sum(bins) == 7840
        assert np.abs(np.array(bins) - counts).sum() <= (0 if name == "weight" else 40)  # rounding moves an edge


def test_histograms_of_one_value_and_of_none() -> None:
    data = prepare("digits", Path(), "normal", "held_out", None, torch.device("cpu"))
    layer = nn.Linear(784, 10)
    network = nn.Sequential(nn.Flatten(), layer)
    nn.init.constant_(layer.weight, 1e30)
    nn.init.constant_(layer.bias, torch.nan)
    found = probe_values(network, Look(data, 0.1), ["histograms"])
    bins = {name: sum(found["1", f"{name}_bin_{index:02}"] for index in range(32)) for name in ("weight", "bias")}
    assert bins == {"weight": 7840, "bias": 0}
    assert found["1", "weight_low"] < 1e30 < found["1", "weight_high"]
