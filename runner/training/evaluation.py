"""Loss and accuracy of a network on a split."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.training.data.datasets import Split

BATCH = 1000
"""Samples per forward pass of an evaluation: small enough for a CPU's caches."""


@torch.inference_mode()
def evaluate(network: nn.Module, split: Split) -> tuple[float, float]:
    """(mean loss, accuracy) in evaluation mode, per sample: the last batch may be smaller."""
    network.eval()
    totals = torch.zeros(3, dtype=torch.float64, device=split.labels.device)
    for images, labels in zip(split.images.split(BATCH), split.labels.split(BATCH), strict=True):
        logits = network(images)
        totals += sums(F.cross_entropy(logits, labels), logits, labels)
    return means(totals)


def sums(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """A batch's [summed loss, correct answers, samples] as float64 on the device."""
    correct = (logits.detach().argmax(dim=1) == labels).sum()
    samples = torch.full_like(correct, len(labels))
    return torch.stack([loss.detach().double() * len(labels), correct.double(), samples.double()])


def means(totals: Tensor) -> tuple[float, float]:
    """(mean loss, accuracy) of accumulated `sums`."""
    loss, correct, samples = totals.tolist()
    return loss / samples, correct / samples
