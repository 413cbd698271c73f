"""Norm layers that stand beside batch normalization: its remedies, and dynamic tanh.

Axes: N samples, F features (an image's channels). Those with statistics are batch normalization as in
`experiments.batch_norm`, with other rules for which statistics are used and kept. None of them draws a random number.
"""

import torch
from torch import Tensor, nn

from experiments.batch_norm import BatchNorm, batch_statistics, per_channel


class _WithAverages(BatchNorm):
    """Batch normalization in PyTorch's convention that always has moving averages."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def seen(self) -> Tensor:
        """How many batches were averaged, in the averages' type: torch divides integers in float32."""
        return self.num_batches_tracked.to(self.running_mean.dtype)


class GhostBatchNorm(_WithAverages):
    """Batch normalization over virtual batches (Hoffer, Hubara & Soudry 2017, algorithm 1).

    In training, a batch is cut into virtual batches of `size` samples, in its order, and each is normalized by itself.
    The last virtual batch has the rest. A rest of one sample joins the virtual batch before it, because one sample of
    [N, F] has no variance. A batch of at most `size` samples is normalized as a whole, as in 'batch'.

    The averages are those of m updates one after the other, as if each of the m virtual batches was a batch:

        μ ← (1 − η)^m μ + Σᵢ η (1 − η)^(m−i) μᵢ,  i = 1 … m

    and the same for the unbiased variances. This differs from the paper, which weighs the batches with η (1 − η)^i and
    averages standard deviations. η is `momentum`; None averages all virtual batches equally. `num_batches_tracked`
    counts virtual batches.
    """

    def __init__(
        self, features: int, *, size: int = 32, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True
    ) -> None:
        super().__init__(features, eps=eps, momentum=momentum, affine=affine)
        self.size = size

    def normalised_by_batch(self, x: Tensor) -> Tensor:
        shapes = virtual_batches(len(x), self.size)
        parts = x.split([count * samples for count, samples in shapes])
        return torch.cat([self._each(part.unflatten(0, shape)) for part, shape in zip(parts, shapes, strict=True)])

    def _each(self, x: Tensor) -> Tensor:
        """x̂ of virtual batches of one size [M, n, F, …], as [M·n, F, …]."""
        over = [1, *range(3, x.dim())]
        mu = x.mean(over, keepdim=True)
        var = ((x - mu) ** 2).mean(over, keepdim=True)
        by_batch = len(x), self.features
        self.update_statistics(mu.reshape(by_batch), var.reshape(by_batch), x[0].numel() // self.features)
        return ((x - mu) / torch.sqrt(var + self.eps)).flatten(0, 1)

    @torch.no_grad()
    def update_statistics(self, mu: Tensor, var: Tensor, count: int) -> None:
        """Update the averages with the means and biased variances [M, F] of M virtual batches of `count` values."""
        batches = len(mu)
        self.num_batches_tracked.add_(batches)
        old: Tensor | float
        if self.momentum is None:
            weights = (1 / self.seen()).expand(batches)
            old = 1 - batches / self.seen()
        else:
            age = torch.arange(batches - 1, -1, -1, device=mu.device, dtype=self.running_mean.dtype)
            weights = self.momentum * (1 - self.momentum) ** age
            old = (1 - self.momentum) ** batches
        unbiased = var * count / (count - 1)
        for average, values in ((self.running_mean, mu), (self.running_var, unbiased)):
            average.copy_(old * average + (weights.unsqueeze(1) * values).sum(0))

    def extra_repr(self) -> str:
        return f"{self.features}, size={self.size}, eps={self.eps}, momentum={self.momentum}"


def virtual_batches(samples: int, size: int) -> list[tuple[int, int]]:
    """(how many virtual batches, of how many samples) in the order of a batch's samples.

    >>> virtual_batches(100, 32), virtual_batches(97, 32), virtual_batches(20, 32)
    ([(3, 32), (1, 4)], [(2, 32), (1, 33)], [(1, 20)])
    """
    whole, rest = divmod(samples, size)
    if rest == 1 and whole:
        whole, rest = whole - 1, rest + size
    return [(count, each) for count, each in ((whole, size), (1, rest)) if count and each]


class FrozenBatchNorm(_WithAverages):
    """Batch normalization whose statistics are fixed after some epochs.

    In the epochs 1 … `after` it is batch normalization. From then on, training normalizes with the moving averages μ
    and σ², which no longer change, so they are constants in the gradient; γ and β go on training:

        y = γ (x − μ) / √(σ² + ε) + β

    (Wu & Johnson 2021, section 4.2, "FrozenBN".) A training batch with one value per channel is refused in all epochs.

    `current_epoch` is a buffer that the learner sets at the start of each epoch (`learner.tell_epoch`). It is a tensor,
    not a number, so that a stack and a recorded CUDA graph follow it, and a file of weights holds it.
    """

    current_epoch: Tensor

    def __init__(
        self,
        features: int,
        *,
        after: int = 1,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(features, eps=eps, momentum=momentum, affine=affine)
        self.after = after
        self.register_buffer("current_epoch", torch.tensor(0))

    def normalised_by_batch(self, x: Tensor) -> Tensor:
        mu, var = batch_statistics(x)
        self.update_statistics(mu, var, x.numel() // self.features)
        mu, var = self._if_frozen(self.running_mean, mu), self._if_frozen(self.running_var, var)
        return self.normalised(x, mu, var)

    def _if_frozen(self, then: Tensor, otherwise: Tensor) -> Tensor:
        return torch.where(self.current_epoch > self.after, then, otherwise)

    @torch.no_grad()
    def update_statistics(self, mu: Tensor, var: Tensor, count: int) -> None:
        averages = self.running_mean, self.running_var, self.num_batches_tracked
        before = [average.clone() for average in averages]
        super().update_statistics(mu, var, count)
        for average, old in zip(averages, before, strict=True):
            average.copy_(self._if_frozen(old, average))

    def reset_running_stats(self) -> None:
        """Set the averages back to their initial values. The layer is no longer frozen, so it averages anew."""
        super().reset_running_stats()
        self.current_epoch.zero_()

    def extra_repr(self) -> str:
        return f"{self.features}, after={self.after}, eps={self.eps}, momentum={self.momentum}"


class BatchRenorm(_WithAverages):
    """Batch renormalization (Ioffe 2017, section 3, algorithm 1).

    In training, with the batch's μ_B and σ_B = √(σ²_B + ε), and the moving averages μ and σ before this batch:

        r = clip(σ_B / σ, 1/r_max, r_max),  d = clip((μ_B − μ) / σ, −d_max, d_max)
        x̂ = (x − μ_B) / σ_B · r + d,  y = γ x̂ + β
        μ ← μ + α (μ_B − μ),  σ ← σ + α (σ_B − σ)

    r and d are constants in the gradient. In evaluation, x̂ = (x − μ) / σ. So where nothing is clipped, training and
    evaluation compute the same. α is `momentum`; None averages all batches equally. `running_var` holds σ² − ε, so it
    means what it means in nn.BatchNorm, except that σ, not σ², is averaged, and the batch's variance is biased.

    The bounds begin at r_max = 1 and d_max = 0, which is batch normalization. They stay there for `warm_up` batches,
    and then grow linearly for `ramp` batches to the given values. In the paper, 5,000 batches have no correction, and
    the bounds grow for 35,000 (r) and 20,000 (d) more. Most runs here have fewer, so the defaults are smaller.
    """

    def __init__(
        self,
        features: int,
        *,
        r_max: float = 3.0,
        d_max: float = 5.0,
        warm_up: int = 100,
        ramp: int = 400,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__(features, eps=eps, momentum=momentum, affine=affine)
        self.r_max, self.d_max, self.warm_up, self.ramp = r_max, d_max, warm_up, ramp

    def normalised_by_batch(self, x: Tensor) -> Tensor:
        mu, var = batch_statistics(x)
        r, d = self.corrections(mu, var)
        self.update_statistics(mu, var, x.numel() // self.features)
        return self.normalised(x, mu, var) * per_channel(r, x) + per_channel(d, x)

    @torch.no_grad()
    def corrections(self, mu: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """r and d [F] for a batch with this mean and biased variance [F]."""
        share = ((self.seen() - self.warm_up) / self.ramp).clamp(0, 1)
        r_max, d_max = 1 + share * (self.r_max - 1), share * self.d_max
        sigma = torch.sqrt(self.running_var + self.eps)
        r = torch.sqrt(var + self.eps) / sigma
        d = (mu - self.running_mean) / sigma
        return torch.clamp(r, 1 / r_max, r_max), torch.clamp(d, -d_max, d_max)

    @torch.no_grad()
    def update_statistics(self, mu: Tensor, var: Tensor, _count: int) -> None:
        self.num_batches_tracked.add_(1)
        new = 1 / self.seen() if self.momentum is None else self.momentum
        self.running_mean.copy_((1 - new) * self.running_mean + new * mu)
        sigma = (1 - new) * torch.sqrt(self.running_var + self.eps) + new * torch.sqrt(var + self.eps)
        # Rounding could make a variance of 0 negative.
        self.running_var.copy_((sigma**2 - self.eps).clamp(min=0))

    def extra_repr(self) -> str:
        bounds = f"r_max={self.r_max}, d_max={self.d_max}, warm_up={self.warm_up}, ramp={self.ramp}"
        return f"{self.features}, {bounds}, eps={self.eps}, momentum={self.momentum}"


class PreciseBatchNorm(_WithAverages):
    """Batch normalization whose running statistics are averages over training data at the current weights.

    A training step normalizes with the batch's statistics and changes no average. Before each evaluation, the learner
    (`learner.reestimate`) resets the averages and passes training images through the network in training mode, and the
    layer averages all these batches equally (Wu & Johnson 2021, section 3.2; the rule of
    torch.optim.swa_utils.update_bn: `momentum` None).
    """

    is_precise = True

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(features, eps=eps, momentum=0.0, affine=affine)

    def update_statistics(self, mu: Tensor, var: Tensor, count: int) -> None:
        # The learner has set it: these are the batches to average.
        if self.momentum is None:
            super().update_statistics(mu, var, count)

    def extra_repr(self) -> str:
        return f"{self.features}, eps={self.eps}"


class DynamicTanh(nn.Module):
    """Dynamic tanh (Zhu et al. 2025, "Transformers without Normalization", section 4): γ tanh(α x) + β.

    It takes the place of a norm layer, but has no statistics. α is one trainable number for the layer and starts at
    `alpha`; γ and β [F] start at 1 and 0. It works for [N, F, …].
    """

    is_norm = True

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(self, features: int, *, alpha: float = 0.5, affine: bool = True) -> None:
        super().__init__()
        self.features = features
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.register_parameter("weight", nn.Parameter(torch.ones(features)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(features)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.alpha * x)
        if self.weight is not None and self.bias is not None:
            y = per_channel(self.weight, x) * y + per_channel(self.bias, x)
        return y

    def extra_repr(self) -> str:
        return f"{self.features}"
