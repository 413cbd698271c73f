"""A training step recorded as a CUDA graph: the GPU gets one launch instead of a hundred."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor

WARM_UP = 3
"""Steps before the recording, in which cuBLAS and cuDNN choose kernels and allocate (torch's notes on CUDA graphs)."""

StepFunction = Callable[[Tensor], None]


def on_device(device: torch.device) -> AbstractContextManager[object]:
    """Inside the block, CUDA's current device is this one. On a CPU, the block does nothing."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream on which a device's steps are rehearsed and recorded.

    `torch.cuda.graph` has one stream for all devices, which is the first one's. Streams that call cuBLAS keep memory,
    so there is one per device.
    """
    return torch.cuda.Stream(device)


class Captured:
    """A step over indices of one shape, recorded once and then replayed.

    `state` must hold every tensor that the step changes, the parameters first. `pool` is the memory of another
    recording of the same runs: they share it, because they never run at the same time.
    Errors: RuntimeError where the step cannot be recorded, or where the recording changes no parameter. The state is
    then as it was before.
    """

    def __init__(self, step: StepFunction, index: Tensor, state: Sequence[Tensor], pool: Any = None) -> None:
        self.index = index.clone()
        self.device = index.device
        stream = capture_stream(self.device)
        with on_device(self.device):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                trains = rehearse(step, self.index, state)
            torch.cuda.current_stream().wait_stream(stream)
            self.graph = torch.cuda.CUDAGraph()
            # The outer block puts the stream back where a recording fails: `torch.cuda.graph` does not.
            with torch.cuda.stream(stream), torch.cuda.graph(self.graph, pool=pool, stream=stream):
                step(self.index)
            self.pool = self.graph.pool()
            # torch only warns of a recording without kernels.
            with unchanged(state) as before:
                self.graph.replay()
                if trains and torch.equal(state[0], before[0]):
                    raise RuntimeError("the recorded step changes no parameter")

    def __call__(self, index: Tensor) -> None:
        with on_device(self.device):
            self.index.copy_(index)
            self.graph.replay()


def rehearse(step: StepFunction, index: Tensor, state: Sequence[Tensor]) -> bool:
    """Take a few steps, then put everything back as it was. Returns whether the first step changed the parameters.

    Errors: those of the step. The state is put back then, too.
    """
    with unchanged(state) as before:
        step(index)
        changed = not torch.equal(state[0], before[0])
        for _ in range(WARM_UP - 1):
            step(index)
    return changed


@contextmanager
def unchanged(state: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The values before the block. After it, the tensors have them again."""
    before = [tensor.clone() for tensor in state]
    try:
        yield before
    finally:
        for tensor, values in zip(state, before, strict=True):
            tensor.detach().copy_(values)
