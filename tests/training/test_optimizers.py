"""The optimizers of runs that train alone, where they differ from a plain call of torch's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from runner import registry
from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.storage.rows import RunResult
from runner.training.optimizers import make_optimizer
from runner.training.options import TrainingOptions
from runner.training.train import train

RUN = RunSpec(network="late", dataset="digits", device="cpu", optimizer="sgd", epochs=2, lr=0.05, momentum=0.9)


class Late(nn.Module):
    """Its second layer is used from the third step on, and every other step."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(784, 10), nn.Linear(10, 10)
        self.steps = 0

    def forward(self, images: Tensor) -> Tensor:
        self.steps += self.training
        logits: Tensor = self.first(images.flatten(1))
        return self.second(logits) if self.steps > 2 and self.steps % 2 else logits


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_momentum_of_a_layer_that_is_used_late_is_that_of_torch(weight_decay: float) -> None:
    torch.manual_seed(1)
    ours, plain = Late(), Late()
    plain.load_state_dict(ours.state_dict())
    run = RUN.changed(weight_decay=weight_decay)
    optimizers = (
        make_optimizer(run, ours),
        torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=weight_decay, foreach=False),
    )
    for _ in range(7):
        images = torch.randn(20, 1, 28, 28)
        for network, optimizer in zip((ours, plain), optimizers, strict=True):
            optimizer.zero_grad()
            network(images).square().mean().backward()
            optimizer.step()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_a_run_with_such_a_layer_trains() -> None:
    @registry.network("late")
    def late() -> nn.Module:
        return Late()

    result = list(train(Job((RUN,)), TrainingOptions()))[-1]
    assert isinstance(result, RunResult)
    assert (result.status, result.error) == ("ok", "")
