"""Batch normalization from its formulas, and the layers of two source documents (see docs/sources.md).

Axes: N samples, F features, C channels, H rows, W columns, L positions. A channel is a feature. Statistics are taken
over every axis except the second.

A norm layer must not draw from torch's global random stream. Otherwise the layers that are built after it would start
from other weights than in a network without it, and the two networks would not be a pair.
"""

import hashlib
from typing import Literal

import torch
from torch import Tensor, nn

Init = Literal["ones", "uniform", "normal"]


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe & Szegedy 2015, algorithm 1) of [N, F], [N, F, L] or [N, C, H, W]; the shape is kept.

        μ = mean(x),  σ² = mean((x − μ)²),  x̂ = (x − μ) / √(σ² + ε),  y = γ x̂ + β

    In training, μ and σ² are the batch's, and the layer keeps moving averages of them. In evaluation, they are these
    averages. With its defaults the layer equals nn.BatchNorm1d and nn.BatchNorm2d. Its names are theirs, so the
    state_dicts are interchangeable: `weight` is γ, `bias` β, `running_mean` the moving mean, `running_var` the moving
    variance.

    convention: "pytorch": `momentum` is the weight of the new value, and the moving variance averages the unbiased
        σ² · n/(n−1). "notebook": `momentum` is the weight of the old value, the moving variance averages σ² itself,
        and a training batch with one value per channel is allowed (its output is β).
    momentum: None averages all batches equally, in both conventions.
    affine: whether there are γ and β.
    track_running_stats: whether there are moving averages; without them, evaluation uses the batch's statistics.
    init: "ones": γ = 1, β = 0. "uniform": γ from U(0, 1), β = 0, as in nn.BatchNorm before PyTorch 1.2. "normal": both
        from N(0, 1). They come from a generator of their own, whose seed is the state of torch's global generator. So
        two layers differ if anything was drawn between them, and the layer itself draws nothing from the global one.
    initial_var: the moving variance before the first batch.

    Errors: ValueError for another number of axes or features, and, in PyTorch's convention, for a training batch with
    one value per channel.
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
            if self.convention == "pytorch" and x.numel() == self.features:
                fault = "Expected more than 1 value per channel when training"
                raise ValueError(f"{fault}, got input size {x.shape}")
            y = self.normalised_by_batch(x)
        else:
            y = self.normalised(x, self.running_mean, self.running_var)
        if self.weight is not None and self.bias is not None:
            y = per_channel(self.weight, x) * y + per_channel(self.bias, x)
        return y

    def normalised_by_batch(self, x: Tensor) -> Tensor:
        """x̂ in training. Updates the averages."""
        mu, var = batch_statistics(x)
        self.update_statistics(mu, var, x.numel() // self.features)
        return self.normalised(x, mu, var)

    def normalised(self, x: Tensor, mu: Tensor, var: Tensor) -> Tensor:
        """x̂ for these statistics [F]."""
        return (x - per_channel(mu, x)) / torch.sqrt(per_channel(var, x) + self.eps)

    def in_training(self) -> bool:
        """Whether the layer uses the batch's own statistics, and updates the averages."""
        return self.training

    @torch.no_grad()
    def update_statistics(self, mu: Tensor, var: Tensor, count: int) -> None:
        """Update the averages, if there are any, with a batch's mean and biased variance [F] over `count` values."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        if self.convention == "pytorch":
            var = var * count / (count - 1)
        new: Tensor | float
        if self.momentum is None:
            # A tensor, so that the CPU does not wait for the device.
            new = 1 / self.num_batches_tracked.to(self.running_mean.dtype)
        else:
            new = self.momentum if self.convention == "pytorch" else 1 - self.momentum
        self.running_mean.copy_((1 - new) * self.running_mean + new * mu)
        self.running_var.copy_((1 - new) * self.running_var + new * var)

    def reset_running_stats(self) -> None:
        """Set the averages back to their initial values, like the method of nn.BatchNorm."""
        mean, var, seen = self.running_mean, self.running_var, self.num_batches_tracked
        if mean is not None and var is not None and seen is not None:
            mean.zero_()
            var.fill_(self.initial_var)
            seen.zero_()

    def _check(self, x: Tensor) -> None:
        if x.dim() not in self.axes_allowed:
            raise ValueError(f"axes: expected one of {self.axes_allowed}, got {x.dim()}")
        # With one feature, broadcasting would hide the mistake.
        if x.size(1) != self.features:
            raise ValueError(f"expected {self.features} features on axis 1, got shape {list(x.shape)}")

    def extra_repr(self) -> str:
        return f"{self.features}, eps={self.eps}, momentum={self.momentum}, convention={self.convention}"


class NotebookBatchNorm(BatchNorm):
    """The batch normalization that the notebook writes by hand, for [N, F], and for [N, C, H, W] as its text says.

    Source: the notebook, `batch_norm_1d` and `multi_network`. It differs from nn.BatchNorm on purpose:
    - γ and β both start from N(0, 1), not from 1 and 0. So half of the features start with the opposite sign.
    - `momentum` 0.1 is the weight of the *old* value. It averages about one batch; PyTorch's 0.1 averages about ten.
    - The moving variance starts at 0, not at 1, and averages the biased variance.
    - A training batch with one value per channel is allowed; its output is β for every input.
    It differs from the notebook in two points. There the moving averages were missing from `state_dict`; here they are
    buffers. There γ and β were drawn from the global random stream, after both linear layers; here the layer has its
    own generator.
    """

    def __init__(self, features: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(features, eps=eps, momentum=momentum, convention="notebook", init="normal", initial_var=0.0)


class D2LBatchNorm(BatchNorm):
    """Batch normalization that never updates its averages, because of a bug in the source, for [N, F] and [N, C, H, W].

    Source: the d2l notes, `batch_norm` and `BatchNorm`, a copy of the layer of the book d2l.ai. It differs from
    nn.BatchNorm on purpose:
    - `torch.is_grad_enabled()` decides, not `train()` and `eval()`. So `eval()` alone changes nothing, and a pass over
      training data under `no_grad` uses the moving averages.
    - The averages are not kept: the document's `forward` assigns them to local names. So evaluation always uses mean 0
      and variance 1, which means that it does not normalise. `keep_statistics=True` is what its authors intended.
    - `momentum` 0.9 is the weight of the *old* value (like PyTorch's 0.1), and the biased variance is averaged.
    - A training batch with one value per channel is allowed; its output is β for every input.
    - [N, F, L] is refused.
    It differs from the document in two points. There the averages were missing from `state_dict`; here they are
    buffers. There parameters and averages had the shapes (1, F) and (1, C, 1, 1); here they are flat.
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

    nn.RMSNorm over the same axes needs to know H and W beforehand, and has one γ per pixel.
    """

    is_norm = True

    weight: nn.Parameter | None

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.register_parameter("weight", nn.Parameter(torch.ones(features)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        y = x / torch.sqrt((x**2).mean((1, 2, 3), keepdim=True) + self.eps)
        return y if self.weight is None else per_channel(self.weight, x) * y


def batch_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance [F] of x over every axis except the second."""
    over = [axis for axis in range(x.dim()) if axis != 1]
    mu = x.mean(over)
    return mu, ((x - per_channel(mu, x)) ** 2).mean(over)


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Values [F] in the shape that broadcasts against x: [1, F], [1, F, 1] or [1, F, 1, 1]."""
    return values.view(1, -1, *[1] * (x.dim() - 2))


def _initial_affine(features: int, init: Init) -> tuple[Tensor, Tensor]:
    """γ and β [F] before training. Nothing is drawn from torch's global generator."""
    if init == "ones":
        return torch.ones(features), torch.zeros(features)
    state = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(state[:8], "big") >> 1)
    if init == "uniform":
        return torch.rand(features, generator=generator), torch.zeros(features)
    return torch.randn(features, generator=generator), torch.randn(features, generator=generator)
