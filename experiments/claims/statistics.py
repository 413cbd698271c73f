"""The statistics of a norm layer: moving averages at test time, and what momentum, eps, γ and β change."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import LAST_EPOCH, MNIST, ONE_SAMPLE, OTHERS, claims, declare
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim


LATE = "the median of the ends of the last five of ten epochs, so that one bad step spoils one reading only"


@claim("running_statistics_at_test_time")
def running_statistics(name: str) -> Claim:
    from runner.analysis.claims.norm_statistics import running_against_precise

    return declare(
        name,
        "running_statistics",
        sentence="At test time the moving averages are as good as the training set's mean and variance: notebook MLP.",
        source='all documents; the notebook: "replaced by the moving averages that were computed in training"',
        metric=(
            "accuracy on the test images with the moving averages, compared with that of the same weights with exact "
            f"averages over the training set; {LATE}"
        ),
        smallest_effect=0.2,
        reason=MNIST,
        claimed="equivalence",
        measure=partial(running_against_precise, arm="batch", epochs=5),
        table="probes.csv",
    )


@claim("running_statistics_poor_early")
def running_statistics_early(name: str) -> Claim:
    from runner.analysis.claims.norm_statistics import precise_against_running_at_first

    return declare(
        name,
        "early_statistics",
        sentence="Early in training the moving averages are poor: the notebook's MLP on MNIST after eight steps.",
        source="arithmetic: at momentum 0.1 the initial mean 0 and variance 1 still have a weight of 0.9^8 = 43%",
        metric=(
            "accuracy on the test images with exact averages over the training set, compared with that of the same "
            "weights with the moving averages, after eight steps"
        ),
        smallest_effect=0.2,
        reason=MNIST,
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
        metric=(
            f"accuracy on 2,000 of the test images with the statistics of batches of {size}, compared with that of the "
            f"same weights with the moving averages; {LATE}"
        ),
        smallest_effect=0.2,
        reason=MNIST,
        claimed=claimed,
        measure=partial(batch_against_moving, arm="batch", size=size, epochs=5),
        table="probes.csv",
    )


@claim("momentum_changes_evaluation_only")
def momentum(name: str) -> Claim:
    from runner.analysis.claims.stability import train_loss_gap

    return declare(
        name,
        "momentum",
        sentence="The momentum of the moving averages changes evaluation only: training gives exactly the same losses.",
        source='the BatchNorm1d page: momentum is "the exponent of the moving average" of mean and variance',
        metric="largest difference in an epoch's training loss between momentum 0.1 and each of 0.001, 0.01 and 1",
        unit="nats",
        smallest_effect=1e-12,
        reason="The losses must be the same number; any other margin would allow an influence",
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
        sentence="eps only prevents a division by 0: the notebook's MLP on MNIST is equally good with every eps tried.",
        source='the notebook: "a small constant for stable computation"; the BatchNorm1d page',
        metric=f"for each eps except the baseline 1e-5: {LAST_EPOCH}. {OTHERS}",
        smallest_effect=0.2,
        reason=MNIST,
        claimed="equivalence",
        measure=every_other,
    )


@claim("affine_matters_little")
def affine(name: str) -> Claim:
    from runner.analysis.claims.accuracy import final

    return declare(
        name,
        "affine",
        sentence="Batch norm without γ and β is equally accurate: the notebook's MLP on MNIST.",
        source="the BatchNorm1d page: its argument affine can switch γ and β off",
        metric=f"without γ and β, compared with them: {LAST_EPOCH}",
        smallest_effect=0.2,
        reason=MNIST,
        claimed="equivalence",
        measure=partial(final, arm=False),
    )
