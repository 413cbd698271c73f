"""The learner: what the training loop drives."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from runner.errors import text_of
from runner.storage.rows import Shortfall
from runner.training.data.batches import Batch
from runner.training.data.datasets import Split

Attributes = dict[str, dict[str, bool | int | float | str | None]]
"""Numbers and texts by the name of a layer and the name of its attribute."""


@dataclass(frozen=True)
class State:
    """What one run needs to continue after an epoch, on the CPU, by the names of its parameters, buffers and layers.

    `tensors` are all parameters and buffers. `trainable` names the parameters that have a gradient. `optimizer` is
    what torch's optimizer keeps for a parameter, by torch's names, such as `exp_avg` and `step`. A parameter that no
    step has moved yet has none. `attributes` are those that have changed since the network was built.
    """

    tensors: dict[str, Tensor]
    trainable: list[str]
    optimizer: dict[str, dict[str, Tensor]]
    attributes: Attributes


def named_tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and every buffer by name. `state_dict` would leave some buffers out."""
    return chain(network.named_parameters(), network.named_buffers())


_OWN = vars(nn.Module()).keys()
"""The attributes that `nn.Module` itself has, such as its hooks."""


def attributes(layer: nn.Module) -> dict[str, Any]:
    """What a layer has as attributes, besides its parameters, buffers and layers."""
    # With torch's older weight norm, a weight is computed anew at each step.
    computed = {name.removesuffix(end) for name in layer._parameters for end in ("_g", "_orig") if name.endswith(end)}
    return {key: value for key, value in vars(layer).items() if key not in _OWN and key not in computed}


def is_plain(value: object) -> bool:
    """Whether a checkpoint holds such a value of an attribute: a number, a text, or None."""
    return value is None or type(value) in (bool, int, float, str)


def plain_attributes(network: nn.Module) -> Attributes:
    """The numbers and texts that layers have as attributes: a network may count its steps in one.

    >>> plain_attributes(nn.Dropout(0.5))
    {'': {'p': 0.5, 'inplace': False}}
    """
    return {
        name: {key: value for key, value in attributes(layer).items() if is_plain(value)}
        for name, layer in network.named_modules()
    }


def changed_attributes(network: nn.Module, before: Attributes) -> Attributes:
    """The plain attributes of a network that differ from what they were before."""
    changed: Attributes = {}
    for name, own in plain_attributes(network).items():
        known = before.get(name, {})
        if new := {key: value for key, value in own.items() if key not in known or known[key] != value}:
            changed[name] = new
    return changed


def set_attributes(network: nn.Module, attributes: Attributes) -> None:
    """Set attributes of a network's layers."""
    for name, values in attributes.items():
        vars(network.get_submodule(name)).update(values)


def leaves(network: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """(prefix of its tensors' names, layer) in order. The layers of an `nn.Sequential` come one by one."""
    if type(network) is not nn.Sequential:
        yield prefix, network
        return
    for name, child in network.named_children():
        yield from leaves(child, f"{prefix}{name}.")


def tell_epoch(tensors: Iterable[tuple[str, Tensor]], epoch: int) -> None:
    """Set every buffer with the name `current_epoch` to an epoch (from 1): so a layer knows in which one it trains.

    >>> layer = nn.Module()
    >>> layer.register_buffer("current_epoch", torch.tensor(0))
    >>> tell_epoch(named_tensors(nn.Sequential(layer)), 3)
    >>> layer.current_epoch
    tensor(3)
    """
    for name, tensor in tensors:
        if name.rpartition(".")[2] == "current_epoch":
            tensor.fill_(epoch)


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
        """Set the learning rates of an epoch (from 1), seed its dropout, and tell the layers which it is."""

    def step(self, batch: Batch) -> None:
        """Take one optimizer step of every run and add to `totals`, without waiting for the device."""

    def reading(self) -> Tensor:
        """Each run's [summed loss, correct answers, samples] since the last reading, float64 [R, 3] on the CPU."""
        totals = self.totals.clone().cpu()
        self.totals.zero_()
        return totals

    def reestimate(self) -> None:
        """Set the averages of the layers that ask for it (`averages.precise_layers`), for the current weights.

        Nothing else changes: the passes through the networks use copies.
        """

    def evaluate(self, split: Split, own: Tensor | None = None) -> list[tuple[float, float]]:
        """(mean loss, accuracy) of every run in evaluation mode.

        It is measured on the whole split, or on each run's own samples at the positions `own` [R, N].
        """

    def hits(self, split: Split) -> Tensor:
        """Which samples each run classifies correctly in evaluation mode: bool [R, N]."""

    def member(self, run: int) -> nn.Module:
        """One run's network as it is now. The next call may overwrite it."""

    def states(self) -> list[State]:
        """What each run needs to continue after an epoch."""

    def restore(self, states: Sequence[State]) -> None:
        """Continue from the states of these runs. Another kind of learner may have made them."""
