"""Loss and accuracy of a network on a split."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.training.data.datasets import Split

BATCH = 1000
"""Samples per forward pass of an evaluation: small enough for a CPU's caches."""


@torch.inference_mode()
def evaluate(
    network: nn.Module, split: Split, program: Callable[[Tensor], Tensor] | None = None
) -> tuple[float, float]:
    """(mean loss, accuracy) of the network on all samples of a split. Leaves the network in evaluation mode.

    program: what computes the network; by default, the network itself.

    >>> split = Split(images=torch.eye(4), labels=torch.tensor([0, 1, 2, 0]))
    >>> evaluate(nn.Identity(), split)[1]
    0.75
    """
    network.eval()
    totals = torch.zeros(3, dtype=torch.float64, device=split.labels.device)
    for images, labels in in_batches(split, BATCH):
        logits = (program or network)(images)
        totals[0].add_(F.cross_entropy(logits, labels), alpha=len(labels))
        totals[1].add_((logits.argmax(1) == labels).sum())
        totals[2].add_(len(labels))
    return means(totals)


@torch.inference_mode()
def hits(network: nn.Module, split: Split, program: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Which samples of a split the network classifies correctly: bool [N]. The batches are those of `evaluate`.

    >>> split = Split(images=torch.eye(4), labels=torch.tensor([0, 1, 2, 0]))
    >>> hits(nn.Identity(), split).tolist()
    [True, True, True, False]
    """
    network.eval()
    return torch.cat([(program or network)(images).argmax(1) == labels for images, labels in in_batches(split, BATCH)])


def in_batches(split: Split, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(images, labels) of the split in its order, so many samples at a time. A network may change the images."""
    for images, labels in zip(split.images.split(size), split.labels.split(size), strict=True):
        yield images.clone(), labels


def stacked_batches(
    split: Split, size: int, own: Tensor | None = None, samples: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """(images [B, R or 1, C, H, W], labels [R or 1, B]) of the split for R runs, so many samples at a time.

    own: the positions [R, N] of each run's own samples; without it, all runs share the split.
    samples: stop after so many.
    """
    if own is None:
        for images, labels in in_batches(split[:samples], size):
            yield images.unsqueeze(1), labels.unsqueeze(0)
    else:
        for index in own[:, :samples].to(split.labels.device).split(size, dim=1):
            yield split.images[index.T], split.labels[index]


def means(totals: Tensor) -> tuple[float, float]:
    """(mean loss, accuracy) from totals [summed loss, correct answers, samples]."""
    loss, correct, samples = totals.tolist()
    return loss / samples, correct / samples
