"""A data set as a run needs it: split, normalised, on the run's device."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from runner import registry
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.training.data.datasets import Split, load
from runner.training.data.seeding import stream

Channels = tuple[float, ...]
"""A number for each channel."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's pixels (red, green, blue), as torchvision's documents give them."""

HELD_OUT = 6
"""One sixth of the training set is held out: 10,000 of 60,000."""


@dataclass(frozen=True)
class RunData:
    """The data that a run, or each run of a stack, is trained and measured on, normalised, on its device.

    `test` is None where the test set is `valid`. `raw_train` is `train` before it was normalised with `mean` and `std`,
    which have a number for each channel. `sums` are those of `checksums` when the data were read.

    Where R runs draw their samples by their seeds, `own_train` [R, N] has the positions in `train` of the samples that
    each run trains on, in the order of `train`. `own_valid` [R, M] has the positions in `valid` likewise. So the runs
    of a stack share the images on the device. Each is None where every run uses all of `train`, or of `valid`.
    """

    train: Split
    valid: Split
    test: Split | None
    classes: int
    raw_train: Split
    mean: Channels
    std: Channels
    sums: tuple[Tensor, ...] = ()
    own_train: Tensor | None = None
    own_valid: Tensor | None = None

    @property
    def samples(self) -> int:
        """How many samples a run trains on in an epoch."""
        return len(self.train) if self.own_train is None else self.own_train.shape[1]

    def positions(self, run: int, order: Tensor) -> Tensor:
        """The positions in `train` of the samples that a run visits in this order of its own samples."""
        return order if self.own_train is None else self.own_train[run][order]

    def of(self, run: int) -> "RunData":
        """What one run is trained and measured on. (Drawn samples are copied.)"""
        train = self.train if self.own_train is None else self.train[self.own_train[run]]
        valid = self.valid if self.own_valid is None else self.valid[self.own_valid[run]]
        return replace(self, train=train, valid=valid, own_train=None, own_valid=None)


class ChangedDataError(Exception):
    """A network has changed the data set that this process holds, so later runs would train on other data."""


@lru_cache(maxsize=2)
def prepare(
    name: str,
    root: Path,
    trainset: str,
    validate_on: str,
    train_samples: int | None,
    device: torch.device,
    split: str = "fixed",
) -> RunData:
    """Split, normalise and move a data set to the device. `root` is the data folder, the rest are run parameters.

    With split 'drawn', both `train` and `valid` are the whole training set, from which each run draws its samples.
    """
    data = load(name, root)
    mean, std = scaling(data.train.images, trainset)

    def ready(split: Split) -> Split:
        return Split(normalise(split.images, mean, std).to(device), split.labels.to(device))

    if validate_on == "test":
        train, valid, test = data.train[:train_samples], ready(data.test), None
    elif split == "drawn":
        train, valid, test = data.train, ready(data.train), ready(data.test)
    else:
        kept, held_out = held_out_split(len(data.train))
        train, valid, test = data.train[kept[:train_samples]], ready(data.train[held_out]), ready(data.test)
    ready_train = valid if split == "drawn" else ready(train)
    ready_data = RunData(ready_train, valid, test, registry.dataset.shape(name).classes, train, mean, std)
    return replace(ready_data, sums=checksums(ready_data))


def checksums(data: RunData) -> tuple[Tensor, ...]:
    """A number for each sample's image and each label, which hardly any change of the sample leaves as it is.

    It is a weighted sum of the bits, modulo 2⁶⁴. The weights differ, so a sample that is mirrored has another number.
    It finds accidents, and no attack: an even number of signs can change unseen, if no other pixel changes.
    """
    splits = [split for split in (data.train, data.valid, data.test, data.raw_train) if split]
    return tuple(_weighted_sums(tensor) for split in splits for tensor in (split.images, split.labels))


def _weighted_sums(tensor: Tensor) -> Tensor:
    rows = tensor.reshape(len(tensor), -1)
    fits = rows.shape[1] * rows.element_size() % 8 == 0
    bits = rows.view(torch.int64) if fits else rows.view(torch.uint8).long()
    # Odd weights: an even one would lose the highest bit.
    weights = torch.arange(bits.shape[1], device=bits.device) * 0x2545F4914F6CDD1D * 2 + 1
    if bits.is_cuda:
        # CUDA has no product of integer matrices.
        return torch.cat([(part * weights).sum(1) for part in bits.split(10_000)])
    return bits.mv(weights)


def check_unchanged(data: RunData) -> None:
    """Errors: ChangedDataError where the data are not what they were when they were read. They are read anew then."""
    if not all(map(torch.equal, data.sums, checksums(data))):
        prepare.cache_clear()
        load.cache_clear()
        raise ChangedDataError("the network changed the images of the data set; a network must not write to its data")


def data_of(runs: Sequence[RunSpec], root: Path, device: torch.device) -> RunData:
    """The data of a run or of the runs of a stack, from the data folder `root`, on a device."""
    run = runs[0]
    shared = run.dataset, root, run.trainset, run.validate_on
    if "drawn" not in (run.split, run.subset):
        return prepare(*shared, run.train_samples, device)
    data = prepare(*shared, None, device, run.split)
    n = len(data.train)
    if run.split == "fixed":
        return replace(data, own_train=torch.stack([_subset(each, torch.arange(n)) for each in runs]))
    kept, held_out = zip(*(held_out_split(n, each.seed_of("split")) for each in runs), strict=True)
    return replace(data, own_train=torch.stack(list(map(_subset, runs, kept))), own_valid=torch.stack(held_out))


def _subset(run: RunSpec, kept: Tensor) -> Tensor:
    """Those of the positions that a run trains on, in their order."""
    if run.subset == "first":
        return kept[: run.train_samples]
    generator = torch.Generator().manual_seed(stream(run.seed_of("subset"), "subset"))
    return kept[torch.randperm(len(kept), generator=generator)[: run.train_samples].sort().values]


def scaling(images: Tensor, trainset: str) -> tuple[Channels, Channels]:
    """(mean, std) that normalise pixels in 0..1, for `trainset: normal | not_normal | half | imagenet`.

    Images are uint8 [N, C, H, W], and both have C numbers. `normal` takes them over every pixel of the training set
    (FashionMNIST: .2860 and .3530). The held-out part is included, so that `validate_on` does not change the inputs.
    Errors: UserError for `normal` where a channel has the same value everywhere, such as the opacity of photos.
    """
    channels = images.shape[1]
    if trainset == "imagenet":
        return IMAGENET
    if trainset == "not_normal":
        return (0.0,) * channels, (1.0,) * channels
    if trainset == "half":
        return (0.5,) * channels, (0.5,) * channels
    moments = [_moments(images[:, channel]) for channel in range(channels)]
    for channel, (_, std) in enumerate(moments):
        if std == 0:
            message = f"channel {channel} of the training images has the same value everywhere, so trainset 'normal'"
            raise UserError(f"{message} cannot standardise it; use 'not_normal' or 'half', or leave the channel out")
    return tuple(mean for mean, _ in moments), tuple(std for _, std in moments)


def _moments(pixels: Tensor) -> tuple[float, float]:
    counts = torch.bincount(pixels.flatten(), minlength=256).double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * levels).sum() / counts.sum()
    std = ((counts * (levels - mean) ** 2).sum() / counts.sum()).sqrt()
    return float(mean), float(std)


def normalise(images: Tensor, mean: Channels, std: Channels) -> Tensor:
    """uint8 [N, C, H, W] → float32 in 0..1 → standardised, in the order of torchvision's ToTensor and Normalize."""
    means, stds = torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
    return images.float().div_(255).sub_(means).div_(stds)


def held_out_split(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out) of a training set of n samples. The fixed split, of every run, is that of seed 0."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(stream(seed, "held_out")))
    held_out = n // HELD_OUT
    return order[held_out:].sort().values, order[:held_out].sort().values


def train_size(run: RunSpec, root: Path) -> int:
    """How many samples an epoch of this run has."""
    n = len(load(run.dataset, root).train)
    kept = n if run.validate_on == "test" else n - n // HELD_OUT
    return min(kept, run.train_samples or kept)
