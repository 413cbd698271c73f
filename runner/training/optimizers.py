"""A run's optimizer and its learning rate."""

import math

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from runner.config.run_spec import RunSpec


def make_optimizer(run: RunSpec, network: nn.Module) -> Optimizer:
    """The run's optimizer over all parameters. `fused` is one kernel instead of a Python loop over tensors."""
    parameters = network.parameters()
    if run.optimizer == "sgd":
        optimizer = SGD(parameters, lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay, fused=True)
        if run.momentum:
            optimizer.register_step_pre_hook(_begin_momentum)
        return optimizer
    kind = Adam if run.optimizer == "adam" else AdamW
    return kind(parameters, lr=run.lr, weight_decay=run.weight_decay, fused=True)


def _begin_momentum(optimizer: Optimizer, *_: object) -> None:
    """Let the momentum of a parameter begin at 0, at the first step at which the parameter has a gradient.

    torch's fused kernel needs the momentum of all parameters, or of none. But a layer may be used later than others.
    The first momentum is μ·0 + g = g, as in torch's other SGDs.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and "momentum_buffer" not in optimizer.state[parameter]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter.grad)


def learning_rate(run: RunSpec, epoch: int) -> float:
    """The learning rate of an epoch (from 1), in closed form: a resumed run needs no state of a scheduler.

    `step` is torch's StepLR. `cosine` is its CosineAnnealingLR with T_max = epochs (Loshchilov & Hutter 2017, eq. 5).

    >>> run = RunSpec(network="lenet", lr=0.5, lr_schedule="step", lr_step=10, lr_gamma=0.5)
    >>> [learning_rate(run, epoch) for epoch in (1, 10, 11, 21)]
    [0.5, 0.5, 0.25, 0.125]
    """
    match run.lr_schedule:
        case "none":
            return run.lr
        case "step":
            return run.lr * run.lr_gamma ** ((epoch - 1) // run.lr_step)
        case "cosine":
            return run.lr * (1 + math.cos(math.pi * (epoch - 1) / run.epochs)) / 2
