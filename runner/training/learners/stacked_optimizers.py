"""Optimizers of a whole stack: parameters [R, P], each run's hyperparameters [R, 1].

The arithmetic of torch.optim's SGD, Adam and AdamW, all runs in one kernel an operation. Hyperparameters are tensors,
so that a captured CUDA graph reads the current ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runner.config.run_spec import RunSpec
from runner.training.optimizers import learning_rate

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
"""torch.optim.Adam's defaults."""


class StackedOptimizer:
    """One optimizer for the runs of a stack. `state` is all that a step changes besides the parameters."""

    def __init__(self, runs: Sequence[RunSpec], parameters: Tensor) -> None:
        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=parameters.dtype, device=parameters.device).unsqueeze(1)

        self.runs, self.parameters = runs, parameters
        self.lr = column([run.lr for run in runs])
        self.weight_decay = column([run.weight_decay for run in runs])
        self.momentum = column([run.momentum for run in runs])
        self.decays = any(run.weight_decay for run in runs)
        self.averages = any(run.momentum for run in runs)
        self.state: list[Tensor] = []

    def begin_epoch(self, epoch: int) -> None:
        """Set each run's learning rate for an epoch (from 1)."""
        rates = torch.tensor([learning_rate(run, epoch) for run in self.runs], dtype=self.lr.dtype)
        self.lr.copy_(rates.unsqueeze(1))

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Move the parameters by their gradients [R, P], which it may change."""
        raise NotImplementedError

    def _decay(self, gradient: Tensor) -> None:
        """L2: the decay is part of the gradient."""
        if self.decays:
            gradient.addcmul_(self.parameters, self.weight_decay)


class StackedSGD(StackedOptimizer):
    """SGD with momentum, not dampened: v ← μv + g, w ← w − lr·v."""

    def __init__(self, runs: Sequence[RunSpec], parameters: Tensor) -> None:
        super().__init__(runs, parameters)
        self.state = [torch.zeros_like(parameters)] if self.averages else []

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        self._decay(gradient)
        for velocity in self.state:
            gradient = velocity.mul_(self.momentum).add_(gradient)
        self.parameters.addcmul_(gradient, self.lr, value=-1)


class StackedAdam(StackedOptimizer):
    """Adam (Kingma & Ba 2015, algorithm 1)."""

    def __init__(self, runs: Sequence[RunSpec], parameters: Tensor) -> None:
        super().__init__(runs, parameters)
        steps = torch.zeros((), dtype=torch.float64, device=parameters.device)
        self.state = [steps, torch.zeros_like(parameters), torch.zeros_like(parameters)]

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        self._decay(gradient)
        steps, mean, square = self.state
        steps.add_(1)
        mean.lerp_(gradient, 1 - BETA1)
        square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        step_size = self.lr / (1 - BETA1**steps)
        deviation = square.sqrt().div_((1 - BETA2**steps).sqrt()).add_(EPS)
        self.parameters.addcdiv_(mean * step_size, deviation, value=-1)


class StackedAdamW(StackedAdam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2)."""

    def _decay(self, gradient: Tensor) -> None:  # noqa: ARG002
        if self.decays:
            self.parameters.mul_(1 - self.lr * self.weight_decay)


STACKED: dict[str, type[StackedOptimizer]] = {"sgd": StackedSGD, "adam": StackedAdam, "adamw": StackedAdamW}
