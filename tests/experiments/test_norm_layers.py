"""The layers of experiments.norm_layers against the formulas of their papers, written in numpy, in float64."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.norm_layers import virtual_batches
from experiments.norms import build_norm

Array = NDArray[np.float64]

F = 3
SHAPES = {1: (F,), 2: (F, 2, 4)}
NAMES = ("ghost", "frozen", "renorm", "precise", "dyt")
STATISTICS = ("ghost", "frozen", "renorm", "precise")


def images(samples: int, dims: int, number: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(samples, *SHAPES[dims], generator=generator, dtype=torch.double) * (2 + number) + number


def made(name: str, dims: int, **arguments: object) -> Any:
    """A layer in float64 whose γ and β are not 1 and 0."""
    layer = build_norm(name, F, dims, arguments).double()
    with torch.no_grad():
        for key, values in (("weight", [0.5, 1.0, -2.0]), ("bias", [1.0, 0.0, 3.0])):
            getattr(layer, key).copy_(torch.tensor(values))
    return layer


def rows(x: Tensor) -> Array:
    """[values, F]"""
    return np.asarray(x.detach().movedim(1, -1).reshape(-1, F))


def close(found: Tensor, expected: Array) -> None:
    values = rows(found) if found.dim() > 1 else found.detach().numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-10, atol=1e-12)


def scaled(values: Array) -> Array:
    return np.asarray(np.array([0.5, 1.0, -2.0]) * values + np.array([1.0, 0.0, 3.0]))


def by_batch(values: Array, eps: float = 1e-5) -> Array:
    return np.asarray((values - values.mean(0)) / np.sqrt(values.var(0) + eps))


@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("samples", [2, 5])
def test_gradients(name: str, dims: int, samples: int) -> None:
    layer = made(name, dims, **({"size": 2} if name == "ghost" else {}))
    parameters = [parameter.detach().clone().requires_grad_() for parameter in layer.parameters()]
    names = [key for key, _ in layer.named_parameters()]

    def of(x: Tensor, *values: Tensor) -> Any:
        # A copy, because the averages must be the same in each call.
        return torch.func.functional_call(copy.deepcopy(layer), dict(zip(names, values, strict=True)), x)

    assert torch.autograd.gradcheck(of, (images(samples, dims).requires_grad_(), *parameters))


@pytest.mark.parametrize("name", NAMES)
def test_no_layer_is_mistaken_for_torchs(name: str) -> None:
    for dims in SHAPES:
        assert not isinstance(build_norm(name, F, dims), nn.modules.batchnorm._NormBase)


@pytest.mark.parametrize("name", STATISTICS)
def test_one_value_per_channel_gives_torchs_message(name: str) -> None:
    for dims, x in ((1, torch.ones(1, F)), (2, torch.ones(1, F, 1, 1))):
        for layer in (build_norm(name, F, dims), (nn.BatchNorm1d, nn.BatchNorm2d)[dims - 1](F)):
            with pytest.raises(
                ValueError, match=r"Expected more than 1 value per channel when training, got input size"
            ):
                layer(x)
            assert layer.eval()(x).shape == x.shape


# ghost


@pytest.mark.parametrize(
    ("samples", "size", "sizes"),
    [
        (12, 4, [4, 4, 4]),
        (11, 4, [4, 4, 3]),
        (9, 4, [4, 5]),  # the rest is one sample
        (5, 4, [5]),
        (3, 4, [3]),
        (1, 4, [1]),
        (3, 2, [3]),
    ],
)
def test_virtual_batches(samples: int, size: int, sizes: Sequence[int]) -> None:
    assert [each for count, each in virtual_batches(samples, size) for _ in range(count)] == sizes


@pytest.mark.parametrize("momentum", [0.25, 1.0, None])
@pytest.mark.parametrize("dims", SHAPES)
def test_ghost(dims: int, momentum: float | None) -> None:
    """Each virtual batch by itself, and the averages of one update after the other."""
    layer = made("ghost", dims, size=4, momentum=momentum)
    mean, var, seen = np.zeros(F), np.ones(F), 0
    for number, cuts in enumerate([(4, 4, 4), (4, 4, 3), (4, 5), (3,)]):
        x = images(sum(cuts), dims, number)
        parts = [rows(part) for part in x.split(cuts)]
        close(layer(x), scaled(np.concatenate([by_batch(part) for part in parts])))
        for part in parts:
            seen += 1
            new = 1 / seen if momentum is None else momentum
            mean = (1 - new) * mean + new * part.mean(0)
            var = (1 - new) * var + new * part.var(0, ddof=1)
        close(layer.running_mean, mean)
        close(layer.running_var, var)
        assert layer.num_batches_tracked == seen
    x = images(7, dims, 9)
    close(layer.eval()(x), scaled((rows(x) - mean) / np.sqrt(var + 1e-5)))


@pytest.mark.parametrize("dims", SHAPES)
def test_ghost_with_a_large_size_is_batch(dims: int) -> None:
    ghost, batch = (build_norm(name, F, dims).double() for name in ("ghost", "batch"))
    for number in range(3):
        x = images(20 + number, dims, number)
        torch.testing.assert_close(ghost(x), batch(x))
    torch.testing.assert_close(ghost.state_dict(), batch.state_dict())


# frozen


@pytest.mark.parametrize("dims", SHAPES)
def test_frozen(dims: int) -> None:
    """It is batch norm for two epochs, and then a fixed affine map whose γ and β have gradients."""
    layer, torchs = made("frozen", dims, after=2), made("batch", dims)
    for epoch in (1, 2):
        layer.current_epoch.fill_(epoch)
        x = images(4 + epoch, dims, epoch)
        torch.testing.assert_close(layer(x), torchs(x))
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    for key, value in torchs.state_dict().items():
        torch.testing.assert_close(before[key], value)
    layer.current_epoch.fill_(3)
    for samples in (5, 2):
        x = images(samples, dims, samples).requires_grad_()
        y = layer(x)
        mean, deviation = before["running_mean"].numpy(), np.sqrt(before["running_var"].numpy() + 1e-5)
        close(y, scaled((rows(x) - mean) / deviation))
        weight = images(samples, dims, 7)
        x_gradient, gamma, beta = torch.autograd.grad((y * weight).sum(), (x, layer.weight, layer.bias))
        close(x_gradient, rows(weight) * np.array([0.5, 1.0, -2.0]) / deviation)  # statistics are constants
        close(gamma, (rows(weight) * (rows(x) - mean) / deviation).sum(0))
        close(beta, rows(weight).sum(0))
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(layer.state_dict()[key], before[key])
    layer.reset_running_stats()
    torch.testing.assert_close(layer(x.detach()), torchs(x.detach()))
    close(layer.running_mean, 0.1 * rows(x).mean(0))


# renorm


@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
@pytest.mark.parametrize("dims", SHAPES)
def test_renorm(dims: int, momentum: float | None) -> None:
    """Algorithm 1, with bounds that begin after two batches and are reached at the sixth."""
    layer = made("renorm", dims, r_max=1.5, d_max=0.4, warm_up=2, ramp=4, momentum=momentum)
    mu, sigma, eps = np.zeros(F), np.sqrt(np.ones(F) + 1e-5), 1e-5
    clipped = []
    for step in range(9):
        x = images((4, 7, 3)[step % 3], dims, step % 4).requires_grad_()
        values = rows(x)
        share = min(1.0, max(0.0, (step - 2) / 4))
        r_max, d_max = 1 + share * 0.5, share * 0.4
        batch_mu, batch_sigma = values.mean(0), np.sqrt(values.var(0) + eps)
        r = np.clip(batch_sigma / sigma, 1 / r_max, r_max)
        d = np.clip((batch_mu - mu) / sigma, -d_max, d_max)
        clipped += [r_max in r, -d_max in d or d_max in d]
        y = layer(x)
        hat = (values - batch_mu) / batch_sigma
        close(y, scaled(hat * r + d))
        # Batch norm's gradient in closed form (Ioffe & Szegedy 2015, section 3), times r: r and d are constants.
        weight = images(len(x), dims, 11)
        (gradient,) = torch.autograd.grad((y * weight).sum(), x)
        g = rows(weight) * np.array([0.5, 1.0, -2.0]) * r
        close(gradient, (g - g.mean(0) - hat * (g * hat).mean(0)) / batch_sigma)
        new = 1 / (step + 1) if momentum is None else momentum
        mu, sigma = mu + new * (batch_mu - mu), sigma + new * (batch_sigma - sigma)
        close(layer.running_mean, mu)
        close(layer.running_var, sigma**2 - eps)
    assert any(clipped)
    assert not all(clipped)
    x = images(6, dims, 9)
    close(layer.eval()(x), scaled((rows(x) - mu) / sigma))


def test_renorm_computes_the_same_in_training_and_evaluation_where_nothing_is_clipped() -> None:
    layer = made("renorm", 2, r_max=1e9, d_max=1e9, warm_up=0, ramp=1)
    for number in range(3):
        layer(images(5, 2, number))
    x = images(5, 2, 7)
    expected = layer.eval()(x)
    torch.testing.assert_close(layer.train()(x), expected)


def test_renorm_begins_as_batch_norm() -> None:
    renorm, batch = made("renorm", 1), made("batch", 1)
    for number in range(101):
        x = images(4, 1, number % 5)
        assert torch.allclose(renorm(x), batch(x))
    assert not torch.allclose(renorm(x), batch(x))


def test_renorm_of_equal_values_keeps_a_variance_of_zero() -> None:
    layer: Any = build_norm("renorm", F, 1, {"momentum": 1.0})
    layer(torch.ones(4, F))
    assert (layer.running_var >= 0).all()
    assert layer.eval()(torch.ones(4, F)).isfinite().all()


# precise


@pytest.mark.parametrize("dims", SHAPES)
def test_precise_is_batch_norm_that_keeps_no_average_while_it_trains(dims: int) -> None:
    precise, batch = made("precise", dims), made("batch", dims)
    before = {key: value.clone() for key, value in precise.state_dict().items()}
    for number in range(2):
        x = images(4 + number, dims, number)
        torch.testing.assert_close(precise(x), batch(x))
    assert all(torch.equal(value, before[key]) for key, value in precise.state_dict().items())


# dyt


@pytest.mark.parametrize("dims", SHAPES)
@pytest.mark.parametrize("samples", [1, 5])
def test_dyt(dims: int, samples: int) -> None:
    layer, x = made("dyt", dims, alpha=0.75), images(samples, dims)
    for training in (True, False):
        close(layer.train(training)(x), scaled(np.tanh(0.75 * rows(x))))
    weight = images(samples, dims, 3)
    (gradient,) = torch.autograd.grad((layer(x) * weight).sum(), [layer.alpha])
    slope = np.array([0.5, 1.0, -2.0]) * rows(x) * (1 - np.tanh(0.75 * rows(x)) ** 2)
    close(gradient, np.array([(rows(weight) * slope).sum()]))
