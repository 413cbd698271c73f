"""Data sets as tensors.

Axes: N samples, C channels, H rows, W columns.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from runner import registry


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
        """The images and labels at these positions."""
        return self.images[index], self.labels[index]


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

    Errors: UserError where its files are missing or differ from the published ones.
    """
    data: DataSet = registry.dataset[name](root, True)
    return data
