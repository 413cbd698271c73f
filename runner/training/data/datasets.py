"""Data sets as tensors, read and verified once per process.

Axes: N samples, C channels, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from runner import registry


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


@lru_cache(maxsize=4)
def load(name: str, root: Path) -> DataSet:
    """A registered data set, read and verified once per process; missing files are downloaded where they can be.

    Errors: UserError where its files are missing or are not what they should be.
    """
    data: DataSet = registry.dataset[name](root, True)
    return data
