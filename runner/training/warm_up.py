"""What torch prepares at its first step, done before a run's time is measured."""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F


@cache
def warm_up(device: torch.device) -> None:
    """Take a step of a convolution, a batch norm, a ReLU and a linear layer with each optimizer, once per process.

    It draws no random number.

    >>> warm_up(torch.device("cpu"))
    """
    images, labels = torch.zeros(2, 1, 5, 5, device=device), torch.zeros(2, dtype=torch.int64, device=device)
    for optimizer in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        kernels, weights = _ones(2, 1, 3, 3, device=device), _ones(4, 18, device=device)
        step = optimizer([kernels, weights], lr=0.1)
        features = F.batch_norm(F.conv2d(images, kernels), None, None, training=True).relu()
        logits = F.linear(features.flatten(1), weights)
        F.cross_entropy(logits, labels).backward()
        step.step()
        (logits.argmax(1) == labels).sum().item()


def _ones(*shape: int, device: torch.device) -> Tensor:
    return torch.ones(shape, device=device, requires_grad=True)
