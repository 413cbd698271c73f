"""The order of norm, pooling and activation matters little."""

from __future__ import annotations

from typing import TYPE_CHECKING

from experiments.claims.sweeps import CONFIGS, SMALL_SEEDS, SMOKE
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim


@claim("order_matters_little")
def order_matters_little(name: str) -> Claim:
    from runner.analysis.claims.accuracy import every_other
    from runner.analysis.claims.claim import Claim

    return Claim(
        name=name,
        sentence="The order of batch norm, pooling and ReLU after a convolution hardly matters: FashionMNIST.",
        source="the fourth document: the last three's order … \"Inversion doesn't have much effect\"",
        config=CONFIGS / "order.yaml",
        metric="test accuracy, each order minus norm-pooling-ReLU; all five must be equivalent, the worst decides",
        unit="pp",
        smallest_effect=0.5,
        claimed="equivalence",
        measure=every_other,
        budgets={"smoke": SMOKE, "small": (SMALL_SEEDS, "fixed.train_samples=10000", "fixed.epochs=2")},
    )
