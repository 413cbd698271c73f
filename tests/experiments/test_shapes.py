"""Networks on images of every shape: what bnbench fills in, and what it refuses before training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from torch import nn

from runner import DataSet, Split, factories, registry
from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.storage.rows import EpochRow, RunResult
from runner.training.data.datasets import load
from runner.training.data.preprocessing import prepare
from runner.training.networks import build_network, weights_hash
from runner.training.options import TrainingOptions
from runner.training.train import train

registry.load_plugins()
NAMES = sorted(registry.network)
SHAPES = sorted({registry.dataset.shape(name) for name in registry.dataset} | {factories.Shape(2, 33, 47, 3)}, key=str)

# Seed 50's weights, as the version without shapes drew them.
BEFORE = {
    "batch_norm": "30dcb08804d6ef6b",
    "calibration": "5d22d51013b7021e",
    "conv_unit": "8c574cc52b450726",
    "lenet": "ab5ce558b9d20c58",
    "mlp": "8ba76cda954168b3",
    "no_batch_norm": "30dcb08804d6ef6b",
    "notebook_cnn": "6f695cd3dcd3ec5e",
    "notebook_mlp": "6d079a1c7106ecf4",
    "vgg": "29bc9f850d713b8a",
}


def add(name: str, shape: factories.Shape, samples: int = 24) -> None:
    """Register a data set of this shape, with random images."""

    @registry.dataset(name, **vars(shape))
    def made(root: Path, download: bool) -> DataSet:  # noqa: ARG001
        def split(count: int) -> Split:
            size = (count, shape.channels, shape.height, shape.width)
            generator = torch.Generator().manual_seed(count)
            images = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
            return Split(images, torch.arange(count) % shape.classes)

        # One sample of each class, so that the largest label is there.
        return DataSet(split(max(samples, shape.classes)), split(samples))

    load.cache_clear()
    prepare.cache_clear()


@pytest.mark.parametrize("name", BEFORE)
def test_a_factory_that_is_called_directly_gives_the_weights_of_before(name: str) -> None:
    torch.manual_seed(50)
    assert weights_hash(registry.network[name]()) == BEFORE[name]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_network_trains_on_every_shape(name: str, shape: factories.Shape) -> None:
    add("made", shape)
    run = RunSpec(network=name, dataset="made", validate_on="test", device="cpu", batch_size=8, epochs=1)
    run = run.changed(train_samples=8)
    images = torch.rand(4, shape.channels, shape.height, shape.width)
    assert build_network(run).eval()(images).shape == (4, shape.classes)
    jobs = {"alone": Job((run,)), "stack of 2": Job((run, run.changed(seed=1)), "grouped")}
    losses = {}
    for how, job in jobs.items():
        results = [event for event in train(job, TrainingOptions()) if isinstance(event, RunResult)]
        assert [result.status for result in results] == ["ok"] * len(job.runs), results
        assert all(str(result.trained_as).startswith(how) for result in results)
        losses[how] = results[0].rows[0].train_loss
    [row, _] = train(jobs["alone"], TrainingOptions(kernels="torch"))
    assert isinstance(row, EpochRow)
    assert losses == pytest.approx(dict.fromkeys(jobs, row.train_loss), rel=1e-4)


SMALLEST = {"batch_norm": 16, "no_batch_norm": 16, "lenet": 16, "notebook_cnn": 12, "conv_unit": 4}


@pytest.mark.parametrize("name", NAMES)
def test_an_image_that_is_too_small_is_an_error_with_the_smallest_size(name: str) -> None:
    smallest = SMALLEST.get(name, 1)
    network = registry.network[name](in_channels=3, image_size=(smallest, smallest + 30), classes=7)
    assert network.eval()(torch.rand(2, 3, smallest, smallest + 30)).shape == (2, 7)
    if smallest > 1:
        with pytest.raises(ValueError, match=rf"40×{smallest - 1} pixels.*smallest size is {smallest}×{smallest}"):
            registry.network[name](image_size=(40, smallest - 1))


def test_the_harness_fills_in_only_what_a_factory_asks_for() -> None:
    add("wide", factories.Shape(3, 8, 20, 4))

    @registry.network("asks")
    def asks(*, width: int = 5, image_size: tuple[int, int], classes: int = 10) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.Linear(width, classes), nn.Tanh()).extend(
            [nn.Identity()] * (image_size == (8, 20))
        )

    network = build_network(RunSpec(network="asks", dataset="wide"))
    assert network(torch.rand(2, 3, 8, 20)).shape == (2, 4)
    assert len(list(network.children())) == 5
    assert list(factories.signature(registry.network["asks"])) == ["width"]


CONFIG = "fixed:\n  network: {network}\n  dataset: rgb\n  device: cpu\n  batch_size: 8\n  epochs: 1\n"


@pytest.mark.parametrize("command", ["plan", "validate", "run"])
@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6)),
            "expected input[2, 3, 12, 12] to have 1 channels, but got 3 channels instead; give its factory the "
            "keyword-only parameters that bnbench fills in: *, in_channels: int, image_size: tuple[int, int]",
        ),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 10)),
            "the network returned [2, 10] for a batch of 2; it must return [2, 6] logits; give its factory the "
            "keyword-only parameters that bnbench fills in: *, classes: int",
        ),
    ],
    ids=["channels", "classes"],
)
def test_a_network_that_does_not_fit_is_refused_before_training(
    bnbench: Callable[..., Result], tmp_path: Path, command: str, build: Callable[[], nn.Module], reason: str
) -> None:
    add("rgb", factories.Shape(3, 12, 12, 6))
    registry.network("rigid")(lambda: build())
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(network="rigid"))
    options = ["--out", tmp_path / "out", "--executor", "inline"] if command == "run" else []
    refused = bnbench(command, config, *options)
    assert refused.exit_code == 2
    text = " ".join(refused.stderr.split())
    assert "c.yaml:2:12: network 'rigid' does not fit data set 'rgb' (images [3, 12, 12], 6 classes): " in text
    assert reason in text
    assert not (tmp_path / "out/c").exists()


def test_a_network_that_fits_without_asking_is_trained(bnbench: Callable[..., Result], tmp_path: Path) -> None:
    add("rgb", factories.Shape(3, 12, 12, 6))
    registry.network("fits")(lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(network="fits"))
    assert bnbench("run", config, "--out", tmp_path / "out", "--executor", "inline").exit_code == 0


def test_a_size_that_a_registered_network_refuses_is_an_error_before_training(
    bnbench: Callable[..., Result], tmp_path: Path
) -> None:
    add("rgb", factories.Shape(3, 12, 12, 6))
    config = tmp_path / "c.yaml"
    config.write_text(CONFIG.format(network="lenet"))
    refused = bnbench("validate", config)
    assert refused.exit_code == 2
    assert "images of 12×12 pixels are too small; the smallest size is 16×16" in refused.stderr
    assert "keyword-only" not in refused.stderr


def test_a_config_cannot_set_what_is_filled_in(bnbench: Callable[..., Result], tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("fixed: {network: lenet}\ngrid:\n  network.in_channels: [1, 3]\n")
    refused = bnbench("plan", config)
    assert refused.exit_code == 2
    message = "network 'lenet': bnbench fills in 'in_channels' from the data set; a config cannot set it"
    assert f"c.yaml:3:25: {message}" in refused.stderr
    assert refused.stderr.count("fills in") == 1
    page = bnbench("networks", "lenet")
    assert "network.norm" in page.stdout
    assert not any(f"network.{name}" in page.stdout for name in factories.FILLED_IN)
    refused = bnbench("networks", "lenet", "--set", "classes=3")
    assert refused.exit_code == 2
    assert "bnbench fills in 'classes'" in refused.stderr


@pytest.mark.parametrize(
    ("declared", "data", "message"),
    [
        (factories.Shape(), factories.Shape(3, 8, 9, 4), '@dataset("odd", channels=3, height=8, width=9, classes=4)'),
        (factories.Shape(classes=7), factories.Shape(), '@dataset("odd")'),
    ],
)
def test_data_that_are_not_what_is_declared_are_an_error_that_says_what_to_write(
    bnbench: Callable[..., Result], tmp_path: Path, declared: factories.Shape, data: factories.Shape, message: str
) -> None:
    add("odd", data)
    registry.dataset.shapes["odd"] = declared
    with pytest.raises(UserError) as caught:
        load("odd", tmp_path)
    assert str(caught.value) == f"data set 'odd' declares {declared}, but has {data}; write {message}"
    verified = bnbench("datasets", "--verify", "odd", "--data-dir", tmp_path)
    assert (verified.exit_code, message in verified.stderr) == (2, True)


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_a_size_that_is_none_is_refused(size: int) -> None:
    with pytest.raises(UserError, match="must be whole numbers from 1"):
        registry.dataset("bad", height=size)
