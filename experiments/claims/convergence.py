"""Faster convergence: every document says so of every network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.claims.sweeps import claims, declare, norm_arm
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

TIME: dict[str, Any] = {"unit": "%", "smallest_effect": 20, "claimed": -1}
"""A time to a target, as a difference in % of the mean without batch norm."""

RELATIVE = "The difference is in % of the baseline's mean"
LATE = f"If a run never reaches it, the number of steps of the full training is used. {RELATIVE}"
NOTEBOOK = 'the notebook: "with batch normalization it converges faster"'

FASTER = {
    "faster_notebook_mlp": ("notebook_mlp_mnist", 0.95, "the notebook's MLP on MNIST, SGD, lr 0.1", NOTEBOOK),
    "faster_sigmoid_mlp": (
        "sigmoid_mlp_mnist",
        0.9,
        "a sigmoid MLP with three hidden layers of 100 units on MNIST, SGD, lr 0.1",
        'the d2l notes: "it can speed up convergence" (可以加速收敛速度); the paper, section 4.1',
    ),
    "faster_notebook_cnn": (
        "notebook_cnn_mnist",
        0.95,
        "the notebook's CNN on MNIST, SGD, lr 0.1",
        'the unit-order notes: "Convergence is faster"; the notebook, which also trains this network',
    ),
    "faster_tutorial_cnn": (
        "tutorial_fashion",
        0.8,
        "the tutorial's CNN on FashionMNIST, Adam, lr 0.01",
        'the title of the paper, which the tutorial names; the unit-order notes: "Convergence is faster"',
    ),
}
"""Claim → (sweep, target validation accuracy, network, source)."""


@claims(FASTER)
def faster(name: str) -> Claim:
    from runner.analysis.claims.convergence import steps_to_target

    sweep, target, network, source = FASTER[name]
    return declare(
        name,
        sweep,
        sentence=f"Batch norm converges faster: {network}.",
        source=source,
        metric=f"optimizer steps until the validation accuracy is {100 * target:g}%. {LATE}",
        **TIME,
        measure=partial(steps_to_target, arm=norm_arm(sweep), target=target),
        table="curves.csv",
    )


@claim("faster_in_seconds_notebook_mlp")
def faster_in_seconds(name: str) -> Claim:
    from runner.analysis.claims.convergence import seconds_to_target

    return declare(
        name,
        "notebook_mlp_mnist",
        sentence=(
            "Batch norm also converges faster if time is measured in seconds: the notebook's MLP on MNIST, SGD, lr 0.1."
        ),
        source=NOTEBOOK,
        metric=(
            "seconds of training until the validation accuracy is 95%, measured on the machine that trained the run. "
            "If a run does not reach it within the duration of the shortest complete run, this duration is used. "
            f"{RELATIVE}"
        ),
        **TIME,
        measure=partial(seconds_to_target, arm="batch", target=0.95),
        table="curves.csv",
    )


@claim("faster_at_own_best_lr")
def faster_at_own_best(name: str) -> Claim:
    from runner.analysis.claims.convergence import steps_at_best_lr

    return _at_own_best(
        name,
        sentence=(
            "Batch norm converges faster if each arm uses its own best learning rate: the notebook's MLP on MNIST."
        ),
        metric=(
            f"optimizer steps until the validation accuracy is 90%. {LATE}. The best of the learning rates 0.01, 0.03, "
            "0.1, 0.3 and 1 is the one with the arm's highest mean validation accuracy at the end"
        ),
        **TIME,
        measure=partial(steps_at_best_lr, arm="batch", target=0.9),
    )


@claim("larger_area_at_own_best_lr")
def larger_area_at_own_best(name: str) -> Claim:
    from runner.analysis.claims.convergence import area_at_best_lr

    return _at_own_best(
        name,
        sentence=(
            "Batch norm has the higher mean accuracy during training if each arm uses its own best learning rate: the "
            "notebook's MLP on MNIST."
        ),
        metric="mean validation accuracy over all readings, ten per epoch (the area under the validation curve)",
        smallest_effect=0.2,
        claimed=1,
        measure=partial(area_at_best_lr, arm="batch"),
    )


def _at_own_best(name: str, **fields: Any) -> Claim:
    """The grid of this sweep is 0.01 to 1. A best learning rate on its edge is noted."""
    from runner.analysis.claims.convergence import best_lrs

    return declare(
        name,
        "own_best_lr",
        source='all documents; the unit-order notes: "Convergence is faster"',
        remarks=partial(best_lrs, arm="batch"),
        table="curves.csv",
        **fields,
    )
