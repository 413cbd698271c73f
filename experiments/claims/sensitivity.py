"""Less sensitivity: to depth (vanishing gradients), to initial weights, to learning rates, to the order of layers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import claims, declare
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
        source="the BatchNorm1d page: 有效减少梯度消失问题 (effectively reduces vanishing gradients)",
        metric=(
            "|slope over the ten activations of log ‖∂L/∂h‖²| before the first step: "
            "0 where gradients neither vanish nor explode"
        ),
        unit="per layer",
        smallest_effect=0.1,
        claimed=-1,
        # One hidden layer is three modules: linear, norm, activation.
        measure=partial(gradient_slope, arm="batch", every=3, where={"network.activation": activation}),
        table="probes.csv",
    )


@claim("less_sensitive_to_initialisation")
def less_sensitive_to_initialisation(name: str) -> Claim:
    from runner.analysis.claims.accuracy import interaction

    return declare(
        name,
        "initialisation",
        sentence="Batch norm makes a network less sensitive to its initialisation: a ReLU MLP on MNIST.",
        source='the paper the tutorial names, Ioffe & Szegedy 2015: "be less careful about initialization"',
        metric="test accuracy, mean difference at weights ~ N(0, .005²), N(0, .5²), N(0, 5²) minus that at N(0, .05²)",
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
        source='the paper the tutorial names, Ioffe & Szegedy 2015: "allows us to use much higher learning rates"',
        metric=(
            "log10 of the largest learning rate, 0.001 … 10 in half-decades, at which the seed's validation accuracy "
            "is within 1 pp of its arm's best mean; the grid's edge bounds it"
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
        source="the fourth document: the last three's order … \"Inversion doesn't have much effect\"",
        metric="test accuracy, each order minus norm-pooling-ReLU; all five must be equivalent, the worst decides",
        smallest_effect=0.5,
        claimed="equivalence",
        measure=every_other,
    )
