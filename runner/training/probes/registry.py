"""The probes by name."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from runner.config.run_spec import ProbeName
from runner.training.probes.curvature import curvature
from runner.training.probes.histograms import histograms
from runner.training.probes.layers import activations, gradients
from runner.training.probes.norms import norms
from runner.training.probes.probe import Look, Probe, ProbeValues
from runner.training.probes.statistics import batch_statistics, precise, train

PROBES: dict[ProbeName, Probe] = {
    "gradients": gradients,
    "activations": activations,
    "norms": norms,
    "precise": precise,
    "batch_statistics": batch_statistics,
    "train": train,
    "curvature": curvature,
    "histograms": histograms,
}


def probe_values(network: nn.Module, look: Look, names: Sequence[ProbeName]) -> ProbeValues:
    """The values of the probes named. Each probe gets its own copy of the network, and no random number is drawn."""
    devices = [look.data.train.labels.device] if look.data.train.labels.is_cuda else []
    found: ProbeValues = {}
    for name in names:
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            found |= PROBES[name](copy.deepcopy(network), look)
    return found
