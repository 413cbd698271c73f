"""The batches of an epoch.

Axes: N samples of an epoch, R runs, B samples of a batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData
from runner.training.data.seeding import stream

if TYPE_CHECKING:
    from runner.config.run_spec import RunSpec


def batch_order(run: RunSpec, n: int, epoch: int) -> Tensor:
    """The order [N] in which an epoch visits the training samples; a function of the seed and the epoch alone."""
    if not run.shuffle:
        return torch.arange(n)
    seed = 0 if run.share_batches else run.seed
    return torch.randperm(n, generator=torch.Generator().manual_seed(stream(seed, "batches", epoch)))


Batch = Tensor | tuple[Tensor, Tensor]
"""Positions [R, B] in the training set that R runs visit, or one run's images [B, C, H, W] and labels [B]."""


class Batches:
    """An epoch's batches for R runs, from their orders [R, N]; [1, N] where they share one.

    `num_workers: 0` gives positions, on the device, in tensors that live there; `num_workers: n` is the tutorial's
    pipeline, a DataLoader with n processes that turn each sample into a PIL image and through torchvision's transforms.
    """

    def __init__(self, run: RunSpec, data: RunData, device: torch.device) -> None:
        self.run, self.data, self.device = run, data, device
        self.sampler = _Order()
        self.loader = _loader(run, data, self.sampler) if run.num_workers else None

    def count(self, samples: int) -> int:
        """How many batches an epoch of so many samples has."""
        return samples // self.run.batch_size if self.run.drop_last else -(-samples // self.run.batch_size)

    def __call__(self, orders: Tensor) -> Iterator[Batch]:
        if self.loader is not None:
            self.sampler.order = orders[0].tolist()
            for images, labels in self.loader:
                yield images.to(self.device), labels.to(self.device)
            return
        if self.run.drop_last:
            orders = orders[:, : orders.shape[1] // self.run.batch_size * self.run.batch_size]
        yield from orders.to(self.device).split(self.run.batch_size, dim=1)


class _Order(torch.utils.data.Sampler[int]):
    """The DataLoader's sampler: the order it was last given."""

    order: list[int]

    def __iter__(self) -> Iterator[int]:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


class _Samples(Dataset[tuple[Tensor, int]]):
    """One sample at a time, as torchvision's MNIST gives them."""

    def __init__(self, split: Split, mean: float, std: float) -> None:
        from torchvision import transforms

        self.images, self.labels = split.images.numpy(), split.labels.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((mean,), (std,))])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index].transpose(1, 2, 0).squeeze())), self.labels[index]


def _loader(run: RunSpec, data: RunData, sampler: _Order) -> DataLoader[Any]:
    return DataLoader(
        _Samples(data.raw_train, data.mean, data.std),
        batch_size=run.batch_size,
        sampler=sampler,
        num_workers=run.num_workers,
        drop_last=run.drop_last,
        persistent_workers=True,
        generator=torch.Generator(),  # its own: drawing from the global stream would change dropout
    )
