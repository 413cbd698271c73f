"""More stable: fewer divergences, a smaller spread over seeds, less of an up and down."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import CONFIGS, NETWORKS, SMALL_SEEDS, SMOKE
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

SOURCE = 'the fourth document: "A more stable"'


@claim("fewer_divergences")
def fewer_divergences(name: str) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.stability import diverged

    return Claim(
        name=name,
        sentence="Training is more stable: fewer runs of a ReLU MLP of three layers diverge on MNIST at SGD 3.",
        source=SOURCE,
        config=CONFIGS / "divergence.yaml",
        metric="whether the training loss became infinite or NaN, 1 or 0: McNemar's exact test",
        unit="share",
        smallest_effect=0.1,
        claimed=-1,
        measure=partial(diverged, arm="batch", where={}),
        budgets={"smoke": SMOKE, "small": (SMALL_SEEDS, "fixed.train_samples=10000")},
    )


@claim("smaller_spread_over_seeds")
def smaller_spread(name: str) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.stability import deviation

    return Claim(
        name=name,
        sentence="Training is more stable: seeds of the notebook's MLP on MNIST differ less in final accuracy.",
        source=SOURCE,
        config=CONFIGS / "notebook_mlp_mnist.yaml",
        metric="|test accuracy − its arm's median|: Levene's test about the median, by pairs",
        unit="pp",
        smallest_effect=0.1,
        claimed=-1,
        measure=partial(deviation, arm="batch"),
        budgets=NETWORKS["notebook_mlp_mnist"],
    )


@claim("steadier_validation")
def steadier_validation(name: str) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.stability import late_range

    return Claim(
        name=name,
        sentence="Training is more stable: the notebook's MLP's validation accuracy jumps less from epoch to epoch.",
        source=SOURCE + "; the notebook's table without batch norm, which falls to .9182 in its third epoch",
        config=CONFIGS / "notebook_mlp_mnist.yaml",
        metric="range of a run's validation accuracy over the later half of its epochs",
        unit="pp",
        smallest_effect=0.2,
        claimed=-1,
        measure=partial(late_range, arm="batch"),
        budgets=NETWORKS["notebook_mlp_mnist"],
        table="metrics.csv",
    )
