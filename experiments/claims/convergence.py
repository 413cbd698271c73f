"""Converges faster: every document says so, of every network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import CONFIGS, NETWORKS, arm
from runner.registry import claim

if TYPE_CHECKING:
    from runner.claims import Claim


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


def _faster(name: str, network: str, source: str, sweep: str, target: float) -> Claim:
    from runner.claims import Claim
    from runner.measures import steps_to_target

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
