"""Converges faster: every document says so, of every network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import CONFIGS, NETWORKS, SMALL_SEEDS, SMOKE, arm
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim


@claim("faster_notebook_mlp")
def notebook_mlp(name: str) -> Claim:
    source = "the notebook: 使用批标准化的情况能够更快的收敛 (with batch norm it converges faster)"
    return _faster(name, "the notebook's MLP on MNIST, SGD 0.1", source, "notebook_mlp_mnist", 0.95)


@claim("faster_sigmoid_mlp")
def sigmoid_mlp(name: str) -> Claim:
    source = (
        "the third document: 可以加速收敛速度 (it speeds up convergence); Ioffe & Szegedy 2015, section 4.1, as well"
    )
    return _faster(
        name, "a sigmoid MLP of three hidden layers of 100 on MNIST, SGD 0.1", source, "sigmoid_mlp_mnist", 0.9
    )


@claim("faster_notebook_cnn")
def notebook_cnn(name: str) -> Claim:
    source = 'the fourth document: "Convergence is faster"; the notebook, which goes on to this network'
    return _faster(name, "the notebook's CNN on MNIST, SGD 0.1", source, "notebook_cnn_mnist", 0.95)


@claim("faster_tutorial_cnn")
def tutorial_cnn(name: str) -> Claim:
    source = 'the tutorial, by the paper it names (加速深度网络训练); the fourth document: "Convergence is faster"'
    return _faster(name, "the tutorial's CNN on FashionMNIST, Adam 0.01", source, "tutorial_fashion", 0.8)


@claim("faster_in_seconds_notebook_mlp")
def seconds(name: str) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.convergence import seconds_to_target

    return Claim(
        name=name,
        sentence="Batch norm converges faster by the clock, too: the notebook's MLP on MNIST, SGD 0.1.",
        source="the notebook: 使用批标准化的情况能够更快的收敛 (with batch norm it converges faster)",
        config=CONFIGS / "notebook_mlp_mnist.yaml",
        metric=(
            "seconds of training, on the machine that trained, to 95% validation accuracy, min(T, horizon), in % of "
            "the mean without"
        ),
        unit="%",
        smallest_effect=20,
        claimed=-1,
        measure=partial(seconds_to_target, arm="batch", target=0.95),
        budgets=NETWORKS["notebook_mlp_mnist"],
        table="curves.csv",
    )


OWN_BEST = {
    "smoke": (*SMOKE, "fixed.train_samples=1000"),
    "small": (SMALL_SEEDS, "fixed.epochs=3"),
}
"""The budgets of `own_best_lr.yaml`, whose grid is 0.01 to 1: a best learning rate on its edge is noted."""


@claim("faster_at_own_best_lr")
def own_best(name: str) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.convergence import best_lrs, steps_at_best_lr

    return Claim(
        name=name,
        sentence="Batch norm converges faster, each arm at its own best learning rate: the notebook's MLP on MNIST.",
        source='all, none of which tunes; the fourth document: "Convergence is faster"',
        config=CONFIGS / "own_best_lr.yaml",
        metric=(
            "optimizer steps to 90% validation accuracy, min(T, horizon), in % of the mean without; of 0.01, 0.03, "
            "0.1, 0.3 and 1 the learning rate with the arm's best mean final validation accuracy"
        ),
        unit="%",
        smallest_effect=20,
        claimed=-1,
        measure=partial(steps_at_best_lr, arm="batch", target=0.9),
        remarks=partial(best_lrs, arm="batch"),
        budgets=OWN_BEST,
        table="curves.csv",
    )


@claim("larger_area_at_own_best_lr")
def area(name: str) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.convergence import area_at_best_lr, best_lrs

    return Claim(
        name=name,
        sentence="Batch norm is ahead all along, each arm at its own best learning rate: the notebook's MLP on MNIST.",
        source='all, none of which tunes; the fourth document: "Convergence is faster"',
        config=CONFIGS / "own_best_lr.yaml",
        metric="mean validation accuracy over the readings, ten an epoch: the area under the validation curve",
        unit="pp",
        smallest_effect=0.2,
        claimed=1,
        measure=partial(area_at_best_lr, arm="batch"),
        remarks=partial(best_lrs, arm="batch"),
        budgets=OWN_BEST,
        table="curves.csv",
    )


def _faster(name: str, network: str, source: str, sweep: str, target: float) -> Claim:
    from runner.analysis.claims.claim import Claim
    from runner.analysis.claims.convergence import steps_to_target

    return Claim(
        name=name,
        sentence=f"Batch norm converges faster: {network}.",
        source=source,
        config=CONFIGS / f"{sweep}.yaml",
        metric=f"optimizer steps to {100 * target:g}% validation accuracy, min(T, horizon), in % of the mean without",
        unit="%",
        smallest_effect=20,
        claimed=-1,
        measure=partial(steps_to_target, arm=arm(sweep), target=target),
        budgets=NETWORKS[sweep],
        table="curves.csv",
    )
