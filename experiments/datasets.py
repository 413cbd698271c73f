"""The data sets. To add one, write a function `(root, download) -> DataSet` under `@dataset("name")`.

`root` is the data folder. `download` says whether missing files may be downloaded. torch is imported inside the
functions, because listing and planning do not need it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import socket
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import UserError
from runner.registry import dataset

if TYPE_CHECKING:
    from runner.training.data.datasets import DataSet

MNIST_SHA256 = {
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
}
FASHION_MNIST_SHA256 = {
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
}


@dataset("mnist")
def mnist(root: Path, download: bool) -> DataSet:
    """Handwritten digits: 60,000 + 10,000 images of 28×28 pixels (LeCun, Cortes, Burges; CC BY-SA 3.0)."""
    from torchvision.datasets import MNIST

    return _torchvision(MNIST, root, MNIST_SHA256, download)


@dataset("fashion_mnist")
def fashion_mnist(root: Path, download: bool) -> DataSet:
    """Clothing: 60,000 + 10,000 images of 28×28 pixels (Xiao, Rasul, Vollgraf 2017; MIT)."""
    from torchvision.datasets import FashionMNIST

    return _torchvision(FashionMNIST, root, FASHION_MNIST_SHA256, download)


@dataset("digits")
def digits(root: Path, download: bool) -> DataSet:  # noqa: ARG001
    """Handwritten digits of scikit-learn: 1,500 + 297 images of 8×8 pixels, enlarged to 28×28; needs no download.

    They are enlarged by nearest neighbour, as in the unit-order notes. scikit-learn has no split: here the test set is
    the first 297 images of a fixed permutation.
    """
    import numpy
    import torch
    from torch.nn import functional as F

    from runner.training.data.datasets import DataSet, Split
    from runner.training.data.seeding import stream

    # Importing scikit-learn takes a second, and its file is a plain table: 64 pixels and a label in each line.
    file = importlib.metadata.distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = torch.from_numpy(numpy.loadtxt(str(file), delimiter=","))
    # [N, 1, 8, 8], values 0..16
    small = table[:, :64].float().reshape(-1, 1, 8, 8)
    images = (F.interpolate(small, size=(28, 28), mode="nearest") * (255 / 16)).round().to(torch.uint8)
    labels = table[:, 64].long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(stream(0, "digits")))
    data = Split(images, labels)
    digest = hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    return DataSet(train=data[order[297:]], test=data[order[:297]], digests={"digits": digest})


def _torchvision(reader: Any, root: Path, sha256: Mapping[str, str], download: bool) -> DataSet:
    """A data set of torchvision, after its raw files were checked against the digests.

    torchvision checks what it downloads (by MD5), but not the files that are already there.

    Errors: UserError where a file is missing or is not the published one.
    """
    from runner.training.data.datasets import DataSet, Split

    raw = root / reader.__name__ / "raw"
    missing = [raw / name for name in sha256 if not (raw / name).is_file()]
    if missing and download:
        _download(reader, root)
        missing = [path for path in missing if not path.is_file()]
    if missing:
        raise UserError(
            f"{reader.__name__}: missing {', '.join(path.name for path in missing)} in {raw}. "
            "'bnbench datasets --fetch' downloads them; --data-dir or $BNBENCH_DATA_DIR names another folder; "
            "'dataset: digits' needs no files."
        )
    for name, expected in sha256.items():
        digest = hashlib.sha256((raw / name).read_bytes()).hexdigest()
        if digest != expected:
            raise UserError(
                f"{raw / name}: not the published file (SHA-256 {digest[:12]}…, should be {expected[:12]}…). "
                "Delete it and run 'bnbench datasets --fetch'."
            )
    parts = [reader(str(root), train=train) for train in (True, False)]
    train, test = [Split(part.data.unsqueeze(1), part.targets) for part in parts]
    return DataSet(train, test, dict(sha256))


def _download(reader: Any, root: Path) -> None:
    """Download the files with torchvision. After a failure files are missing, and the caller reports that."""
    from filelock import FileLock

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".download.lock"), redirect_stdout(sys.stderr):
            reader(str(root), download=True)
    except (OSError, RuntimeError) as error:
        print(f"{reader.__name__}: download failed: {error}", file=sys.stderr)
    finally:
        socket.setdefaulttimeout(timeout)
