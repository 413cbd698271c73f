"""Random flips and crops: which images they give, and that nothing but seed, epoch and sample decides it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import scipy.stats
import torch
from click.testing import Result
from torch import Tensor, nn
from torch.nn import functional as F

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.storage.checkpoints import Every, to_bytes
from runner.storage.rows import Checkpoint, EpochRow
from runner.training.data.augmentation import Augmentation, moved
from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData, data_of, normalise
from runner.training.learners.solo import Solo
from runner.training.options import TrainingOptions
from runner.training.probes.probe import Look
from runner.training.train import train

CPU = torch.device("cpu")
RUN = RunSpec(
    network="batch_norm", dataset="digits", device="cpu", batch_size=100, epochs=3, train_samples=300,
    augment=("flip", "crop"),
)  # fmt: skip


def colours(samples: int, height: int = 7, width: int = 9) -> tuple[Tensor, RunData]:
    """(images before they are normalised, data). Each channel has its own mean and deviation."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(1, 256, (samples, 3, height, width), generator=generator, dtype=torch.uint8)
    mean, std = (0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)
    split = Split(normalise(images, mean, std), torch.arange(samples) % 10)
    return images, RunData(split, split, None, 10, Split(images, split.labels), mean, std)


def by_hand(image: Tensor, number: int, run: RunSpec) -> Tensor:
    """An image [C, H, W] of raw pixels: padded with zeros, cut out, mirrored."""
    if "crop" in run.augment:
        padding = run.crop_padding
        down = (number >> 1) % 2**31 % (2 * padding + 1)
        right = (number >> 33) % 2**31 % (2 * padding + 1)
        _, height, width = image.shape
        image = F.pad(image, [padding] * 4)[:, down : down + height, right : right + width]
    return image.flip(2) if "flip" in run.augment and number % 2 else image


@pytest.mark.parametrize("padding", [1, 4, 20])
@pytest.mark.parametrize("augment", [("flip",), ("crop",), ("flip", "crop")])
def test_images_are_cut_out_of_black_and_mirrored_before_they_are_normalised(
    augment: tuple[str, ...], padding: int
) -> None:
    raw, data = colours(60)
    run = RUN.changed(augment=augment, crop_padding=padding)
    numbers = torch.randint(-(2**63), 2**63 - 1, (60,), generator=torch.Generator().manual_seed(2))
    changed = torch.stack([by_hand(image, int(number), run) for image, number in zip(raw, numbers, strict=True)])
    ours = moved(data.train.images, numbers, run, Augmentation([run], data).black)
    assert torch.equal(ours, normalise(changed, data.mean, data.std))
    assert ours.is_contiguous()


def test_half_are_mirrored_and_all_places_are_equally_likely() -> None:
    """One bright pixel shows where each image has gone."""
    samples, side = 20_000, 15
    images = torch.zeros(samples, 1, side, side)
    images[:, :, 7, 6] = 1
    split = Split(images, torch.zeros(samples, dtype=torch.int64))
    augmentation = Augmentation([RUN.changed(crop_padding=2)], RunData(split, split, None, 1, split, (0.0,), (1.0,)))
    augmentation.begin_epoch(1)
    index = torch.arange(samples)[None]
    places = augmentation(images.unsqueeze(1), index).flatten(1).argmax(1)
    rows, columns = places // side, places % side
    # Unmirrored, the pixel is in the columns 4 … 8, mirrored in 6 … 10.
    counts = torch.bincount(rows * side + columns, minlength=side**2).view(side, side)[5:10, 4:11].double()
    expected = torch.tensor([0.5, 0.5, 1, 1, 1, 0.5, 0.5]).expand(5, 7) / 25 * samples
    assert counts.sum() == samples
    assert scipy.stats.chisquare(counts.flatten(), expected.flatten()).pvalue > 0.001


def augmented(runs: list[RunSpec], data: RunData, index: Tensor, epoch: int) -> Tensor:
    augmentation = Augmentation(runs, data)
    augmentation.begin_epoch(epoch)
    return augmentation(data.train.images[index.T], index)


def test_only_seed_epoch_and_sample_decide() -> None:
    _, data = colours(40)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))[None]
    images = augmented([RUN], data, order, 2)
    other_arm = RUN.changed(network="no_batch_norm", lr=0.5, optimizer="sgd", batch_size=7)
    assert torch.equal(augmented([other_arm], data, order, 2), images)
    # A sample has the same image in another order and in a smaller batch.
    assert torch.equal(augmented([RUN], data, order[:, 5:9], 2), images[5:9])
    for run, epoch in ((RUN, 3), (RUN.changed(seed=1), 2)):
        assert not torch.equal(augmented([run], data, order, epoch), images)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_a_stack_gets_the_images_that_its_runs_get_alone(device: str) -> None:
    _, data = colours(40)
    runs = [RUN.changed(seed=seed) for seed in range(3)]
    index = torch.stack([torch.randperm(40, generator=torch.Generator().manual_seed(run.seed)) for run in runs])
    there = Split(data.train.images.to(device), data.train.labels.to(device))
    moved_data = RunData(there, there, None, 10, data.raw_train, data.mean, data.std)
    together = augmented(runs, moved_data, index.to(device), 2).cpu()
    for number, run in enumerate(runs):
        assert torch.equal(together[:, number], augmented([run], data, index[number : number + 1], 2)[:, 0])


def rows(*runs: RunSpec) -> list[EpochRow]:
    job = Job(runs, "grouped" if len(runs) > 1 else None)
    return [event for event in train(job, TrainingOptions(kernels="torch")) if isinstance(event, EpochRow)]


@pytest.mark.parametrize("share", [False, True])
def test_stacked_and_alone_agree(share: bool) -> None:
    run = RUN.changed(network="notebook_mlp", share_batches=share, epochs=2)
    runs = [run.changed(seed=seed) for seed in range(2)]
    stacked = {(row.run_id, row.epoch): row.train_loss for row in rows(*runs)}
    alone = {(row.run_id, row.epoch): row.train_loss for each in runs for row in rows(each)}
    assert stacked == pytest.approx(alone, rel=1e-4)
    plain = {(row.run_id, row.epoch): row.train_loss for row in rows(runs[0].changed(augment=()))}
    assert min(plain.values()) < 0.8 * min(alone.values())


def test_runs_that_share_batches_share_their_images() -> None:
    _, data = colours(40)
    runs = [RUN.changed(seed=seed, share_batches=True) for seed in (3, 4)]
    index = torch.arange(40)[None]
    shared = augmented(runs, data, index, 1)
    assert shared.shape == (40, 1, 3, 7, 9)
    assert torch.equal(shared, augmented([RUN.changed(seed=0)], data, index, 1))
    assert torch.equal(shared, augmented(runs[1:], data, index, 1))


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_resume_gives_the_same_bytes(seeds: tuple[int, ...], tmp_path: Path) -> None:
    job = Job(tuple(RUN.changed(seed=seed) for seed in seeds), "grouped" if len(seeds) > 1 else None)
    whole = list(train(job, TrainingOptions(checkpoint_every=Every(epochs=1))))
    saved = next(event for event in whole if isinstance(event, Checkpoint))
    file = tmp_path / "1.ckpt"
    file.write_bytes(to_bytes(saved))

    def numbers(events: list[object]) -> list[tuple[object, ...]]:
        found = [event for event in events if isinstance(event, EpochRow) and event.epoch > saved.epoch]
        return [(row.run_id, row.epoch, row.train_loss, row.valid_loss) for row in found]

    assert numbers(list(train(job, TrainingOptions(), file))) == numbers([*whole])
    assert len(numbers([*whole])) == 2 * len(seeds)


class Seen(nn.Module):
    """Keeps the images that it gets, by mode."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)
        self.images: dict[bool, list[Tensor]] = {True: [], False: []}

    def forward(self, images: Tensor) -> Tensor:
        self.images[self.training].append(images.clone())
        out: Tensor = self.linear(images.flatten(1))
        return out


def test_only_training_batches_are_changed() -> None:
    data = data_of([RUN], Path(), CPU)
    network = Seen()
    learner = Solo(RUN, network, data)
    learner.begin_epoch(1)
    learner.step(torch.arange(100)[None])
    learner.evaluate(data.valid)
    assert torch.equal(torch.cat(network.images[False]), data.valid.images)
    [batch] = network.images[True]
    assert not torch.equal(batch, data.train.images[:100])
    assert torch.equal(Look(data, 0.1).batch.images, data.train.images[:300])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("augment: [flip], num_workers: 2", "augment changes images on the device; a DataLoader"),
        ("crop_padding: 2", "crop_padding belongs to augment 'crop'; this run does not crop"),
        ("augment: [flip], crop_padding: 2", "crop_padding belongs to augment 'crop'"),
        ("augment: [flop]", "unknown augment 'flop'; did you mean 'flip'? allowed: crop, flip"),
        ("augment: [crop, flip]", "augment: write each once, in this order: [flip, crop]"),
        ("augment: [flip, flip]", "augment: write each once, in this order: [flip, crop]"),
        ("augment: [crop], crop_padding: 0", "crop_padding: must be greater than 0"),
    ],
)
def test_what_does_not_go_together_is_one_error(
    bnbench: Callable[..., Result], tmp_path: Path, text: str, message: str
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"fixed: {{network: lenet, dataset: digits, {text}}}\n")
    refused = bnbench("plan", config)
    assert refused.exit_code == 2
    assert "c.yaml:1:" in refused.stderr
    assert refused.stderr.count(message) == 1


def test_augmentation_can_be_the_axis_of_a_contrast(bnbench: Callable[..., Result], tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "contrast: {axis: augment, baseline: []}\n"
        "fixed: {network: notebook_mlp, dataset: digits, epochs: 1, train_samples: 100, batch_size: 50, device: cpu}\n"
        "grid: {augment: [[], [flip], [flip, crop]], seed: [0, 1]}\n"
    )
    done = bnbench("run", config, "--out", tmp_path, "--executor", "inline", "-q")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("yes") == 2
