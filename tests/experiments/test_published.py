"""Data sets from published files, on small files of the same format. torchvision's readers are the oracle."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from click.testing import Result

from experiments.datasets import published
from runner import registry
from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.storage.rows import RunResult
from runner.training.data.datasets import load
from runner.training.data.preprocessing import prepare
from runner.training.options import TrainingOptions
from runner.training.train import train

registry.load_plugins()
NAMES = ("kmnist", "emnist_balanced", "emnist_letters", "qmnist", "cifar10", "cifar100", "svhn")
Arrays = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


def drawn(part: str, shape: tuple[int, ...], classes: int) -> Arrays:
    """Random images of two samples a class, and their labels 0, 1, …"""
    random = np.random.default_rng(len(part))
    labels = random.permutation(np.repeat(np.arange(classes), 2))
    return random.integers(0, 256, (2 * classes, *shape), dtype=np.uint8), labels


def idx_gz(values: np.ndarray[Any, Any]) -> bytes:
    kind = {"uint8": 8, "int32": 12}[values.dtype.name]
    header = struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape)
    return gzip.compress(header + values.astype(values.dtype.newbyteorder(">")).tobytes())


def write(place: Path, content: bytes) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)


def make_kmnist(root: Path) -> None:
    for part in ("train", "t10k"):
        images, labels = drawn(part, (28, 28), 10)
        write(root / f"KMNIST/raw/{part}-images-idx3-ubyte.gz", idx_gz(images))
        write(root / f"KMNIST/raw/{part}-labels-idx1-ubyte.gz", idx_gz(labels.astype(np.uint8)))


def make_emnist(root: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for kind, classes, first in (("balanced", 47, 0), ("letters", 26, 1)):
            for part in ("train", "test"):
                images, labels = drawn(part, (28, 28), classes)
                stem = f"gzip/emnist-{kind}-{part}"
                archive.writestr(f"{stem}-images-idx3-ubyte.gz", idx_gz(images))
                archive.writestr(f"{stem}-labels-idx1-ubyte.gz", idx_gz((labels + first).astype(np.uint8)))
    write(root / "EMNIST/raw/gzip.zip", buffer.getvalue())


def make_qmnist(root: Path) -> None:
    for part in ("train", "test"):
        images, labels = drawn(part, (28, 28), 10)
        table = np.stack([labels, *[labels * 1000 + column for column in range(7)]], axis=1).astype(np.int32)
        write(root / f"QMNIST/raw/qmnist-{part}-images-idx3-ubyte.gz", idx_gz(images))
        write(root / f"QMNIST/raw/qmnist-{part}-labels-idx2-int.gz", idx_gz(table))


def make_cifar(root: Path, name: str, key: str, parts: dict[str, list[str]], classes: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for part, batches in parts.items():
            images, labels = drawn(part, (3072,), classes)
            for batch, rows in zip(batches, np.array_split(np.arange(len(labels)), len(batches)), strict=True):
                add(archive, f"{name}/{batch}", {"data": images[rows], key: labels[rows].tolist()})
        add(
            archive,
            f"{name}/{'meta' if classes == 100 else 'batches.meta'}",
            {"fine_label_names": [], "label_names": []},
        )
    write(root / f"{name.removesuffix('-batches-py').removesuffix('-python')}-python.tar.gz", buffer.getvalue())


def add(archive: tarfile.TarFile, name: str, value: object) -> None:
    content = pickle.dumps(value, protocol=2)
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


CIFAR10 = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}


def make_svhn(root: Path) -> None:
    for part in ("train", "test"):
        images, labels = drawn(part, (32, 32, 3), 10)
        labels[labels == 0] = 10
        content = {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None].astype(np.uint8)}
        scipy.io.savemat(root / f"{part}_32x32.mat", content, do_compression=True)


MAKE: dict[str, Callable[[Path], None]] = {
    "kmnist": make_kmnist,
    "emnist": make_emnist,
    "qmnist": make_qmnist,
    "cifar10": lambda root: make_cifar(root, "cifar-10-batches-py", "labels", CIFAR10, 10),
    "cifar100": lambda root: make_cifar(
        root, "cifar-100-python", "fine_labels", {"train": ["train"], "test": ["test"]}, 100
    ),
    "svhn": make_svhn,
}


def inject(monkeypatch: pytest.MonkeyPatch, root: Path, name: str) -> None:
    """Let the digests of the made files be the published ones. They are of the same kind."""
    files = published.FILES[name]

    def digest(file: published.File) -> str:
        kind = "md5" if len(file.digest) == 32 else "sha256"
        return hashlib.new(kind, (root / file.place).read_bytes()).hexdigest()

    monkeypatch.setitem(published.FILES, name, [replace(file, digest=digest(file)) for file in files])


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name, make in MAKE.items():
        make(tmp_path)
        inject(monkeypatch, tmp_path, name)
    load.cache_clear()
    prepare.cache_clear()
    return tmp_path


def torchvisions(name: str, root: Path, train: bool, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, list[int]]:
    """(images [N, C, H, W], labels) as torchvision reads the same files, once they are unpacked."""
    if name == "svhn":
        monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda _: True)
        svhn = torchvision.datasets.SVHN(str(root), split="train" if train else "test")
        return torch.from_numpy(svhn.data), svhn.labels.tolist()
    if name.startswith("cifar"):
        monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
        kind = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}[name]
        with tarfile.open(root / kind.filename) as packed_files:
            for packed_file in packed_files:
                if content := packed_files.extractfile(packed_file):
                    write(root / packed_file.name, content.read())
        cifar = kind(str(root), train=train)
        return torch.from_numpy(cifar.data).permute(0, 3, 1, 2), cifar.targets
    if name.startswith("emnist"):
        with zipfile.ZipFile(root / "EMNIST/raw/gzip.zip") as archive:
            for member in archive.namelist():
                write(root / "EMNIST/raw" / Path(member).name, archive.read(member))
    for packed in root.glob("*MNIST/raw/*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    if name.startswith("emnist"):
        emnist = torchvision.datasets.EMNIST(str(root), name.removeprefix("emnist_"), train=train)
        return emnist.data[:, None], [int(label) - (name == "emnist_letters") for label in emnist.targets]
    reader = {"kmnist": torchvision.datasets.KMNIST, "qmnist": torchvision.datasets.QMNIST}[name]
    mnist = reader(str(root), train=train)
    return mnist.data[:, None], [mnist[index][1] for index in range(len(mnist))]


@pytest.mark.parametrize("name", NAMES)
def test_images_and_labels_are_those_that_torchvision_reads(
    name: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(name, made)
    for split, is_train in ((data.train, True), (data.test, False)):
        images, labels = torchvisions(name, made, is_train, monkeypatch)
        assert split.images.is_contiguous()
        assert torch.equal(split.images, images)
        assert split.labels.tolist() == labels
        assert set(labels) == set(range(registry.dataset.shape(name).classes))
    assert all(len(digest) == 64 for digest in data.digests.values())
    assert set(data.digests) == {file.name for file in published.FILES[name.partition("_")[0]]}


@pytest.mark.parametrize("name", NAMES)
def test_a_run_trains_on_them(name: str, made: Path) -> None:
    run = RunSpec(network="lenet", dataset=name, device="cpu", batch_size=100, epochs=1)
    *_, result = train(Job((run,)), TrainingOptions(data_dir=made))
    assert isinstance(result, RunResult)
    assert result.status == "ok", result.error


@pytest.mark.parametrize("name", [name for name in NAMES if name != "emnist_letters"])
def test_a_changed_file_is_refused(name: str, made: Path, bnbench: Callable[..., Result]) -> None:
    file = published.FILES[name.partition("_")[0]][-1]
    place = made / file.place
    place.write_bytes(place.read_bytes() + b"0")
    refused = bnbench("datasets", "--verify", name, "--data-dir", made)
    assert refused.exit_code == 2
    kind = "MD5" if name.startswith("emnist") else "SHA-256"
    assert f"{place}: not the published file ({kind} " in refused.stderr
    assert f", should be {file.digest[:12]}…)" in refused.stderr


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was opened before its digest was checked",)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_a_pickle_of_somebody_else_is_not_opened(name: str, made: Path) -> None:
    with tarfile.open(made / published.FILES[name][0].place, "w:gz") as archive:
        for member in (*CIFAR10["train"], "test_batch", "train", "test"):
            add(archive, f"folder/{member}", Trap())
    with pytest.raises(UserError, match="not the published file"):
        registry.dataset[name](made, False)


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_are_downloaded_or_named(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(url: str, root: str, filename: str) -> None:
        assert url.startswith("http")
        assert url.endswith(f"/{filename}")
        [place] = made.rglob(filename)
        write(Path(root) / filename, place.read_bytes())

    other = tmp_path / "other"
    with monkeypatch.context() as patch:
        patch.setattr("torchvision.datasets.utils.download_url", serve)
        assert torch.equal(registry.dataset[name](other, True).test.images, load(name, made).test.images)

    def refuse(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    nothing = tmp_path / "nothing"
    with pytest.raises(UserError, match=rf"missing .*in {nothing}\. 'bnbench datasets --fetch {name}' downloads"):
        registry.dataset[name](nothing, True)
    assert "download failed: Network is unreachable" in capsys.readouterr().err


def test_the_page_of_a_data_set_tells_licence_citation_and_shape(bnbench: Callable[..., Result]) -> None:
    page = bnbench("datasets", "svhn", "cifar100").stdout
    for expected in ("non-commercial", "Netzer", "images [3, 32, 32], 100 classes", "Tested on made files only"):
        assert expected in page
    assert bnbench("datasets", "svhm").exit_code == 2
