"""A training step recorded as a CUDA graph: the GPU gets one launch instead of a hundred."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM_UP = 3
"""Steps before the recording, in which cuBLAS and cuDNN choose kernels and allocate (torch's notes on CUDA graphs)."""

StepFunction = Callable[[Tensor], None]
Generators = Sequence[torch.Generator]


class Captured:
    """A step over indices of one shape, recorded once and then replayed.

    `state` must hold every tensor that the step changes, and `generators` every generator that it draws from.
    Errors: RuntimeError where the step cannot be recorded. The state is then as it was before.
    """

    def __init__(self, step: StepFunction, index: Tensor, state: Sequence[Tensor], generators: Generators) -> None:
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


def rehearse(step: StepFunction, index: Tensor, state: Sequence[Tensor], generators: Generators) -> None:
    """Take a few steps, then put everything back as it was."""
    before = [tensor.clone() for tensor in state]
    random_states = [generator.get_state() for generator in generators]
    for _ in range(WARM_UP):
        step(index)
    for tensor, values in zip(state, before, strict=True):
        tensor.detach().copy_(values)
    for generator, random_state in zip(generators, random_states, strict=True):
        generator.set_state(random_state)
