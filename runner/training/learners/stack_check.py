"""Whether runs of a network can train as a stack, and how much memory one of them takes."""

import copy
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from runner.errors import text_of
from runner.training.data.seeding import generators_unchanged
from runner.training.learners import stacked_layers
from runner.training.learners.dropout import seed_dropout
from runner.training.learners.learner import has_hooks, wrong_shape
from runner.training.learners.stack import stacked_tensors
from runner.training.networks import trainable

SAMPLES = 8
"""How many samples a stack is tried on: enough for batch norm, and little work."""


def obstacle(network: nn.Module, images: Tensor, classes: int, other: nn.Module | None = None) -> str | None:
    """Why runs of this network must train one at a time; None where a stack computes the same as they do.

    The function tries two networks with different weights on a few of the images [N, C, H, W], alone and stacked, in
    training and in evaluation mode. Outputs, buffers and gradients must agree. The second network is `other`, the
    network of another seed, or else a copy with other weights.

    >>> images = torch.zeros(8, 1, 28, 28)
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    >>> obstacle(network, images, classes=10) is None
    True
    >>> obstacle(network, images, classes=12)
    'the network returned [8, 10] for a batch of 8; it must return [8, 12] logits'
    """
    if any(has_hooks(module) for module in network.modules()):
        return "a layer has hooks"
    if len(list(network.named_parameters(remove_duplicate=False))) != len(list(network.parameters())):
        return "two layers share a parameter"
    if not trainable(network):
        return "it has no trainable parameter"
    try:
        with generators_unchanged(torch.device("cpu")):
            return _difference(network, other, images[:SAMPLES].cpu(), classes)
    except (Exception, SystemExit) as error:
        first_line = text_of(error).partition("\n")[0]
        return first_line.split(". ")[0] or type(error).__name__


def other_settings(network: nn.Module, other: nn.Module) -> str | None:
    """What two networks have that a stack would take from the first one for both; None where there is nothing.

    A stack has the parameters and buffers of each run. It has everything else from the network of its first run.

    >>> other_settings(nn.Sequential(nn.LeakyReLU(0.1)), nn.Sequential(nn.LeakyReLU(0.2)))
    "negative_slope of layer '0' is another number or text for another seed"
    """
    others = dict(other.named_modules())
    for name, module in network.named_modules():
        ours, theirs = (vars(each) if each else {} for each in (module, others.get(name)))
        for key in sorted(ours.keys() | theirs.keys()):
            if not key.startswith("_") and key != "training" and _differ(ours.get(key), theirs.get(key)):
                return f"{key} of layer '{name}' is another number or text for another seed"
    return None


def _differ(a: Any, b: Any) -> bool:
    """Whether two values differ. Functions and objects are not compared: each network has its own ones."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return not torch.equal(a, b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) != len(b) or any(map(_differ, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() != b.keys() or any(_differ(a[key], b[key]) for key in a)
    plain = int | float | complex | str | bytes | None
    return isinstance(a, plain) and isinstance(b, plain) and a != b


def _difference(network: nn.Module, other: nn.Module | None, images: Tensor, classes: int) -> str | None:
    """What a stack of two networks computes otherwise than the two alone."""
    networks = [copy.deepcopy(network), copy.deepcopy(other or network)]
    with torch.no_grad():
        for parameter in networks[1].parameters():
            parameter.mul_(1.1)
    tensors, leaves, _ = stacked_tensors(networks, torch.device("cpu"))
    keys = torch.arange(2)
    for run, own in enumerate(networks):
        seed_dropout(own, keys[run : run + 1])
    program = stacked_layers.program(networks[0], tensors)
    for training, name in ((True, "training"), (False, "evaluation")):
        # A network may change its input.
        alone = [own.train(training)(images.clone()) for own in networks]
        if fault := wrong_shape(alone[0], len(images), classes):
            return fault
        mode = stacked_layers.Mode(2, training, keys)
        stacked = stacked_layers.run(program, images.clone().unsqueeze(1), mode)
        if not _close(stacked, torch.stack(alone, dim=1)):
            return f"stacked, it computes something else in {name} mode"
        if training:
            ours = torch.autograd.grad(stacked.sum(), leaves, allow_unused=True)
            if any(gradient is None for gradient in ours):
                return "a parameter has no gradient"
            for run, (own, output) in enumerate(zip(networks, alone, strict=True)):
                theirs = torch.autograd.grad(output.sum(), trainable(own))
                if not all(_close(mine[run], gradient) for mine, gradient in zip(ours, theirs, strict=True)):
                    return "stacked, a parameter has another gradient"
        for run, own in enumerate(networks):
            for key, buffer in own.named_buffers():
                if not _close(tensors[key][run], buffer):
                    return f"stacked, its buffer {key} gets other values"
    return None


def _close(a: Tensor, b: Tensor) -> bool:
    """Whether tensors agree, except for rounding. A sum's rounding is as large as its largest terms make it."""
    largest = float(b.detach().abs().max()) if b.numel() else 0.0
    return torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-4 * max(1.0, largest))


def bytes_per_run(network: nn.Module, images: Tensor, samples: int) -> int:
    """Estimate the memory that one more run of a stack takes in a step over so many samples.

    The estimate has three parts: what autograd keeps for a few images, scaled to all samples; the gradients before and
    behind a layer, at most twice the largest of the kept activations; the parameters, their gradients and Adam's
    averages. It is 1 to 2 times the peak that torch's profiler measures on a CPU for the registered networks and norm
    layers at batch 1000.
    """
    images = images[:SAMPLES].cpu().clone().unsqueeze(1)
    trial, keys = copy.deepcopy(network), torch.zeros(1, dtype=torch.int64)
    seed_dropout(trial, keys)
    tensors, _, parameters = stacked_tensors([trial], torch.device("cpu"))
    own = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    # The address of a tensor → its bytes.
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.data_ptr()] = max(tensor.nbytes, kept.get(tensor.data_ptr(), 0))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = stacked_layers.run(
            stacked_layers.program(trial, tensors), images, stacked_layers.Mode(1, training=True, keys=keys)
        )
    # The output lived until here, so that no kept tensor was freed and its address used again.
    del output
    # Images have no gradient.
    inputs = kept.pop(images.data_ptr(), 0)
    activations = inputs + sum(kept.values()) + 2 * max(kept.values(), default=0)
    return activations * samples // len(images) + 6 * parameters.nbytes


def free_memory(device: torch.device) -> int:
    """How many bytes a stack may take: 4/5 of a GPU's free memory; 1/4 of the machine's, which workers share."""
    if device.type == "cuda":
        # CUDA counts the blocks that torch keeps for later as used.
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0] * 4 // 5
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
