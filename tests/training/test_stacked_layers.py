"""A stacked layer computes what each run's layer computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.norms import build_norm
from runner.training.learners import stacked_layers as layers
from runner.training.learners.deterministic_layers import EvenAdaptiveAvgPool2d, EvenAdaptiveMaxPool2d
from runner.training.learners.dropout import SeededDropout, seed_dropout
from runner.training.learners.stack import stacked_tensors
from runner.training.learners.stacked_layers import FORMS, Mode

CPU = torch.device("cpu")


class Residual(nn.Module):
    """Not an nn.Sequential, with a buffer that it moves in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(width))
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.add_(x.detach().mean())
        return x + self.scale * F.relu(self.inner(x))


def own_norm(name: str, dims: int, *, current_epoch: int | None = None, **arguments: object) -> nn.Module:
    layer = build_norm(name, 4, dims, arguments)
    if current_epoch is not None:
        layer.get_buffer("current_epoch").fill_(current_epoch)
    return layer


OWN_NORMS: list[tuple[str, dict[str, Any]]] = [
    ("ghost", {"size": 3}),
    ("ghost", {"size": 7, "momentum": None}),
    ("frozen", {}),
    ("frozen", {"current_epoch": 2}),
    ("renorm", {"warm_up": 0, "ramp": 1, "r_max": 1.1, "d_max": 0.1}),
    ("renorm", {"momentum": None}),
    ("precise", {}),
    ("dyt", {}),
]

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Linear": (lambda: nn.Linear(5, 3), (5,)),
    "Linear without bias": (lambda: nn.Linear(5, 3, bias=False), (5,)),
    "Linear on sequences": (lambda: nn.Linear(5, 3), (4, 5)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3, padding=1), (4, 7, 7)),
    "Conv2d, strided, no bias": (lambda: nn.Conv2d(4, 6, (3, 2), stride=2, bias=False), (4, 7, 7)),
    "Conv2d in groups, dilated": (lambda: nn.Conv2d(4, 6, 3, groups=2, dilation=2), (4, 7, 7)),
    "Conv2d, reflected": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (4, 7, 7)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(5), (5,)),
    "BatchNorm1d on sequences": (lambda: nn.BatchNorm1d(4), (4, 5)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4), (4, 3, 3)),
    "BatchNorm2d, cumulative": (lambda: nn.BatchNorm2d(4, momentum=None), (4, 3, 3)),
    "BatchNorm2d, not affine": (lambda: nn.BatchNorm2d(4, affine=False, momentum=0.5), (4, 3, 3)),
    "BatchNorm2d, no averages": (lambda: nn.BatchNorm2d(4, track_running_stats=False), (4, 3, 3)),
    "LayerNorm": (lambda: nn.LayerNorm((4, 5)), (2, 4, 5)),
    "LayerNorm without bias": (lambda: nn.LayerNorm(5, bias=False), (4, 5)),
    "LayerNorm, not affine": (lambda: nn.LayerNorm(5, elementwise_affine=False), (5,)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (4, 3, 3)),
    "GroupNorm, not affine": (lambda: nn.GroupNorm(2, 4, affine=False), (4,)),
    "MaxPool2d": (lambda: nn.MaxPool2d(2), (4, 6, 6)),
    "AvgPool2d": (lambda: nn.AvgPool2d(3, stride=2, padding=1), (4, 7, 7)),
    "AdaptiveAvgPool2d": (lambda: nn.AdaptiveAvgPool2d(2), (4, 7, 7)),
    "AdaptiveMaxPool2d": (lambda: nn.AdaptiveMaxPool2d(2), (4, 7, 7)),
    "even AdaptiveAvgPool2d": (lambda: EvenAdaptiveAvgPool2d(2), (4, 6, 8)),
    "even AdaptiveMaxPool2d": (lambda: EvenAdaptiveMaxPool2d(2), (4, 6, 8)),
    "Flatten": (nn.Flatten, (4, 3, 2)),
    "Flatten, the last axes": (lambda: nn.Flatten(2), (4, 3, 2)),
    "Flatten, some axes": (lambda: nn.Flatten(1, 2), (4, 3, 2)),
    "Dropout": (lambda: nn.Dropout(0.3), (4, 3, 3)),
    "Dropout of all": (lambda: nn.Dropout(1.0), (5,)),
    "Dropout of none": (lambda: nn.Dropout(0.0), (5,)),
    "Sequential": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 2))), (5,)),
    "vmap: RMSNorm": (lambda: nn.RMSNorm(5), (5,)),
    **{
        f"vmap: {name} {arguments} for {dims}": (partial(own_norm, name, dims, **arguments), (4, 3, 3)[: 2 * dims - 1])
        for dims in (1, 2)
        for name, arguments in OWN_NORMS
    },
    "vmap: a module of one's own": (lambda: Residual(5), (5,)),
    **{
        layer.__name__: (layer, (4, 3, 3))
        for layer in FORMS
        if layer.__module__ == "torch.nn.modules.activation" or layer is nn.Identity
    },
}


def test_every_form_has_a_case() -> None:
    made = {type(module) for build, _ in LAYERS.values() for module in build().modules()}
    assert set(FORMS) - {SeededDropout} <= made
    assert nn.Dropout in made


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("shared", [False, True], ids=["own inputs", "shared inputs"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_stacked_layer_is_the_layer(name: str, shared: bool, runs: int) -> None:
    build, shape = LAYERS[name]
    torch.manual_seed(0)
    alone = [nn.Sequential(build()).double() for _ in range(runs)]
    for module in alone:  # γ and β of a new norm are 1 and 0: they would hide a mistake
        for parameter in module.parameters():
            nn.init.normal_(parameter)
    tensors, leaves, _ = stacked_tensors(list[nn.Module](alone), CPU)
    keys = torch.arange(runs)
    for index, module in enumerate(alone):
        seed_dropout(module, keys[index : index + 1])
    program = layers.program(copy.deepcopy(alone[0]), tensors)
    x = torch.randn(8, 1 if shared else runs, *shape, dtype=torch.double)
    weight = torch.randn(8, dtype=torch.double)  # of samples: a plain sum has no gradient through a norm
    for training in (True, True, False):
        mode = Mode(runs, training, keys)
        stacked = layers.run(program, x, mode)
        for index, module in enumerate(alone):
            own = module.train(training)(x[:, 0 if shared else index])
            found = stacked[:, 0 if stacked.shape[1] == 1 else index]  # what has no parameter stays shared
            torch.testing.assert_close(found, own, rtol=1e-10, atol=1e-10)
            for buffer, value in module.named_buffers():
                torch.testing.assert_close(tensors[buffer][index], value, rtol=1e-10, atol=1e-10)
            if leaves and training:
                ours = torch.autograd.grad((found.flatten(1).sum(1).sin() * weight).sum(), leaves, retain_graph=True)
                theirs = torch.autograd.grad((own.flatten(1).sum(1).sin() * weight).sum(), list(module.parameters()))
                for stack_gradient, gradient in zip(ours, theirs, strict=True):
                    torch.testing.assert_close(stack_gradient[index], gradient, rtol=1e-10, atol=1e-10)
                    others = [other for other in range(runs) if other != index]
                    assert not stack_gradient[others].any()
