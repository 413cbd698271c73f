"""Small batches break batch norm."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import CONFIGS, SMALL_SEEDS
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim


@claim("small_batches_break_it")
def small_batches(name: str) -> Claim:
    return _small_batches(name, "layer")


@claim("small_batches_break_it_group")
def small_batches_group(name: str) -> Claim:
    return _small_batches(name, "group")


def _small_batches(name: str, other: str) -> Claim:
    from runner.analysis.claims.accuracy import slope
    from runner.analysis.claims.claim import Claim

    return Claim(
        name=name,
        sentence=(
            f"Batch norm, unlike {other} norm, suffers from small batches: the notebook's MLP, 2,000 images of MNIST."
        ),
        source="the notebook: of one sample 均值不就是这个值,方差为 0 吗 (is the mean not that value, the variance 0?)",
        config=CONFIGS / "batch_size.yaml",
        metric=(
            f"slope of (test accuracy with batch norm − with {other} norm) against log2 of the batch size; lr ∝ batch"
        ),
        unit="pp per doubling",
        smallest_effect=0.5,
        claimed=1,
        measure=partial(slope, arm="batch", parameter="batch_size", against=other),
        budgets={
            "smoke": ("fixed.dataset=digits", "fixed.epochs=1", "grid.seed={range: 2}", "fixed.train_samples=200"),
            "small": (SMALL_SEEDS, "fixed.epochs=3"),
        },
    )
