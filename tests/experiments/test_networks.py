"""Contract tests over every registered network, and each network against its source."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

import experiments.networks
from experiments.networks.conv_unit import Order
from experiments.networks.parts import Activation, activation_layer
from runner import factories, registry
from runner.errors import UserError
from runner.training.networks import parameter_count, weights_hash

NAMES = [name for name, factory in registry.network.items() if factory.__module__.startswith("experiments.")]
NORMED = [name for name in NAMES if "norm" in factories.signature(registry.network[name])]
NORMS = [name for name, factory in registry.norm.items() if factory.__module__.startswith("experiments.")]
WITH_LINEAR_NORMS = {"lenet", "mlp", "notebook_mlp"}
CASES: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in NAMES] + [
    (name, {"norm": norm})
    for name in NORMED
    for norm in NORMS
    if not (norm == "instance" and name in WITH_LINEAR_NORMS)
]
every_case = pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)


def build(name: str, seed: int = 50, **arguments: Any) -> nn.Sequential:
    torch.manual_seed(seed)
    network: nn.Sequential = registry.network[name](**arguments)
    return network


def images(count: int = 4) -> Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1


def weights(network: nn.Module) -> list[Tensor]:
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return [parameter.detach() for layer in layers for parameter in layer.parameters()]


def test_all_are_registered() -> None:
    expected = {"no_batch_norm", "batch_norm", "notebook_mlp", "notebook_cnn", "lenet", "vgg", "conv_unit", "mlp"}
    assert expected <= set(NAMES)
    assert expected - {"no_batch_norm", "batch_norm"} <= set(NORMED)


@every_case
def test_gives_finite_logits(name: str, arguments: dict[str, Any]) -> None:
    network = build(name, **arguments)
    for training in (True, False):
        network.train(training)
        with torch.set_grad_enabled(training):
            logits = network(images())
        assert logits.shape == (4, 10)
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()
        assert logits.std(dim=0).max() > 0  # the answer depends on the image


@every_case
def test_gradients_reach_every_parameter(name: str, arguments: dict[str, Any]) -> None:
    network = build(name, **arguments)
    loss = F.cross_entropy(network(images()), torch.arange(4))
    keys, parameters = zip(*network.named_parameters(), strict=True)
    for key, gradient in zip(keys, torch.autograd.grad(loss, parameters), strict=True):  # raises for an unused one
        assert gradient.isfinite().all(), key
        if not key.endswith("bias"):  # a bias before a norm layer has a gradient of zero
            assert gradient.abs().max() > 0, key


@every_case
def test_builds_are_functions_of_the_seed(name: str, arguments: dict[str, Any]) -> None:
    one, same, other = build(name, **arguments), build(name, **arguments), build(name, seed=51, **arguments)
    assert_close(dict(one.state_dict()), dict(same.state_dict()), rtol=0, atol=0)
    assert weights_hash(one) == weights_hash(same) != weights_hash(other)


@pytest.mark.parametrize(("name", "arguments"), [case for case in CASES if case[1]], ids=str)
def test_weights_outside_the_norm_do_not_depend_on_it(name: str, arguments: dict[str, Any]) -> None:
    network, without = build(name, **arguments), build(name, norm="none")
    assert_close(weights(network), weights(without), rtol=0, atol=0)
    assert weights_hash(network) == weights_hash(without)


@pytest.mark.parametrize("name", NORMED)
def test_norm_arguments_arrive_and_are_checked(name: str) -> None:
    network = build(name, norm="batch", norm_args={"eps": 0.5, "affine": False})
    layers = [module for module in network if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert layers
    assert {(layer.eps, layer.affine) for layer in layers} == {(0.5, False)}
    with pytest.raises(UserError, match="did you mean 'momentum'"):
        build(name, norm="batch", norm_args={"momentun": 0.5})


@pytest.mark.parametrize("name", sorted(WITH_LINEAR_NORMS))
def test_instance_norm_is_refused_where_there_is_no_image(name: str) -> None:
    with pytest.raises(ValueError, match="try 'layer'"):
        build(name, norm="instance")


@pytest.mark.parametrize("name", NORMED)
def test_random_norms_of_one_network_differ(name: str) -> None:
    gammas = [value for key, value in build(name, norm="notebook").state_dict().items() if "running" not in key]
    heads = [tuple(value.flatten()[:5].tolist()) for value in gammas if value.dim() == 1]
    assert len(set(heads)) == len(heads) > 3


@pytest.mark.parametrize("name", NAMES)
def test_docstring_tells_summary_source_shapes_and_parameters(name: str) -> None:
    factory = registry.network[name]
    text = factory.__doc__ or ""
    assert 20 < len(factories.summary(factory)) < 120
    assert "Source: " in text
    assert "[N, 1, 28, 28] → [N, 10]" in text
    assert f"{parameter_count(build(name)):,}" in text
    if name in NORMED:
        for norm in ("none", "batch"):
            assert f"{parameter_count(build(name, norm=norm)):,}" in text


@pytest.mark.parametrize(
    ("name", "arguments", "count"),
    [
        ("no_batch_norm", {}, 32_998),
        ("batch_norm", {}, 33_250),
        ("notebook_mlp", {"norm": "notebook"}, 784 * 100 + 100 + 100 * 10 + 10 + 2 * 100),
        ("notebook_cnn", {"norm": "none"}, (9 * 6 + 6) + (25 * 6 * 16 + 16) + (400 * 10 + 10)),
        ("lenet", {"norm": "none"}, 156 + 2_416 + (256 * 120 + 120) + (120 * 84 + 84) + 850),
        ("mlp", {"hidden": [400] * 20, "bias": False}, 784 * 400 + 19 * 400**2 + 400 * 10),
    ],
    ids=str,
)
def test_published_parameter_counts(name: str, arguments: dict[str, Any], count: int) -> None:
    assert parameter_count(build(name, **arguments)) == count


def test_vgg_of_the_papers_width_has_its_convolutions() -> None:
    """Configuration A has 9,220,480 parameters in its convolutions for 3 input channels; 1 channel saves 2 · 64 · 9."""
    network = build("vgg", width=64)
    convolutions = [module for module in network if isinstance(module, nn.Conv2d)]
    assert sum(parameter_count(layer) for layer in convolutions) == 9_220_480 - 2 * 64 * 9
    assert parameter_count(network) == 9_220_480 - 2 * 64 * 9 + 5_130


@pytest.mark.parametrize("norm", [False, True])
def test_tutorials_weights_for_seed_50(norm: bool) -> None:
    """nn.Sequential as the tutorial lists it, and its outputs."""
    torch.manual_seed(50)
    if norm:
        listed = nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2, 2), nn.BatchNorm2d(6),
            nn.Conv2d(6, 12, 5), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(1),
            nn.Linear(12 * 4 * 4, 120), nn.ReLU(), nn.BatchNorm1d(120),
            nn.Linear(120, 60), nn.ReLU(), nn.Linear(60, 10),
        )  # fmt: skip
    else:
        listed = nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2, 2),
            nn.Conv2d(6, 12, 5), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(1),
            nn.Linear(12 * 4 * 4, 120), nn.ReLU(), nn.Linear(120, 60), nn.ReLU(), nn.Linear(60, 10),
        )  # fmt: skip
    ours = build("batch_norm" if norm else "no_batch_norm")
    assert_close(dict(ours.state_dict()), dict(listed.state_dict()), rtol=0, atol=0)
    assert_close(ours(images()), listed(images()), rtol=0, atol=0)


def test_tutorials_networks_share_their_weights() -> None:
    assert_close(weights(build("batch_norm")), weights(build("no_batch_norm")), rtol=0, atol=0)


def test_notebooks_networks_as_listed() -> None:
    torch.manual_seed(50)
    listed = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    assert_close(build("notebook_mlp")(images()), listed(images().flatten(1)))
    torch.manual_seed(50)
    listed = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Flatten(), nn.Linear(400, 10),
    )  # fmt: skip
    assert_close(build("notebook_cnn", norm="batch")(images()), listed(images()))


def test_notebook_mlp_normalises_before_the_relu() -> None:
    network = build("notebook_mlp", norm="notebook")
    w1, b1, gamma, beta, w2, b2 = network.parameters()
    h = F.linear(images().flatten(1), w1, b1)
    h = gamma * (h - h.mean(0)) / torch.sqrt(h.var(0, correction=0) + 1e-5) + beta
    assert_close(network(images()), F.linear(h.relu(), w2, b2))


@pytest.mark.parametrize(
    ("arguments", "activation", "pool"),
    [({}, torch.sigmoid, F.avg_pool2d), ({"activation": "relu", "pool": "max"}, torch.relu, F.max_pool2d)],
    ids=["sigmoid", "relu"],
)
def test_lenet_by_hand(
    arguments: dict[str, Any], activation: Callable[..., Tensor], pool: Callable[..., Tensor]
) -> None:
    network = build("lenet", norm="batch", **arguments)
    p = list(network.parameters())
    convolutions, linears = (p[0:2], p[4:6]), (p[8:10], p[12:14])
    x = images()
    for weight, bias in convolutions:
        x = pool(activation(F.batch_norm(F.conv2d(x, weight, bias), None, None, training=True)), 2)
    x = x.flatten(1)
    for weight, bias in linears:
        x = activation(F.batch_norm(F.linear(x, weight, bias), None, None, training=True))
    assert_close(network(images()), F.linear(x, p[16], p[17]))


def test_vgg_has_eleven_weight_layers_less_two_and_five_stages() -> None:
    """VGG-11 has three linear layers, ours one. Sizes in front of each convolution are the paper's for 32×32."""
    network = build("vgg", norm="batch")
    sizes, x = [], images()
    for module in network:
        x = module(x)
        if isinstance(module, nn.Conv2d):
            sizes.append(tuple(x.shape[1:]))
    assert sizes == [
        (16, 32, 32), (32, 16, 16), (64, 8, 8), (64, 8, 8), (128, 4, 4), (128, 4, 4), (128, 2, 2), (128, 2, 2),
    ]  # fmt: skip
    kinds = [type(module) for module in network]
    assert kinds[:4] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d]
    assert kinds.count(nn.MaxPool2d) == 5


def by_hand(order: str, pool: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
    """The six orders, written out; the batch norm is torch's function in training."""

    def norm(x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True)

    def halve(x: Tensor) -> Tensor:
        return pool(x, 2)

    return {
        "norm-pool-activation": lambda x: torch.tanh(halve(norm(x))),
        "norm-activation-pool": lambda x: halve(torch.tanh(norm(x))),
        "pool-norm-activation": lambda x: torch.tanh(norm(halve(x))),
        "pool-activation-norm": lambda x: norm(torch.tanh(halve(x))),
        "activation-norm-pool": lambda x: halve(norm(torch.tanh(x))),
        "activation-pool-norm": lambda x: norm(halve(torch.tanh(x))),
    }[order]


@pytest.mark.parametrize("order", get_args(Order))
def test_conv_unit_computes_in_its_order(order: str) -> None:
    """With tanh and average pooling no two orders are one function."""
    network = build("conv_unit", order=order, pool="average", activation="tanh", units=2, width=3)
    first, second, last = (module for module in network if isinstance(module, nn.Linear | nn.Conv2d))
    logits = {}
    for candidate in get_args(Order):
        rest = by_hand(candidate, F.avg_pool2d)
        x = rest(F.conv2d(images(), first.weight, first.bias, padding=1))
        x = rest(F.conv2d(x, second.weight, second.bias, padding=1))
        logits[candidate] = last(x.flatten(1))
    y = network(images())
    assert [candidate for candidate, other in logits.items() if torch.allclose(y, other, atol=1e-5)] == [order]


def test_six_orders() -> None:
    assert len(set(get_args(Order))) == 6


def test_relu_and_average_pooling_do_not() -> None:
    one, other = (
        build("conv_unit", order=f"norm-{rest}", pool="average") for rest in ("pool-activation", "activation-pool")
    )
    assert not torch.allclose(one(images()), other(images()), atol=1e-3)


@pytest.mark.parametrize("units", [1, 2, 3, 4])
def test_conv_unit_units_and_width(units: int) -> None:
    network = build("conv_unit", units=units, width=5)
    assert [m.out_channels for m in network if isinstance(m, nn.Conv2d)] == [5, 10, 20, 40][:units]
    assert network(images()).shape == (4, 10)


def test_mlp_is_built_from_its_arguments() -> None:
    network = build("mlp", hidden=[7, 5], activation="tanh", norm="batch", dropout=0.25)
    expected = [nn.Flatten] + 2 * [nn.Linear, nn.BatchNorm1d, nn.Tanh, nn.Dropout] + [nn.Linear]
    assert [type(module) for module in network] == expected
    assert [m.out_features for m in network if isinstance(m, nn.Linear)] == [7, 5, 10]
    assert [m.p for m in network if isinstance(m, nn.Dropout)] == [0.25, 0.25]
    after = build("mlp", hidden=[7], norm="batch", norm_position="after")
    assert [type(module) for module in after] == [nn.Flatten, nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Linear]
    without = build("mlp", hidden=[7], bias=False)
    assert all(m.bias is None for m in without if isinstance(m, nn.Linear))


def test_papers_network() -> None:
    """Ioffe & Szegedy 2015, section 4.1: three sigmoid layers of 100, small Gaussian weights."""
    network = build("mlp", hidden=[100, 100, 100], activation="sigmoid", norm="batch", init="normal", std=0.01)
    w = [m.weight for m in network if isinstance(m, nn.Linear)]
    x = images().flatten(1)
    for weight in w[:-1]:
        x = torch.sigmoid(F.batch_norm(F.linear(x, weight), None, None, training=True))
    assert_close(network(images()), F.linear(x, w[-1]))


@pytest.mark.parametrize(
    ("arguments", "std"),
    [
        ({"init": "he"}, lambda fan_in, _: math.sqrt(2 / fan_in)),
        ({"init": "xavier"}, lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out))),
        *(({"init": "normal", "std": std}, lambda *_, std=std: std) for std in (0.005, 0.05, 0.5, 5)),
    ],
    ids=lambda value: "" if callable(value) else str(value),
)
def test_mlp_initialisations(arguments: dict[str, Any], std: Callable[[int, int], float]) -> None:
    network = build("mlp", hidden=[200, 300], **arguments)
    for layer in (module for module in network if isinstance(module, nn.Linear)):
        assert layer.weight.std().item() == pytest.approx(std(layer.in_features, layer.out_features), rel=0.06)
        assert layer.weight.mean().abs() < 0.1 * layer.weight.std()
        assert layer.bias.count_nonzero() == 0


def test_mlp_default_initialisation_is_torchs() -> None:
    torch.manual_seed(50)
    listed = nn.Sequential(nn.Flatten(), nn.Linear(784, 8), nn.Identity(), nn.ReLU(), nn.Linear(8, 10))
    assert_close(dict(build("mlp", hidden=[8]).state_dict()), dict(listed.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", torch.relu),
        ("sigmoid", torch.sigmoid),
        ("tanh", torch.tanh),
        ("gelu", F.gelu),
        ("silu", F.silu),
        ("identity", torch.clone),
    ],
)
def test_activations(name: Activation, function: Callable[[Tensor], Tensor]) -> None:
    x = torch.linspace(-3, 3, 13)
    assert torch.equal(activation_layer(name)(x), function(x))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("lenet", "norm", "bach"),
        ("lenet", "norm_args", [1]),
        ("lenet", "activation", "rely"),
        ("lenet", "pool", "min"),
        ("vgg", "width", 0),
        ("vgg", "width", 16.0),
        ("conv_unit", "order", "norm-pool"),
        ("conv_unit", "units", 5),
        ("mlp", "hidden", []),
        ("mlp", "hidden", [0]),
        ("mlp", "hidden", 100),
        ("mlp", "hidden", "100"),
        ("mlp", "std", 0.0),
        ("mlp", "dropout", 1.0),
        ("mlp", "bias", "no"),
        ("mlp", "init", "orthogonal"),
        ("mlp", "norm_position", "between"),
        ("batch_norm", "norm", "batch"),
    ],
)
def test_wrong_values_are_faults(name: str, key: str, value: object) -> None:
    assert f"'{key}'" in (factories.kwarg_fault("network", name, registry.network[name], key, value) or "")


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_allowed_values(name: str) -> None:
    factory = registry.network[name]
    for key, (_, default) in factories.signature(factory).items():
        assert factories.kwarg_fault("network", name, factory, key, default) is None


def test_package_lists_its_modules() -> None:
    modules = {registry.network[name].__module__ for name in NAMES} - {"experiments.calibration"}
    assert {module.rpartition(".")[2] for module in modules} == set(experiments.networks.__all__)
