"""A data set in the format of CIFAR-10, for docs/any-network.md: MNIST's digits in colours, 32×32.

It makes an archive as CIFAR-10's authors published theirs, and reads it with the reader of `cifar10`.
"""

import io
import pickle
import tarfile
from pathlib import Path

import torch
from torch.nn import functional as F

from bnbench import DataSet, Split, dataset
from experiments.datasets.published import CIFAR10, cifar_splits


@dataset("made_cifar", channels=3, height=32, width=32)
def made_cifar(root: Path, download: bool) -> DataSet:
    """MNIST's digits in colours, in the format of CIFAR-10: 4,000 + 1,000 images of 32×32 pixels."""
    digits = dataset["mnist_5k"](root, download)
    archive = _archive([_coloured(digits.train, seed=0), _coloured(digits.test, seed=1)])
    train, test = cifar_splits(archive, "labels", CIFAR10)
    return DataSet(train, test)


def _coloured(split: Split, seed: int) -> Split:
    """Each digit in a random colour on a background of another one."""
    generator = torch.Generator().manual_seed(seed)
    ink, paper = torch.rand(2, len(split), 3, 1, 1, generator=generator)
    strength = F.pad(split.images.float() / 255, (2, 2, 2, 2))
    return Split((255 * (strength * ink + (1 - strength) * paper)).to(torch.uint8), split.labels)


def _archive(splits: list[Split]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for split, names in zip(splits, CIFAR10, strict=True):
            parts = zip(split.images.chunk(len(names)), split.labels.chunk(len(names)), strict=True)
            for name, (images, labels) in zip(names, parts, strict=True):
                content = pickle.dumps({"data": images.flatten(1).numpy(), "labels": labels.tolist()}, protocol=2)
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
