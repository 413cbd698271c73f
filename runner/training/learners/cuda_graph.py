"""A step recorded as a CUDA graph: one launch instead of a hundred."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM_UP = 3
"""Steps before a capture, for cuBLAS and cuDNN to choose and allocate (torch's notes on CUDA graphs)."""

StepFunction = Callable[[Tensor], None]


class Captured:
    """A step over indices of one shape, replayed. Whatever the step changes must be in `state` or `generators`.

    Errors: RuntimeError where the step cannot be captured; its state is as before.
    """

    def __init__(
        self, step: StepFunction, index: Tensor, state: Sequence[Tensor], generators: Sequence[torch.Generator]
    ) -> None:
        self.index = index.clone()
        side = torch.cuda.Stream(index.device)
        side.wait_stream(torch.cuda.current_stream(index.device))
        with torch.cuda.stream(side):
            rehearse(step, self.index, state, generators)
        torch.cuda.current_stream(index.device).wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        for generator in generators:
            self.graph.register_generator_state(generator)
        with torch.cuda.graph(self.graph):
            step(self.index)

    def __call__(self, index: Tensor) -> None:
        self.index.copy_(index)
        self.graph.replay()


def rehearse(step: StepFunction, index: Tensor, state: Sequence[Tensor], generators: Sequence[torch.Generator]) -> None:
    """Take a few steps, then put everything back as it was."""
    before = [tensor.clone() for tensor in state]
    streams = [generator.get_state() for generator in generators]
    for _ in range(WARM_UP):
        step(index)
    with torch.no_grad():
        for tensor, values in zip(state, before, strict=True):
            tensor.copy_(values)
    for generator, stream in zip(generators, streams, strict=True):
        generator.set_state(stream)
