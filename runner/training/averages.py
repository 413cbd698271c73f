"""Averages of norm layers over training images at the current weights: precise batch normalization.

(Wu & Johnson 2021, section 3.2; the semantics of torch.optim.swa_utils.update_bn.)
"""

from collections.abc import Iterable
from typing import Any

from torch import nn

from runner.training.data.datasets import Split
from runner.training.evaluation import BATCH, in_batches

SAMPLES = 10_000
"""How many training samples precise batch norm averages over (Wu & Johnson 2021, section 3.2)."""


def precise_layers(network: nn.Module) -> dict[str, nn.Module]:
    """The layers that ask for new averages before each evaluation, by name: those that have `is_precise = True`."""
    return {name: layer for name, layer in network.named_modules() if getattr(layer, "is_precise", False) is True}


def start(layers: Iterable[Any]) -> None:
    """Reset the layers' averages, and let them average all batches from now on equally.

    Hand over the layers of a copy, because they stay so.
    """
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None


def averaged(samples: int) -> int:
    """Over how many of a run's training samples to average, in batches of `BATCH`: the first ones.

    A last batch of one sample is left out, because its statistics can have no variance.
    """
    samples = min(SAMPLES, samples)
    return samples - 1 if samples > 1 and samples % BATCH == 1 else samples


def reestimate(network: nn.Module, layers: Iterable[nn.Module], train: Split) -> None:
    """Average the statistics of these layers of a network over training images. Hand over a copy of the network."""
    start(layers)
    # Gradients stay enabled, because some hand-written layers take that as the sign of training.
    network.train().requires_grad_(False)
    for images, _ in in_batches(train[: averaged(len(train))], BATCH):
        network(images)
