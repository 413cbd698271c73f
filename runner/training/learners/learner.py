"""The learner: what the training loop drives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor, nn

from runner.training.data.batches import Batch
from runner.training.data.datasets import Split


@dataclass(frozen=True)
class State:
    """What R runs need to go on: parameters and buffers by name [R, …], the optimizer's averages [R, P], its steps."""

    tensors: dict[str, Tensor]
    averages: list[Tensor]
    steps: int

    def of(self, rows: Sequence[int]) -> State:
        """The state of some of the runs."""
        index = torch.tensor(rows)
        tensors = {name: tensor[index] for name, tensor in self.tensors.items()}
        return State(tensors, [average[index] for average in self.averages], self.steps)


def named_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer by name; those that `state_dict` leaves out as well."""
    return chain(network.named_parameters(), network.named_buffers())


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of the module does more than its `forward`."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def wrong_shape(logits: object, batch: int, classes: int) -> str | None:
    """What is wrong with a network's output; cross-entropy alone is content with more logits than classes."""
    if isinstance(logits, Tensor) and logits.shape == (batch, classes):
        return None
    found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    return f"the network returned {found} for a batch of {batch}; it must return [{batch}, {classes}] logits"


class Learner(Protocol):
    """R runs that learn together. `how` says in words how: it is a column of runs.csv."""

    how: str

    def begin_epoch(self, epoch: int) -> None:
        """Set what an epoch (from 1) decides: learning rates, and the stream that dropout draws from."""

    def step(self, batch: Batch) -> None:
        """One optimizer step of every run. Adds to the sums of `reading`; waits for nothing."""

    def reading(self) -> Tensor:
        """Each run's [summed loss, correct answers, samples] since the last reading, float64 [R, 3] on the CPU."""

    def evaluate(self, split: Split) -> list[tuple[float, float]]:
        """(mean loss, accuracy) of every run in evaluation mode."""

    def member(self, run: int) -> nn.Module:
        """One run's network as it is now."""

    def state(self) -> State:
        """What the runs need to go on after an epoch."""

    def restore(self, state: State) -> None:
        """Go on from a state; of another learner, if it was of these runs."""
