"""Less sensitive to initialisation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import CONFIGS, SMALL_SEEDS, SMOKE
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim


@claim("less_sensitive_to_initialisation")
def less_sensitive(name: str) -> Claim:
    from runner.analysis.claims.accuracy import interaction
    from runner.analysis.claims.claim import Claim

    return Claim(
        name=name,
        sentence="Batch norm makes a network less sensitive to its initialisation: a ReLU MLP on MNIST.",
        source='the paper the tutorial names, Ioffe & Szegedy 2015: "be less careful about initialization"',
        config=CONFIGS / "initialisation.yaml",
        metric="test accuracy, mean difference at weights ~ N(0, .005²), N(0, .5²), N(0, 5²) minus that at N(0, .05²)",
        unit="pp",
        smallest_effect=1,
        claimed=1,
        measure=partial(interaction, arm="batch", parameter="network.std", good=0.05),
        budgets={"smoke": SMOKE, "small": (SMALL_SEEDS, "fixed.train_samples=10000")},
    )
