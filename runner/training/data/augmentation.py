"""Random flips and crops of training images.

How an image is changed is a function of the seed of the run's batches, the epoch, and the image's position in the
training set. It is computed, not drawn (`seeding.mix`). So the arms of a seed get the same images, alone and in a
stack, in any batch order, and after a resume.

Axes: N samples of the training set, R runs, B samples of a batch, C channels, H rows, W columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from runner.config.run_spec import RunSpec
from runner.training.data.preprocessing import RunData, normalise
from runner.training.data.seeding import GAMMA, mix, signed, stream

BITS = 2**31 - 1


class Augmentation:
    """What `augment:` does to the images of R runs that differ in their seeds. Runs that share their batches share it.

    `crop` puts `crop_padding` black pixels on each side of the image, and cuts out a part of the image's size. Black is
    the value 0 before the pixels are normalised. `flip` then exchanges left and right, with probability 1/2. (He et al.
    2015, "Deep Residual Learning", section 4.2, for CIFAR-10.)
    """

    def __init__(self, runs: Sequence[RunSpec], data: RunData) -> None:
        self.run = run = runs[0]
        self.seeds = [0] if run.share_batches else [each.seed_of("batches") for each in runs]
        device = data.train.images.device
        # A recorded step reads them, so the tensor stays the same one.
        self.keys = torch.zeros(len(self.seeds), dtype=torch.int64, device=device)
        zeros = torch.zeros(1, data.train.images.shape[1], 1, 1, dtype=torch.uint8)
        self.black = normalise(zeros, data.mean, data.std).to(device)

    def begin_epoch(self, epoch: int) -> None:
        """Take the numbers of this epoch."""
        self.keys.copy_(torch.tensor([stream(seed, "augment", epoch) for seed in self.seeds]))

    def __call__(self, images: Tensor, index: Tensor) -> Tensor:
        """Images [B, R, C, H, W], made from those [B, R or 1, C, H, W] of the samples at the positions [R or 1, B]."""
        if not self.run.augment:
            return images
        numbers = mix((index + 1).mul_(signed(GAMMA)) + self.keys[:, None])
        images = images.expand(-1, len(numbers), -1, -1, -1)
        return moved(images.flatten(0, 1), numbers.T.flatten(), self.run, self.black).view(images.shape)


def batch_bytes(run: RunSpec, images: Tensor) -> int:
    """How much memory a run's batch takes in `moved`, for images [N, C, H, W] of float32."""
    _, C, H, W = images.shape
    return run.batch_size * H * W * (8 * C + 17) if run.augment else 0


def moved(images: Tensor, numbers: Tensor, run: RunSpec, black: Tensor) -> Tensor:
    """Images [N, C, H, W], flipped and cropped as their random int64 numbers [N] say. `black` is [1, C, 1, 1].

    >>> run = RunSpec(network="a network", augment=["flip"])
    >>> moved(torch.arange(6.0).view(2, 1, 1, 3), torch.tensor([0, 1]), run, torch.zeros(1, 1, 1, 1)).flatten().tolist()
    [0.0, 1.0, 2.0, 5.0, 4.0, 3.0]
    """
    N, C, H, W = images.shape
    device = images.device
    rows, columns = torch.arange(H, device=device).expand(N, H), torch.arange(W, device=device).expand(N, W)
    if "flip" in run.augment:
        columns = torch.where((numbers & 1).bool()[:, None], W - 1 - columns, columns)
    if "crop" in run.augment:
        sizes = 2 * run.crop_padding + 1
        rows = rows + ((numbers >> 1) & BITS).remainder(sizes)[:, None] - run.crop_padding
        columns = columns + ((numbers >> 33) & BITS).remainder(sizes)[:, None] - run.crop_padding
    inside = ((rows >= 0) & (rows < H))[:, :, None] & ((columns >= 0) & (columns < W))[:, None, :]
    pixels = rows.clamp(0, H - 1)[:, :, None] * W + columns.clamp(0, W - 1)[:, None, :]
    found = images.flatten(2).gather(2, pixels.view(N, 1, H * W).expand(N, C, H * W)).view(N, C, H, W)
    return torch.where(inside[:, None], found, black)
