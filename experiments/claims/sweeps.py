"""What the claims share: their configs and budgets, and how they are declared.

The budget `full` is the config itself. `small` is for real data on two cores, where all claims take half an hour.
`smoke` shows on the embedded digits that everything runs; it decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

CONFIGS = Path(__file__).parent.parent.parent / "configs/claims"

Declaration = Callable[[str], Any]
"""A claim's name → the claim."""

SMOKE = ("fixed.dataset=digits", "fixed.epochs=1", "grid.seed={range: 2}")
SMOKE_EXTRAS = {
    "batch_size": ("fixed.train_samples=200",),
    "early_statistics": ("fixed.train_samples=1000",),
    "learning_rates": ("grid.lr=[0.01, 0.1, 1, 10]",),
    "own_best_lr": ("fixed.train_samples=1000",),
    "tutorial_fashion": ("fixed.batch_size=100",),
}
"""Sweep → what the budget `smoke` overrides beside `SMOKE`."""

SMALL = ("grid.seed={range: [200, 212]}",)
"""Twelve seeds. They were fixed before any of them was run, and none was used to choose a claim, a design or the number
of seeds.

The smallest p of the sign-flip test is 2^(1 − n). With 12 seeds Holm's adjustment over all 34 claims can still reject;
with 10 it cannot.
"""
TEN_THOUSAND = ("fixed.train_samples=10000",)
SMALL_EXTRAS = {
    **dict.fromkeys(("affine", "divergence", "eps", "initialisation", "running_statistics"), TEN_THOUSAND),
    "batch_size": ("fixed.epochs=3",),
    "learning_rates": (*TEN_THOUSAND, "fixed.epochs=3"),
    "momentum": (*TEN_THOUSAND, "fixed.epochs=2"),
    "notebook_cnn_mnist": ("fixed.epochs=2", "fixed.train_samples=20000"),
    "order": (*TEN_THOUSAND, "fixed.epochs=2"),
    "own_best_lr": ("fixed.epochs=3",),
    "tutorial_fashion": ("fixed.epochs=4", "fixed.train_samples=20000"),
}
"""Sweep → what the budget `small` overrides beside `SMALL`."""

ONE_SAMPLE = (
    'the notebook, on a batch of one sample: "then the mean is just this value and the variance is 0, isn\'t it?"'
)
"""A source of the claims about small batches."""

OTHERS = "its test accuracy minus the baseline's. The result is for the arm with the largest p of the equivalence test"
"""The end of the metric of a claim that compares several arms with the baseline."""


def claims(names: Iterable[str]) -> Callable[[Declaration], Declaration]:
    """Register one function under several names: `@claims(TABLE)` is `@claim(name)` for each name of the table."""

    def register(declaration: Declaration) -> Declaration:
        for name in names:
            claim(name)(declaration)
        return declaration

    return register


def declare(name: str, sweep: str, *, unit: str = "pp", **fields: Any) -> Claim:
    """The claim about a sweep. Its config and budgets follow from the sweep's name; `fields` are `Claim`'s others."""
    from runner.analysis.claims.claim import Claim

    smoke = (*SMOKE, *SMOKE_EXTRAS.get(sweep, ()))
    small = (*SMALL, *SMALL_EXTRAS.get(sweep, ()))
    budgets = {"smoke": smoke, "small": small}
    return Claim(name=name, config=CONFIGS / f"{sweep}.yaml", budgets=budgets, unit=unit, **fields)


def norm_arm(sweep: str) -> str:
    """The arm with batch norm. In the tutorial it is a network, in the other sweeps a norm layer."""
    return "batch_norm" if sweep == "tutorial_fashion" else "batch"
