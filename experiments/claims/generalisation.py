"""Better generalisation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import CONFIGS, SMALL_SEEDS, SMOKE
from runner.registry import claim

if TYPE_CHECKING:
    from runner.claims import Claim


@claim("better_generalisation")
def better_generalisation(name: str) -> Claim:
    return _generalisation(name, "generalisation", "1,000", "Batch norm generalises better from little data")


@claim("better_generalisation_10k")
def better_generalisation_10k(name: str) -> Claim:
    return _generalisation(name, "generalisation_10k", "10,000", "Batch norm generalises better")


def _generalisation(name: str, sweep: str, images: str, said: str) -> Claim:
    from runner.claims import Claim
    from runner.measures import final

    return Claim(
        name=name,
        sentence=f"{said}: a ReLU MLP, {images} images of FashionMNIST.",
        source="the BatchNorm1d page: 提高模型泛化能力 (improves generalisation, avoids overfitting)",
        config=CONFIGS / f"{sweep}.yaml",
        metric=f"test accuracy after training to the end on the first {images} images",
        unit="pp",
        smallest_effect=0.5,
        claimed=1,
        measure=partial(final, arm="batch"),
        budgets={"smoke": SMOKE, "small": (SMALL_SEEDS,)},
    )
