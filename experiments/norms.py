"""The norm layers. A function `(features, dims, *, …)` under `@norm("name")` adds another.

`features` is the size of axis 1; `dims` is 1 for activations [N, F] and 2 for [N, C, H, W]. The keyword-only arguments
are what `norm_args` may hold. Torch is imported inside the functions, so that listing and planning do not need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from experiments.arguments import Count, Flag, NotNegative, Positive, Share
from runner import registry
from runner.errors import UserError, unknown
from runner.registry import norm

if TYPE_CHECKING:
    from torch import nn


def _registered(name: str) -> str:
    if name not in registry.norm:
        reason = unknown(registry.norm.kind, name, list(registry.norm))
        raise PydanticCustomError("unknown_norm", "{reason}", {"reason": reason})
    return name


NormName = Annotated[str, AfterValidator(_registered)]
"""A network's `norm` argument: checked against the registry when a config is read, so a user's own norm counts."""

NormArgs = dict[str, object] | None
"""A network's `norm_args` argument: keyword arguments for the norm; None for its defaults."""


def build_norm(name: str, features: int, dims: int, norm_args: NormArgs = None) -> nn.Module:
    """The norm layer registered as `name`.

    Errors: UserError with every wrong argument; ValueError where the norm cannot be had for this size.
    """
    factory = registry.norm[name]
    arguments = norm_args or {}
    faults = [registry.kwarg_fault("norm", name, factory, key, value) for key, value in arguments.items()]
    if any(faults):
        raise UserError(*filter(None, faults))
    layer: nn.Module = factory(features, dims, **arguments)
    return layer


@norm("none")
def none(features: int, dims: int, **ignored: object) -> nn.Module:  # noqa: ARG001
    """No norm layer: activations pass unchanged.

    Takes and ignores any argument, so that an arm without a norm can share a grid with one whose norm has arguments.
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
    """Layer normalization, each sample by itself (Ba et al. 2016).

    Over F, or over C, H and W with one γ and β per channel, which is group normalization with one group.
    """
    from torch import nn

    if dims == 1:
        return nn.LayerNorm(features, eps=eps, elementwise_affine=affine)
    return nn.GroupNorm(1, features, eps=eps, affine=affine)


@norm("group")
def group(features: int, dims: int, *, groups: Count = 2, eps: Positive = 1e-5, affine: Flag = True) -> nn.Module:
    """Group normalization, each sample and group of channels by itself (Wu & He 2018).

    The paper's 32 groups are more channels than these networks have; 2 divides all of theirs.
    Errors: ValueError where the features do not divide into the groups, or a group would hold one value.
    """
    from torch import nn

    if features % groups:
        raise ValueError(f"norm 'group': {features} features do not divide into {groups} groups")
    if dims == 1 and groups == features:
        raise ValueError(f"norm 'group': {groups} groups of {features} features hold one value each, which is its mean")
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
    """Instance normalization, each sample and channel by itself (Ulyanov et al. 2016).

    PyTorch's has no γ and β unless asked; here it has, as the other norms do. For [N, C, H, W] only.
    Errors: ValueError for [N, F].
    """
    from torch import nn

    if dims == 1:
        raise ValueError("norm 'instance' needs [N, C, H, W]: of [N, F] each value is its own mean; try 'layer'")
    return nn.InstanceNorm2d(
        features, eps=eps, momentum=momentum, affine=affine, track_running_stats=track_running_stats
    )


@norm("rms")
def rms(features: int, dims: int, *, eps: Positive = 1e-5, affine: Flag = True) -> nn.Module:
    """Root-mean-square normalization: layer normalization without mean and β (Zhang & Sennrich 2019).

    Over F, or over C, H and W with one γ per channel.
    """
    from torch import nn

    from experiments.batch_norm import RMSNorm2d

    if dims == 1:
        return nn.RMSNorm(features, eps=eps, elementwise_affine=affine)
    return RMSNorm2d(features, eps=eps, affine=affine)


@norm("hand_written")
def hand_written(
    features: int,
    dims: int,  # noqa: ARG001
    *,
    eps: Positive = 1e-5,
    momentum: Share | None = 0.1,
    affine: Flag = True,
    track_running_stats: Flag = True,
    convention: Literal["pytorch", "notebook"] = "pytorch",
    init: Literal["ones", "uniform", "normal"] = "ones",
    initial_var: NotNegative = 1.0,
) -> nn.Module:
    """Batch normalization from its formulas; equal to 'batch' unless told otherwise.

    `convention: notebook` makes `momentum` the weight of the old value: see experiments.batch_norm.BatchNorm.
    """
    from experiments.batch_norm import BatchNorm

    return BatchNorm(
        features,
        eps=eps,
        momentum=momentum,
        affine=affine,
        track_running_stats=track_running_stats,
        convention=convention,
        init=init,
        initial_var=initial_var,
    )


@norm("notebook")
def notebook(features: int, dims: int, *, eps: Positive = 1e-5, momentum: Share = 0.1) -> nn.Module:  # noqa: ARG001
    """The notebook's hand-written batch normalization: γ and β from N(0, 1), momentum of the old value.

    How it differs from 'batch' is listed in experiments.batch_norm.NotebookBatchNorm.
    """
    from experiments.batch_norm import NotebookBatchNorm

    return NotebookBatchNorm(features, eps=eps, momentum=momentum)


@norm("d2l")
def d2l(
    features: int,
    dims: int,  # noqa: ARG001
    *,
    eps: Positive = 1e-5,
    momentum: Share = 0.9,
    keep_statistics: Flag = False,
) -> nn.Module:
    """The third document's copy of d2l.ai's batch normalization, with its bug: no statistics are kept.

    `keep_statistics: true` mends it. How it differs from 'batch' is listed in experiments.batch_norm.D2LBatchNorm.
    """
    from experiments.batch_norm import D2LBatchNorm

    return D2LBatchNorm(features, eps=eps, momentum=momentum, keep_statistics=keep_statistics)
