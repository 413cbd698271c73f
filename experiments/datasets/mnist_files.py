"""MNIST and FashionMNIST, from the files that their authors publish."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.datasets.files import digest_of, downloading, idx, unpacked
from runner.errors import UserError
from runner.registry import dataset

if TYPE_CHECKING:
    from runner.training.data.datasets import DataSet, Split

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
DEBIAN = {"FashionMNIST": Path("/usr/share/datasets/fashion-mnist")}
"""Where a package of Debian puts the files, packed. bnbench only reads there."""


@dataset("mnist")
def mnist(root: Path, download: bool) -> DataSet:
    """Handwritten digits: 60,000 + 10,000 images of 28×28 pixels.

    Licence: CC BY-SA 3.0. Citation: LeCun, Bottou, Bengio, Haffner 1998, "Gradient-Based Learning Applied to Document
    Recognition".
    """
    return _read("MNIST", root, MNIST_SHA256, download)


@dataset("fashion_mnist")
def fashion_mnist(root: Path, download: bool) -> DataSet:
    """Clothing: 60,000 + 10,000 images of 28×28 pixels.

    The files can also come from Debian's package dataset-fashion-mnist.
    Licence: MIT. Citation: Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms".
    """
    return _read("FashionMNIST", root, FASHION_MNIST_SHA256, download)


def _read(name: str, root: Path, sha256: Mapping[str, str], download: bool) -> DataSet:
    """The data set of torchvision's class of this name, after its files were checked against the digests.

    A file lies in torchvision's folder or in Debian's, unpacked or as `.gz`. The digest is that of the unpacked file.
    torchvision checks what it downloads (by MD5), but not the files that are already there.

    Errors: UserError where a file is missing or is not the published one.
    """
    from runner.training.data.datasets import DataSet

    folders = [root / name / "raw", *([DEBIAN[name]] if name in DEBIAN else [])]
    found = {file: _place(file, folders) for file in sha256}
    if not all(found.values()) and download:
        # Importing torchvision takes half a second, and the files are usually there.
        import torchvision.datasets

        with downloading(name, root):
            getattr(torchvision.datasets, name)(str(root), download=True)
        found = {file: _place(file, folders) for file in sha256}
    if missing := [file for file, place in found.items() if place is None]:
        debian = "'apt-get install dataset-fashion-mnist' installs them on Debian; " if name in DEBIAN else ""
        raise UserError(
            f"{name}: missing {', '.join(missing)} in {folders[0]}. 'bnbench datasets --fetch' downloads them; {debian}"
            "--data-dir or $BNBENCH_DATA_DIR names another folder; 'dataset: mnist_5k' needs no files."
        )
    content = {file: _content(place, sha256[file]) for file, place in found.items() if place}
    return DataSet(_split("train", content), _split("t10k", content), dict(sha256))


def _place(file: str, folders: list[Path]) -> Path | None:
    places = [folder / name for folder in folders for name in (file, f"{file}.gz")]
    return next((place for place in places if place.is_file()), None)


def _content(place: Path, sha256: str) -> bytes:
    """The unpacked content of a file. Errors: UserError where it is not the published one."""
    content = place.read_bytes()
    if place.suffix == ".gz":
        content = unpacked(content, place, _remedy(place))
    if (digest := digest_of(content)) != sha256:
        reason = f"SHA-256 {digest[:12]}…, should be {sha256[:12]}…"
        raise UserError(f"{place}: not the published file ({reason}). {_remedy(place)}")
    return content


def _remedy(place: Path) -> str:
    if place.parent in DEBIAN.values():
        return "'apt-get install --reinstall dataset-fashion-mnist' installs it again."
    return "Delete it and run 'bnbench datasets --fetch'."


def _split(part: str, content: Mapping[str, bytes]) -> Split:
    from runner.training.data.datasets import Split

    images, labels = (idx(content[f"{part}-{kind}-ubyte"]) for kind in ("images-idx3", "labels-idx1"))
    return Split(images.unsqueeze(1), labels.long())
