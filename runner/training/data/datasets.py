"""Data sets as tensors on the device, their splits, and the batches of an epoch.

Axes: N samples, B samples of one batch, C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from runner import registry
from runner.training.data.seeding import stream

if TYPE_CHECKING:
    from runner.config.run_spec import RunSpec

HELD_OUT = 6
"""One sixth of the training set is held out: 10,000 of 60,000."""


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, C, H, W] and labels int64 [N]; or, once normalised, images float32."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> Split:
        return Split(self.images[index], self.labels[index])

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images and labels at these positions."""
        return self.images[index], self.labels[index]


@dataclass(frozen=True)
class DataSet:
    """What a function registered with `@dataset("name")` returns. `digests` maps a file's name to its SHA-256."""

    train: Split
    test: Split
    digests: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunData:
    """What one run trains and is measured on, normalised, on its device. `test` is None where `valid` is it."""

    train: Split
    valid: Split
    test: Split | None
    classes: int
    raw_train: Split
    mean: float
    std: float


@lru_cache(maxsize=4)
def load(name: str, root: Path) -> DataSet:
    """A registered data set, read and verified once per process; missing files are downloaded where they can be.

    Errors: UserError where its files are missing or are not what they should be.
    """
    data: DataSet = registry.dataset[name](root, True)
    return data


@lru_cache(maxsize=2)
def prepare(
    name: str, root: Path, trainset: str, validate_on: str, train_samples: int | None, device: torch.device
) -> RunData:
    """Split, normalise and move a data set to the device."""
    data = load(name, root)
    mean, std = scaling(data.train.images, trainset)

    classes = int(data.train.labels.max()) + 1

    def ready(split: Split) -> Split:
        return Split(normalise(split.images, mean, std).to(device), split.labels.to(device))

    if validate_on == "test":
        train = data.train[:train_samples]
        return RunData(ready(train), ready(data.test), None, classes, train, mean, std)
    kept, held_out = held_out_split(len(data.train))
    train = data.train[kept[:train_samples]]
    return RunData(ready(train), ready(data.train[held_out]), ready(data.test), classes, train, mean, std)


def scaling(images: Tensor, trainset: str) -> tuple[float, float]:
    """(mean, std) to normalise pixels in 0..1 with, for `trainset: normal | not_normal | half`.

    `normal` takes them over every pixel of the training set (FashionMNIST: .2860 and .3530), held-out part included,
    so that `validate_on` does not change the inputs.
    """
    if trainset == "not_normal":
        return 0.0, 1.0
    if trainset == "half":
        return 0.5, 0.5
    counts = torch.bincount(images.flatten(), minlength=256).double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * levels).sum() / counts.sum()
    std = ((counts * (levels - mean) ** 2).sum() / counts.sum()).sqrt()
    return float(mean), float(std)


def normalise(images: Tensor, mean: float, std: float) -> Tensor:
    """uint8 → float32 in 0..1 → standardised, in the order torchvision's ToTensor and Normalize do it."""
    return images.float().div_(255).sub_(mean).div_(std)


def held_out_split(n: int) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out) of a training set of n; the same for every run, so no seed has an easier split."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(stream(0, "held_out")))
    held_out = n // HELD_OUT
    return order[held_out:].sort().values, order[:held_out].sort().values


def train_size(run: RunSpec, root: Path) -> int:
    """How many samples an epoch of this run has."""
    n = len(load(run.dataset, root).train)
    kept = n if run.validate_on == "test" else n - n // HELD_OUT
    return min(kept, run.train_samples or kept)


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
