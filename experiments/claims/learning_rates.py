"""Allows larger learning rates."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import CONFIGS, SMALL_SEEDS, SMOKE
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim


@claim("larger_learning_rates")
def larger_learning_rates(name: str) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.convergence import largest_lr

    return Claim(
        name=name,
        sentence="Batch norm allows larger learning rates: a ReLU MLP 784-100-10 on MNIST, SGD.",
        source='the paper the tutorial names, Ioffe & Szegedy 2015: "allows us to use much higher learning rates"',
        config=CONFIGS / "learning_rates.yaml",
        metric=(
            "log10 of the largest learning rate, 0.001 … 10 in half-decades, at which the seed's validation accuracy "
            "is within 1 pp of its arm's best mean; the grid's edge bounds it"
        ),
        unit="decades",
        smallest_effect=1,
        claimed=1,
        measure=partial(largest_lr, arm="batch", within=0.01),
        budgets={
            "smoke": (*SMOKE, "grid.lr=[0.01, 0.1, 1, 10]"),
            "small": (SMALL_SEEDS, "fixed.train_samples=10000", "fixed.epochs=3"),
        },
    )
