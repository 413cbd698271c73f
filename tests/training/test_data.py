"""Data sets, splits, normalisation, batch order."""

from __future__ import annotations

import gzip
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from sklearn.datasets import load_digits

from experiments.datasets import mnist_files
from runner import registry
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.training.data.batches import Batches, batch_order
from runner.training.data.datasets import DataSet, Split, load
from runner.training.data.preprocessing import held_out_split, normalise, prepare, scaling, train_size

CPU = torch.device("cpu")


@pytest.mark.data
@pytest.mark.parametrize(("name", "mean", "std"), [("mnist", 0.1307, 0.3081), ("fashion_mnist", 0.2860, 0.3530)])
def test_the_published_means_and_deviations(real_data: Path, name: str, mean: float, std: float) -> None:
    data = load(name, real_data)
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    [own_mean], [own_std] = scaling(data.train.images, "normal")
    assert (own_mean, own_std) == pytest.approx((mean, std), abs=5e-5)
    # An independent way to the same numbers.
    pixels = data.train.images.numpy().astype(np.float64) / 255
    assert (own_mean, own_std) == pytest.approx((pixels.mean(), pixels.std()), rel=1e-9)


@pytest.mark.data
def test_torchvision_transforms_give_the_same_pixels_to_the_bit(real_data: Path) -> None:
    from torchvision import transforms
    from torchvision.datasets import FashionMNIST

    mean, std = scaling(load("fashion_mnist", real_data).train.images, "normal")
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    theirs = FashionMNIST(str(real_data), train=True, transform=transform)
    ours = normalise(load("fashion_mnist", real_data).train.images[:50], mean, std)
    assert torch.equal(ours, torch.stack([theirs[index][0] for index in range(50)]))


def test_the_three_ways_to_scale_pixels() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    assert normalise(images, *scaling(images, "not_normal")).flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert normalise(images, *scaling(images, "half")).flatten().tolist() == pytest.approx([-1, -0.6, 1])
    standardised = normalise(images, *scaling(images, "normal"))
    assert standardised.mean().item() == pytest.approx(0, abs=1e-6)
    assert standardised.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_digits_are_scikit_learns_copied_up_by_nearest_neighbour(tmp_path: Path) -> None:
    data = load("digits", tmp_path)
    assert data.train.images.shape == (1500, 1, 28, 28)
    assert len(data.test) == 297
    # Every original image is there once, its label with it: sampled back at the centres of the 8×8 cells.
    centres = [int((index + 0.5) * 3.5) for index in range(8)]
    images = torch.cat([data.train.images, data.test.images])[:, 0][:, centres][:, :, centres].numpy()
    labels = torch.cat([data.train.labels, data.test.labels]).tolist()
    bunch = load_digits()
    originals = np.round(bunch.images * 255 / 16).astype(np.uint8)
    ours = sorted((image.tobytes(), label) for image, label in zip(images, labels, strict=True))
    assert ours == sorted((image.tobytes(), int(label)) for image, label in zip(originals, bunch.target, strict=True))


@pytest.mark.parametrize(("n", "size"), [(60_000, 10_000), (1500, 250), (7, 1)])
def test_a_sixth_is_held_out_and_nothing_is_in_both(n: int, size: int) -> None:
    kept, held_out = held_out_split(n)
    assert len(held_out) == size
    assert sorted(torch.cat([kept, held_out]).tolist()) == list(range(n))
    assert torch.equal(held_out, held_out_split(n)[1])


def test_validate_on_test_trains_on_everything_and_keeps_no_test_set(tmp_path: Path) -> None:
    whole = prepare("digits", tmp_path, "normal", "test", None, CPU)
    assert (len(whole.train), len(whole.valid), whole.test) == (1500, 297, None)
    parts = prepare("digits", tmp_path, "normal", "held_out", None, CPU)
    assert parts.test is not None
    assert (len(parts.train), len(parts.valid), len(parts.test)) == (1250, 250, 297)
    run = RunSpec(network="x", dataset="digits", validate_on="held_out")
    assert train_size(run, tmp_path) == 1250
    assert train_size(run.changed(validate_on="test"), tmp_path) == 1500
    assert train_size(run.changed(train_samples=100), tmp_path) == 100
    assert train_size(run.changed(train_samples=9999), tmp_path) == 1250
    few = prepare("digits", tmp_path, "normal", "held_out", 100, CPU)
    assert torch.equal(few.train.images, parts.train.images[:100])
    assert torch.equal(few.valid.images, parts.valid.images)
    assert torch.equal(parts.test.images, whole.valid.images)


def test_the_batch_order_depends_on_seed_and_epoch_alone() -> None:
    run = RunSpec(network="a", seed=3)
    order = batch_order(run, 100, 2)
    assert sorted(order.tolist()) == list(range(100))
    assert torch.equal(order, batch_order(RunSpec(network="b", seed=3, lr=5.0, num_workers=2), 100, 2))
    assert not torch.equal(order, batch_order(run, 100, 3))
    assert not torch.equal(order, batch_order(run.changed(seed=4), 100, 2))
    assert batch_order(run.changed(shuffle=False), 5, 9).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [400, 400, 400, 50]), (True, [400, 400, 400])])
def test_batches_cover_the_epoch_in_its_order(
    tmp_path: Path, num_workers: int, drop_last: bool, sizes: list[int]
) -> None:
    run = RunSpec(network="x", dataset="digits", batch_size=400, num_workers=num_workers, drop_last=drop_last)
    data = prepare("digits", tmp_path, "normal", "held_out", None, CPU)
    batches = Batches(run, data, CPU)
    before = torch.get_rng_state()
    for epoch in (1, 2):
        order = batch_order(run, 1250, epoch)
        got = [data.train.at(batch[0]) if isinstance(batch, torch.Tensor) else batch for batch in batches(order[None])]
        assert [len(labels) for _, labels in got] == sizes
        seen = order[: sum(sizes)]
        assert torch.equal(torch.cat([images for images, _ in got]), data.train.images[seen])
        assert torch.equal(torch.cat([labels for _, labels in got]), data.train.labels[seen])
    assert torch.equal(before, torch.get_rng_state())


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's download as it ends where there is no network."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)


@pytest.mark.usefixtures("no_network")
def test_missing_files_without_a_network_say_which_where_and_what_needs_none(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        registry.dataset["mnist"](tmp_path, True)
    text = str(caught.value)
    for expected in (
        "train-images-idx3-ubyte",
        str(tmp_path / "MNIST/raw"),
        "dataset: mnist_5k",
        "--fetch",
        "--data-dir",
    ):
        assert expected in text


@pytest.mark.data
@pytest.mark.parametrize("damage", ["flip", "truncate", "header", "empty"])
def test_a_corrupted_file_is_refused_before_it_is_parsed(real_data: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(real_data / "MNIST", tmp_path / "MNIST")
    victim = tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte"
    victim.chmod(0o644)
    content = bytearray(victim.read_bytes())
    match damage:
        case "flip":
            content[5000] ^= 1
        case "truncate":
            del content[-1:]
        case "header":
            content[4:8] = b"\xff\xff\xff\xff"
        case "empty":
            content.clear()
    victim.write_bytes(content)
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte: not the published file"):
        registry.dataset["mnist"](tmp_path, False)


@pytest.mark.data
def test_a_download_is_torchvisions_and_what_it_brings_is_verified(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(url: str, download_root: str, filename: str, md5: str) -> None:  # noqa: ARG001
        name = filename.removesuffix(".gz")
        archive = gzip.compress((real_data / "MNIST/raw" / name).read_bytes(), compresslevel=1, mtime=0)
        (Path(download_root) / name).write_bytes(gzip.decompress(archive))

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", serve)
    data = registry.dataset["mnist"](tmp_path, True)
    assert torch.equal(data.test.images, load("mnist", real_data).test.images)


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "pinned"), [("MNIST", mnist_files.MNIST_SHA256), ("FashionMNIST", mnist_files.FASHION_MNIST_SHA256)]
)
def test_the_pinned_digests_are_the_files(real_data: Path, folder: str, pinned: dict[str, str]) -> None:
    for name, digest in pinned.items():
        assert hashlib.sha256((real_data / folder / "raw" / name).read_bytes()).hexdigest() == digest


def test_datasets_command_lists_verifies_and_fails_with_every_fault(
    bnbench: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.datasets.mnist_files.DEBIAN", {})
    listed = bnbench("datasets")
    assert all(name in listed.stdout for name in registry.dataset)
    verified = bnbench("datasets", "--verify", "--data-dir", tmp_path)
    assert verified.exit_code == 2
    assert "digits: ok, 1,500 + 297 samples\n" in verified.stdout
    assert "mnist_5k: ok, 4,000 + 1,000 samples\n" in verified.stdout
    assert "MNIST: missing" in verified.stderr
    assert "\nFashionMNIST: missing" in verified.stderr


@pytest.mark.parametrize(
    ("split", "labels", "message"),
    [
        (
            "test",
            [0, 1, 2],
            "test label 2 (at index 2) is not a class; allowed: 0 to 1, because 1 is the largest label",
        ),
        ("train", [0, -1, 1], "training label -1 (at index 1) is not a class; allowed: 0 to 1"),
        ("test", [0.0, 1.0], "the test labels are torch.float32; they must be torch.int64"),
        ("train", [True, False], "the training labels are torch.bool; they must be torch.int64"),
        ("test", [], "the test set is empty"),
    ],
)
def test_a_label_that_is_no_class_is_an_error_before_training(
    bnbench: Callable[..., Result], tmp_path: Path, split: str, labels: list[Any], message: str
) -> None:
    def of(values: list[Any]) -> Split:
        kind = None if values else torch.int64
        return Split(torch.zeros(len(values), 1, 28, 28, dtype=torch.uint8), torch.tensor(values, dtype=kind))

    @registry.dataset("mine")
    def mine(root: Path, download: bool) -> DataSet:  # noqa: ARG001
        train, test = (of(labels if split == name else [0, 1] * 6) for name in ("train", "test"))
        return DataSet(train, test)

    config = tmp_path / "c.yaml"
    config.write_text("fixed: {dataset: mine, network: notebook_mlp, device: cpu, batch_size: 2, epochs: 1}\n")
    load.cache_clear()
    refused = bnbench("run", config, "--out", tmp_path / "out", "--executor", "inline")
    assert refused.exit_code == 2
    assert f"c.yaml:1:18: data set 'mine': {message}" in refused.stderr
    assert not (tmp_path / "out/c").exists()
