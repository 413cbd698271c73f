"""A run's optimizer and its learning rate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

if TYPE_CHECKING:
    from runner.config.run_spec import RunSpec


def make_optimizer(run: RunSpec, network: nn.Module) -> Optimizer:
    """The run's optimizer over all parameters; one fused kernel instead of a Python loop over tensors."""
    parameters = network.parameters()
    match run.optimizer:
        case "sgd":
            return SGD(parameters, lr=run.lr, momentum=run.momentum, weight_decay=run.weight_decay, fused=True)
        case "adam":
            return Adam(parameters, lr=run.lr, weight_decay=run.weight_decay, fused=True)
        case "adamw":
            return AdamW(parameters, lr=run.lr, weight_decay=run.weight_decay, fused=True)


def learning_rate(run: RunSpec, epoch: int) -> float:
    """The learning rate of an epoch (from 1), in closed form, so that a resumed run needs no scheduler's state.

    `step` is torch's StepLR, `cosine` its CosineAnnealingLR with T_max = epochs (Loshchilov & Hutter 2017, eq. 5).
    """
    match run.lr_schedule:
        case "none":
            return run.lr
        case "step":
            return run.lr * run.lr_gamma ** ((epoch - 1) // run.lr_step)
        case "cosine":
            return run.lr * (1 + math.cos(math.pi * (epoch - 1) / run.epochs)) / 2
