"""The optimizer of a whole stack: parameters [R, P], each run's hyperparameters [R, 1].

It does the arithmetic of torch.optim's SGD, Adam and AdamW for all runs with one kernel per operation. Hyperparameters
are tensors, so that a recorded CUDA graph reads the current ones.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from runner.config.run_spec import RunSpec
from runner.training.optimizers import learning_rate

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
"""torch.optim.Adam's defaults."""

AVERAGES = {"sgd": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq"), "adamw": ("exp_avg", "exp_avg_sq")}
"""What torch's optimizers call their moving averages."""


class StackedOptimizer:
    """One optimizer for the runs of a stack, which share the kind of optimizer.

    `shapes` are those of a run's parameters by name, in their order in `parameters` [R, P]. `averages` are moving
    averages [R, P]: SGD's velocity where a run has momentum, Adam's mean and squared gradients. `steps` counts Adam's
    steps.
    """

    def __init__(self, runs: Sequence[RunSpec], parameters: Tensor, shapes: Mapping[str, torch.Size]) -> None:
        self.runs, self.parameters, self.shapes, self.kind = runs, parameters, shapes, runs[0].optimizer
        self.lr = self._column([run.lr for run in runs])
        self.weight_decay = self._column([run.weight_decay for run in runs])
        self.momentum = self._column([run.momentum for run in runs])
        self.decays = any(run.weight_decay for run in runs)
        self.names = AVERAGES[self.kind] if self.kind != "sgd" or any(run.momentum for run in runs) else ()
        self.averages = [torch.zeros_like(parameters) for _ in self.names]
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

    def states(self) -> list[dict[str, dict[str, Tensor]]]:
        """What torch's optimizer of each run would keep for each parameter, on the CPU."""
        steps = {} if self.kind == "sgd" else {"step": self.steps.float().cpu()}
        averages = [self._by_parameter(average.cpu().clone()) for average in self.averages]
        return [
            {
                name: {key: average[name][run] for key, average in zip(self.names, averages, strict=True)} | steps
                for name in (self.shapes if self.averages else ())
            }
            for run in range(len(self.runs))
        ]

    def restore(self, states: Sequence[Mapping[str, Mapping[str, Tensor]]]) -> None:
        """Continue from what `states` returned, or from what torch's optimizer of each run kept.

        Errors: ValueError where a run's parameters have taken different numbers of steps: a stack has one number.
        """
        steps = {float(own["step"]) for state in states for own in state.values() if "step" in own}
        complete = all(state.keys() == self.shapes.keys() for state in states)
        if self.kind != "sgd" and (len(steps) > 1 or not complete):
            raise ValueError("the parameters of a run have taken different numbers of steps")
        self.steps.fill_(max(steps, default=0.0))
        for key, average in zip(self.names, self.averages, strict=True):
            for name, own in self._by_parameter(average).items():
                for run, state in enumerate(states):
                    # Alone, a run without momentum has no average, and a stack does not use the one that it has.
                    if key in (kept := state.get(name, {})):
                        own[run].copy_(kept[key])

    def _by_parameter(self, flat: Tensor) -> dict[str, Tensor]:
        """Views [R, …] of a tensor [R, P], by the names of the parameters."""
        parts = flat.split([shape.numel() for shape in self.shapes.values()], dim=1)
        return {
            name: part.view(len(self.runs), *shape)
            for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)
        }
