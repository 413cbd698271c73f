"""The statistics of a norm layer: moving averages at test time, and what momentum, eps, γ and β change."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import ONE_SAMPLE, claims, declare
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim


@claim("running_statistics_at_test_time")
def running_statistics(name: str) -> Claim:
    from runner.analysis.claims.norm_statistics import running_against_precise

    return declare(
        name,
        "running_statistics",
        sentence="At test time the moving averages stand for the training set's mean and variance: the notebook's MLP.",
        source="all; the notebook: 用训练的时候算出的移动平均均值和方差去代替 (by the moving averages of training)",
        metric="validation accuracy with the moving averages minus that with averages over the training set",
        smallest_effect=0.2,
        claimed="equivalence",
        measure=partial(running_against_precise, arm="batch"),
        table="probes.csv",
    )


@claim("running_statistics_poor_early")
def running_statistics_early(name: str) -> Claim:
    from runner.analysis.claims.norm_statistics import precise_against_running_at_first

    return declare(
        name,
        "early_statistics",
        sentence="Early in training the moving averages are poor: the notebook's MLP on MNIST after eight steps.",
        source="arithmetic: with momentum 0.1, .9^8 = 43% of the initial mean 0 and variance 1 are left by then",
        metric="validation accuracy with averages over the training set minus that with the moving averages",
        smallest_effect=0.2,
        claimed=1,
        measure=partial(precise_against_running_at_first, arm="batch"),
        table="probes.csv",
    )


BATCH_STATISTICS = {
    "batch_statistics_of_256_at_test_time": (256, "do as well as", "equivalence"),
    "batch_statistics_of_2_at_test_time": (2, "do worse than", -1),
}
"""Claim → (batch size, how the accuracy compares, what is claimed)."""


@claims(BATCH_STATISTICS)
def batch_statistics(name: str) -> Claim:
    from runner.analysis.claims.norm_statistics import batch_against_moving

    size, compares, claimed = BATCH_STATISTICS[name]
    return declare(
        name,
        "running_statistics",
        sentence=(
            f"At test time the statistics of a batch of {size} {compares} the moving averages: the notebook's MLP."
        ),
        source=ONE_SAMPLE,
        metric=f"accuracy on 2,000 validation images with each batch of {size}'s statistics − with the moving averages",
        smallest_effect=0.2,
        claimed=claimed,
        measure=partial(batch_against_moving, arm="batch", size=size),
        table="probes.csv",
    )


@claim("momentum_changes_evaluation_only")
def momentum(name: str) -> Claim:
    from runner.analysis.claims.stability import train_loss_gap

    return declare(
        name,
        "momentum",
        sentence="The momentum of the moving averages changes evaluation only: training is the same to the last bit.",
        source="the BatchNorm1d page: momentum 表示在均值和方差的计算中,采用的滑动平均指数值 (of the averages alone)",
        metric="largest difference in an epoch's training loss from momentum 0.1, for each of 0.001, 0.01 and 1",
        unit="nats",
        smallest_effect=1e-12,
        claimed="equivalence",
        measure=train_loss_gap,
        table="metrics.csv",
    )


@claim("eps_matters_little")
def eps(name: str) -> Claim:
    from runner.analysis.claims.accuracy import every_other

    return declare(
        name,
        "eps",
        sentence="eps only keeps the denominator from 0: from 1e-7 to 1e-1 the notebook's MLP is as accurate on MNIST.",
        source="the notebook: 为了计算稳定引入的一个小的常数 (a small constant for stability); the BatchNorm1d page",
        metric="test accuracy, each eps minus 1e-5; all must be equivalent, the worst decides",
        smallest_effect=0.2,
        claimed="equivalence",
        measure=every_other,
    )


@claim("affine_matters_little")
def affine(name: str) -> Claim:
    from runner.analysis.claims.accuracy import final

    return declare(
        name,
        "affine",
        sentence="Batch norm without γ and β does as well: the notebook's MLP on MNIST.",
        source="the BatchNorm1d page, which lets one switch them off: affine",
        metric="test accuracy without γ and β minus that with them",
        smallest_effect=0.2,
        claimed="equivalence",
        measure=partial(final, arm=False),
    )
