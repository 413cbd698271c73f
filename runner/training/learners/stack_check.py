"""Whether runs of a network can train as a stack, and how much memory a run of it takes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from runner.training.learners import stacked_layers as layers
from runner.training.learners.learner import has_hooks, wrong_shape
from runner.training.learners.stack import stacked_tensors
from runner.training.learners.stacked_layers import Mode

SAMPLES = 8
"""How many samples a stack is tried on: enough for batch norm, little work."""


def obstacle(network: nn.Module, images: Tensor, classes: int) -> str | None:
    """Why runs of this network must train one at a time; None where a stack of them computes what they compute.

    Tried on a few images [N, C, H, W]: two networks with different weights, alone and stacked, in training and
    evaluation mode; outputs, buffers and gradients must agree.
    """
    if any(has_hooks(module) for module in network.modules()):
        return "a layer has hooks"
    if len(list(network.named_parameters(remove_duplicate=False))) != len(list(network.parameters())):
        return "two layers share a parameter"
    if not any(parameter.requires_grad for parameter in network.parameters()):
        return "it has no trainable parameter"
    try:
        return _difference(network, images[:SAMPLES].cpu(), classes)
    except Exception as error:
        return str(error).splitlines()[0].split(". ")[0] if str(error) else type(error).__name__


def _difference(network: nn.Module, images: Tensor, classes: int) -> str | None:
    pair = [copy.deepcopy(network), copy.deepcopy(network)]
    with torch.no_grad():
        for parameter in pair[1].parameters():
            parameter.mul_(1.1)
    tensors, leaves, _ = stacked_tensors(pair, torch.device("cpu"))
    program = layers.program(copy.deepcopy(network), tensors)
    for training in (True, False):
        alone = [_forward(own.train(training), images, seed) for seed, own in enumerate(pair)]
        if fault := wrong_shape(alone[0], len(images), classes):
            return fault
        mode = Mode(2, training, [torch.Generator().manual_seed(seed) for seed in range(2)])
        stacked = layers.run(program, images.unsqueeze(1), mode)
        if not torch.allclose(stacked, torch.stack(alone, dim=1), rtol=1e-3, atol=1e-4):
            return f"stacked, it computes something else in {'training' if training else 'evaluation'} mode"
        if training and any(g is None for g in torch.autograd.grad(stacked.sum(), leaves, allow_unused=True)):
            return "a parameter has no gradient"
        for run, own in enumerate(pair):
            for name, buffer in own.named_buffers():
                if not torch.allclose(tensors[name][run].float(), buffer.float(), rtol=1e-3, atol=1e-4):
                    return f"stacked, its buffer {name} comes out differently"
    return None


def _forward(network: nn.Module, images: Tensor, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output: Tensor = network(images)
        return output


def bytes_per_run(network: nn.Module, images: Tensor, samples: int) -> int:
    """An estimate of the memory one more run of a stack takes in a step over so many samples.

    What autograd keeps of a few images, scaled, twice (gradients of activations live beside them), and the parameters
    with their gradients and averages.
    """
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    trial = copy.deepcopy(network).train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = _forward(trial, images[:SAMPLES].cpu(), 0)
    parameters = sum(parameter.nbytes for parameter in network.parameters())
    del output  # until here: what was kept must not be freed and its address taken again
    return 2 * sum(kept.values()) * samples // len(images[:SAMPLES]) + 6 * parameters
