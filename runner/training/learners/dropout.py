"""Dropout masks that depend on the seed, the epoch, the step and the layer alone, and on no generator's state.

A generator would give a run other numbers on CUDA than on a CPU, and a stack would need one kernel per run and layer.
Here every number has a position in a sequence, and is computed from it. So one kernel serves all runs of a stack, with
the same bits on every device, alone or stacked, in a plain step or in a recorded one.

The sequence is that of `seeding.mix`. A run has a new key in each epoch. Within the epoch, a step has 2⁴⁴ positions, a
layer of the step 2³² of them.
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from runner.training.data.seeding import GAMMA, mix, signed, stream
from runner.training.learners.learner import has_hooks, leaves

LAYER, STEP = 2**32, 2**44


def epoch_keys(seeds: Sequence[int], epoch: int) -> Tensor:
    """The keys [R] with which runs of these seeds begin an epoch."""
    return torch.tensor([stream(seed, "dropout", epoch) for seed in seeds])


def advance(keys: Tensor) -> None:
    """Move the keys [R] of the runs to the next step."""
    keys.add_(signed(STEP * GAMMA))


def kept(keys: Tensor, layer: int, shape: torch.Size, keep: float) -> Tensor:
    """Which of a layer's values [B, R, …] are kept, each with probability `keep`; `keys` [R] are the runs' keys.

    A run's mask depends on its own key, the layer's number and the shape of its own values [B, …].

    >>> keys = torch.tensor([3, 4])
    >>> kept(keys, 0, torch.Size([2, 2, 3]), 0.5)[:, 1].tolist()
    [[False, True, True], [False, False, True]]
    >>> kept(keys[1:], 0, torch.Size([2, 1, 3]), 0.5)[:, 0].tolist()
    [[False, True, True], [False, False, True]]
    """
    B, _, *features = shape
    steps = torch.arange(1, math.prod([B, *features]) + 1, device=keys.device).mul_(signed(GAMMA))
    starts = (keys + signed(layer * LAYER * GAMMA)).view(1, -1, *[1] * len(features))
    numbers = mix(steps.view(B, 1, *features) + starts)
    return numbers < min(round(keep * 2**64), 2**64 - 1) - 2**63


def dropped(x: Tensor, p: float, layer: int, keys: Tensor) -> Tensor:
    """Dropout of values [B, R, …] in training mode: each becomes 0 with probability `p`, the others grow by 1/(1 − p).

    (Srivastava et al. 2014; scaled while training, like `nn.Dropout`.)
    """
    if p == 0:
        return x
    if p == 1:
        return x * 0
    # A number, not a tensor of x's type: bfloat16 would round it.
    return x * kept(keys, layer, x.shape, 1 - p) * (1 / (1 - p))


class SeededDropout(nn.Dropout):
    """An `nn.Dropout` of one run, whose masks come from the run's key [1] and the layer's number."""

    def __init__(self, p: float, layer: int, keys: Tensor) -> None:
        super().__init__(p)
        self.layer, self.keys = layer, keys

    def forward(self, x: Tensor) -> Tensor:
        return dropped(x.unsqueeze(1), self.p, self.layer, self.keys).squeeze(1) if self.training else x


def seed_dropout(network: nn.Module, keys: Tensor) -> None:
    """Replace the `nn.Dropout`s that stand in the network's `nn.Sequential`s by seeded ones, numbered in their order.

    Layers are numbered, not named: a norm changes the names of later layers, but not the number of a dropout. So arms
    with and without a norm share their masks. A dropout elsewhere, in two places or with hooks stays as it is. It draws
    from torch's global generator, and cannot be stacked: it may run twice in a step, and both masks would be equal.
    """
    places = Counter(module for _, module in network.named_modules(remove_duplicate=False))
    dropouts = [(prefix, module) for prefix, module in leaves(network) if type(module) is nn.Dropout]
    for layer, (prefix, module) in enumerate(dropouts):
        if prefix and places[module] == 1 and not has_hooks(module):
            network.set_submodule(prefix.removesuffix("."), SeededDropout(module.p, layer, keys))
