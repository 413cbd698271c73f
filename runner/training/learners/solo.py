"""One run: its network as it was written, and torch's own optimizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.config.run_spec import RunSpec
from runner.training.data.batches import Batch
from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData
from runner.training.data.seeding import stream
from runner.training.evaluation import evaluate
from runner.training.learners.learner import State, named_tensors, wrong_shape
from runner.training.learners.max_pooling import quicken
from runner.training.optimizers import learning_rate, make_optimizer
from runner.training.settings import autocast


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
