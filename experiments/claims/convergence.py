"""Faster convergence: every document says so of every network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.claims.sweeps import MNIST, SELECTION_SEEDS, claims, declare, norm_arm
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

TIME: dict[str, Any] = {"unit": "%", "smallest_effect": 20, "claimed": -1, "effect": "ratio"}
"""A time to a target, as a difference in % of the mean time without batch norm."""

FIFTH = "A fifth of the steps is the least that one notices while waiting for a network"
TARGET = "Both arms passed the target well before their last epoch on seeds that are not tested here"

CENSORED = (
    "A run that never reaches it counts with all steps of the training. Then the true effect is larger or smaller than "
    "the number, and the table says so"
)
STEPS = f"The metric is the ratio of the two arms' mean steps, minus 1. {CENSORED}"
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
"""Claim → (sweep, target accuracy, network, source)."""


@claims(FASTER)
def faster(name: str) -> Claim:
    from runner.analysis.claims.convergence import steps_to_target

    sweep, target, network, source = FASTER[name]
    return declare(
        name,
        sweep,
        sentence=f"Batch norm converges faster: {network}.",
        source=source,
        metric=(
            f"optimizer steps until the accuracy on the test images is {100 * target:g}%, read ten times an epoch. "
            f"{STEPS}"
        ),
        reason=f"{FIFTH}. {TARGET}",
        **TIME,
        measure=partial(steps_to_target, arm=norm_arm(sweep), target=target),
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
            "seconds of training until the accuracy on the test images is 95%, on the machine that trained the run. A "
            "run that does not reach it within the duration of the shortest complete run counts with this duration. "
            "The metric is the ratio of the two arms' mean seconds, minus 1"
        ),
        reason=f"{FIFTH}. {TARGET}",
        **TIME,
        measure=partial(seconds_to_target, arm="batch", target=0.95),
    )


CHOICE = (
    "An arm's learning rate is the one of 0.01, 0.03, 0.1, 0.3 and 1 with the highest validation accuracy in the last "
    "epoch (the median of its readings), mean over ten seeds that are not tested. A rate that the tested seeds chose "
    "themselves would flatter them"
)


@claim("faster_at_own_best_lr")
def faster_at_own_best(name: str) -> Claim:
    from runner.analysis.claims.convergence import steps_at_best_lr

    return _at_own_best(
        name,
        sentence=(
            "Batch norm converges faster if each arm uses its own best learning rate: the notebook's MLP on MNIST."
        ),
        metric=(f"optimizer steps until the validation accuracy is 95%. {STEPS}. {CHOICE}"),
        reason=f"{FIFTH}. The target is that of faster_notebook_mlp",
        **TIME,
        measure=partial(steps_at_best_lr, arm="batch", target=0.95, selection_seeds=SELECTION_SEEDS),
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
        metric=(
            f"mean validation accuracy over all readings, ten per epoch (the area under the validation curve). {CHOICE}"
        ),
        smallest_effect=0.2,
        reason=MNIST,
        claimed=1,
        measure=partial(area_at_best_lr, arm="batch", selection_seeds=SELECTION_SEEDS),
    )


def _at_own_best(name: str, **fields: Any) -> Claim:
    """The grid of this sweep is 0.01 to 1. A best learning rate on its edge is noted."""
    from runner.analysis.claims.convergence import best_lrs

    return declare(
        name,
        "own_best_lr",
        source='all documents; the unit-order notes: "Convergence is faster"',
        remarks=partial(best_lrs, arm="batch", selection_seeds=SELECTION_SEEDS),
        **fields,
    )
