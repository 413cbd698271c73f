"""Many runs of one architecture, trained as one batched model."""

import copy
import traceback
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.config.jobs import Form
from runner.config.run_spec import RunSpec
from runner.errors import strict, text_of
from runner.storage.rows import Shortfall
from runner.training.averages import averaged, precise_layers, start
from runner.training.data.augmentation import Augmentation
from runner.training.data.batches import Batch
from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData
from runner.training.data.seeding import generators_unchanged
from runner.training.evaluation import BATCH, means, stacked_batches
from runner.training.learners import cuda_graph, stacked_layers, stacked_optimizers
from runner.training.learners.deterministic_layers import make_deterministic
from runner.training.learners.dropout import advance, epoch_keys, seed_dropout
from runner.training.learners.learner import (
    Learner,
    State,
    changed_attributes,
    named_tensors,
    out_of_memory,
    plain_attributes,
    set_attributes,
    tell_epoch,
)
from runner.training.settings import autocast


class Stack(Learner):
    """The learner of R runs that differ only in what `config.jobs.STACKABLE` names.

    All trainable parameters lie in one tensor [R, P]; the layers use views of it. The loss is the sum over the runs of
    each run's mean loss, so each run's gradient is its own. A run that diverges fills its own rows with NaN and no
    others. `form` is how convolutions are computed.
    """

    def __init__(
        self, runs: Sequence[RunSpec], networks: list[nn.Module], data: RunData, form: Form = "grouped"
    ) -> None:
        self.runs, self.data = runs, data
        self.device = device = data.train.labels.device
        # The template moves last: tensors of two devices cannot be stacked.
        self.tensors, self.leaves, parameters = stacked_tensors(networks, device)
        self.template = networks[0].to(device)
        if device.type != "cpu":
            make_deterministic(self.template)
        self.seeds = [run.seed_of("dropout") for run in runs]
        # The keys of the runs' dropout masks at this step, and the key of the template's.
        self.keys = epoch_keys(self.seeds, 0).to(device)
        self.template_keys = self.keys[:1].clone()
        seed_dropout(self.template, self.template_keys)
        self.form = form
        self.augment = Augmentation(runs, data)
        self.program = stacked_layers.program(self.template, self.tensors, form)
        shapes = {name: tensor.shape[1:] for name, tensor in self.tensors.items() if tensor.requires_grad}
        self.optimizer = stacked_optimizers.StackedOptimizer(runs, parameters, shapes)
        self.attributes = plain_attributes(self.template)
        self.totals = torch.zeros(len(runs), 3, dtype=torch.float64, device=device)
        buffers = [tensor for tensor in self.tensors.values() if not tensor.requires_grad]
        self.moving = [parameters, *buffers, *self.optimizer.averages, self.optimizer.steps, self.totals, self.keys]
        # By batch size: a smaller last batch has a graph of its own.
        self.graphs: dict[int, cuda_graph.Captured] = {}
        self.captures = device.type == "cuda"
        self.kind = f"stack of {len(runs)}" + ("" if form == "grouped" else f", {form}")
        self.how = self.kind + (", CUDA graph" if self.captures else "")

    def begin_epoch(self, epoch: int) -> None:
        self.optimizer.begin_epoch(epoch)
        self.keys.copy_(epoch_keys(self.seeds, epoch))
        tell_epoch(self.tensors.items(), epoch)
        self.augment.begin_epoch(epoch)

    def step(self, batch: Batch) -> None:
        """One optimizer step of every run, on the samples of an index [R, B]; [1, B] where all runs share it."""
        assert isinstance(batch, Tensor), "a DataLoader serves one run"
        size = batch.shape[1]
        if self.captures and size not in self.graphs:
            self._capture(batch)
        step = self.graphs[size] if self.captures else self._step
        step(batch)

    def _capture(self, batch: Tensor) -> None:
        """Record the step for batches of this size. Where that fails, take the plain step; a shortfall says so."""
        pool = next((graph.pool for graph in self.graphs.values()), None)
        try:
            self.graphs[batch.shape[1]] = cuda_graph.Captured(self._step, batch, self.moving, pool)
        except RuntimeError as error:
            if strict() or out_of_memory(error):
                raise
            self.captures = False
            reason = text_of(error).partition("\n")[0]
            self.how = f"{self.kind}, no CUDA graph: {reason}"
            run_ids = tuple(run.run_id for run in self.runs)
            planned, instead = "one stack in a CUDA graph", "without a graph"
            self.shortfall = Shortfall(run_ids, planned, instead, reason, traceback=traceback.format_exc())

    def _step(self, index: Tensor) -> None:
        images, labels = self.data.train.images[index.T], self.data.train.labels[index]
        losses = self._losses(self.augment(images, index), labels, self.totals, training=True)
        gradients = torch.autograd.grad(losses.sum(), self.leaves)
        blocks = [gradient.reshape(len(self.runs), -1) for gradient in gradients]
        self.optimizer.step(torch.cat(blocks, dim=1))
        advance(self.keys)

    def _losses(self, images: Tensor, labels: Tensor, totals: Tensor, *, training: bool) -> Tensor:
        """Each run's mean loss [R]. Images are [B, R or 1, C, H, W], labels [R or 1, B]. Adds to the totals [R, 3]."""
        labels = labels.expand(len(self.runs), -1)
        with autocast(self.runs[0], self.device):
            logits = self._logits(images, training=training)
            losses = cross_entropy(logits, labels)
        samples = labels.shape[1]
        totals[:, 0].add_(losses.detach(), alpha=samples)
        totals[:, 1].add_((labels == logits.argmax(2).T).sum(1))
        totals[:, 2].add_(samples)
        return losses

    def _logits(self, images: Tensor, *, training: bool) -> Tensor:
        """The logits [B, R, K] of images [B, R or 1, C, H, W]."""
        return stacked_layers.run(self.program, images, stacked_layers.Mode(len(self.runs), training, self.keys))

    def reestimate(self) -> None:
        if not precise_layers(self.template):
            return
        copied = copy.deepcopy(self.template)
        layers = precise_layers(copied)
        start(layers.values())
        initial = {key: buffer for name, layer in layers.items() for key, buffer in layer.named_buffers(name)}
        tensors = {name: tensor.detach().clone() for name, tensor in self.tensors.items()}
        for key, buffer in initial.items():
            tensors[key].copy_(buffer)
        program = stacked_layers.program(copied, tensors, self.form)
        mode = stacked_layers.Mode(len(self.runs), training=True, keys=self.keys)
        with generators_unchanged(self.device), autocast(self.runs[0], self.device):
            for images, _ in stacked_batches(self.data.train, BATCH, self.data.own_train, averaged(self.data.samples)):
                stacked_layers.run(program, images, mode)
        for key in initial:
            self.tensors[key].copy_(tensors[key])

    @torch.inference_mode()
    def evaluate(self, split: Split, own: Tensor | None = None) -> list[tuple[float, float]]:
        totals = torch.zeros_like(self.totals)
        for images, labels in stacked_batches(split, self._evaluated_at_once, own):
            self._losses(images, labels, totals, training=False)
        return [means(run_totals) for run_totals in totals.cpu()]

    @torch.inference_mode()
    def hits(self, split: Split) -> Tensor:
        with autocast(self.runs[0], self.device):
            found = [
                labels == self._logits(images, training=False).argmax(2).T
                for images, labels in stacked_batches(split, self._evaluated_at_once)
            ]
        return torch.cat(found, dim=1)

    @property
    def _evaluated_at_once(self) -> int:
        """How many samples of a split a forward pass has. (A CPU's caches are small.)"""
        return BATCH if self.device.type == "cuda" else max(1, BATCH // len(self.runs))

    @torch.no_grad()
    def member(self, run: int) -> nn.Module:
        for name, tensor in named_tensors(self.template):
            tensor.copy_(self.tensors[name][run])
        self.template_keys.copy_(self.keys[run])
        return self.template

    def states(self) -> list[State]:
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()}
        trainable = [name for name, tensor in self.tensors.items() if tensor.requires_grad]
        attributes = changed_attributes(self.template, self.attributes)
        return [
            State({name: tensor[run] for name, tensor in tensors.items()}, trainable, optimizer, attributes)
            for run, optimizer in enumerate(self.optimizer.states())
        ]

    @torch.no_grad()
    def restore(self, states: Sequence[State]) -> None:
        set_attributes(self.template, states[0].attributes)
        for name, tensor in self.tensors.items():
            tensor.copy_(torch.stack([state.tensors[name] for state in states]))
        self.optimizer.restore([state.optimizer for state in states])


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Each run's mean loss [R] of logits [B, R, K] and labels [R, B]."""
    flat = logits.transpose(0, 1).flatten(0, 1)
    losses = F.cross_entropy(flat, labels.flatten(), reduction="none")
    return losses.view(labels.shape).mean(1)


def stacked_tensors(networks: list[nn.Module], device: torch.device) -> tuple[dict[str, Tensor], list[Tensor], Tensor]:
    """(every parameter and buffer by name [R, …], the trainable ones, the tensor [R, P] that those are views of)."""
    rows = [dict(named_tensors(network)) for network in networks]
    stacked = {name: torch.stack([row[name].detach() for row in rows]) for name in rows[0]}
    tensors = {name: tensor.to(device) for name, tensor in stacked.items()}
    trainable = [name for name, value in networks[0].named_parameters() if value.requires_grad]
    blocks = [tensors[name].flatten(1) for name in trainable]
    nothing = torch.empty(len(networks), 0, device=device)
    flat = torch.cat(blocks, dim=1) if blocks else nothing
    views = flat.split([block.shape[1] for block in blocks], dim=1)
    for name, view in zip(trainable, views, strict=True):
        tensors[name] = view.view(tensors[name].shape).detach().requires_grad_()
    return tensors, [tensors[name] for name in trainable], flat
