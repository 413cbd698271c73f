"""One run that trains alone: its network as a program, and torch's own optimizer."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.config.run_spec import RunSpec
from runner.training.averages import precise_layers, reestimate
from runner.training.data.augmentation import Augmentation
from runner.training.data.batches import Batch
from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData
from runner.training.data.seeding import generators_unchanged
from runner.training.evaluation import evaluate, hits
from runner.training.kernels.library import library_of
from runner.training.kernels.program import program
from runner.training.learners.deterministic_layers import make_deterministic
from runner.training.learners.dropout import advance, epoch_keys, seed_dropout
from runner.training.learners.learner import (
    Learner,
    State,
    changed_attributes,
    named_tensors,
    plain_attributes,
    set_attributes,
    tell_epoch,
    wrong_shape,
)
from runner.training.learners.max_pooling import quicken
from runner.training.optimizers import learning_rate, make_optimizer
from runner.training.options import Kernels
from runner.training.settings import autocast


class Solo(Learner):
    """The learner of one run."""

    def __init__(self, run: RunSpec, network: nn.Module, data: RunData, kernels: Kernels = "auto") -> None:
        self.run, self.data = run, data
        self.device = device = data.train.labels.device
        self.network = network.to(device)
        if device.type == "cpu":
            quicken(network)
        else:
            make_deterministic(network)
        # The key of the dropout masks at this step.
        self.keys = epoch_keys([run.seed_of("dropout")], 0).to(device)
        seed_dropout(network, self.keys)
        self.library = library_of(run, device, kernels)
        self.program = program(network, self.library)
        native = self.library if self.program.native else None
        self.how = f"alone with kernels {native.name}" if native else "alone"
        self.augment = Augmentation([run], data)
        self.optimizer = make_optimizer(run, network)
        self.attributes = plain_attributes(network)
        self.totals = torch.zeros(1, 3, dtype=torch.float64, device=device)
        self.loss, self.correct, self.samples = self.totals[0]

    def begin_epoch(self, epoch: int) -> None:
        self.keys.copy_(epoch_keys([self.run.seed_of("dropout")], epoch))
        tell_epoch(named_tensors(self.network), epoch)
        self.augment.begin_epoch(epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.run, epoch)
        self.network.train()
        # A network may have changed since the last epoch: a hook, a layer, a setting of a layer.
        self.program = program(self.network, self.library)

    def step(self, batch: Batch) -> None:
        if isinstance(batch, Tensor):
            images, labels = self.data.train.at(batch[0])
            images = self.augment(images.unsqueeze(1), batch).squeeze(1)
        else:
            images, labels = batch
        self.optimizer.zero_grad()
        with autocast(self.run, self.device):
            logits = self.program(images)
            if fault := wrong_shape(logits, len(labels), self.data.classes):
                raise ValueError(fault)
            loss = F.cross_entropy(logits, labels)
        loss.backward()
        self.optimizer.step()
        advance(self.keys)
        self.loss.add_(loss.detach(), alpha=len(labels))
        self.correct.add_((logits.argmax(1) == labels).sum())
        self.samples.add_(len(labels))

    def reestimate(self) -> None:
        if not precise_layers(self.network):
            return
        copied = copy.deepcopy(self.network)
        layers = precise_layers(copied)
        with generators_unchanged(self.device), autocast(self.run, self.device):
            reestimate(copied, layers.values(), self.data.of(0).train)
        own = dict(self.network.named_buffers())
        for name, layer in layers.items():
            for key, average in layer.named_buffers(name):
                own[key].copy_(average)

    def evaluate(self, split: Split, own: Tensor | None = None) -> list[tuple[float, float]]:
        split = split if own is None else split[own[0]]
        with autocast(self.run, self.device):
            readings = evaluate(self.network, split, self.program)
        self.network.train()
        return [readings]

    def hits(self, split: Split) -> Tensor:
        with autocast(self.run, self.device):
            found = hits(self.network, split, self.program)
        self.network.train()
        return found.unsqueeze(0)

    def member(self, run: int) -> nn.Module:
        assert run == 0
        return self.network

    def states(self) -> list[State]:
        optimizer = {
            name: {key: value.cpu().clone() for key, value in own.items() if isinstance(value, Tensor)}
            for name, parameter in self.network.named_parameters()
            if (own := self.optimizer.state.get(parameter))
        }
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in named_tensors(self.network)}
        trainable = [name for name, parameter in self.network.named_parameters() if parameter.requires_grad]
        return [State(tensors, trainable, optimizer, changed_attributes(self.network, self.attributes))]

    @torch.no_grad()
    def restore(self, states: Sequence[State]) -> None:
        [state] = states
        set_attributes(self.network, state.attributes)
        tensors = dict(named_tensors(self.network))
        for name, value in state.tensors.items():
            own = tensors.get(name)
            if own is not None and (own.shape, own.stride(), own.dtype) == (value.shape, value.stride(), value.dtype):
                own.copy_(value)
            else:
                self._replace(name, value.to(self.device, copy=True))
        for name in tensors.keys() - state.tensors.keys():
            self._replace(name, None)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(name in state.trainable)
            for key, value in state.optimizer.get(name, {}).items():
                # A stack's averages are contiguous. Fused optimizers need the strides of the parameter.
                like = parameter if value.shape == parameter.shape else value
                own = torch.empty_like(like, dtype=value.dtype, device=self.device)
                self.optimizer.state[parameter][key] = own.copy_(value)

    def _replace(self, name: str, value: Tensor | None) -> None:
        """Give the network a tensor that has grown, has other strides than at the start, or is gone."""
        owner, _, key = name.rpartition(".")
        module = self.network.get_submodule(owner)
        if key in module._parameters and value is not None:
            getattr(module, key).data = value
        elif key in module._buffers:
            setattr(module, key, value)
        else:
            module.register_buffer(key, value)
