"""Less sensitivity: to depth (vanishing gradients), to initial weights, to learning rates, to the order of layers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import OTHERS, claims, declare
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

GRADIENTS = {
    "fewer_vanishing_gradients_sigmoid": ("sigmoid", "Glorot's"),
    "fewer_vanishing_gradients_relu": ("relu", "He's"),
}
"""Claim → (activation, initial weights)."""


@claims(GRADIENTS)
def fewer_vanishing_gradients(name: str) -> Claim:
    from runner.analysis.claims.stability import gradient_slope

    activation, weights = GRADIENTS[name]
    return declare(
        name,
        "gradients",
        sentence=f"Batch norm cures vanishing gradients: a {activation} MLP of depth 10 with {weights} weights.",
        source='the BatchNorm1d page: "effectively reduces vanishing gradients" (有效减少梯度消失问题)',
        metric=(
            "absolute slope of the natural log of ‖∂L/∂h‖² over the ten activations h, before the first step. "
            "It is 0 if gradients neither vanish nor explode"
        ),
        unit="per layer",
        smallest_effect=0.1,
        claimed=-1,
        # One hidden layer is three modules: linear, norm, activation.
        measure=partial(gradient_slope, arm="batch", every=3, where={"network.activation": activation}),
        table="probes.csv",
    )


D = "D is the test accuracy with batch norm minus that without"


@claim("less_sensitive_to_initialisation")
def less_sensitive_to_initialisation(name: str) -> Claim:
    from runner.analysis.claims.accuracy import interaction

    return declare(
        name,
        "initialisation",
        sentence="Batch norm makes a network less sensitive to its initialisation: a ReLU MLP on MNIST.",
        source='the paper: "be less careful about initialization"',
        metric=f"{D}. The metric is the mean D at starting weights of SD 0.005, 0.5 and 5, minus D at SD 0.05",
        smallest_effect=1,
        claimed=1,
        measure=partial(interaction, arm="batch", parameter="network.std", good=0.05),
    )


@claim("larger_learning_rates")
def larger_learning_rates(name: str) -> Claim:
    from runner.analysis.claims.convergence import largest_lr

    return declare(
        name,
        "learning_rates",
        sentence="Batch norm allows larger learning rates: a ReLU MLP 784-100-10 on MNIST, SGD.",
        source='the paper: "allows us to use much higher learning rates"',
        metric=(
            "at each of the nine rates, an arm has a mean validation accuracy over its seeds. The arm's best is the "
            "highest of its own nine means. For each seed of this arm, take the largest rate at which its accuracy is "
            "at most 1 pp lower than the arm's best. If there is none, take the smallest of the nine. The metric is "
            "log10 of this rate. One decade is a factor of 10"
        ),
        unit="decades",
        smallest_effect=1,
        claimed=1,
        measure=partial(largest_lr, arm="batch", within=0.01),
    )


@claim("order_matters_little")
def order_matters_little(name: str) -> Claim:
    from runner.analysis.claims.accuracy import every_other

    return declare(
        name,
        "order",
        sentence="The order of batch norm, pooling and ReLU after a convolution hardly matters: FashionMNIST.",
        source='the unit-order notes, about this order: "Inversion doesn\'t have much effect"',
        metric=f"for each order except the baseline norm-pooling-ReLU: {OTHERS}",
        smallest_effect=0.5,
        claimed="equivalence",
        measure=every_other,
    )
