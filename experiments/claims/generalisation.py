"""Better generalisation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import CONFIGS, SMALL_SEEDS, SMOKE
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim, Measure


@claim("better_generalisation")
def better_generalisation(name: str) -> Claim:
    return _at_the_end(name, "generalisation", "1,000", "Batch norm generalises better from little data")


@claim("better_generalisation_10k")
def better_generalisation_10k(name: str) -> Claim:
    return _at_the_end(name, "generalisation_10k", "10,000", "Batch norm generalises better")


@claim("better_generalisation_at_matched_loss")
def better_generalisation_at_matched_loss(name: str) -> Claim:
    return _at_matched_loss(name, "generalisation", "1,000")


@claim("better_generalisation_at_matched_loss_10k")
def better_generalisation_at_matched_loss_10k(name: str) -> Claim:
    return _at_matched_loss(name, "generalisation_10k", "10,000")


def _at_the_end(name: str, sweep: str, images: str, said: str) -> Claim:
    from runner.analysis.claims.accuracy import final

    return _generalisation(
        name,
        sweep,
        sentence=f"{said}: a ReLU MLP, {images} images of FashionMNIST.",
        metric=f"test accuracy after training to the end on the first {images} images",
        measure=partial(final, arm="batch"),
    )


def _at_matched_loss(name: str, sweep: str, images: str) -> Claim:
    from runner.analysis.claims.accuracy import accuracy_at_matched_loss

    return _generalisation(
        name,
        sweep,
        sentence=f"Having learned as much, batch norm generalises better: a ReLU MLP, {images} images of FashionMNIST.",
        metric="validation accuracy at the lowest training loss (evaluation mode) that both runs of a seed reach",
        measure=partial(accuracy_at_matched_loss, arm="batch"),
    )


def _generalisation(name: str, sweep: str, *, sentence: str, metric: str, measure: Measure) -> Claim:
    from runner.analysis.claims.claim import Claim

    return Claim(
        name=name,
        sentence=sentence,
        source="the BatchNorm1d page: 提高模型泛化能力 (improves generalisation, avoids overfitting)",
        config=CONFIGS / f"{sweep}.yaml",
        metric=metric,
        unit="pp",
        smallest_effect=0.5,
        claimed=1,
        measure=measure,
        budgets={"smoke": SMOKE, "small": (SMALL_SEEDS,)},
    )
