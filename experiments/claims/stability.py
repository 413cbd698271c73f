"""More stable training: fewer divergences, a smaller spread over seeds, steadier validation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import declare
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

SOURCE = 'the unit-order notes: "A more stable" (training)'


@claim("fewer_divergences")
def fewer_divergences(name: str) -> Claim:
    from runner.analysis.claims.stability import diverged

    return declare(
        name,
        "divergence",
        sentence="Training is more stable: fewer runs of a ReLU MLP of three layers diverge on MNIST, SGD, lr 3.",
        source=SOURCE,
        metric="1 if the training loss became infinite or NaN, else 0; the test is McNemar's exact test",
        unit="share of runs",
        smallest_effect=0.1,
        claimed=-1,
        measure=partial(diverged, arm="batch", where={}),
    )


@claim("smaller_spread_over_seeds")
def smaller_spread(name: str) -> Claim:
    from runner.analysis.claims.stability import deviation

    return declare(
        name,
        "notebook_mlp_mnist",
        sentence="Training is more stable: seeds of the notebook's MLP on MNIST differ less in final accuracy.",
        source=SOURCE,
        metric=(
            "the distance of a run's test accuracy from its arm's median. The difference is the distance with batch "
            "norm minus the distance without it"
        ),
        smallest_effect=0.1,
        claimed=-1,
        measure=partial(deviation, arm="batch"),
    )


@claim("steadier_validation")
def steadier_validation(name: str) -> Claim:
    from runner.analysis.claims.stability import late_range

    return declare(
        name,
        "notebook_mlp_mnist",
        sentence=(
            "Training is more stable: the validation accuracy of the notebook's MLP jumps less from epoch to epoch."
        ),
        source=f"{SOURCE}; the notebook's accuracy without batch norm, which falls to 0.9182 in epoch 3",
        metric="highest minus lowest validation accuracy of a run in the second half of its epochs",
        smallest_effect=0.2,
        claimed=-1,
        measure=partial(late_range, arm="batch"),
        table="metrics.csv",
    )
