"""One run that trains alone: its network as a program, and torch's own optimizer."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runner.config.run_spec import RunSpec
from runner.training.data.batches import Batch
from runner.training.data.datasets import Split
from runner.training.data.preprocessing import RunData
from runner.training.data.seeding import stream
from runner.training.evaluation import evaluate
from runner.training.kernels.library import library_of
from runner.training.kernels.program import program
from runner.training.learners.deterministic_layers import make_deterministic
from runner.training.learners.dropout import advance, epoch_keys, seed_dropout
from runner.training.learners.learner import Learner, State, named_tensors, wrong_shape
from runner.training.learners.max_pooling import quicken
from runner.training.networks import trainable
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
        self.keys = epoch_keys([run.seed], 0).to(device)
        seed_dropout(network, self.keys)
        self.library = library_of(run, device, kernels)
        self.program = program(network, self.library)
        native = self.library if self.program.native else None
        self.how = f"alone with kernels {native.name}" if native else "alone"
        self.optimizer = make_optimizer(run, network)
        self.trainable = trainable(network)
        # What torch's optimizers call their moving averages, in the order of `State.averages`.
        adam = ["exp_avg", "exp_avg_sq"]
        self.averages = ["momentum_buffer"] if run.optimizer == "sgd" else adam
        self.totals = torch.zeros(1, 3, dtype=torch.float64, device=device)
        self.loss, self.correct, self.samples = self.totals[0]

    def begin_epoch(self, epoch: int) -> None:
        self.keys.copy_(epoch_keys([self.run.seed], epoch))
        # For layers that draw from torch's global generator.
        torch.manual_seed(stream(self.run.seed, "dropout", epoch))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.run, epoch)
        self.network.train()
        # A network may have changed since the last epoch: a hook, a layer, a setting of a layer.
        self.program = program(self.network, self.library)

    def step(self, batch: Batch) -> None:
        images, labels = self.data.train.at(batch[0]) if isinstance(batch, Tensor) else batch
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

    def evaluate(self, split: Split) -> list[tuple[float, float]]:
        with autocast(self.run, self.device):
            readings = evaluate(self.network, split, self.program)
        self.network.train()
        return [readings]

    def member(self, run: int) -> nn.Module:
        assert run == 0
        return self.network

    def state(self) -> State:
        named = named_tensors(self.network)
        tensors = {name: tensor.detach().cpu().unsqueeze(0) for name, tensor in named}
        states = [self.optimizer.state[parameter] for parameter in self.trainable]
        averages = []
        for name in self.averages:
            if any(name in state for state in states):
                pairs = zip(states, self.trainable, strict=True)
                parts = [state.get(name, torch.zeros_like(own)).flatten() for state, own in pairs]
                averages.append(torch.cat(parts).cpu().unsqueeze(0))
        steps = max((int(state.get("step", 0)) for state in states), default=0)
        return State(tensors, averages, steps)

    @torch.no_grad()
    def restore(self, state: State) -> None:
        for name, tensor in named_tensors(self.network):
            tensor.copy_(state.tensors[name][0])
        sizes = [parameter.numel() for parameter in self.trainable]
        for name, average in zip(self.averages, state.averages, strict=False):
            parts = average[0].split(sizes)
            for parameter, values in zip(self.trainable, parts, strict=True):
                own = self.optimizer.state[parameter]
                own[name] = values.view(parameter.shape).to(self.device, copy=True)
                if self.run.optimizer != "sgd":
                    own["step"] = torch.tensor(float(state.steps), device=self.device)
