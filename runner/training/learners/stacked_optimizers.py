"""The optimizer of a whole stack: parameters [R, P], each run's hyperparameters [R, 1].

It does the arithmetic of torch.optim's SGD, Adam and AdamW for all runs with one kernel per operation. Hyperparameters
are tensors, so that a recorded CUDA graph reads the current ones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from runner.config.run_spec import RunSpec
from runner.training.optimizers import learning_rate

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
"""torch.optim.Adam's defaults."""


class StackedOptimizer:
    """One optimizer for the runs of a stack, which share the kind of optimizer.

    `averages` are moving averages [R, P]: SGD's velocity where a run has momentum, Adam's mean and squared gradients.
    `steps` counts Adam's steps.
    """

    def __init__(self, runs: Sequence[RunSpec], parameters: Tensor) -> None:
        self.runs, self.parameters, self.kind = runs, parameters, runs[0].optimizer
        self.lr = self._column([run.lr for run in runs])
        self.weight_decay = self._column([run.weight_decay for run in runs])
        self.momentum = self._column([run.momentum for run in runs])
        self.decays = any(run.weight_decay for run in runs)
        average_count = int(any(run.momentum for run in runs)) if self.kind == "sgd" else 2
        self.averages = [torch.zeros_like(parameters) for _ in range(average_count)]
        self.steps = torch.zeros((), dtype=torch.float64, device=parameters.device)

    def _column(self, values: Sequence[float]) -> Tensor:
        return self.parameters.new_tensor(values).unsqueeze(1)

    def begin_epoch(self, epoch: int) -> None:
        """Set each run's learning rate for an epoch (from 1)."""
        self.lr.copy_(self._column([learning_rate(run, epoch) for run in self.runs]))

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """Move the parameters by their gradients [R, P]; may change the gradients.

        AdamW's weight decay is decoupled (Loshchilov & Hutter 2019, algorithm 2). The others add it to the gradient.
        """
        if self.decays and self.kind == "adamw":
            self.parameters.mul_(1 - self.lr * self.weight_decay)
        elif self.decays:
            gradient.addcmul_(self.parameters, self.weight_decay)
        update = self._sgd if self.kind == "sgd" else self._adam
        update(gradient)

    def _sgd(self, gradient: Tensor) -> None:
        """SGD with momentum that is not dampened: v ← μv + g, w ← w − lr·v."""
        for velocity in self.averages:
            gradient = velocity.mul_(self.momentum).add_(gradient)
        self.parameters.addcmul_(gradient, self.lr, value=-1)

    def _adam(self, gradient: Tensor) -> None:
        """Adam (Kingma & Ba 2015, algorithm 1)."""
        mean, square = self.averages
        self.steps.add_(1)
        mean.lerp_(gradient, 1 - BETA1)
        square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        step_size = self.lr / (1 - BETA1**self.steps)
        deviation = square.sqrt().div_((1 - BETA2**self.steps).sqrt()).add_(EPS)
        self.parameters.addcdiv_(mean * step_size, deviation, value=-1)
