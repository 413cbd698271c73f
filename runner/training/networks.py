"""A run's network: built, counted, hashed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import nn

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
