"""Pixels are normalised channel by channel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from torchvision import transforms

from runner import DataSet, Split, registry
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.training.data.batches import Batches
from runner.training.data.datasets import load
from runner.training.data.preprocessing import normalise, prepare, scaling

CPU = torch.device("cpu")
TRAINSETS = ("normal", "not_normal", "half", "imagenet")


@pytest.fixture
def images() -> torch.Tensor:
    """Three channels of different brightness. Every channel has all 256 values."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (30, 3, 6, 11), generator=generator)
    values[:, 1] = values[:, 1] ** 2 // 255
    values[:24, :, 0] = torch.arange(264).remainder(256).view(24, 1, 11)
    return values.to(torch.uint8)


def test_each_channel_has_its_own_mean_and_deviation(images: torch.Tensor) -> None:
    mean, std = scaling(images, "normal")
    pixels = images.numpy().astype(np.float64) / 255
    assert mean == pytest.approx(tuple(pixels.mean(axis=(0, 2, 3))), rel=1e-12)
    assert std == pytest.approx(tuple(pixels.std(axis=(0, 2, 3))), rel=1e-12)
    assert len(set(mean)) == 3


def test_a_channel_with_one_value_cannot_be_standardised(images: torch.Tensor) -> None:
    images[:, 2] = 255
    with pytest.raises(UserError, match="channel 2 of the training images has the same value everywhere"):
        scaling(images, "normal")
    assert scaling(images, "half") == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("trainset", TRAINSETS)
def test_pixels_are_torchvisions_to_the_bit(images: torch.Tensor, trainset: str) -> None:
    mean, std = scaling(images, trainset)
    if trainset == "imagenet":
        assert (mean, std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    theirs = torch.stack([transform(image.permute(1, 2, 0).numpy()) for image in images])
    assert torch.equal(normalise(images, mean, std), theirs)


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0.0, 1.0), (0.1307, 0.3081), (0.2860405969, 0.3530242445)])
def test_grey_pixels_have_the_bytes_of_the_version_before(mean: float, std: float) -> None:
    grey = torch.arange(256, dtype=torch.uint8).view(16, 1, 4, 4)
    assert torch.equal(normalise(grey, (mean,), (std,)), grey.float().div_(255).sub_(mean).div_(std))


def add(images: torch.Tensor) -> None:
    @registry.dataset("rgb", channels=3, height=6, width=11, classes=3)
    def rgb(root: Path, download: bool) -> DataSet:  # noqa: ARG001
        return DataSet(Split(images, torch.arange(30) % 3), Split(images[:3], torch.arange(3)))

    load.cache_clear()
    prepare.cache_clear()


@pytest.mark.parametrize("trainset", TRAINSETS)
def test_a_data_loader_gives_the_same_pixels(images: torch.Tensor, tmp_path: Path, trainset: str) -> None:
    add(images)
    data = prepare("rgb", tmp_path, trainset, "test", None, CPU)
    run = RunSpec(network="x", dataset="rgb", batch_size=10, num_workers=1)
    order = torch.arange(30).flip(0)
    got = [batch for batch in Batches(run, data, CPU)(order[None]) if not isinstance(batch, torch.Tensor)]
    assert torch.equal(torch.cat([pixels for pixels, _ in got]), data.train.images[order])
    assert torch.equal(torch.cat([labels for _, labels in got]), data.train.labels[order])


def test_imagenets_numbers_are_refused_for_grey_images(
    bnbench: Callable[..., Result], images: torch.Tensor, tmp_path: Path
) -> None:
    add(images)
    config = tmp_path / "c.yaml"
    config.write_text("fixed: {network: mlp, dataset: digits}\ngrid:\n  trainset: [normal, imagenet]\n")
    refused = bnbench("plan", config)
    assert refused.exit_code == 2
    message = "trainset 'imagenet' needs images of 3 channels; data set 'digits' has 1"
    assert f"c.yaml:3:22: {message}" in refused.stderr
    assert bnbench("plan", config, "--set", "fixed.dataset=rgb").exit_code == 0
