"""Data sets as tensors.

Axes: N samples, C channels, H rows, W columns.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from runner import factories, registry
from runner.errors import UserError


@dataclass(frozen=True)
class Split:
    """Images [N, C, H, W] and labels int64 [N]. The images are uint8, or float32 once they are normalised.

    >>> import torch
    >>> split = Split(torch.zeros(5, 1, 28, 28, dtype=torch.uint8), torch.arange(5))
    >>> len(split[:2])
    2
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> "Split":
        return Split(self.images[index], self.labels[index])

    def at(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images and labels at these positions. (`index_select` takes half the time of `images[index]`.)"""
        return self.images.index_select(0, index), self.labels.index_select(0, index)


@dataclass(frozen=True)
class DataSet:
    """A data set as a function registered with `@dataset("name")` returns it.

    `digests` maps the names of its files to their SHA-256. A resume checks that they are still the same.

    >>> import torch
    >>> split = Split(torch.zeros(5, 1, 28, 28, dtype=torch.uint8), torch.arange(5))
    >>> DataSet(train=split, test=split[:2]).digests
    {}
    """

    train: Split
    test: Split
    digests: dict[str, str] = field(default_factory=dict)


@lru_cache(maxsize=4)
def load(name: str, root: Path) -> DataSet:
    """A registered data set. It is read and verified once per process. Missing files are downloaded where possible.

    Errors: UserError where its files are missing or differ from the published ones, and those of `check`.
    """
    data: DataSet = registry.dataset[name](root, True)
    check(name, data)
    return data


def check(name: str, data: DataSet) -> None:
    """Check the data against what the data set declares.

    Errors: UserError where the images or the number of classes are others, or where a label is no class. On CUDA, such
    a label would stop every later run of its process.
    """
    _check_labels(name, data)
    declared, default = registry.dataset.shape(name), vars(factories.Shape())
    for split in (data.train, data.test):
        if split.images.dtype != torch.uint8:
            raise UserError(f"data set '{name}': images are {split.images.dtype}; they must be torch.uint8, 0 to 255")
        if split.images.dim() != 4:
            raise UserError(f"data set '{name}': images are {list(split.images.shape)}; they must be [N, C, H, W]")
        channels, height, width = split.images.shape[1:]
        found = factories.Shape(channels, height, width, int(data.train.labels.max()) + 1)
        if found != declared:
            values = [f"{key}={value}" for key, value in vars(found).items() if value != default[key]]
            arguments = ", ".join([f'"{name}"', *values])
            raise UserError(f"data set '{name}' declares {declared}, but has {found}; write @dataset({arguments})")


def _check_labels(name: str, data: DataSet) -> None:
    classes = int(data.train.labels.max()) + 1 if len(data.train) else 0
    for title, split in (("training", data.train), ("test", data.test)):
        labels = split.labels
        if not len(labels):
            raise UserError(f"data set '{name}': the {title} set is empty")
        if labels.dtype != torch.int64:
            raise UserError(f"data set '{name}': the {title} labels are {labels.dtype}; they must be torch.int64")
        wrong = (labels < 0) | (labels >= classes)
        if wrong.any():
            position = int(wrong.nonzero()[0])
            largest = classes - 1
            raise UserError(
                f"data set '{name}': {title} label {int(labels[position])} (at index {position}) is not a class; "
                f"allowed: 0 to {largest}, because {largest} is the largest label of the training set"
            )
