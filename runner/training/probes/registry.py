"""The probes by name."""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from runner.config.run_spec import ProbeName
from runner.training.data.seeding import generators_unchanged
from runner.training.probes import curvature, layers, norms, statistics
from runner.training.probes.probe import Look, Probe, ProbeValues

PROBES: dict[ProbeName, Probe] = {
    "gradients": layers.gradients,
    "activations": layers.activations,
    "norms": norms.norms,
    "precise": statistics.precise,
    "batch_statistics": statistics.batch_statistics,
    "train": statistics.train,
    "curvature": curvature.curvature,
    "histograms": layers.histograms,
}


def probe_values(network: nn.Module, look: Look, names: Sequence[ProbeName]) -> ProbeValues:
    """The values of the named probes, by layer and measure; a value of the whole network has layer "".

    Each probe gets its own copy of the network, and the run's random numbers stay as they are.

    >>> from pathlib import Path
    >>> from runner import registry
    >>> from runner.training.data.preprocessing import prepare
    >>> registry.load_plugins()
    >>> look = Look(prepare("digits", Path(), "normal", "held_out", None, torch.device("cpu")), lr=0.1)
    >>> values = probe_values(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(784, 10)), look, ["norms"])
    >>> values["0", "gamma_mean"], values["0", "beta_mean"]
    (1.0, 0.0)
    """
    device = look.data.train.labels.device
    values: ProbeValues = {}
    for name in names:
        with generators_unchanged(device), torch.enable_grad():
            values |= PROBES[name](copy.deepcopy(network).train(), look)
    return values
