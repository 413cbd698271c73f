"""The norm layers. To add one, write a function `(features, dims, *, …)` under `@norm("name")`.

`features` is the size of axis 1. `dims` is 1 for activations [N, F] and 2 for [N, C, H, W]. `norm_args` may hold the
keyword-only arguments. torch is imported inside the functions, because listing and planning do not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from experiments.arguments import AtLeastOne, AtLeastTwo, Count, Flag, NotNegative, Positive, Share, Whole
from runner.errors import UserError, unknown
from runner.factories import kwarg_fault
from runner.registry import norm

if TYPE_CHECKING:
    from torch import nn


def _registered(name: str) -> str:
    if name not in norm:
        reason = unknown(norm.kind, name, list(norm))
        raise PydanticCustomError("unknown_norm", "{reason}", {"reason": reason})
    return name


NormName = Annotated[str, AfterValidator(_registered)]
"""The type of a network's `norm` argument. It is checked when a config is read, so a user's own norm is allowed."""

NormArgs = dict[str, object] | None
"""The type of a network's `norm_args` argument: the norm's keyword arguments, or None for its defaults."""


def build_norm(name: str, features: int, dims: int, norm_args: NormArgs = None) -> nn.Module:
    """The norm layer registered as `name`.

    Errors: UserError with every wrong argument; ValueError where the norm does not work for this size.

    >>> build_norm("batch", 16, 2, {"momentum": 0.5})
    BatchNorm2d(16, eps=1e-05, momentum=0.5, ...)
    """
    factory, arguments = norm[name], norm_args or {}
    faults = [kwarg_fault("norm", name, factory, key, value) for key, value in arguments.items()]
    if any(faults):
        raise UserError(*filter(None, faults))
    layer: nn.Module = factory(features, dims, **arguments)
    return layer


@norm("none")
def none(_features: int, _dims: int, **_arguments: object) -> nn.Module:
    """No norm layer: activations pass unchanged.

    It ignores every argument, so that an arm without a norm can share a grid with an arm whose norm has arguments.
    """
    from torch import nn

    return nn.Identity()


@norm("batch")
def batch(
    features: int,
    dims: int,
    *,
    eps: Positive = 1e-5,
    momentum: Share | None = 0.1,
    affine: Flag = True,
    track_running_stats: Flag = True,
) -> nn.Module:
    """PyTorch's nn.BatchNorm1d and nn.BatchNorm2d (Ioffe & Szegedy 2015).

    `momentum` is the weight of the new value; None averages all batches equally.
    """
    from torch import nn

    layer = nn.BatchNorm1d if dims == 1 else nn.BatchNorm2d
    return layer(features, eps=eps, momentum=momentum, affine=affine, track_running_stats=track_running_stats)


@norm("layer")
def layer(features: int, dims: int, *, eps: Positive = 1e-5, affine: Flag = True) -> nn.Module:
    """Layer normalization: each sample by itself (Ba et al. 2016).

    For [N, F] over F. For images over C, H and W with one γ and β per channel, which is group normalization with one
    group.
    """
    from torch import nn

    if dims == 1:
        return nn.LayerNorm(features, eps=eps, elementwise_affine=affine)
    return nn.GroupNorm(1, features, eps=eps, affine=affine)


@norm("group")
def group(features: int, dims: int, *, groups: Count = 2, eps: Positive = 1e-5, affine: Flag = True) -> nn.Module:
    """Group normalization: each sample and group of channels by itself (Wu & He 2018).

    groups: 32 in the paper, which is more than the channels of some networks here; 2 divides all of their channels.

    Errors: ValueError where the features do not divide into the groups, or a group would hold one value.
    """
    from torch import nn

    if features % groups:
        raise ValueError(f"norm 'group': {features} features do not divide into {groups} groups")
    if dims == 1 and groups == features:
        raise ValueError(f"norm 'group': {groups} groups of {features} features hold one value each")
    return nn.GroupNorm(groups, features, eps=eps, affine=affine)


@norm("instance")
def instance(
    features: int,
    dims: int,
    *,
    eps: Positive = 1e-5,
    momentum: Share = 0.1,
    affine: Flag = True,
    track_running_stats: Flag = False,
) -> nn.Module:
    """Instance normalization: each sample and channel by itself (Ulyanov et al. 2016).

    For [N, C, H, W] only. It has γ and β like the other norms; PyTorch's default has none.

    Errors: ValueError for [N, F].
    """
    from torch import nn

    if dims == 1:
        raise ValueError("norm 'instance' needs [N, C, H, W]; for [N, F] try 'layer'")
    return nn.InstanceNorm2d(
        features, eps=eps, momentum=momentum, affine=affine, track_running_stats=track_running_stats
    )


@norm("rms")
def rms(features: int, dims: int, *, eps: Positive = 1e-5, affine: Flag = True) -> nn.Module:
    """Root-mean-square normalization: layer normalization without mean and β (Zhang & Sennrich 2019).

    For [N, F] over F. For images over C, H and W with one γ per channel.
    """
    from torch import nn

    from experiments.batch_norm import RMSNorm2d

    if dims == 1:
        return nn.RMSNorm(features, eps=eps, elementwise_affine=affine)
    return RMSNorm2d(features, eps=eps, affine=affine)


@norm("weight_standardization")
def weight_standardization(
    features: int, dims: int, *, groups: Count = 2, eps: Positive = 1e-5, affine: Flag = True
) -> nn.Module:
    """Group normalization after a layer whose weights are standardized (Qiao et al. 2019).

    It is the norm `group`, and the convolution or linear layer before it gets standardized weights:
    experiments.weight_standardization has the formula.
    """
    from experiments.weight_standardization import StandardizedGroupNorm

    checked = group(features, dims, groups=groups, eps=eps, affine=affine)
    return StandardizedGroupNorm(checked.num_groups, features, eps=eps, affine=affine)


@norm("ghost")
def ghost(
    features: int,
    _dims: int,
    *,
    size: AtLeastTwo = 32,
    eps: Positive = 1e-5,
    momentum: Share | None = 0.1,
    affine: Flag = True,
) -> nn.Module:
    """Batch normalization over virtual batches of `size` samples in training (Hoffer et al. 2017).

    experiments.norm_layers.GhostBatchNorm says what happens with a rest, and what is averaged.
    """
    from experiments.norm_layers import GhostBatchNorm

    return GhostBatchNorm(features, size=size, eps=eps, momentum=momentum, affine=affine)


@norm("frozen")
def frozen(
    features: int,
    _dims: int,
    *,
    after: Count = 1,
    eps: Positive = 1e-5,
    momentum: Share | None = 0.1,
    affine: Flag = True,
) -> nn.Module:
    """Batch normalization whose statistics are fixed after `after` epochs (Wu & Johnson 2021, section 4.2).

    From then on, training normalizes with the running statistics; γ and β go on training.
    """
    from experiments.norm_layers import FrozenBatchNorm

    return FrozenBatchNorm(features, after=after, eps=eps, momentum=momentum, affine=affine)


@norm("renorm")
def renorm(
    features: int,
    _dims: int,
    *,
    r_max: AtLeastOne = 3.0,
    d_max: NotNegative = 5.0,
    warm_up: Whole = 100,
    ramp: Count = 400,
    eps: Positive = 1e-5,
    momentum: Share | None = 0.1,
    affine: Flag = True,
) -> nn.Module:
    """Batch renormalization: it corrects a batch's statistics towards the running ones (Ioffe 2017).

    The first `warm_up` batches have no correction; its bounds grow to `r_max` and `d_max` over the next `ramp` batches.
    """
    from experiments.norm_layers import BatchRenorm

    return BatchRenorm(
        features,
        r_max=r_max,
        d_max=d_max,
        warm_up=warm_up,
        ramp=ramp,
        eps=eps,
        momentum=momentum,
        affine=affine,
    )


@norm("precise")
def precise(features: int, _dims: int, *, eps: Positive = 1e-5, affine: Flag = True) -> nn.Module:
    """Batch normalization whose running statistics are averaged over training images before each evaluation.

    In training it equals 'batch' (Wu & Johnson 2021, section 3.2).
    """
    from experiments.norm_layers import PreciseBatchNorm

    return PreciseBatchNorm(features, eps=eps, affine=affine)


@norm("dyt")
def dyt(features: int, _dims: int, *, alpha: Positive = 0.5, affine: Flag = True) -> nn.Module:
    """Dynamic tanh, γ tanh(α x) + β, in place of a norm layer (Zhu et al. 2025).

    `alpha` is where the trainable α starts.
    """
    from experiments.norm_layers import DynamicTanh

    return DynamicTanh(features, alpha=alpha, affine=affine)
