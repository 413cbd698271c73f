"""What the moving averages do: they stand for the data set's at test time; momentum, eps, γ and β hardly matter."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from experiments.claims.sweeps import CONFIGS, SMALL_SEEDS, SMOKE
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

RUNNING = {"smoke": SMOKE, "small": (SMALL_SEEDS, "fixed.train_samples=10000")}
"""The budgets of `running_statistics.yaml`."""


@claim("running_statistics_at_test_time")
def running_statistics(name: str) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.norm_statistics import running_against_precise

    return Claim(
        name=name,
        sentence="At test time the moving averages stand for the training set's mean and variance: the notebook's MLP.",
        source="all; the notebook: 用训练的时候算出的移动平均均值和方差去代替 (by the moving averages of training)",
        config=CONFIGS / "running_statistics.yaml",
        metric="validation accuracy with the moving averages minus that with averages over the training set",
        unit="pp",
        smallest_effect=0.2,
        claimed="equivalence",
        measure=partial(running_against_precise, arm="batch"),
        budgets=RUNNING,
        table="probes.csv",
    )


@claim("running_statistics_poor_early")
def running_statistics_early(name: str) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.norm_statistics import precise_against_running_at_first

    return Claim(
        name=name,
        sentence="Early in training the moving averages are poor: the notebook's MLP on MNIST after eight steps.",
        source="arithmetic: with momentum 0.1, .9^8 = 43% of the initial mean 0 and variance 1 are left by then",
        config=CONFIGS / "early_statistics.yaml",
        metric="validation accuracy with averages over the training set minus that with the moving averages",
        unit="pp",
        smallest_effect=0.2,
        claimed=1,
        measure=partial(precise_against_running_at_first, arm="batch"),
        budgets={"smoke": (*SMOKE, "fixed.train_samples=1000"), "small": (SMALL_SEEDS,)},
        table="probes.csv",
    )


@claim("batch_statistics_of_256_at_test_time")
def batch_statistics_of_256(name: str) -> Claim:
    sentence = "At test time the statistics of a batch of 256 do as well as the moving averages: the notebook's MLP."
    return _batch_statistics(name, sentence, 256, "equivalence")


@claim("batch_statistics_of_2_at_test_time")
def batch_statistics_of_2(name: str) -> Claim:
    sentence = "At test time the statistics of a batch of 2 do worse than the moving averages: the notebook's MLP."
    return _batch_statistics(name, sentence, 2, -1)


def _batch_statistics(name: str, sentence: str, size: int, claimed: Literal[-1, "equivalence"]) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.norm_statistics import batch_against_moving

    return Claim(
        name=name,
        sentence=sentence,
        source="the notebook: of one sample 均值不就是这个值,方差为 0 吗 (is the mean not that value, the variance 0?)",
        config=CONFIGS / "running_statistics.yaml",
        metric=f"accuracy on 2,000 validation images with each batch of {size}'s statistics − with the moving averages",
        unit="pp",
        smallest_effect=0.2,
        claimed=claimed,
        measure=partial(batch_against_moving, arm="batch", size=size),
        budgets=RUNNING,
        table="probes.csv",
    )


@claim("momentum_changes_evaluation_only")
def momentum(name: str) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.stability import train_loss_gap

    return Claim(
        name=name,
        sentence="The momentum of the moving averages changes evaluation only: training is the same to the last bit.",
        source="the BatchNorm1d page: momentum 表示在均值和方差的计算中,采用的滑动平均指数值 (of the averages alone)",
        config=CONFIGS / "momentum.yaml",
        metric="largest difference in an epoch's training loss from momentum 0.1, for each of 0.001, 0.01 and 1",
        unit="nats",
        smallest_effect=1e-12,
        claimed="equivalence",
        measure=train_loss_gap,
        budgets={"smoke": SMOKE, "small": (SMALL_SEEDS, "fixed.train_samples=10000", "fixed.epochs=2")},
        table="metrics.csv",
    )


@claim("eps_matters_little")
def eps(name: str) -> Claim:
    from runner.analysis.claims.accuracy import every_other
    from runner.analysis.claims.claim import Claim

    return Claim(
        name=name,
        sentence="eps only keeps the denominator from 0: from 1e-7 to 1e-1 the notebook's MLP is as accurate on MNIST.",
        source="the notebook: 为了计算稳定引入的一个小的常数 (a small constant for stability); the BatchNorm1d page",
        config=CONFIGS / "eps.yaml",
        metric="test accuracy, each eps minus 1e-5; all must be equivalent, the worst decides",
        unit="pp",
        smallest_effect=0.2,
        claimed="equivalence",
        measure=every_other,
        budgets={"smoke": SMOKE, "small": (SMALL_SEEDS, "fixed.train_samples=10000")},
    )


@claim("affine_matters_little")
def affine(name: str) -> Claim:
    from runner.analysis.claims.accuracy import final
    from runner.analysis.claims.claim import Claim

    return Claim(
        name=name,
        sentence="Batch norm without γ and β does as well: the notebook's MLP on MNIST.",
        source="the BatchNorm1d page, which lets one switch them off: affine",
        config=CONFIGS / "affine.yaml",
        metric="test accuracy without γ and β minus that with them",
        unit="pp",
        smallest_effect=0.2,
        claimed="equivalence",
        measure=partial(final, arm=False),
        budgets={"smoke": SMOKE, "small": (SMALL_SEEDS, "fixed.train_samples=10000")},
    )
