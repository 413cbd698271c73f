"""What the moving averages do: they stand for the data set's at test time; momentum and eps hardly matter."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import CONFIGS, SMOKE, TEN_SEEDS
from runner.registry import claim

if TYPE_CHECKING:
    from runner.claims import Claim


@claim("running_statistics_at_test_time")
def running_statistics(name: str) -> Claim:
    from runner.claims import Claim
    from runner.measures import running_against_precise

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
        budgets={"smoke": SMOKE, "small": (TEN_SEEDS, "fixed.train_samples=10000")},
        table="probes.csv",
    )


@claim("momentum_changes_evaluation_only")
def momentum(name: str) -> Claim:
    from runner.claims import Claim
    from runner.measures import train_loss_gap

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
        budgets={"smoke": SMOKE, "small": (TEN_SEEDS, "fixed.train_samples=10000", "fixed.epochs=2")},
        table="metrics.csv",
    )


@claim("eps_matters_little")
def eps(name: str) -> Claim:
    from runner.claims import Claim
    from runner.measures import every_other

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
        budgets={"smoke": SMOKE, "small": (TEN_SEEDS, "fixed.train_samples=10000")},
    )
