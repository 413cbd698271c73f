"""Better generalisation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import CONFIGS, SMOKE, TEN_SEEDS
from runner.registry import claim

if TYPE_CHECKING:
    from runner.claims import Claim


@claim("better_generalisation")
def better_generalisation(name: str) -> Claim:
    from runner.claims import Claim
    from runner.measures import final

    return Claim(
        name=name,
        sentence="Batch norm generalises better from little data: a ReLU MLP, 1,000 images of FashionMNIST.",
        source="the BatchNorm1d page: 提高模型泛化能力 (improves generalisation, avoids overfitting)",
        config=CONFIGS / "generalisation.yaml",
        metric="test accuracy after training to the end on the first 1,000 images",
        unit="pp",
        smallest_effect=0.5,
        claimed=1,
        measure=partial(final, arm="batch"),
        budgets={"smoke": SMOKE, "small": (TEN_SEEDS,)},
    )
