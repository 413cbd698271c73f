"""What a probe is: a function that looks inside a network while it trains.

A probe is a function `(network, look) -> {(layer, measure): value}`, listed in `probes.registry`. It gets a copy of the
network and may change it: a run's rows are the same with and without probes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData

SAMPLES = 512
"""The first samples of the training set: the same for every run, whatever its batch order."""

ProbeValues = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Look:
    """What a probe may look at: the run's data, and its learning rate at this epoch."""

    data: RunData
    lr: float

    @property
    def batch(self) -> Split:
        return Split(self.data.train.images[:SAMPLES], self.data.train.labels[:SAMPLES])


Probe = Callable[[nn.Module, Look], ProbeValues]
