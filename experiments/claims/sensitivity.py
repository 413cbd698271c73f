"""Less sensitivity: to depth (vanishing gradients), to initial weights, to learning rates, to the order of layers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import FASHION, LAST_EPOCH, OTHERS, SELECTION_SEEDS, claims, declare
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

GRADIENTS = {
    "fewer_vanishing_gradients_sigmoid": ("sigmoid", "Glorot's"),
    "fewer_vanishing_gradients_relu": ("relu", "He's"),
    "no_exploding_gradients_sigmoid": ("sigmoid", "Glorot's"),
    "no_exploding_gradients_relu": ("relu", "He's"),
}
"""Claim → (activation, initial weights)."""

SLOPE = (
    "per layer towards the input, the slope of the natural log of ‖∂L/∂h‖² over the ten activations h, before step 1"
)


@claims(GRADIENTS)
def gradients(name: str) -> Claim:
    from runner.analysis.claims.stability import exploding, vanishing

    activation, weights = GRADIENTS[name]
    explodes = name.startswith("no_exploding")
    effect = "does not make gradients explode" if explodes else "cures vanishing gradients"
    change, other = ("grow", "shrink") if explodes else ("shrink", "grow")
    return declare(
        name,
        "gradients",
        sentence=f"Batch norm {effect}: a {activation} MLP of depth 10 with {weights} weights.",
        source=(
            'the BatchNorm1d page: "effectively reduces vanishing gradients" (有效减少梯度消失问题)'
            + (", which would be no gain if they exploded instead" if explodes else "")
        ),
        metric=f"how much gradients {change} {SLOPE}. It is 0 where they {other}, so that neither hides the other",
        unit="per layer",
        smallest_effect=0.1,
        reason="0.1 per layer changes ‖∂L/∂h‖² by a factor of e over ten layers, the depth of these networks",
        claimed="equivalence" if explodes else -1,
        # One hidden layer is three modules: linear, norm, activation.
        measure=partial(
            exploding if explodes else vanishing, arm="batch", every=3, where={"network.activation": activation}
        ),
        table="probes.csv",
    )


@claim("less_sensitive_to_initialisation")
def less_sensitive_to_initialisation(name: str) -> Claim:
    from runner.analysis.claims.accuracy import interaction

    return declare(
        name,
        "initialisation",
        sentence="Batch norm makes a network less sensitive to its initialisation: a ReLU MLP on MNIST.",
        source='the paper: "be less careful about initialization"',
        metric=(
            "the mean accuracy at starting weights of SD 0.005, 0.5 and 5, minus that at SD 0.05. The accuracy is that "
            "on the test images, the median of the ten readings of the last epoch"
        ),
        smallest_effect=1,
        reason="1 pp are 100 of the 10,000 test images, several times what another seed changes",
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
            "log10 of the largest of nine rates at which a seed's validation accuracy is at most 1 pp lower than its "
            "arm's best; the smallest of the nine if there is none. The accuracy is the median of the ends of the last "
            "three epochs, so that one bad step cannot decide. The arm's best is its highest mean over ten seeds that "
            "are not tested. One decade is a factor of 10"
        ),
        unit="decades",
        smallest_effect=1,
        reason='"Much higher" is read as ten times. 1 pp is several times what another seed changes',
        claimed=1,
        measure=partial(largest_lr, arm="batch", within=0.01, epochs=3, selection_seeds=SELECTION_SEEDS),
    )


@claim("order_matters_little")
def order_matters_little(name: str) -> Claim:
    from runner.analysis.claims.accuracy import every_other

    return declare(
        name,
        "order",
        sentence="The order of batch norm, pooling and ReLU after a convolution hardly matters: FashionMNIST.",
        source='the unit-order notes, about this order: "Inversion doesn\'t have much effect"',
        metric=(
            f"for each order that is another function than norm-pooling-ReLU: {LAST_EPOCH}. {OTHERS}. Max pooling and "
            "ReLU give the same in both orders, so two of the six orders are left out"
        ),
        smallest_effect=0.5,
        reason=FASHION,
        claimed="equivalence",
        measure=every_other,
    )
