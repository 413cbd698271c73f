"""Batch normalization written by hand from its formulas, and the two source documents' versions of it.

Axes: N samples of the batch, F features, C channels, H rows, W columns, L positions. A channel is a feature:
statistics are taken over every axis but the second.

A norm layer must not draw from torch's global random stream: the layers built after it would start from other weights
than in a network without it, and the two could not be compared as a pair.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from torch import Tensor, nn

Init = Literal["ones", "uniform", "normal"]


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy 2015, algorithm 1) of [N, F], [N, F, L] or [N, C, H, W]; the shape is kept.

        μ = mean(x),  σ² = mean((x − μ)²),  x̂ = (x − μ) / √(σ² + ε),  y = γ x̂ + β

    In training μ and σ² are the batch's, and moving averages of them are kept; in evaluation they are those averages.
    As it is, it equals nn.BatchNorm1d and nn.BatchNorm2d. Names are theirs too, so that state_dicts are
    interchangeable: `weight` is γ, `bias` β, `running_mean` the moving mean, `running_var` the moving variance.

    convention: "pytorch": `momentum` is the weight of the new value and the moving variance averages the unbiased
        σ² · n/(n−1); "notebook": `momentum` is the weight of the old value, the moving variance averages σ² as it
        is, and a training batch of one value per channel is not refused (it comes out as β).
    momentum: None averages all batches equally, in either convention.
    affine: whether there are γ and β.
    track_running_stats: whether there are moving averages; without them evaluation uses the batch's statistics.
    init: "ones": γ = 1, β = 0; "uniform": γ from U(0, 1), β = 0, as nn.BatchNorm's were before PyTorch 1.2; "normal":
        both from N(0, 1). Drawn from a generator seeded by the state of torch's global one, which is left untouched:
        two layers differ if anything was drawn between them.
    initial_var: the moving variance before the first batch.

    Errors: ValueError for another number of axes or features, and, in PyTorch's convention, for one value per channel.
    """

    is_norm = True
    axes_allowed: tuple[int, ...] = (2, 3, 4)

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        features: int,
        *,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        convention: Literal["pytorch", "notebook"] = "pytorch",
        init: Init = "ones",
        initial_var: float = 1.0,
    ) -> None:
        super().__init__()
        self.features = features
        self.eps = eps
        self.momentum = momentum
        self.convention = convention
        self.initial_var = initial_var
        gamma, beta = _initial_affine(features, init)
        self.register_parameter("weight", nn.Parameter(gamma) if affine else None)
        self.register_parameter("bias", nn.Parameter(beta) if affine else None)
        self.register_buffer("running_mean", torch.zeros(features) if track_running_stats else None)
        self.register_buffer("running_var", torch.full((features,), initial_var) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", torch.tensor(0) if track_running_stats else None)

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        if self.in_training() or self.running_mean is None or self.running_var is None:
            self._check_count(x)
            over = [axis for axis in range(x.dim()) if axis != 1]
            mu = x.mean(over)
            var = ((x - _per_channel(mu, x)) ** 2).mean(over)
            self.update_statistics(mu, var, x.numel() // self.features)
        else:
            mu, var = self.running_mean, self.running_var
        y = (x - _per_channel(mu, x)) / torch.sqrt(_per_channel(var, x) + self.eps)
        if self.weight is not None and self.bias is not None:
            y = _per_channel(self.weight, x) * y + _per_channel(self.bias, x)
        return y

    def in_training(self) -> bool:
        """Whether the batch's own statistics are used, and averaged."""
        return self.training

    @torch.no_grad()
    def update_statistics(self, mu: Tensor, var: Tensor, count: int) -> None:
        """Move the averages, if there are any, towards a batch's mean and biased variance [F] over `count` values."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        if self.convention == "pytorch":
            var = var * count / (count - 1)
        new = self._weight_of_new(self.num_batches_tracked)
        self.running_mean.copy_((1 - new) * self.running_mean + new * mu)
        self.running_var.copy_((1 - new) * self.running_var + new * var)

    def reset_running_stats(self) -> None:
        """Forget every batch seen, as nn.BatchNorm's method of that name does."""
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.running_mean.zero_()
            self.running_var.fill_(self.initial_var)
            self.num_batches_tracked.zero_()

    def _weight_of_new(self, batches: Tensor) -> Tensor | float:
        if self.momentum is None:
            return 1 / batches  # stays on the device: no waiting for it
        return self.momentum if self.convention == "pytorch" else 1 - self.momentum

    def _check(self, x: Tensor) -> None:
        if x.dim() not in self.axes_allowed:
            allowed = ", ".join(f"{axes}-D" for axes in self.axes_allowed)
            raise ValueError(f"expected {allowed} input, got {x.dim()}-D")
        if x.size(1) != self.features:  # broadcasting would hide it where there is one feature
            raise ValueError(f"expected {self.features} features on axis 1, got input size {list(x.shape)}")

    def _check_count(self, x: Tensor) -> None:
        if self.convention == "pytorch" and x.numel() == self.features:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")

    def extra_repr(self) -> str:
        return f"{self.features}, eps={self.eps}, momentum={self.momentum}, convention={self.convention}"


class NotebookBatchNorm(BatchNorm):
    """The notebook's `batch_norm_1d` and `multi_network`, for [N, F], and for [N, C, H, W] as its text says.

    It differs from nn.BatchNorm on purpose:
    - γ and β both start from N(0, 1), not 1 and 0: half of the features start with their sign turned.
    - `momentum` .1 is the weight of the *old* value: a memory of about one batch, where PyTorch's .1 remembers ten.
    - The moving variance starts at 0, not 1, and averages the biased variance.
    - One value per channel is not refused in training; its output is β, whatever the input.
    It differs from the notebook in two ways: there the moving averages were missing from `state_dict` (here they are
    buffers), and γ and β were drawn from the global random stream, after both linear layers (here from a private one).
    """

    def __init__(self, features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(features, eps=eps, momentum=momentum, convention="notebook", init="normal", initial_var=0.0)


class D2LBatchNorm(BatchNorm):
    """The third document's `batch_norm` and `BatchNorm`, a copy of the book d2l.ai's, for [N, F] and [N, C, H, W].

    It differs from nn.BatchNorm on purpose:
    - `torch.is_grad_enabled()` decides, not `train()` and `eval()`: `eval()` alone changes nothing, and a pass over
      training data under `no_grad` uses the moving averages.
    - As listed it never keeps the averages: `forward` assigns them to local names. So evaluation always uses mean 0
      and variance 1, that is, does not normalise. `keep_statistics=True` is what its authors meant.
    - `momentum` .9 is the weight of the *old* value (as PyTorch's .1), and the biased variance is averaged.
    - One value per channel is not refused in training; its output is β, whatever the input.
    - [N, F, L] is refused.
    It differs from the document in two ways: there the averages were missing from `state_dict` (here they are
    buffers), and parameters and averages had the shapes (1, F) and (1, C, 1, 1) (here they are flat).
    """

    axes_allowed = (2, 4)

    def __init__(
        self, features: int, *, eps: float = 1e-5, momentum: float = 0.9, keep_statistics: bool = False
    ) -> None:
        super().__init__(features, eps=eps, momentum=momentum, convention="notebook")
        self.keep_statistics = keep_statistics

    def in_training(self) -> bool:
        return torch.is_grad_enabled()

    def update_statistics(self, mu: Tensor, var: Tensor, count: int) -> None:
        if self.keep_statistics:
            super().update_statistics(mu, var, count)


class RMSNorm2d(nn.Module):
    """Root-mean-square normalization (Zhang & Sennrich 2019) of [N, C, H, W] over C, H and W, with one γ per channel.

    nn.RMSNorm over the same axes would need H and W beforehand, and one γ for each pixel.
    """

    is_norm = True

    weight: nn.Parameter | None

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.register_parameter("weight", nn.Parameter(torch.ones(features)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        y = x / torch.sqrt((x**2).mean((1, 2, 3), keepdim=True) + self.eps)
        return y if self.weight is None else _per_channel(self.weight, x) * y


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """[F] as [1, F], [1, F, 1] or [1, F, 1, 1], whichever broadcasts against x."""
    return values.view(1, -1, *[1] * (x.dim() - 2))


def _initial_affine(features: int, init: Init) -> tuple[Tensor, Tensor]:
    """γ and β [F] before training."""
    if init == "ones":
        return torch.ones(features), torch.zeros(features)
    state = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).digest()
    private = torch.Generator().manual_seed(int.from_bytes(state[:8], "big") >> 1)
    if init == "uniform":
        return torch.rand(features, generator=private), torch.zeros(features)
    return torch.randn(features, generator=private), torch.randn(features, generator=private)
