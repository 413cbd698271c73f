"""The batches of an epoch.

Axes: N samples of an epoch, R runs, B samples of a batch, C channels, H rows, W columns.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from runner.config.run_spec import RunSpec
from runner.training.data.datasets import Split
from runner.training.data.preprocessing import Channels, RunData
from runner.training.data.seeding import stream


def batch_order(run: RunSpec, n: int, epoch: int) -> Tensor:
    """The order [N] in which an epoch visits the training samples. It depends on the seed and the epoch alone.

    >>> run = RunSpec(network="a network", seed=3)
    >>> batch_order(run, 5, epoch=1).tolist() == batch_order(run.changed(lr=0.5), 5, epoch=1).tolist()
    True
    >>> batch_order(run.changed(shuffle=False), 5, epoch=1).tolist()
    [0, 1, 2, 3, 4]
    """
    if not run.shuffle:
        return torch.arange(n)
    seed = stream(0 if run.share_batches else run.seed_of("batches"), "batches", epoch)
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


Batch = Tensor | tuple[Tensor, Tensor]
"""Positions [R, B] in the training set that R runs visit, or one run's images [B, C, H, W] and labels [B]."""


class Batches:
    """The batches of an epoch for R runs. A call takes the runs' orders [R, N], or [1, N] where they share one.

    With `num_workers: 0`, a batch is positions on the device, where the training set is. With `num_workers: n`, batches
    come from the tutorial's pipeline: a DataLoader with n processes, which turn each sample into a PIL image and apply
    torchvision's transforms.
    """

    def __init__(self, run: RunSpec, data: RunData, device: torch.device) -> None:
        self.run, self.data, self.device = run, data, device
        # The loader reads this list again at the start of each epoch.
        self.loader_order: list[int] = []
        self.loader = _loader(run, data, self.loader_order) if run.num_workers else None

    def count(self, samples: int) -> int:
        """How many batches an epoch of so many samples has."""
        batches = samples / self.run.batch_size
        return math.floor(batches) if self.run.drop_last else math.ceil(batches)

    def __call__(self, orders: Tensor) -> Iterator[Batch]:
        if self.loader is not None:
            self.loader_order[:] = orders[0].tolist()
            for images, labels in self.loader:
                yield images.to(self.device), labels.to(self.device)
        else:
            visited = self.count(orders.shape[1]) * self.run.batch_size
            yield from orders[:, :visited].to(self.device).split(self.run.batch_size, dim=1)


class _Samples(Dataset[tuple[Tensor, int]]):
    """One sample at a time, as torchvision's MNIST gives them."""

    def __init__(self, split: Split, mean: Channels, std: Channels) -> None:
        from torchvision import transforms

        self.images, self.labels = split.images.numpy(), split.labels.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        image = Image.fromarray(self.images[index].transpose(1, 2, 0).squeeze())
        return self.transform(image), self.labels[index]


def _loader(run: RunSpec, data: RunData, order: list[int]) -> DataLoader[Any]:
    return DataLoader(
        _Samples(data.raw_train, data.mean, data.std),
        batch_size=run.batch_size,
        sampler=order,
        num_workers=run.num_workers,
        drop_last=run.drop_last,
        persistent_workers=True,
        # Drawing from the global generator would change dropout.
        generator=torch.Generator(),
    )
