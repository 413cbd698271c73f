"""The native kernels against torch: in whole numbers to the bit, in others against float64."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from runner.training.kernels.library import Library
from runner.training.kernels.program import program
from runner.training.learners.learner import named_tensors
from runner.training.learners.max_pooling import quicken

BATCHES = (1, 5, 7, 8, 15, 16, 17, 33, 64, 1000)
"""Whole blocks and ragged ones, of 8 and of 16 images."""

AFTER = ("", "relu", "pool", "relu pool", "pool relu")

Outcome = dict[str, Tensor]


def layers_of(words: str) -> list[nn.Module]:
    kinds: dict[str, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "in-place": lambda: nn.ReLU(inplace=True),
        "pool": lambda: nn.MaxPool2d(2),
        "average": lambda: nn.AvgPool2d(2),
    }
    return [kinds[word]() for word in words.split()]


def integers(*shape: int, seed: int = 0, most: int = 3) -> Tensor:
    """Whole numbers: their sums and products are exact in float32, and windows have equal values."""
    return torch.randint(-most, most + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def outcome(network: nn.Module, x: Tensor, own: Library | None = None, training: bool = True) -> Outcome:
    """Outputs, gradients and buffers by name. `own` computes them; without it, torch does, in float64."""
    dtype = torch.float32 if own else torch.float64
    network = copy.deepcopy(network).to(dtype).train(training)
    x = x.to(dtype).clone().requires_grad_()
    y = (program(network, own) if own else network)(x)
    y.backward(integers(*y.shape, seed=1).to(dtype))
    assert x.grad is not None
    gradients = {f"{name} gradient": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"output": y.detach(), "images gradient": x.grad, **gradients, **dict(network.named_buffers())}


def assert_equal(ours: Outcome, theirs: Outcome) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].shape == value.shape, name
        assert torch.equal(ours[name].double(), value.double()), name


def assert_close(ours: Outcome, theirs: Outcome, share: float = 2e-5) -> None:
    """Within a share of the tensor's largest value.

    A bias before a norm layer has a gradient of 0: a bias has the scale of its layer's weights.
    """
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name].shape == value.shape, name
        weight = theirs.get(name.replace("bias", "weight"), value)
        largest = max(float(scale.abs().max()) for scale in (value, weight))
        worst = float((ours[name].double() - value.double()).abs().max())
        assert worst <= share * largest, f"{name}: off by {worst / largest:.1e} of the largest value"


def check(network: nn.Module, x: Tensor, own: Library, exact: bool = False, training: bool = True) -> None:
    compare = assert_equal if exact else assert_close
    compare(outcome(network, x, own, training), outcome(network, x, None, training))


def all_native(network: nn.Module, own: Library) -> bool:
    return not program(network, own).others


# A grid of shapes


@dataclass(frozen=True)
class Case:
    images: int
    channels: int
    outputs: int
    rows: int
    columns: int
    kernel: int
    padding: int | str
    bias: bool
    after: str

    @property
    def layer(self) -> nn.Conv2d:
        """The convolution, with whole weights."""
        layer = nn.Conv2d(self.channels, self.outputs, self.kernel, padding=self.padding, bias=self.bias)
        with torch.no_grad():
            for number, parameter in enumerate(layer.parameters()):
                parameter.copy_(integers(*parameter.shape, seed=number + 2))
        return layer

    @property
    def x(self) -> Tensor:
        return integers(self.images, self.channels, self.rows, self.columns)

    def __str__(self) -> str:
        return f"{self.images}x{self.channels}x{self.rows}x{self.columns}-{self.outputs}k{self.kernel}p{self.padding}"


def cases(count: int) -> list[Case]:
    """Random shapes, the same in every process. Large batches and many channels come with small images."""
    draw, found = random.Random(0), list[Case]()
    while len(found) < count:
        images, kernel = BATCHES[len(found) % len(BATCHES)], draw.choice((1, 2, 3, 5, 7))
        channels, outputs = (draw.choice((1, 2, 3, 5, 6, 7, 12, 13, 64)) for _ in range(2))
        rows, columns = draw.randint(1, 15), draw.randint(1, 15)
        paddings = [*range(kernel + 2), "valid", *(["same"] if kernel % 2 else [])]
        padding, after = draw.choice(paddings), AFTER[len(found) % len(AFTER)]
        border = padding if isinstance(padding, int) else kernel // 2 if padding == "same" else 0
        size = min(rows, columns) + 2 * border - kernel + 1
        work = images * channels * outputs * kernel**2 * (rows + 2 * border) * (columns + 2 * border)
        if size >= (2 if "pool" in after else 1) and work < 2e7:
            found.append(Case(images, channels, outputs, rows, columns, kernel, padding, draw.random() < 0.7, after))
    return found


CASES = cases(150)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolutions_of_whole_numbers_are_torchs_to_the_bit(case: Case, native: Library) -> None:
    network = nn.Sequential(case.layer, *layers_of(case.after))
    assert all_native(network, native)
    check(network, case.x, native, exact=True)
    with torch.inference_mode():
        assert torch.equal(program(network, native)(case.x), network(case.x))


def test_the_grid_has_every_value() -> None:
    assert {case.images for case in CASES} == set(BATCHES)
    assert {case.after for case in CASES} == set(AFTER)
    assert {case.kernel for case in CASES} == {1, 2, 3, 5, 7}
    beyond = {case.padding - case.kernel for case in CASES if isinstance(case.padding, int)}
    assert {-5, -1, 0, 1} <= beyond
    assert {case.padding for case in CASES} >= {"same", "valid", 0}
    assert any(64 in (case.channels, case.outputs) for case in CASES)


NORMS: list[dict[str, Any]] = [
    {},
    {"affine": False},
    {"momentum": None},
    {"momentum": 0.7, "eps": 0.1},
    {"track_running_stats": False},
    {"affine": False, "track_running_stats": False},
]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("number", range(30))
def test_norm_layers_are_torchs_in_float64(number: int, training: bool, native: Library) -> None:
    """The norm layer gets whole numbers: equal ones stay equal, so that rounding decides no window and no ReLU."""
    # With fewer weights, a norm layer takes away all that they do: their gradients are nothing but rounding.
    several = [case for case in CASES if case.channels * case.kernel**2 >= 4]
    case = several[number * 7 % len(several)]
    arguments = NORMS[number % len(NORMS)]
    norm = nn.BatchNorm2d(case.outputs, **arguments)
    torch.manual_seed(number)
    for name, tensor in named_tensors(norm):
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5) if "var" in name else nn.init.normal_(tensor)
    network = nn.Sequential(case.layer, norm, *layers_of(AFTER[number // 2 % len(AFTER)]))
    small = case.images == 1 and min(case.rows, case.columns) < 2 * case.kernel
    x = integers(
        33 if small else case.images, case.channels, max(case.rows, 3) + case.kernel, case.columns + case.kernel
    )
    assert all_native(network, native)
    check(network, x, native, training=training)


def test_nothing_is_read_before_it_is_written(native: Library) -> None:
    """torch fills new memory with NaN here, the kernels' scratch too."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(3).isnan().all()
        for case in CASES[::6]:
            check(nn.Sequential(case.layer, *layers_of(case.after)), case.x, native, exact=True)
            norm = nn.Sequential(nn.Conv2d(case.channels, 2, 2, padding=2), nn.BatchNorm2d(2), *layers_of(case.after))
            made = outcome(norm, case.x, native)
            assert all(value.isfinite().all() for value in made.values())
    finally:
        torch.use_deterministic_algorithms(False)


def test_several_steps_move_the_averages_like_torchs(native: Library) -> None:
    for momentum in (None, 0.1, 0.0):
        norm = nn.BatchNorm2d(3, momentum=momentum)
        ours = nn.Sequential(nn.Conv2d(1, 3, 3), norm)
        theirs = copy.deepcopy(ours)
        for seed in range(3):
            x = integers(17, 1, 6, 6, seed=seed)
            program(ours, native)(x), theirs(x)
        assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))
        assert norm.num_batches_tracked == 3
    norm.track_running_stats = False
    before = copy.deepcopy(dict(ours.named_buffers()))
    program(ours, native)(x)
    assert_equal(dict(ours.named_buffers()), before)


def test_the_variance_of_large_means_is_exact(native: Library) -> None:
    first = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(first.weight)
    network = nn.Sequential(first, nn.BatchNorm2d(1, momentum=1.0))
    x = 10_000 + integers(333, 1, 9, 9)
    ours, theirs = outcome(network, x, native), outcome(network, x)
    for name in ("1.running_mean", "1.running_var"):
        torch.testing.assert_close(ours[name].double(), theirs[name], rtol=1e-6, atol=0)


BETWEEN: dict[str, Callable[[], list[nn.Module]]] = {
    "average": lambda: [nn.AvgPool2d(2)],
    "leaky": lambda: [nn.LeakyReLU(0.1)],
    "in place": lambda: [nn.ReLU(inplace=True), nn.BatchNorm2d(3), nn.LeakyReLU(inplace=True)],
    "pool in place": lambda: [nn.MaxPool2d(2), nn.ReLU(inplace=True)],
    "average in place": lambda: [nn.AvgPool2d(2), nn.ReLU(inplace=True)],
    "norm average": lambda: [nn.BatchNorm2d(3), nn.AvgPool2d(2), nn.Sigmoid()],
    "norm norm": lambda: [nn.BatchNorm2d(3), nn.Tanh(), nn.BatchNorm2d(3, affine=False)],
    "sigmoid norm": lambda: [nn.Sigmoid(), nn.BatchNorm2d(3)],
    "relu norm pool": lambda: [nn.ReLU(), nn.BatchNorm2d(3), nn.MaxPool2d(2)],
    "pool pool": lambda: [nn.MaxPool2d(2), nn.MaxPool2d(2)],
    "identity": lambda: [nn.Identity(), nn.ReLU(), nn.Identity(), nn.MaxPool2d(2)],
    "nested": lambda: [nn.Sequential(nn.Sequential(nn.BatchNorm2d(3)), nn.ReLU()), nn.Sequential(nn.MaxPool2d(2))],
    "softmax": lambda: [nn.Softmax2d()],
    "dropout": lambda: [nn.Dropout(0.0), nn.ReLU()],
    "group norm": lambda: [nn.GroupNorm(1, 3), nn.ReLU()],
    "pool of 3": lambda: [nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)],
    **{
        layer.__name__: partial(lambda kind: [kind()], layer)
        for layer in (nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.ReLU6)
    },
}


@pytest.mark.parametrize("images", [5, 33])
@pytest.mark.parametrize("name", BETWEEN)
def test_layers_between_convolutions(name: str, images: int, native: Library) -> None:
    """A second convolution shows that blocks, their empty lanes too, come through the layers in order."""
    torch.manual_seed(1)
    first = nn.Conv2d(2, 3, 3, padding=1)
    with torch.no_grad():
        first.weight.copy_(integers(*first.weight.shape))
        nn.init.constant_(first.get_parameter("bias"), 0.5)
    network = nn.Sequential(first, *BETWEEN[name](), nn.Conv2d(3, 4, 2, padding=1), nn.Tanh(), nn.Flatten())
    quicken(network)  # as a run does
    for training in (True, False):
        check(network, integers(images, 2, 9, 11), native, training=training)


@pytest.mark.parametrize(
    "settings", [{"ceil_mode": True}, {"divisor_override": 3}, {"padding": 1}, {"stride": 1}], ids=str
)
def test_another_average_pooling_is_torchs(settings: dict[str, Any], native: Library) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AvgPool2d(2, **settings), nn.ReLU())
    assert "1 AvgPool2d" in program(network, native).others
    check(network, integers(3, 1, 9, 9), native)


# Layers that stay torch's

FOREIGN: dict[str, Callable[[], nn.Module]] = {
    "stride": lambda: nn.Conv2d(2, 3, 3, stride=2),
    "dilation": lambda: nn.Conv2d(2, 3, 3, dilation=2),
    "groups": lambda: nn.Conv2d(2, 4, 3, groups=2),
    "circular": lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
    "kernel": lambda: nn.Conv2d(2, 3, (3, 2)),
    "padding": lambda: nn.Conv2d(2, 3, 3, padding=(1, 0)),
    "same": lambda: nn.Conv2d(2, 3, 2, padding="same"),
    "large": lambda: nn.Conv2d(2, 3, 8),
    "transposed": lambda: nn.ConvTranspose2d(2, 3, 3),
    "parametrized": lambda: parametrizations.weight_norm(nn.Conv2d(2, 3, 3)),
    "norm first": lambda: nn.BatchNorm2d(2),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", FOREIGN)
def test_a_layer_that_the_kernels_do_not_know_is_torchs_and_named(name: str, native: Library) -> None:
    torch.manual_seed(0)
    foreign = FOREIGN[name]()
    between = nn.Conv2d(foreign(torch.zeros(1, 2, 11, 11)).shape[1], 2, 3)
    network = nn.Sequential(
        foreign, nn.Tanh(), between, nn.Tanh(), copy.deepcopy(foreign) if name != "large" else nn.Tanh()
    )
    made = program(network, native)
    kind = type(foreign).__name__
    assert made.others[0] == f"0 {kind}"
    assert "2 Conv2d" in made.native
    if name not in ("large", "norm first"):
        assert made.others[-1] == f"4 {kind}"
    check(network, torch.randn(5, 2, 11, 11), native)


def test_other_dtypes_are_torchs(native: Library) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).double()
    made = program(network, native)
    assert made.native == []
    x = torch.randn(3, 1, 5, 5, dtype=torch.float64)
    assert torch.equal(made(x), network(x))
    mixed = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).double())
    assert program(mixed, native).others == ["1 BatchNorm2d"]
    with pytest.raises(RuntimeError, match="float32"):
        program(nn.Sequential(nn.Conv2d(1, 2, 3)), native)(x)


class Mine(nn.Conv2d):
    """A user's own layer."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def test_a_class_of_its_own_and_no_sequential_are_called_as_they_are(native: Library) -> None:
    network = nn.Sequential(Mine(1, 2, 3), nn.ReLU())
    assert program(network, native).others == ["0 Mine", "1 ReLU"]
    check(network, integers(3, 1, 5, 5), native)
    assert program(nn.Conv2d(1, 2, 3), native).native == ["Conv2d"]


def hooked(native: Library | None, where: str, kind: str) -> tuple[list[Tensor], Outcome, list[str]]:
    """What a hook sees of a network, and the outcome."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.ReLU())
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), inner, nn.Conv2d(2, 2, 2), nn.Flatten())
    module = network.get_submodule(where)
    seen: list[Tensor] = []

    def hook(_: nn.Module, *values: Any) -> None:
        seen.extend(value[0] if isinstance(value, tuple) else value for value in values)

    getattr(module, f"register_{kind}")(hook)
    quicken(network)
    x = integers(5, 1, 14, 14).requires_grad_()
    made = program(network, native)
    y = (made if native else network)(x)
    y.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    return [tensor.detach() for tensor in seen], {"output": y.detach(), **gradients}, list(made.native)


@pytest.mark.parametrize("kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"])
@pytest.mark.parametrize("where", ["", "0", "1", "2", "3", "3.0", "3.1", "3.2", "4"])
def test_hooks_see_what_they_see_in_the_network(where: str, kind: str, native: Library) -> None:
    ours, outcome_ours, names = hooked(native, where, kind)
    theirs, outcome_theirs, _ = hooked(None, where, kind)
    assert len(ours) == len(theirs) >= 1
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other)
    assert_close(outcome_ours, outcome_theirs)
    assert not any(name.startswith(f"{where} ") for name in names)
    assert (names == []) == (where == "")


def test_a_module_in_two_places_and_frozen_ones(native: Library) -> None:
    shared, norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
    network = nn.Sequential(shared, nn.Tanh(), norm, shared, nn.Tanh(), norm)
    assert len(program(network, native).native) == 6
    check(network, integers(17, 2, 5, 5), native)
    for frozen in (shared.weight, shared.get_parameter("bias"), norm.weight):
        frozen.requires_grad_(False)
        check(network, integers(17, 2, 5, 5), native)
    lone = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 1, 2))
    for layer in lone[:2]:
        layer.requires_grad_(False)
    check(lone, integers(9, 1, 6, 6), native)
    lone.requires_grad_(False)
    assert not program(lone, native)(integers(9, 1, 6, 6)).requires_grad


def test_weights_in_any_memory_layout(native: Library) -> None:
    first, x = nn.Conv2d(2, 4, 3), integers(5, 2, 6, 6)
    network = nn.Sequential(first, nn.ReLU(), nn.Conv2d(4, 4, 1))
    expected = program(network, native)(x)
    network.to(memory_format=torch.channels_last)
    first.bias = nn.Parameter(first.get_parameter("bias").detach().repeat_interleave(2)[::2])
    assert not first.weight.is_contiguous()
    assert not first.bias.is_contiguous()
    shifted = torch.zeros(x.numel() + 1)[1:].view(x.shape).copy_(x)
    for images in (x, x.contiguous(memory_format=torch.channels_last), shifted):
        assert torch.equal(program(network, native)(images), expected)


# What torch refuses, and numbers that are not finite


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(1, 2, 7)],
        [nn.Conv2d(1, 2, 5), nn.ReLU(), nn.MaxPool2d(2)],
        [nn.Conv2d(1, 2, 5), nn.BatchNorm2d(2), nn.MaxPool2d(2)],
        [nn.Conv2d(1, 2, 5), nn.AvgPool2d(2)],
        [nn.Conv2d(2, 2, 3)],
        [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(3)],
        [nn.Conv2d(1, 2, 3), nn.Conv2d(3, 1, 1)],
    ],
    ids=str,
)
def test_images_that_do_not_fit_are_an_error_as_in_torch(layers: list[nn.Module], native: Library) -> None:
    network, x = nn.Sequential(*layers), torch.zeros(4, 1, 5, 5)
    for compute in (network, program(network, native)):
        with pytest.raises(RuntimeError):
            compute(x)


@pytest.mark.parametrize(("tracked", "training"), [(True, True), (False, True), (False, False)])
def test_one_value_has_no_variance(tracked: bool, training: bool, native: Library) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=tracked)).train(training)
    for compute in (network, program(network, native)):
        with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
            compute(torch.zeros(1, 1, 3, 3))
    check(network, integers(1, 1, 5, 5), native, training=training)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("after", ["", "relu", "pool", "relu pool", "norm relu pool", "average", "norm"])
@pytest.mark.parametrize("where", ["images", "weight", "bias"])
def test_numbers_that_are_not_finite_come_through(value: float, after: str, where: str, native: Library) -> None:
    norm = [nn.BatchNorm2d(2)] if "norm" in after else []
    network = nn.Sequential(nn.Conv2d(1, 2, 3), *norm, *layers_of(after.removeprefix("norm")))
    x = integers(17, 1, 8, 8)
    with torch.no_grad():
        tensor = x if where == "images" else network[0].get_parameter(where)
        tensor.view(-1)[1] = value
    ours, theirs = outcome(network, x, native), outcome(network, x)
    for name, expected in theirs.items():
        assert not ours[name][~expected.isfinite()].isfinite().any(), name
        # A norm layer's statistics, and a zero beside an image times infinity, are NaN or infinite in some order.
        if where == "images" and not norm:
            for test in (torch.isnan, torch.isposinf, torch.isneginf):
                assert torch.equal(test(ours[name]), test(expected)), (name, test)


def test_the_maximum_of_nan_and_equal_values_is_torchs(native: Library) -> None:
    """Each window of 2 × 2 values out of {0, 1, NaN}, with its gradient."""
    values = torch.tensor([0.0, 1.0, torch.nan])
    x = torch.cartesian_prod(values, values, values, values).view(81, 1, 2, 2)
    first = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(first.weight)
    network = nn.Sequential(first, nn.MaxPool2d(2))
    ours, theirs = outcome(network, x, native), outcome(network, x)
    for name in ("output", "images gradient"):
        assert torch.equal(ours[name].nan_to_num(7).double(), theirs[name].nan_to_num(7)), name
