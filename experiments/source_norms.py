"""Batch normalization as the source documents write it by hand. The layers are in `experiments.batch_norm`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from experiments.arguments import Flag, NotNegative, Positive, Share
from runner.registry import norm

if TYPE_CHECKING:
    from torch import nn


@norm("hand_written")
def hand_written(
    features: int,
    _dims: int,
    *,
    eps: Positive = 1e-5,
    momentum: Share | None = 0.1,
    affine: Flag = True,
    track_running_stats: Flag = True,
    convention: Literal["pytorch", "notebook"] = "pytorch",
    init: Literal["ones", "uniform", "normal"] = "ones",
    initial_var: NotNegative = 1.0,
) -> nn.Module:
    """Batch normalization from its formulas; with its defaults it is equal to 'batch'.

    The arguments are described in experiments.batch_norm.BatchNorm.
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
def notebook(features: int, _dims: int, *, eps: Positive = 1e-5, momentum: Share = 0.1) -> nn.Module:
    """Batch normalization with γ and β from N(0, 1), and momentum as the weight of the old value.

    It is written by hand in the notebook. experiments.batch_norm.NotebookBatchNorm lists how it differs from 'batch'.
    """
    from experiments.batch_norm import NotebookBatchNorm

    return NotebookBatchNorm(features, eps=eps, momentum=momentum)


@norm("d2l")
def d2l(
    features: int, _dims: int, *, eps: Positive = 1e-5, momentum: Share = 0.9, keep_statistics: Flag = False
) -> nn.Module:
    """Batch normalization with a bug: its moving averages are not kept, so evaluation does not normalise.

    The d2l notes copy this layer from d2l.ai. `keep_statistics: true` corrects the bug.
    experiments.batch_norm.D2LBatchNorm lists how it differs from 'batch'.
    """
    from experiments.batch_norm import D2LBatchNorm

    return D2LBatchNorm(features, eps=eps, momentum=momentum, keep_statistics=keep_statistics)
