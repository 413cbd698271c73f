"""What batch norm must do whatever it is trained on: closed forms and limits, on the registered layers and networks.

Where a number is random its tolerance is 3 standard errors, from the standard deviation of one seed's, which stands
beside it with the number of seeds it was measured over.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from experiments.networks.parts import pool_layer
from experiments.norms import build_norm
from runner import registry

INIT = {"relu": "he", "sigmoid": "xavier", "tanh": "xavier", "identity": "xavier"}
PIXELS = 784

Array = npt.NDArray[np.float64]
Function = Callable[[Array], Array]


def build(name: str, **arguments: Any) -> nn.Sequential:
    torch.manual_seed(50)
    network: nn.Sequential = registry.network[name](**arguments)
    return network


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# --- Growth of gradients towards the input, at initialisation ---------------------------------------------------------


def log_gradients(activation: str, norm: str, batch: int, width: int, depth: int, seed: int) -> list[float]:
    """log ‖∂L/∂h_l‖² of every hidden layer's activations h_l, the input's end first; L is the mean cross-entropy of
    random labels on an input [batch, 784] from N(0, 1)."""
    torch.manual_seed(seed)
    network = registry.network["mlp"](hidden=[width] * depth, activation=activation, norm=norm, init=INIT[activation])
    h, hidden = torch.randn(batch, 1, 28, 28), []
    for index, module in enumerate(network):
        h = module(h)
        if index % 3 == 0 and index > 0:  # flatten, then linear, norm, activation, linear, norm, activation, …
            hidden.append(h)
    assert len(hidden) == depth
    loss = F.cross_entropy(h, torch.randint(10, (batch,)))
    return [g.double().square().sum().log().item() for g in torch.autograd.grad(loss, hidden)]


@functools.cache
def growth(
    activation: str, norm: str, *, batch: int, width: int, depth: int, seeds: int, below: int | None = None
) -> float:
    """The factor by which ‖∂L/∂h‖² grows per layer towards the input, averaged over `seeds` networks.

    It is exp(−slope) of the least-squares line through log ‖∂L/∂h_l‖² against l = 1 … depth (with `below`, against the
    first `below` of them), h_l after the activation. The geometric mean of the ratios would weigh the two ends alone:
    for tanh without batch norm, whose factor changes from layer to layer, it is .867 and not .887.
    """
    factors = []
    for seed in range(seeds):
        logs = log_gradients(activation, norm, batch, width, depth, seed)[:below]
        factors.append(math.exp(-np.polyfit(np.arange(len(logs)), logs, 1)[0]))
    return math.fsum(factors) / seeds


@pytest.mark.parametrize(
    ("activation", "norm", "figure", "deviation"),
    [
        ("relu", "none", 1.009, 0.011),
        ("relu", "batch", 1.477, 0.0055),
        ("sigmoid", "none", 0.056, 0.0005),
        ("sigmoid", "batch", 1.044, 0.0042),
        ("tanh", "none", 0.887, 0.0068),
        ("tanh", "batch", 1.191, 0.0039),
        ("identity", "batch", 1.008, 0.0054),
    ],
)
def test_growth_is_as_simulated_before(activation: str, norm: str, figure: float, deviation: float) -> None:
    """The figures came from another program, before this one was written, for width 400, depth 20 and batch 128.

    Tolerance: the standard error of the difference of a mean over 8 seeds and a figure that is taken for one seed's
    (how many it had was not kept), and the figure's rounding. `deviation` is over 40 seeds.
    """
    tolerance = 3 * deviation * math.sqrt(1 / 8 + 1) + 0.0005
    assert growth(activation, norm, batch=128, width=400, depth=20, seeds=8) == pytest.approx(figure, abs=tolerance)


def expectation(function: Function, scale: float = 1.0) -> float:
    """E f(scale · z) of z from N(0, 1), by Gauss–Hermite quadrature."""
    nodes, shares = np.polynomial.hermite_e.hermegauss(101)
    return float(shares @ function(scale * nodes) / shares.sum())


def squared(function: Function) -> Function:
    return lambda z: function(z) ** 2


def logistic(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


SMOOTH: dict[str, tuple[Function, Function]] = {
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
    "sigmoid": (logistic, lambda z: logistic(z) * (1 - logistic(z))),
    "identity": (lambda z: z, np.ones_like),
}
"""φ and its derivative."""


def growth_without_norm(activation: str, depth: int) -> float:
    """The limit of infinite width: pre-activations are from N(0, q), and a layer multiplies the gradient by E φ'².

    With Xavier's weights q is E φ² of the layer before; in the first layer 784 inputs of variance 1 meet weights of
    variance 2 / (784 + 400).
    """
    phi, derivative = SMOOTH[activation]
    q, logs = 2 * PIXELS / (PIXELS + 400), [0.0]
    for _ in range(depth - 1):
        q = expectation(squared(phi), math.sqrt(q))
        logs.append(logs[-1] - math.log(expectation(squared(derivative), math.sqrt(q))))
    return math.exp(-np.polyfit(np.arange(depth), logs, 1)[0])


@pytest.mark.parametrize(
    ("activation", "expected", "deviation"),
    [
        ("relu", 1.0, 0.011),  # He's weights have variance 2 / width and half of the units pass the gradient
        ("sigmoid", growth_without_norm("sigmoid", 20), 0.0005),
        ("tanh", growth_without_norm("tanh", 20), 0.0068),
    ],
)
def test_growth_without_norm_is_the_wide_limits(activation: str, expected: float, deviation: float) -> None:
    """Tolerance: 3 standard errors of the mean over 8 seeds; `deviation` is over 40."""
    measured = growth(activation, "none", batch=128, width=400, depth=20, seeds=8)
    assert measured == pytest.approx(expected, abs=3 * deviation / math.sqrt(8))


def growth_with_batch_norm(activation: str) -> float:
    """The limit of infinite width and batch: E φ'(z)² / Var φ(z).

    Two samples' normalised activations are independent there, so that batch norm divides by √Var φ, times a factor of
    the weights that cancels. For ReLU (1/2) / (1/2 − 1/(2π)) = π/(π − 1), as in Yang et al. 2019.
    """
    if activation == "relu":
        return math.pi / (math.pi - 1)
    phi, derivative = SMOOTH[activation]
    return expectation(squared(derivative)) / (expectation(squared(phi)) - expectation(phi) ** 2)


@pytest.mark.parametrize(
    ("activation", "deviation"), [("relu", 0.0028), ("tanh", 0.0029), ("sigmoid", 0.0037), ("identity", 0.0047)]
)
def test_growth_with_batch_norm_approaches_the_mean_field_limit(activation: str, deviation: float) -> None:
    """Tolerance: 3 standard errors of the mean over 4 seeds (`deviation` is over 8), and 1/512 of the limit, about the
    finite batch's correction of the next test. ReLU's 1.467 is told from the 1.477 of batch 128 and width 400.

    Small networks are further off, at batch 32 and width 200 by .050, .038, .029 and .023; standard errors below .006.
    The topmost layer is left out, as in the next test.
    """
    limit = growth_with_batch_norm(activation)
    large = growth(activation, "batch", batch=512, width=800, depth=10, seeds=4, below=9)
    small = growth(activation, "batch", batch=32, width=200, depth=20, seeds=8, below=19)
    assert large == pytest.approx(limit, abs=3 * deviation / math.sqrt(4) + limit / 512)
    assert abs(small - limit) > abs(large - limit)


@pytest.mark.parametrize(("batch", "deviation"), [(6, 0.0235), (8, 0.014), (12, 0.0097)])
def test_growth_of_a_linear_network_with_batch_norm_depends_on_the_batch_alone(batch: int, deviation: float) -> None:
    """(B − 2)/(B − 3): batch norm takes one of the B − 1 directions that are left of the gradient once it is centred,
    and divides it by a variance that is χ² with B − 1 degrees of freedom, E 1/χ² = 1/(B − 3).

    The topmost layer is left out: the loss's gradient comes there uncentred. Tolerance: 3 standard errors of the mean
    over 8 seeds, `deviation` over 24; they tell it from (B − 1)/(B − 2).
    """
    measured = growth("identity", "batch", batch=batch, width=800, depth=20, seeds=8, below=19)
    assert measured == pytest.approx((batch - 2) / (batch - 3), abs=3 * deviation / math.sqrt(8))


# --- The scale of the weights before batch norm -----------------------------------------------------------------------


def loss_and_gradients(network: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    loss = F.cross_entropy(network(x), torch.arange(len(x)) % 10)
    names, parameters = zip(*network.named_parameters(), strict=True)
    return loss.detach(), dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def scaled(name: str, norm: str, factor: float, eps: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of a network whose weights before a norm layer are `factor` times as large."""
    network = build(name, norm=norm, norm_args={"eps": eps}).double()
    with torch.no_grad():
        for weight in weights_before_norm(network).values():
            weight.mul_(factor)
    return loss_and_gradients(network, normal(20, 1, 28, 28))


def weights_before_norm(network: nn.Sequential) -> dict[str, Tensor]:
    layers = {f"{index}.weight": m for index, m in enumerate(network) if isinstance(m, nn.Linear | nn.Conv2d)}
    return {key: layer.weight for key, layer in list(layers.items())[:-1]}  # the last layer has no norm


@pytest.mark.parametrize("factor", [10.0, 100.0])
@pytest.mark.parametrize("norm", ["batch", "hand_written"])
@pytest.mark.parametrize("name", ["mlp", "conv_unit"])
def test_scale_of_the_weights_before_batch_norm(name: str, norm: str, factor: float) -> None:
    """The loss stays, those weights' gradients are divided by the factor, and every other gradient stays.

    Tolerance: ε/σ² with ε = 1e-15, and round-off; together measured at 2e-14 of the largest entry, allowed 50 times.
    """
    loss, gradients = scaled(name, norm, 1.0, eps=1e-15)
    scaled_loss, scaled_gradients = scaled(name, norm, factor, eps=1e-15)
    before_norm = weights_before_norm(build(name, norm=norm))
    assert len(before_norm) >= 2
    assert_close(scaled_loss, loss, rtol=1e-12, atol=0)
    for key, gradient in gradients.items():
        expected = gradient / factor if key in before_norm else gradient
        # A bias before batch norm has no effect: its gradient is zero, give or take.
        assert_close(scaled_gradients[key], expected, rtol=0, atol=1e-12 * expected.abs().max().item() + 1e-14)
        if key in before_norm:
            assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize("norm", ["batch", "hand_written"])
@pytest.mark.parametrize("name", ["mlp", "conv_unit"])
def test_gradient_is_orthogonal_to_each_units_weights_before_batch_norm(name: str, norm: str) -> None:
    """As the loss does not depend on their scale (Euler's theorem). Tolerance: as above."""
    network = build(name, norm=norm, norm_args={"eps": 1e-15}).double()
    _, gradients = loss_and_gradients(network, normal(20, 1, 28, 28))
    for key, weight in weights_before_norm(network).items():
        w, gradient = weight.detach().flatten(1), gradients[key].flatten(1)
        cosines = F.cosine_similarity(w, gradient)
        assert_close(cosines, torch.zeros_like(cosines), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("norm", "eps"), [("none", 1e-15), ("batch", 1.0)])
def test_scale_counts_without_batch_norm_or_with_a_large_eps(norm: str, eps: float) -> None:
    losses = [scaled("mlp", norm, factor, eps)[0].item() for factor in (1.0, 10.0)]
    assert losses[1] != pytest.approx(losses[0], rel=0.01)


# --- The order of batch norm, pooling and ReLU ------------------------------------------------------------------------


def flat_images() -> Tensor:
    """Images of one grey in blocks of 14 × 14: convolved, their pooling windows tie."""
    return normal(8, 1, 2, 2).repeat_interleave(14, 2).repeat_interleave(14, 3)


@pytest.mark.parametrize("images", [normal(8, 1, 28, 28), flat_images()], ids=["noise", "ties"])
@pytest.mark.parametrize(
    ("one", "other"),
    [("norm-pool-activation", "norm-activation-pool"), ("pool-activation-norm", "activation-pool-norm")],
)
def test_relu_and_maximum_pooling_commute_gradients_too(one: str, other: str, images: Tensor) -> None:
    """To the last bit: no arithmetic differs. Where a window ties, both pass the gradient to its first maximum; where
    all of it is negative ReLU ties it at 0, and passes nothing on from wherever the pooling picked.
    """
    results = []
    for order in (one, other):
        network, x = build("conv_unit", order=order).double(), images.clone().requires_grad_()
        loss = F.cross_entropy(network(x), torch.arange(8))
        results.append([loss.detach(), *torch.autograd.grad(loss, [x, *network.parameters()])])
    assert_close(results[0], results[1], rtol=0, atol=0)
    assert results[0][1].count_nonzero() > 0


def test_flat_images_tie_and_noise_does_not() -> None:
    """Else the test above would not be about ties."""
    convolution = build("conv_unit").double()[0]
    shares = []
    for images in (flat_images(), normal(8, 1, 28, 28)):
        windows = F.unfold(convolution(images).flatten(0, 1)[:, None], kernel_size=2, stride=2)  # [N·C, 4, 14·14]
        first, second = windows.topk(2, dim=1).values.unbind(1)
        shares.append(((first == second) & (first > 0)).double().mean().item())
    assert shares[0] > 0.2
    assert shares[1] == 0


def with_statistics(layer: nn.Module, gamma: Tensor) -> nn.Module:
    """The layer in evaluation, with this γ and with moving statistics and β that are nothing in particular."""
    features = len(gamma)
    state = {"weight": gamma, "bias": normal(features, seed=2), "running_mean": normal(features, seed=3)}
    state |= {"running_var": normal(features, seed=4).exp(), "num_batches_tracked": torch.tensor(1)}
    layer.double().load_state_dict(state)
    return layer.eval()


@pytest.mark.parametrize("norm", ["batch", "hand_written", "d2l"])
def test_maximum_pooling_commutes_with_batch_norm_where_gamma_is_positive(norm: str) -> None:
    """Where γ < 0 the maximum of the outputs is at the minimum of the inputs. Tolerance: round-off."""
    gamma = torch.tensor([0.5, -0.5, 2.0, -1e-3, 0.0, 1.0], dtype=torch.float64)
    layer, pool, x = with_statistics(build_norm(norm, 6, 2), gamma), pool_layer("max"), normal(5, 6, 8, 8)
    with torch.no_grad():
        pooled_after, pooled_before, minimum_before = pool(layer(x)), layer(pool(x)), layer(-pool(-x))
    positive, negative = gamma >= 0, gamma <= 0
    assert_close(pooled_after[:, positive], pooled_before[:, positive], rtol=0, atol=1e-12)
    assert_close(pooled_after[:, negative], minimum_before[:, negative], rtol=0, atol=1e-12)
    gaps = (pooled_after - pooled_before).amin((0, 2, 3))
    assert (gaps[gamma < 0] > 1e-6).all()  # in every window


@pytest.mark.parametrize("negative", [0, 4], ids=["all positive", "four of each layer negative"])
def test_orders_of_norm_and_pooling_are_one_network_where_every_gamma_is_positive(negative: int) -> None:
    """In evaluation and with equal statistics. Tolerance: round-off; the logits' standard deviation is about .8."""
    logits = []
    for order in ("norm-pool-activation", "pool-norm-activation"):
        network = build("conv_unit", order=order).double()
        for module in network:
            if isinstance(module, nn.BatchNorm2d):
                gamma = normal(module.num_features, seed=5).abs() + 0.1
                gamma[:negative] *= -1
                with_statistics(module, gamma)
        logits.append(network.eval()(normal(8, 1, 28, 28)))
    difference = (logits[0] - logits[1]).abs().max()
    assert difference > 0.1 if negative else difference < 1e-12


def test_orders_of_norm_and_pooling_differ_in_training() -> None:
    """The maxima have other statistics than what they were taken from, whatever γ."""
    orders = ("norm-pool-activation", "pool-norm-activation")
    one, other = (build("conv_unit", order=order).double()(normal(8, 1, 28, 28)) for order in orders)
    assert (one - other).abs().max() > 0.1


# --- Batches of two and of one ----------------------------------------------------------------------------------------

EVERY_BATCH_NORM = ["batch", "hand_written", "d2l"]
"""Those with γ = 1 and β = 0 at the start."""


@pytest.mark.parametrize("norm", EVERY_BATCH_NORM)
def test_of_two_samples_only_the_sign_is_left(norm: str) -> None:
    """Two values d apart come out as ±1/√(1 + 4ε/d²): ±1, until d is of the order of √ε. Tolerance: round-off."""
    x = normal(2, 500) * torch.logspace(-5, 5, 500, dtype=torch.float64)
    y = build_norm(norm, 500, 1).double()(x).detach()
    d = x[0] - x[1]
    assert_close(y[0], d.sign() / torch.sqrt(1 + 4 * 1e-5 / d**2), rtol=1e-9, atol=0)
    assert_close(y[1], -y[0], rtol=1e-9, atol=0)
    far = d.abs() > 1
    assert far.sum() > 100
    assert_close(y[0, far], d[far].sign(), rtol=0, atol=2e-5)  # 2ε/d²


def test_one_sample_is_refused_in_training_and_taken_in_evaluation() -> None:
    network = build("mlp", norm="batch")
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        network(torch.zeros(1, 1, 28, 28))
    assert network.eval()(torch.zeros(1, 1, 28, 28)).isfinite().all()
    assert build("conv_unit", norm="batch")(torch.zeros(1, 1, 28, 28)).isfinite().all()  # 784 values per channel


# --- Moving statistics ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [1, 10, 50])
@pytest.mark.parametrize(
    ("norm", "arguments", "kept"),
    [
        ("batch", {}, 0.9),
        ("batch", {"momentum": 0.01}, 0.99),
        ("hand_written", {}, 0.9),
        ("hand_written", {"convention": "notebook"}, 0.1),
        ("notebook", {}, 0.1),
        ("d2l", {"keep_statistics": True}, 0.9),
    ],
    ids=str,
)
def test_moving_statistics_keep_a_share_of_their_first_values(
    norm: str, arguments: dict[str, object], kept: float, batches: int
) -> None:
    """kept^k after k batches, whatever is in them: what two layers that began .5 and 2 apart differ by.

    35% after ten batches with PyTorch's momentum. Tolerance: round-off.
    """
    one, other = (build_norm(norm, 3, 1, arguments).double() for _ in range(2))
    other.load_state_dict(one.state_dict())
    other.get_buffer("running_mean").add_(0.5)
    other.get_buffer("running_var").add_(2.0)
    for step in range(batches):
        x = normal(6, 3, seed=step) * 2 + 5
        one(x)
        other(x)
    for name, apart in (("running_mean", 0.5), ("running_var", 2.0)):
        difference = other.get_buffer(name) - one.get_buffer(name)
        assert_close(difference, torch.full_like(difference, apart * kept**batches), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 1, 2)], ids=str)
@pytest.mark.parametrize("norm", ["batch", "hand_written"])
def test_moving_variance_is_unbiased_and_the_normaliser_biased(norm: str, shape: tuple[int, ...]) -> None:
    """Of four values the two differ by 4/3. Tolerance: round-off."""
    layer, x = build_norm(norm, 3, len(shape) // 2, {"momentum": 1.0, "eps": 1e-15}).double(), normal(*shape) * 3
    y = layer(x).detach()
    rows, normalised = (values.movedim(1, -1).flatten(0, -2) for values in (x, y))
    assert_close(layer.get_buffer("running_var"), rows.var(0, correction=1), rtol=1e-12, atol=0)
    assert_close(normalised.var(0, correction=0), torch.ones(3, dtype=torch.float64), rtol=1e-12, atol=0)
    # So the same four values come out smaller in evaluation.
    assert_close(layer.eval()(x).detach(), y * math.sqrt(3 / 4), rtol=1e-12, atol=1e-12)


def train(name: str, norm: str, **norm_args: object) -> tuple[list[float], float]:
    """The training losses of eight steps, and the loss on the same images in evaluation."""
    network = build(name, norm=norm, norm_args=norm_args)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    x, labels = normal(64, 1, 28, 28).float(), torch.arange(64) % 10
    losses = []
    for step in range(8):
        rows = slice(step % 4 * 16, step % 4 * 16 + 16)
        loss = F.cross_entropy(network(x[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return losses, F.cross_entropy(network.eval()(x), labels).item()


@pytest.mark.parametrize("norm", ["batch", "hand_written"])
@pytest.mark.parametrize("name", ["mlp", "conv_unit"])
def test_momentum_changes_evaluation_only_and_eps_training_too(name: str, norm: str) -> None:
    """To the last bit: moving statistics take no part in training."""
    runs = [train(name, norm, momentum=momentum) for momentum in (0.1, 0.001, None)]
    runs.append(train(name, norm, track_running_stats=False))
    assert all(losses == runs[0][0] for losses, _ in runs)
    assert runs[0][0][0] != runs[0][0][4]  # the same images: the weights moved
    evaluations = sorted(loss for _, loss in runs)
    assert min(np.diff(evaluations)) > 0.01
    assert abs(train(name, norm, eps=0.1)[0][-1] - runs[0][0][-1]) > 1e-3
