"""A probe is a function that looks inside a network while it trains: `(network, look) -> {(layer, measure): value}`.

`probes.registry` lists the probes. A probe gets a copy of the network in training mode and may change it, so a run's
rows are the same with and without probes.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData

SAMPLES = 512
"""Probes look at the first samples of the training set: the same for every run, whatever its batch order."""

ProbeValues = dict[tuple[str, str], float]


@dataclass(frozen=True)
class Look:
    """What a probe may look at: the run's data, and its learning rate at this epoch."""

    data: RunData
    lr: float

    @property
    def batch(self) -> Split:
        """The first samples of the training set. A network may change them: each call gives new ones."""
        first = self.data.train[:SAMPLES]
        return Split(first.images.clone(), first.labels)

    def loss(self, network: nn.Module) -> Tensor:
        """The network's mean loss on the batch."""
        batch = self.batch
        return F.cross_entropy(network(batch.images), batch.labels)


Probe = Callable[[nn.Module, Look], ProbeValues]
