"""A run's network and optimizer: built, counted, hashed."""

from __future__ import annotations

import hashlib
import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from runner import registry
from runner.errors import UserError

if TYPE_CHECKING:
    from runner.config.run_spec import RunSpec

_NORMS = (
    nn.modules.batchnorm._NormBase,  # BatchNorm*, InstanceNorm*, SyncBatchNorm
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


def resolve_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one. Errors: UserError where the device named is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        there = ", ".join(["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))])
        raise UserError(f"device '{name}' is not on this machine; allowed here: auto, {there}")
    return device


def autocast(run: RunSpec, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a run's forward passes are computed: bfloat16 where its precision says so."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if run.precision == "bf16" else nullcontext()


def build_network(run: RunSpec) -> nn.Module:
    """The run's network on the CPU, its weights drawn by the run's seed.

    The seed is torch's own, as in the tutorial's `torch.manual_seed(50)`: seed 50 here gives its very weights.
    Errors: TypeError where the factory returns no module; whatever the factory raises.
    """
    torch.manual_seed(run.seed)
    network = registry.network[run.network](**run.factory_kwargs)
    if not isinstance(network, nn.Module):
        raise TypeError(f"network '{run.network}' returned a {type(network).__name__}, not a torch.nn.Module")
    return network


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalization layer: torch's, or one that says `is_norm = True`."""
    return isinstance(module, _NORMS) or getattr(module, "is_norm", False) is True


def parameter_count(network: nn.Module) -> int:
    """How many trainable numbers there are."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def weights_hash(network: nn.Module) -> str:
    """A digest of the parameters outside normalization layers, in their order: 16 hex digits.

    Two arms with equal digests start from the same shared weights.
    """
    digest = hashlib.sha256()
    for module in network.modules():
        if is_norm(module):
            continue
        for parameter in module.parameters(recurse=False):
            values = parameter.detach().cpu().contiguous()
            digest.update(str(tuple(values.shape)).encode())
            digest.update(values.view(torch.uint8).numpy().tobytes() if values.dim() else values.numpy().tobytes())
    return digest.hexdigest()[:16]


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
