"""The hand-written layers against nn.BatchNorm, the notebook's printed example, and the documents' own functions."""

from __future__ import annotations

import copy
import re
from itertools import product
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.testing import assert_close

from experiments.batch_norm import BatchNorm, D2LBatchNorm, NotebookBatchNorm, RMSNorm2d

SHAPES = [(7, 5), (2, 5), (7, 5, 3), (1, 5, 3), (4, 5, 6, 2), (1, 5, 2, 2), (9, 1)]
ARGUMENTS = [
    {"momentum": momentum, "affine": affine, "track_running_stats": track, "eps": eps}
    for momentum, affine, track, eps in product([0.1, 0.9, 0.0, None], [True, False], [True, False], [1e-5, 0.1])
]


def torchs(shape: tuple[int, ...], **arguments: Any) -> nn.BatchNorm1d | nn.BatchNorm2d:
    return (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(shape[1], **arguments)


def batch(shape: tuple[int, ...], step: int) -> Tensor:
    """Far from mean 0 and variance 1, and different at every step."""
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
    return values * (3 + step) + 10 * step + 2


def assert_same_step(ours: nn.Module, reference: nn.Module, x: Tensor) -> None:
    """Outputs, gradients of input and parameters, and statistics are equal."""
    results = []
    for layer in (ours, reference):
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y) + y**3).sum().backward()
        gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
        results.append((y.detach(), leaf.grad, gradients, dict(layer.state_dict())))
    assert_close(results[0], results[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_equals_torchs(shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    reference = torchs(shape, **arguments).double()
    for parameter in reference.parameters():
        nn.init.normal_(parameter)
    ours = BatchNorm(shape[1], **arguments).double()
    ours.load_state_dict(reference.state_dict())
    for step in range(3):
        assert_same_step(ours, reference, batch(shape, step))
    ours.eval()
    reference.eval()
    for step in range(3, 5):
        assert_same_step(ours, reference, batch(shape, step))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("arguments", ARGUMENTS[:4], ids=str)
def test_starts_as_torchs_and_its_state_loads_there(shape: tuple[int, ...], arguments: dict[str, Any]) -> None:
    reference, ours = torchs(shape, **arguments).double(), BatchNorm(shape[1], **arguments).double()
    assert_close(dict(ours.state_dict()), dict(reference.state_dict()))
    ours(batch(shape, 0))
    reference.load_state_dict(ours.state_dict())
    assert_same_step(ours.eval(), reference.eval(), batch(shape, 1))


def test_counts_no_batch_in_evaluation() -> None:
    layer = BatchNorm(3).eval()
    layer(torch.randn(4, 3))
    assert layer.num_batches_tracked == 0
    assert_close(layer.running_mean, torch.zeros(3))


def test_reset_forgets_every_batch() -> None:
    layer = BatchNorm(3, initial_var=0.25)
    before = copy.deepcopy(layer.state_dict())
    layer(torch.randn(4, 3) + 5)
    assert not torch.equal(layer.state_dict()["running_mean"], before["running_mean"])
    layer.reset_running_stats()
    assert_close(dict(layer.state_dict()), dict(before))


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1), (1, 5, 1, 1)], ids=str)
@pytest.mark.parametrize("track", [True, False])
def test_refuses_one_value_per_channel_where_torchs_does(shape: tuple[int, ...], track: bool) -> None:
    message = "Expected more than 1 value per channel when training"
    for layer in (BatchNorm(5, track_running_stats=track), torchs(shape, track_running_stats=track)):
        with pytest.raises(ValueError, match=message):
            layer(torch.randn(shape))
        layer.eval()
        if track:
            assert layer(torch.ones(shape)).shape == shape
        else:
            with pytest.raises(ValueError, match=message):
                layer(torch.randn(shape))


@pytest.mark.parametrize("make", [NotebookBatchNorm, D2LBatchNorm])
def test_documents_layers_give_beta_for_one_value_per_channel(make: type[BatchNorm]) -> None:
    layer = make(5)
    assert layer.bias is not None
    nn.init.normal_(layer.bias)
    assert_close(layer(torch.randn(1, 5)), layer.bias.detach()[None], check_stride=False)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (BatchNorm(5), (5,), "one of (2, 3, 4), got 1"),
        (BatchNorm(5), (2, 5, 1, 1, 1), "got 5"),
        (BatchNorm(5), (2, 3), "expected 5 features"),
        (BatchNorm(1), (2, 3), "expected 1 features"),
        (D2LBatchNorm(5), (2, 5, 3), "one of (2, 4), got 3"),
    ],
    ids=str,
)
def test_refuses_other_shapes(layer: BatchNorm, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        layer(torch.randn(shape))


def test_notebooks_printed_example() -> None:
    y = BatchNorm(3)(torch.arange(15.0).view(5, 3))
    column = torch.tensor([-1.4142, -0.7071, 0.0, 0.7071, 1.4142])
    assert_close(y, column[:, None].expand(5, 3), rtol=0, atol=5e-5)


def test_batch_of_two_gives_plus_and_minus_one() -> None:
    assert_close(BatchNorm(1, eps=1e-12)(torch.tensor([[3.0], [8.0]])), torch.tensor([[-1.0], [1.0]]))


def notebooks_batch_norm_1d(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    is_training: bool,
    moving_mean: Tensor,
    moving_var: Tensor,
    moving_momentum: float = 0.1,
) -> Tensor:
    """As the notebook lists it."""
    eps = 1e-5
    x_mean = torch.mean(x, dim=0, keepdim=True)
    x_var = torch.mean((x - x_mean) ** 2, dim=0, keepdim=True)
    if is_training:
        x_hat = (x - x_mean) / torch.sqrt(x_var + eps)
        moving_mean[:] = moving_momentum * moving_mean + (1.0 - moving_momentum) * x_mean
        moving_var[:] = moving_momentum * moving_var + (1.0 - moving_momentum) * x_var
    else:
        x_hat = (x - moving_mean) / torch.sqrt(moving_var + eps)
    return gamma.view_as(x_mean) * x_hat + beta.view_as(x_mean)


def test_equals_the_notebooks_function() -> None:
    layer = NotebookBatchNorm(4).double()
    gamma, beta = (parameter.detach().clone().requires_grad_() for parameter in layer.parameters())
    mean, var = torch.zeros(1, 4, dtype=torch.float64), torch.zeros(1, 4, dtype=torch.float64)
    for step, training in enumerate([False, True, True, False, True, False]):
        layer.train(training)
        x = batch((6, 4), step)
        expected = notebooks_batch_norm_1d(x, gamma, beta, training, mean, var)
        y = layer(x)
        assert_close(y, expected)
        wanted = torch.autograd.grad((expected**2).sum(), (gamma, beta))
        assert_close(torch.autograd.grad((y**2).sum(), list(layer.parameters())), wanted)
        assert_close((layer.running_mean, layer.running_var), (mean[0], var[0]))


def test_notebooks_layer_takes_images_along_the_channel() -> None:
    images = batch((3, 4, 2, 5), 1)
    rows = images.movedim(1, -1).reshape(-1, 4)
    layer = NotebookBatchNorm(4).double()
    flat = copy.deepcopy(layer)
    assert_close(layer(images).movedim(1, -1).reshape(-1, 4), flat(rows))
    assert_close(dict(layer.state_dict()), dict(flat.state_dict()))


def third_documents_batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, moving_mean: Tensor, moving_var: Tensor, eps: float, momentum: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As the d2l notes list it."""
    if not torch.is_grad_enabled():
        x_hat = (x - moving_mean) / torch.sqrt(moving_var + eps)
    else:
        assert len(x.shape) in (2, 4)
        if len(x.shape) == 2:
            mean = x.mean(dim=0)
            var = ((x - mean) ** 2).mean(dim=0)
        else:
            mean = x.mean(dim=(0, 2, 3), keepdim=True)
            var = ((x - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        x_hat = (x - mean) / torch.sqrt(var + eps)
        moving_mean = momentum * moving_mean + (1.0 - momentum) * mean
        moving_var = momentum * moving_var + (1.0 - momentum) * var
    y = gamma * x_hat + beta
    return y, moving_mean.data, moving_var.data


class ThirdDocumentsBatchNorm(nn.Module):
    """As the d2l notes list it; `keep` stores the averages, as the book that they copy does."""

    def __init__(self, num_features: int, num_dims: int, keep: bool) -> None:
        super().__init__()
        shape = (1, num_features) if num_dims == 2 else (1, num_features, 1, 1)
        self.gamma = nn.Parameter(torch.ones(shape))
        self.beta = nn.Parameter(torch.zeros(shape))
        self.moving_mean = torch.zeros(shape)
        self.moving_var = torch.ones(shape)
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        y, moving_mean, moving_var = third_documents_batch_norm(
            x, self.gamma, self.beta, self.moving_mean, self.moving_var, eps=1e-5, momentum=0.9
        )
        if self.keep:
            self.moving_mean, self.moving_var = moving_mean, moving_var
        return y


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 2, 5)], ids=str)
def test_equals_the_third_documents_layer(shape: tuple[int, ...], keep: bool) -> None:
    reference, ours = ThirdDocumentsBatchNorm(4, len(shape), keep), D2LBatchNorm(4, keep_statistics=keep)
    for step in range(6):
        x = batch(shape, step).float()
        ours.train(step % 2 == 0)  # which must not matter
        with torch.set_grad_enabled(step in (0, 1, 3)):
            assert_close(ours(x), reference(x), check_stride=False)
        assert_close(ours.running_mean, reference.moving_mean.flatten())
        assert_close(ours.running_var, reference.moving_var.flatten())


def test_third_documents_layer_does_not_normalise_in_evaluation_unless_mended() -> None:
    x = batch((50, 4), 3).float()
    listed, mended = D2LBatchNorm(4), D2LBatchNorm(4, keep_statistics=True)
    for _ in range(100):
        listed(x)
        mended(x)
    with torch.no_grad():
        assert_close(listed(x), x, rtol=1e-4, atol=1e-4)
        assert_close(mended(x), BatchNorm(4)(x), rtol=1e-2, atol=1e-2)


def test_conventions_are_each_others_complement() -> None:
    x = batch((6, 4), 1)
    ours = BatchNorm(4, convention="notebook", momentum=0.75).double()
    reference = nn.BatchNorm1d(4, momentum=0.25).double()
    ours(x)
    reference(x)
    assert_close(ours.running_mean, reference.running_mean)
    mean = x.mean(0)
    assert_close(ours.running_var, 0.75 + 0.25 * ((x - mean) ** 2).mean(0))


def test_cumulative_average_is_the_mean_over_batches() -> None:
    layer = BatchNorm(4, convention="notebook", momentum=None).double()
    batches = [batch((6, 4), step) for step in range(4)]
    for x in batches:
        layer(x)
    assert_close(layer.running_mean, torch.stack([x.mean(0) for x in batches]).mean(0))
    assert_close(layer.running_var, torch.stack([x.var(0, correction=0) for x in batches]).mean(0))


def test_random_gamma_and_beta() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = BatchNorm(4000, init="normal")
    assert torch.equal(torch.get_rng_state(), state)
    nn.Linear(2, 2)
    second = BatchNorm(4000, init="normal")
    torch.manual_seed(3)
    again = BatchNorm(4000, init="normal")

    drawn = [value.detach() for layer in (first, second) for value in layer.parameters()]
    for index, values in enumerate(drawn):
        assert abs(values.mean()) < 0.1
        assert abs(values.std() - 1) < 0.1
        assert all(abs(torch.corrcoef(torch.stack([values, other]))[0, 1]) < 0.1 for other in drawn[:index])
    assert_close(dict(first.state_dict()), dict(again.state_dict()), rtol=0, atol=0)


def test_gamma_as_pytorch_drew_it_before_1_2() -> None:
    state = torch.get_rng_state()
    gamma, beta = (value.detach() for value in BatchNorm(4000, init="uniform").parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert gamma.min() >= 0
    assert gamma.max() <= 1
    assert stats.kstest(gamma.numpy(), "uniform").pvalue > 1e-3
    assert beta.count_nonzero() == 0


@pytest.mark.parametrize("momentum", [0.1, None])
def test_layers_can_be_stacked_by_vmap(momentum: float | None) -> None:
    layers = [BatchNorm(4, momentum=momentum) for _ in range(3)]
    for index, layer in enumerate(layers):
        layer(batch((5, 4), index).float())
    parameters, buffers = torch.func.stack_module_state([copy.deepcopy(layer) for layer in layers])
    x = torch.stack([batch((5, 4), 10 + index).float() for index in range(3)])

    def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(layers[0], (parameters, buffers), (x,))
        return y

    y = torch.vmap(forward)(parameters, buffers, x)
    for index, layer in enumerate(layers):
        assert_close(y[index], layer(x[index]))
        assert_close({name: values[index] for name, values in buffers.items()}, dict(layer.named_buffers()))


@pytest.mark.parametrize("affine", [True, False])
def test_rms_norm_of_images_equals_torchs_over_all_axes(affine: bool) -> None:
    x = batch((3, 4, 2, 5), 1)
    ours = RMSNorm2d(4, affine=affine).double()
    expected = nn.functional.rms_norm(x, [4, 2, 5], eps=1e-5)
    if ours.weight is not None:
        nn.init.normal_(ours.weight)
        expected = expected * ours.weight[:, None, None]
    assert_close(ours(x), expected)
