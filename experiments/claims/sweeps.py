"""Where the claims' configs lie, and the budgets of those that several claims share.

`full` is the config itself. `small` is for real data on two cores, all claims within half an hour; `smoke` shows on
the embedded digits that everything runs, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

CONFIGS = Path(__file__).parent.parent.parent / "configs/claims"

SMALL_SEEDS = "grid.seed={range: [200, 212]}"
"""Twelve seeds, fixed before any of them was run: none served to choose a claim, a design or a number of seeds.

The sign-flip test's smallest p is 2^(1 − n): Holm over all claims can reject with 12 seeds, over 34 not with 10.
"""

SMOKE = ("fixed.dataset=digits", "fixed.epochs=1", "grid.seed={range: 2}")

Budgets = Mapping[str, Sequence[str]]

NETWORKS: Mapping[str, Budgets] = {
    "notebook_mlp_mnist": {"smoke": SMOKE, "small": (SMALL_SEEDS,)},
    "sigmoid_mlp_mnist": {"smoke": SMOKE, "small": (SMALL_SEEDS,)},
    "notebook_cnn_mnist": {"smoke": SMOKE, "small": (SMALL_SEEDS, "fixed.epochs=2", "fixed.train_samples=20000")},
    "tutorial_fashion": {
        "smoke": (*SMOKE, "fixed.batch_size=100"),
        "small": (SMALL_SEEDS, "fixed.epochs=4", "fixed.train_samples=20000"),
    },
}
"""The four set-ups of the documents, each with and without batch norm."""

ARMS = {"tutorial_fashion": "batch_norm"}


def arm(sweep: str) -> str:
    """The arm with batch norm."""
    return ARMS.get(sweep, "batch")
