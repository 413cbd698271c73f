"""Fewer vanishing gradients: of a deep sigmoid network, and of a deep ReLU network, which is another matter."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import CONFIGS, SMALL_SEEDS, SMOKE
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim


@claim("fewer_vanishing_gradients_sigmoid")
def sigmoid(name: str) -> Claim:
    return _gradients(name, "sigmoid", "Glorot's")


@claim("fewer_vanishing_gradients_relu")
def relu(name: str) -> Claim:
    return _gradients(name, "relu", "He's")


def _gradients(name: str, activation: str, weights: str) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.stability import gradient_slope

    return Claim(
        name=name,
        sentence=f"Batch norm cures vanishing gradients: a {activation} MLP of depth 10 with {weights} weights.",
        source="the BatchNorm1d page: 有效减少梯度消失问题 (effectively reduces vanishing gradients)",
        config=CONFIGS / "gradients.yaml",
        metric=(
            "|slope over the ten activations of log ‖∂L/∂h‖²| before the first step: "
            "0 where gradients neither vanish nor explode"
        ),
        unit="per layer",
        smallest_effect=0.1,
        claimed=-1,
        # One hidden layer is three modules: linear, norm, activation.
        measure=partial(gradient_slope, arm="batch", every=3, where={"network.activation": activation}),
        budgets={"smoke": SMOKE, "small": (SMALL_SEEDS,)},
        table="probes.csv",
    )
