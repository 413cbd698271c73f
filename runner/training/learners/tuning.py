"""Times stacks on this device, and chooses the form and the size of a group's stacks by it."""

import copy
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter

import torch
from torch import nn

from runner.config.jobs import Form, stack_key
from runner.config.run_spec import RunSpec
from runner.training.data.batches import Batches
from runner.training.data.preprocessing import RunData
from runner.training.environment import code, machine
from runner.training.learners import choice_cache
from runner.training.learners.choice import SMALLEST, Candidate, Choice, Group, choose
from runner.training.learners.learner import leaves, named_tensors
from runner.training.learners.stack import Stack
from runner.training.networks import build_network
from runner.training.settings import settings_of

READING = {"cpu": 1, "cuda": 4}
"""Steps of one reading, by device. A GPU's steps are short and wait in its queue, as they do in training."""

READINGS = 5
ENOUGH = 0.1
"""Readings end after so many, or after so many seconds. The fastest one counts: others were disturbed."""


def tune(
    group: Sequence[RunSpec], data: RunData, device: torch.device, workers: int, limit: int, *, fixed: bool = False
) -> Choice:
    """The form and the size of the stacks of a group of runs, timed on this device, or found in the cache.

    workers: how many stacks train at the same time.
    limit: how many runs a stack may have, at most.
    fixed: stacks have `limit` runs; only their form is timed.
    Errors: every error of the network's factory.

    >>> from pathlib import Path
    >>> from runner.training.data.preprocessing import prepare
    >>> cpu = torch.device("cpu")
    >>> data = prepare("digits", Path(), "normal", "held_out", None, cpu)
    >>> runs = [RunSpec(network="notebook_mlp", dataset="digits", seed=seed) for seed in range(4)]
    >>> choice = tune(runs, data, cpu, workers=1, limit=100)
    >>> choice.form, choice.size, choice.reason
    ('grouped', 4, 'fewer than 8 runs are not timed')
    """
    network = build_network(group[0])
    steps = group[0].epochs * Batches(group[0], data, device).count(data.samples)
    described = Group(len(group), limit, steps, workers, forms_of(network), first=limit if fixed else SMALLEST)
    key = digest(group[0], network, data, device, described)
    if known := choice_cache.read().get(key):
        return known

    def seconds(candidate: Candidate) -> float:
        return step_seconds(group[: candidate.size], network, data, candidate.form)

    with settings_of(group[0]):
        if device.type == "cuda":
            # The first step loads CUDA's libraries, which training needs anyway. An error comes again below.
            with suppress(RuntimeError):
                seconds(Candidate("grouped", 1))
        choice = choose(seconds, described, perf_counter)
    if any(timing.seconds for timing in choice.timings):
        choice_cache.add(key, choice)
    return choice


def forms_of(network: nn.Module) -> tuple[Form, ...]:
    """The forms in which a stack of this network can differ: one where no stacked layer is a convolution.

    >>> forms_of(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    ('grouped',)
    """
    convolves = any(type(layer) is nn.Conv2d for _, layer in leaves(network))
    return ("grouped", "loop", "unfold") if convolves else ("grouped",)


def step_seconds(runs: Sequence[RunSpec], network: nn.Module, data: RunData, form: Form) -> float:
    """Seconds of a training step of these runs as one stack. Recording a CUDA graph is not part of it.

    All runs start from the weights of one network, because the time does not depend on the weights.
    Errors: RuntimeError where the stack cannot be trained, for example because its memory is not enough.
    """
    device = data.train.labels.device
    if device.type == "cuda":
        # The blocks of the stack before are of other sizes.
        torch.cuda.empty_cache()
    stack = Stack(runs, [copy.deepcopy(network)] * len(runs), data, form)
    stack.begin_epoch(1)
    orders = 1 if runs[0].share_batches else len(runs)
    samples = min(runs[0].batch_size, data.samples)
    random = torch.Generator().manual_seed(0)
    index = torch.randint(len(data.train), (orders, samples), generator=random).to(device)
    stack.step(index)
    times: list[float] = []
    while len(times) < READINGS and sum(times) < ENOUGH:
        synchronise(device)
        began = perf_counter()
        for _ in range(READING[device.type]):
            stack.step(index)
        synchronise(device)
        times.append(perf_counter() - began)
    return min(times) / READING[device.type]


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given. A CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def digest(run: RunSpec, network: nn.Module, data: RunData, device: torch.device, group: Group) -> str:
    """16 hex digits that are equal where the same stacks would be timed on the same kind of device."""
    described = (
        stack_key(run),
        [(name, list(tensor.shape)) for name, tensor in named_tensors(network)],
        [repr(layer) for _, layer in leaves(network)],
        list(data.train.images.shape),
        torch.cuda.get_device_name(device) if device.type == "cuda" else machine(),
        [torch.__version__, torch.version.cuda, torch.backends.cudnn.version(), code()],
        # Beyond the largest stack, more memory changes nothing.
        [group.runs, group.smallest, group.largest, group.steps, group.workers],
    )
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
