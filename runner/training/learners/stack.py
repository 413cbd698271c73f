"""Many runs of one architecture trained as one batched model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.config.run_spec import RunSpec
from runner.training.data.batches import Batch
from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData
from runner.training.data.seeding import stream
from runner.training.evaluation import BATCH, means
from runner.training.learners import stacked_layers as layers
from runner.training.learners.cuda_graph import Captured
from runner.training.learners.learner import State, named_tensors
from runner.training.learners.stacked_layers import Mode
from runner.training.learners.stacked_optimizers import STACKED
from runner.training.settings import autocast


class Stack:
    """The learner of R runs that differ only in what `grouping.STACKABLE` names.

    All trainable parameters lie in one tensor [R, P], of which each layer's are views. The loss is the sum over runs of
    each one's mean over its batch, so that each run's gradient is its own. A run that diverges fills its own rows with
    NaN and no others.
    """

    def __init__(
        self, runs: Sequence[RunSpec], networks: Sequence[nn.Module], data: RunData, device: torch.device
    ) -> None:
        self.runs, self.data, self.device = runs, data, device
        self.template = networks[0].to(device)
        self.tensors, self.leaves, parameters = stacked_tensors(networks, device)
        self.program = layers.program(self.template, self.tensors)
        self.optimizer = STACKED[runs[0].optimizer](runs, parameters)
        self.generators = [torch.Generator(device) for _ in runs]
        self.totals = torch.zeros(len(runs), 3, dtype=torch.float64, device=device)
        buffers = [tensor for tensor in self.tensors.values() if not tensor.requires_grad]
        self.moving = [parameters, *buffers, *self.optimizer.state, self.totals]
        self.graphs: dict[int, Captured] = {}
        self.captures = device.type == "cuda"
        self.how = f"stack of {len(runs)}" + (", CUDA graph" if self.captures else "")

    def begin_epoch(self, epoch: int) -> None:
        self.optimizer.begin_epoch(epoch)
        for run, generator in zip(self.runs, self.generators, strict=True):
            generator.manual_seed(stream(run.seed, "dropout", epoch))

    def step(self, batch: Batch) -> None:
        """One optimizer step of every run, on the samples of an index [R, B], or [1, B] for all runs the same."""
        assert isinstance(batch, Tensor), "a DataLoader serves one run"
        if self.captures:
            self._replay(batch)
        else:
            self._step(batch)

    def _replay(self, index: Tensor) -> None:
        size = index.shape[1]  # a ragged last batch has a graph of its own
        if size not in self.graphs:
            try:
                self.graphs[size] = Captured(self._step, index, self.moving, self.generators)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self.captures = False
                self.how = f"stack of {len(self.runs)}, no CUDA graph: {str(error).splitlines()[0]}"
                self._step(index)
                return
        self.graphs[size](index)

    def _step(self, index: Tensor) -> None:
        split, runs = self.data.train, len(self.runs)
        labels = split.labels[index].expand(runs, -1)
        with autocast(self.runs[0], self.device):
            logits = self.forward(split.images[index.T], training=True)
            losses = cross_entropy(logits, labels)
        gradients = torch.autograd.grad(losses.sum(), self.leaves)
        self.optimizer.step(torch.cat([gradient.reshape(runs, -1) for gradient in gradients], dim=1))
        self._count(self.totals, losses.detach(), logits.detach(), labels)

    def forward(self, images: Tensor, *, training: bool) -> Tensor:
        """Images [B, R or 1, C, H, W] to logits [B, R, K]."""
        return layers.run(self.program, images, Mode(len(self.runs), training, self.generators))

    @staticmethod
    def _count(totals: Tensor, losses: Tensor, logits: Tensor, labels: Tensor) -> None:
        samples = labels.shape[1]
        totals[:, 0].add_(losses, alpha=samples)
        totals[:, 1].add_((labels == logits.argmax(2).T).sum(1))
        totals[:, 2].add_(samples)

    def reading(self) -> Tensor:
        """Each run's [summed loss, correct answers, samples] since the last reading, float64 [R, 3]."""
        totals = self.totals.cpu().clone()
        self.totals.zero_()
        return totals

    @torch.inference_mode()
    def evaluate(self, split: Split) -> list[tuple[float, float]]:
        """(mean loss, accuracy) of every run on samples they share."""
        totals = torch.zeros_like(self.totals)
        batch = BATCH if self.device.type == "cuda" else max(1, BATCH // len(self.runs))  # a CPU's caches stay small
        for images, labels in zip(split.images.split(batch), split.labels.split(batch), strict=True):
            with autocast(self.runs[0], self.device):
                logits = self.forward(images.unsqueeze(1), training=False)
                shared = labels.expand(len(self.runs), -1)
                self._count(totals, cross_entropy(logits, shared), logits, shared)
        return [means(of_run) for of_run in totals]

    @torch.no_grad()
    def member(self, run: int) -> nn.Module:
        """One run's network as an ordinary module; the next call writes over it."""
        for name, tensor in named_tensors(self.template):
            tensor.copy_(self.tensors[name][run])
        return self.template

    def state(self) -> State:
        return State(
            {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()},
            [tensor.cpu().clone() for tensor in self.optimizer.state if tensor.dim()],
            sum(int(tensor) for tensor in self.optimizer.state if not tensor.dim()),
        )

    @torch.no_grad()
    def restore(self, state: State) -> None:
        for name, tensor in self.tensors.items():
            tensor.copy_(state.tensors[name])
        averages = iter(state.averages)
        for tensor in self.optimizer.state:
            # A run without momentum kept no average: whatever stands there counts for nothing.
            tensor.copy_(next(averages, tensor) if tensor.dim() else torch.tensor(state.steps))


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Each run's mean loss [R] of logits [B, R, K] and labels [R, B]."""
    flat = logits.transpose(0, 1).flatten(0, 1)
    return F.cross_entropy(flat, labels.flatten(), reduction="none").view(labels.shape).mean(1)


def stacked_tensors(
    networks: Sequence[nn.Module], device: torch.device
) -> tuple[dict[str, Tensor], list[Tensor], Tensor]:
    """(every parameter and buffer by name [R, …], the trainable ones, the tensor [R, P] that those are views of)."""
    named = [dict(named_tensors(network)) for network in networks]
    tensors = {name: torch.stack([own[name].detach() for own in named]).to(device) for name in named[0]}
    trainable = [name for name, parameter in networks[0].named_parameters() if parameter.requires_grad]
    blocks = [tensors[name].flatten(1) for name in trainable]
    flat = torch.cat(blocks, dim=1) if blocks else torch.empty(len(networks), 0, device=device)
    sizes = [tensors[name][0].numel() for name in trainable]
    for name, block in zip(trainable, flat.split(sizes, dim=1), strict=True):
        tensors[name] = block.view(tensors[name].shape).detach().requires_grad_()
    return tensors, [tensors[name] for name in trainable], flat
