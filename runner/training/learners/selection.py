"""What a training loop drives: one network, or a stack of them, behind the same few calls."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.config.jobs import Job, even_parts
from runner.config.run_spec import RunSpec
from runner.training.data.datasets import Batch, RunData, Split
from runner.training.data.seeding import stream
from runner.training.evaluation import BATCH, evaluate
from runner.training.learners.max_pooling import quicken
from runner.training.learners.stack import Stack, State, bytes_per_run, named_tensors, obstacle, wrong_shape
from runner.training.networks import autocast, learning_rate, make_optimizer


class Learner(Protocol):
    """R runs that learn together. `how` says in words how: it is a column of runs.csv."""

    how: str

    def begin_epoch(self, epoch: int) -> None:
        """Set what an epoch (from 1) decides: learning rates, and the stream that dropout draws from."""

    def step(self, batch: Batch) -> None:
        """One optimizer step of every run. Adds to the sums of `reading`; waits for nothing."""

    def reading(self) -> Tensor:
        """Each run's [summed loss, correct answers, samples] since the last reading, float64 [R, 3] on the CPU."""

    def evaluate(self, split: Split) -> list[tuple[float, float]]:
        """(mean loss, accuracy) of every run in evaluation mode."""

    def member(self, run: int) -> nn.Module:
        """One run's network as it is now."""

    def state(self) -> State:
        """What the runs need to go on after an epoch."""

    def restore(self, state: State) -> None:
        """Go on from a state; of another learner, if it was of these runs."""


class Solo:
    """One run: the network as it was written, and torch's own optimizer."""

    def __init__(self, run: RunSpec, network: nn.Module, data: RunData, device: torch.device, how: str = "") -> None:
        self.run, self.data, self.device, self.how = run, data, device, how or "alone"
        self.network = network.to(device)
        if device.type == "cpu":
            quicken(network)
        self.optimizer = make_optimizer(run, network)
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.samples = 0

    def begin_epoch(self, epoch: int) -> None:
        torch.manual_seed(stream(self.run.seed, "dropout", epoch))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.run, epoch)
        self.network.train()

    def step(self, batch: Batch) -> None:
        images, labels = self.data.train.at(batch[0]) if isinstance(batch, Tensor) else batch
        self.optimizer.zero_grad()
        with autocast(self.run, self.device):
            logits = self.network(images)
            if fault := wrong_shape(logits, len(labels), self.data.classes):
                raise ValueError(fault)
            loss = F.cross_entropy(logits, labels)
        loss.backward()
        self.optimizer.step()
        self.loss.add_(loss.detach(), alpha=len(labels))
        self.correct.add_((logits.detach().argmax(dim=1) == labels).sum())
        self.samples += len(labels)

    def reading(self) -> Tensor:
        totals = torch.tensor([[self.loss.item(), self.correct.item(), self.samples]], dtype=torch.float64)
        self.loss.zero_()
        self.correct.zero_()
        self.samples = 0
        return totals

    def evaluate(self, split: Split) -> list[tuple[float, float]]:
        with autocast(self.run, self.device):
            found = evaluate(self.network, split)
        self.network.train()
        return [found]

    def member(self, run: int) -> nn.Module:
        assert run == 0
        return self.network

    def state(self) -> State:
        tensors = {name: tensor.detach().cpu().unsqueeze(0) for name, tensor in named_tensors(self.network)}
        states = [self.optimizer.state.get(parameter, {}) for parameter in self._trainable()]
        names = [name for name in AVERAGES[self.run.optimizer] if any(name in state for state in states)]
        pairs = list(zip(states, self._trainable(), strict=True))
        averages = [
            torch.cat([state.get(name, torch.zeros_like(own)).flatten() for state, own in pairs]).cpu().unsqueeze(0)
            for name in names
        ]
        return State(tensors, averages, max((int(state.get("step", 0)) for state in states), default=0))

    @torch.no_grad()
    def restore(self, state: State) -> None:
        for name, tensor in named_tensors(self.network):
            tensor.copy_(state.tensors[name][0])
        trainable = self._trainable()
        for name, average in zip(AVERAGES[self.run.optimizer], state.averages, strict=False):
            for parameter, values in zip(trainable, average[0].split([p.numel() for p in trainable]), strict=True):
                own = self.optimizer.state[parameter]
                own[name] = values.view(parameter.shape).to(self.device, copy=True)
                if self.run.optimizer != "sgd":
                    own["step"] = torch.tensor(float(state.steps), device=self.device)

    def _trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]


AVERAGES = {"sgd": ["momentum_buffer"], "adam": ["exp_avg", "exp_avg_sq"], "adamw": ["exp_avg", "exp_avg_sq"]}
"""What torch's optimizers keep of each parameter, in the order of a stacked optimizer's state."""


class CannotStackError(Exception):
    """This job cannot train as one stack: train these parts instead; `note` says why, where they are to be alone."""

    def __init__(self, parts: Sequence[Job], note: str = "") -> None:
        super().__init__(note)
        self.parts, self.note = parts, note


def learner_for(job: Job, networks: Sequence[nn.Module], data: RunData, device: torch.device, note: str) -> Learner:
    """A stack; on a CPU, for one run, the network itself.

    On CUDA a run alone is a stack of one: the whole step is one graph. `note` says why a run was taken out of a stack.
    Errors: CannotStackError where the runs cannot be stacked, or not all of them in this machine's memory.
    """
    if len(job) == 1 and (device.type == "cpu" or job[0].num_workers or note):
        return Solo(job[0], networks[0], data, device, note and f"alone: {note}")
    images = data.train.images
    if reason := obstacle(networks[0], images, data.classes):
        raise CannotStackError([(run,) for run in job], reason)
    samples = max(job[0].batch_size, BATCH // 3)  # an evaluation's batch keeps nothing for a backward pass
    room = max(1, free_memory(device) // bytes_per_run(networks[0], images, samples))
    if len(job) > room:
        raise CannotStackError(even_parts(job, -(-len(job) // room)))
    return Stack(job, networks, data, device)


def free_memory(device: torch.device) -> int:
    """Bytes that a stack may take: four fifths of what a GPU has free; a fourth of a machine's, shared by workers."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] * 4 // 5
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
