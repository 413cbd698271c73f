"""More data sets, each from the files that its authors publish, where torchvision puts them.

The digests are those that torchvision and Keras publish: SHA-256, except for EMNIST. Their hosts were out of reach when
these readers were written. So the readers are tested on small files of the published format only.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.datasets.files import digest_of, downloading, idx
from runner.errors import UserError
from runner.registry import dataset

if TYPE_CHECKING:
    from runner.training.data.datasets import DataSet, Split


@dataclass(frozen=True)
class File:
    """A published file: its place below the data folder, the folder where it is published, and its digest.

    The digest is a SHA-256 (64 hex digits), or an MD5 (32) where no SHA-256 of this file is published.
    """

    place: str
    source: str
    digest: str

    @property
    def name(self) -> str:
        return Path(self.place).name


_KMNIST = "http://codh.rois.ac.jp/kmnist/dataset/kmnist"
_QMNIST = "https://raw.githubusercontent.com/facebookresearch/qmnist/master"
_CIFAR = "https://www.cs.toronto.edu/~kriz"
_SVHN = "http://ufldl.stanford.edu/housenumbers"
FILES = {
    "kmnist": [
        File(f"KMNIST/raw/{name}-ubyte.gz", _KMNIST, digest)
        for name, digest in {
            "train-images-idx3": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "train-labels-idx1": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "t10k-images-idx3": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "t10k-labels-idx1": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        }.items()
    ],
    "emnist": [
        File("EMNIST/raw/gzip.zip", "https://biometrics.nist.gov/cs_links/EMNIST", "58c8d27c78d21e728a6bc7b3cc06412e")
    ],
    "qmnist": [
        File(f"QMNIST/raw/qmnist-{name}.gz", _QMNIST, digest)
        for name, digest in {
            "train-images-idx3-ubyte": "9e26a7bf1683614e065d7b76460ccd52807165b3f22561fb782bd9f38c52b51d",
            "train-labels-idx2-int": "2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f",
            "test-images-idx3-ubyte": "43fc22bf7498b8fc98de98369d72f752d0deabc280a43a7bcc364ab19e57b375",
            "test-labels-idx2-int": "9fbcbe594c3766fdf4f0b15c5165dc0d1e57ac604e01422608bb72c906030d06",
        }.items()
    ],
    "cifar10": [
        File("cifar-10-python.tar.gz", _CIFAR, "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce")
    ],
    "cifar100": [
        File("cifar-100-python.tar.gz", _CIFAR, "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7")
    ],
    "svhn": [
        File("train_32x32.mat", _SVHN, "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8"),
        File("test_32x32.mat", _SVHN, "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b"),
    ],
}


@dataset("kmnist")
def kmnist(root: Path, download: bool) -> DataSet:
    """Characters of old Japanese script: 60,000 + 10,000 images of 28×28 pixels in 10 classes.

    Licence: CC BY-SA 4.0. Citation: Clanuwat, Bober-Irizar, Kitamoto, Lamb, Yamamoto, Ha 2018, "Deep Learning for
    Classical Japanese Literature". Tested on made files only.
    """
    content, digests = _contents("kmnist", root, download)
    parts = [
        _mnist_like(content[f"{part}-images-idx3-ubyte.gz"], content[f"{part}-labels-idx1-ubyte.gz"])
        for part in ("train", "t10k")
    ]
    return _data_set(parts, digests)


@dataset("emnist_balanced", classes=47)
def emnist_balanced(root: Path, download: bool) -> DataSet:
    """Handwritten digits and letters: 112,800 + 18,800 images of 28×28 pixels in 47 classes.

    Rows and columns are exchanged in the files. They stay so, as in torchvision.
    Licence: none is stated; the images are from NIST Special Database 19. Citation: Cohen, Afshar, Tapson, van Schaik
    2017, "EMNIST: an Extension of MNIST to Handwritten Letters". Tested on made files only.
    """
    return _emnist("balanced", 0, root, download)


@dataset("emnist_letters", classes=26)
def emnist_letters(root: Path, download: bool) -> DataSet:
    """Handwritten letters: 124,800 + 20,800 images of 28×28 pixels in 26 classes.

    In the files, the labels are 1 to 26; here they are 0 to 25. Rows and columns are exchanged in the files. They stay
    so, as in torchvision.
    Licence: none is stated; the images are from NIST Special Database 19. Citation: Cohen, Afshar, Tapson, van Schaik
    2017, "EMNIST: an Extension of MNIST to Handwritten Letters". Tested on made files only.
    """
    return _emnist("letters", 1, root, download)


def _emnist(kind: str, first_label: int, root: Path, download: bool) -> DataSet:
    content, digests = _contents(f"emnist_{kind}", root, download)
    with zipfile.ZipFile(io.BytesIO(content["gzip.zip"])) as archive:

        def read(part: str, what: str) -> bytes:
            return archive.read(f"gzip/emnist-{kind}-{part}-{what}-ubyte.gz")

        parts = [
            _mnist_like(read(part, "images-idx3"), read(part, "labels-idx1"), first_label) for part in ("train", "test")
        ]
    return _data_set(parts, digests)


@dataset("qmnist")
def qmnist(root: Path, download: bool) -> DataSet:
    """Handwritten digits, MNIST made again with all of its test images: 60,000 + 60,000 images of 28×28 pixels.

    Licence: BSD (the repository's). Citation: Yadav, Bottou 2019, "Cold Case: the Lost MNIST Digits". Tested on made
    files only.
    """
    content, digests = _contents("qmnist", root, download)
    parts = [
        _mnist_like(content[f"qmnist-{part}-images-idx3-ubyte.gz"], content[f"qmnist-{part}-labels-idx2-int.gz"])
        for part in ("train", "test")
    ]
    return _data_set(parts, digests)


@dataset("cifar10", channels=3, height=32, width=32)
def cifar10(root: Path, download: bool) -> DataSet:
    """Photos of animals and vehicles: 50,000 + 10,000 colour images of 32×32 pixels in 10 classes.

    Licence: none is stated. Citation: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". Tested
    on made files only.
    """
    contents, digests = _contents("cifar10", root, download)
    (archive,) = contents.values()
    return _data_set(cifar_splits(archive, "labels", CIFAR10), digests)


@dataset("cifar100", channels=3, height=32, width=32, classes=100)
def cifar100(root: Path, download: bool) -> DataSet:
    """Photos of things, plants and animals: 50,000 + 10,000 colour images of 32×32 pixels in 100 classes.

    Licence: none is stated. Citation: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". Tested
    on made files only.
    """
    contents, digests = _contents("cifar100", root, download)
    (archive,) = contents.values()
    return _data_set(cifar_splits(archive, "fine_labels", [["train"], ["test"]]), digests)


CIFAR10 = [[f"data_batch_{number}" for number in range(1, 6)], ["test_batch"]]
"""The files of CIFAR-10's archive: those of the training set, and those of the test set."""


def cifar_splits(archive: bytes, labels: str, parts: Sequence[Sequence[str]]) -> list[Split]:
    """The parts of an archive of CIFAR: `parts` names the files of each, `labels` is the key of the labels.

    The files are pickles, and a pickle can run any code: check where the archive is from.
    """
    import numpy
    import torch

    from runner.training.data.datasets import Split

    members = {}
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(archive))) as files:
        for member in files:
            if opened := files.extractfile(member):
                members[Path(member.name).name] = opened.read()

    def split(batches: Sequence[str]) -> Split:
        read = [pickle.loads(members[batch], encoding="latin1") for batch in batches]
        images = numpy.concatenate([batch["data"] for batch in read]).reshape(-1, 3, 32, 32)
        values = [label for batch in read for label in batch[labels]]
        return Split(torch.from_numpy(images), torch.tensor(values))

    return [split(batches) for batches in parts]


@dataset("svhn", channels=3, height=32, width=32)
def svhn(root: Path, download: bool) -> DataSet:
    """House numbers from photos of streets: 73,257 + 26,032 colour images of 32×32 pixels in 10 classes.

    In the files, the digit 0 has the label 10; here it has 0. The extra training images are left out.
    Licence: for non-commercial use only. Citation: Netzer, Wang, Coates, Bissacco, Wu, Ng 2011, "Reading Digits in
    Natural Images with Unsupervised Feature Learning". Tested on made files only.
    """
    import torch
    from scipy.io import loadmat

    from runner.training.data.datasets import Split

    content, digests = _contents("svhn", root, download)
    parts = []
    for part in ("train", "test"):
        table = loadmat(io.BytesIO(content[f"{part}_32x32.mat"]))  # type: ignore[arg-type] # it takes open files, too
        # X is [H, W, C, N]
        images = torch.from_numpy(table["X"]).permute(3, 2, 0, 1).contiguous()
        parts.append(Split(images, torch.from_numpy(table["y"].astype("int64")).flatten() % 10))
    return _data_set(parts, digests)


def _mnist_like(images: bytes, labels: bytes, first_label: int = 0) -> Split:
    """From packed files in MNIST's format. Where the labels are a table, the class is its first column."""
    from runner.training.data.datasets import Split

    numbers = idx(gzip.decompress(labels))
    column = numbers if numbers.dim() == 1 else numbers[:, 0]
    return Split(idx(gzip.decompress(images)).unsqueeze(1), column.long() - first_label)


def _data_set(parts: Sequence[Split], digests: dict[str, str]) -> DataSet:
    from runner.training.data.datasets import DataSet

    train, test = parts
    return DataSet(train, test, digests)


def _contents(name: str, root: Path, download: bool) -> tuple[dict[str, bytes], dict[str, str]]:
    """The contents of a data set's files by name, after all were checked, and their SHA-256.

    Errors: UserError where a file is missing or is not the published one.
    """
    # EMNIST's data sets share a file.
    files = FILES[name.partition("_")[0]]
    if download and not all((root / file.place).is_file() for file in files):
        _download(name, files, root)
    if missing := [file.place for file in files if not (root / file.place).is_file()]:
        raise UserError(
            f"{name}: missing {', '.join(missing)} in {root}. 'bnbench datasets --fetch {name}' downloads them; "
            "--data-dir or $BNBENCH_DATA_DIR names another folder; 'dataset: mnist_5k' needs no files."
        )
    contents = {}
    for file in files:
        contents[file.name] = content = (root / file.place).read_bytes()
        kind = "MD5" if len(file.digest) == 32 else "SHA-256"
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest() if kind == "MD5" else digest_of(content)
        if digest != file.digest:
            reason = f"{kind} {digest[:12]}…, should be {file.digest[:12]}…"
            remedy = f"Delete it and run 'bnbench datasets --fetch {name}'."
            raise UserError(f"{root / file.place}: not the published file ({reason}). {remedy}")
    return contents, {file: digest_of(content) for file, content in contents.items()}


def _download(name: str, files: Sequence[File], root: Path) -> None:
    from torchvision.datasets.utils import download_url

    with downloading(name, root):
        for file in files:
            if not (root / file.place).is_file():
                download_url(f"{file.source}/{file.name}", str((root / file.place).parent), file.name)
