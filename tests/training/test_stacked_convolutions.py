"""Every form of a stacked convolution is nn.Conv2d, and pooling before ReLU is ReLU before pooling."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from runner import registry
from runner.config.jobs import Form
from runner.config.run_spec import RunSpec
from runner.training.data.preprocessing import prepare
from runner.training.learners import stacked_layers
from runner.training.learners.dropout import epoch_keys
from runner.training.learners.learner import leaves as leaves_of
from runner.training.learners.max_pooling import may_come_first
from runner.training.learners.stack import Stack, stacked_tensors
from runner.training.learners.stacked_convolutions import convolve
from runner.training.learners.stacked_layers import Mode
from runner.training.networks import build_network

CPU = torch.device("cpu")

FORMS: tuple[Form, ...] = get_args(Form)

CONVOLUTIONS: dict[str, Callable[[], nn.Conv2d]] = {
    "plain": lambda: nn.Conv2d(4, 6, 3),
    "no bias": lambda: nn.Conv2d(4, 6, 3, bias=False),
    "one channel": lambda: nn.Conv2d(1, 6, 5),
    "oblong": lambda: nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(1, 3)),
    "in groups": lambda: nn.Conv2d(4, 6, 3, groups=2, stride=2, padding=1),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, groups=4, dilation=2, bias=False),
    "same": lambda: nn.Conv2d(4, 6, 4, padding="same"),
    "valid": lambda: nn.Conv2d(4, 6, 3, padding="valid"),
    **{
        mode: lambda mode=mode: nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode=mode, stride=2)  # type: ignore[misc]
        for mode in ("reflect", "replicate", "circular")
    },
}

KEYS = epoch_keys([0, 1], 1)


def gradients(y: Tensor, of: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(1)
    return list(torch.autograd.grad((y * torch.randn_like(y)).sum(), of))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("shared", [False, True], ids=["own images", "shared images"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_form_is_the_convolution_of_each_run(name: str, form: Form, shared: bool) -> None:
    torch.manual_seed(0)
    alone = [CONVOLUTIONS[name]().double() for _ in range(3)]
    own = stacked(alone)
    x = torch.randn(5, 1 if shared else 3, alone[0].in_channels, 9, 8, dtype=torch.double, requires_grad=True)
    found = convolve(form, alone[0], own, x)
    expected = torch.stack([layer(x[:, 0 if shared else run]) for run, layer in enumerate(alone)], dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    parameters = [x, *(parameter for layer in alone for parameter in layer.parameters())]
    for ours, theirs in zip(gradients(found, parameters), gradients(expected, parameters), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def stacked(layers: list[nn.Conv2d]) -> dict[str, Tensor]:
    names = [name for name, _ in layers[0].named_parameters()]
    return {name: torch.stack([layer.get_parameter(name) for layer in layers]) for name in names}


@pytest.mark.parametrize("form", FORMS)
def test_a_form_keeps_the_type_of_autocast(form: Form) -> None:
    layer = nn.Conv2d(1, 6, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert convolve(form, layer, stacked([layer, layer]), torch.randn(2, 2, 1, 5, 5)).dtype == torch.bfloat16


class Kernels(TorchDispatchMode):
    """Records how many images each `im2col` gets, and how many groups each convolution has."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.unfolded: list[int] = []
        self.groups: list[int] = []

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.im2col.default:
            self.unfolded.append(len(args[0]))
        if function is torch.ops.aten.convolution.default:
            self.groups.append(args[-1])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("form", "groups"), [("grouped", [2]), ("loop", [1, 1]), ("unfold", [])])
def test_a_form_uses_its_own_kernels(form: Form, groups: list[int]) -> None:
    layer = nn.Conv2d(4, 6, 3)
    with Kernels() as kernels:
        convolve(form, layer, stacked([layer, layer]), torch.randn(5, 2, 4, 7, 7))
    assert kernels.groups == groups
    assert kernels.unfolded == ([1] if form == "unfold" else [])  # CUDA launches a kernel for each image
    with Kernels() as kernels:
        convolve(form, layer, stacked([layer, layer]), torch.randn(5, 1, 4, 7, 7))
    assert (kernels.groups, kernels.unfolded) == ([1], [])  # shared images: one dense convolution


def networks() -> list[str]:
    registry.load_plugins()
    return [
        name
        for name in registry.network
        if any(type(layer) is nn.Conv2d for _, layer in leaves_of(build_network(RunSpec(network=name))))
    ]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("network", networks())
def test_a_network_in_every_form_is_the_network(network: str, form: Form) -> None:
    narrow = {"vgg": {"width": 2}, "conv_unit": {"width": 4}}
    run = RunSpec(network=network, network_args=narrow.get(network, {}))
    alone = [build_network(run.changed(seed=seed)).double() for seed in range(2)]
    tensors, leaves, _ = stacked_tensors(alone, CPU)
    program = stacked_layers.program(copy.deepcopy(alone[0]), tensors, form)
    images = torch.randn(6, 2, 1, 28, 28, dtype=torch.double)
    for training, x in product((True, False), (images, images[:, :1])):
        found = stacked_layers.run(program, x, Mode(2, training, KEYS))
        own = [layers.train(training)(x[:, min(run, x.shape[1] - 1)]) for run, layers in enumerate(alone)]
        torch.testing.assert_close(found, torch.stack(own, dim=1), rtol=1e-10, atol=1e-10)
        parameters = [parameter for layers in alone for parameter in layers.parameters()]
        theirs = torch.autograd.grad(torch.stack(own, dim=1).sin().sum(), parameters)
        ours = torch.autograd.grad(found.sin().sum(), leaves)
        rows = [gradient[run] for run in range(2) for gradient in ours]
        for mine, expected in zip(rows, theirs, strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_a_stack_computes_in_its_form(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []

    def spy(form: Form, *rest: object) -> Tensor:
        used.append(form)
        return convolve(form, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(stacked_layers, "convolve", spy)
    runs = [RunSpec(network="lenet", dataset="digits", seed=seed) for seed in range(2)]
    data = prepare("digits", Path(), "normal", "held_out", None, CPU)
    stack = Stack(runs, [build_network(run) for run in runs], data, form)
    stack.begin_epoch(1)
    stack.step(torch.arange(20).view(2, 10))
    assert used == [form, form]


# Pooling before ReLU

POOLINGS: dict[str, Callable[[], nn.MaxPool2d]] = {
    "2": lambda: nn.MaxPool2d(2),
    "overlapping": lambda: nn.MaxPool2d(3, stride=2),
    "padded": lambda: nn.MaxPool2d((3, 2), stride=1, padding=1),
    "past the end": lambda: nn.MaxPool2d(2, ceil_mode=True),
}

INF, NAN = torch.inf, torch.nan
PIXELS = {
    "random": torch.randn(2, 1, 3, 9, 9, generator=torch.Generator().manual_seed(0)),
    "ties": torch.randint(-1, 2, (2, 1, 3, 9, 9), generator=torch.Generator().manual_seed(0)).float(),
    "all negative": -torch.rand(2, 1, 3, 9, 9, generator=torch.Generator().manual_seed(0)),
    "all zero": torch.zeros(2, 1, 3, 9, 9),
    "not finite": torch.tensor([INF, -INF, NAN, 1.0, -1.0])[
        torch.randint(5, (2, 1, 3, 9, 9), generator=torch.Generator().manual_seed(0))
    ],
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_comes_before_relu_and_changes_nothing(pooling: str, pixels: str, inplace: bool) -> None:
    network = nn.Sequential(nn.Identity(), nn.ReLU(inplace), nn.Sequential(POOLINGS[pooling]()), nn.Flatten())
    program = stacked_layers.program(network, {})
    assert [type(layer) for _, layer, _ in program] == [nn.Identity, nn.MaxPool2d, nn.ReLU, nn.Flatten]
    x = PIXELS[pixels].clone().requires_grad_()
    found, expected = (
        stacked_layers.run(program, x * 1, Mode(1, training=True, keys=KEYS[:1]))[:, 0],
        network(x[:, 0] * 1),
    )
    assert found.isnan().any() == (pixels == "not finite")
    same(found, expected)
    same(gradients(found, [x])[0], gradients(expected, [x])[0])


def same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


class OwnReLU(nn.ReLU):
    """Perhaps another function."""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nn.ReLU6(), nn.MaxPool2d(2)),
        (OwnReLU(), nn.MaxPool2d(2)),
        (nn.ReLU(), nn.AvgPool2d(2)),
        (nn.ReLU(), nn.MaxPool2d(2, dilation=2, padding=1)),
        (nn.ReLU(), nn.MaxPool2d(2, return_indices=True)),
    ],
)
def test_other_layers_keep_their_order(first: nn.Module, second: nn.Module) -> None:
    program = stacked_layers.program(nn.Sequential(first, second), {})
    assert [layer for _, layer, _ in program] == [first, second]


def test_a_dilated_window_outside_the_image_is_why_dilation_is_left_alone() -> None:
    pooling, relu, x = nn.MaxPool2d(2, 1, 1, dilation=2), nn.ReLU(), torch.ones(1, 1, 1, 1)
    assert pooling(relu(x)) != relu(pooling(x))
    assert not may_come_first(pooling, relu)
