"""The learner: what the training loop drives."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from runner.errors import text_of
from runner.storage.rows import Shortfall
from runner.training.data.batches import Batch
from runner.training.data.datasets import Split


@dataclass(frozen=True)
class State:
    """What R runs need to continue after an epoch.

    `tensors` are parameters and buffers by name [R, …], `averages` the optimizer's moving averages [R, P], `steps` how
    many steps Adam has taken (0 for SGD).
    """

    tensors: dict[str, Tensor]
    averages: list[Tensor]
    steps: int

    def of(self, rows: Sequence[int]) -> Self:
        """The state of some of the runs."""
        index = torch.tensor(rows)
        tensors = {name: tensor[index] for name, tensor in self.tensors.items()}
        averages = [average[index] for average in self.averages]
        return replace(self, tensors=tensors, averages=averages)


def named_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and every buffer by name. `state_dict` would leave some buffers out."""
    return chain(network.named_parameters(), network.named_buffers())


def leaves(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """(prefix of its tensors' names, layer) in order. The layers of an `nn.Sequential` come one by one."""
    if type(network) is not nn.Sequential:
        yield prefix, network
        return
    for name, child in network.named_children():
        yield from leaves(child, f"{prefix}{name}.")


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of the module is more than its class's `forward`. (torch has no public way to ask.)"""
    replaced = not {"forward", "_conv_forward"}.isdisjoint(vars(module))
    forward = module._forward_hooks or module._forward_pre_hooks
    return bool(replaced or forward or module._backward_hooks or module._backward_pre_hooks or _has_any_global_hook())


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory. (torch's CPU allocator, cuBLAS and cuDNN raise a plain RuntimeError.)"""
    texts = "can't allocate memory", "CUDA error: out of memory", "STATUS_ALLOC_FAILED"
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in text_of(error) for text in texts)


def wrong_shape(logits: object, batch: int, classes: int) -> str | None:
    """What is wrong with a network's output; None where it is right.

    The loss alone does not find it: cross-entropy accepts more logits than there are classes.
    """
    shape = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    wanted = [batch, classes]
    if shape == wanted:
        return None
    return f"the network returned {shape} for a batch of {batch}; it must return {wanted} logits"


class Learner(Protocol):
    """R runs that learn together.

    `how` describes in words how they are trained: it is a column of runs.csv. `shortfall` says what could not be done
    as planned.
    """

    how: str
    shortfall: Shortfall | None = None
    totals: Tensor

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rates of an epoch (from 1), and seed the random numbers of its dropout."""

    def step(self, batch: Batch) -> None:
        """Take one optimizer step of every run and add to `totals`, without waiting for the device."""

    def reading(self) -> Tensor:
        """Each run's [summed loss, correct answers, samples] since the last reading, float64 [R, 3] on the CPU."""
        totals = self.totals.clone().cpu()
        self.totals.zero_()
        return totals

    def evaluate(self, split: Split) -> list[tuple[float, float]]:
        """(mean loss, accuracy) of every run in evaluation mode."""

    def member(self, run: int) -> nn.Module:
        """One run's network as it is now. The next call may overwrite it."""

    def state(self) -> State:
        """What the runs need to continue after an epoch."""

    def restore(self, state: State) -> None:
        """Continue from a state of these runs. Another kind of learner may have made it."""
