"""Final accuracy: one document says batch norm does not change it, others that it is higher. Both are tested."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from experiments.claims.sweeps import CONFIGS, NETWORKS, arm
from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

NAMES = {
    "notebook_mlp_mnist": ("the notebook's MLP on MNIST", 0.2),
    "notebook_cnn_mnist": ("the notebook's CNN on MNIST", 0.2),
    "tutorial_fashion": ("the tutorial's CNN on FashionMNIST", 0.5),
}
"""The set-ups, and the smallest effect in pp."""

UNCHANGED = (
    "the third document: 一般不改变模型精度 (generally does not change accuracy); the notebook: 最后的结果两种情况一样"
)
HIGHER = "the tutorial: 迄今为止最高的精度 (the highest accuracy so far); the BatchNorm1d page: 提高神经网络的精度"


@claim("unchanged_accuracy_notebook_mlp")
def unchanged_notebook_mlp(name: str) -> Claim:
    return _accuracy(name, "notebook_mlp_mnist", "equivalence")


@claim("unchanged_accuracy_notebook_cnn")
def unchanged_notebook_cnn(name: str) -> Claim:
    return _accuracy(name, "notebook_cnn_mnist", "equivalence")


@claim("unchanged_accuracy_tutorial_cnn")
def unchanged_tutorial_cnn(name: str) -> Claim:
    return _accuracy(name, "tutorial_fashion", "equivalence")


@claim("higher_accuracy_notebook_mlp")
def higher_notebook_mlp(name: str) -> Claim:
    return _accuracy(name, "notebook_mlp_mnist", 1)


@claim("higher_accuracy_notebook_cnn")
def higher_notebook_cnn(name: str) -> Claim:
    return _accuracy(name, "notebook_cnn_mnist", 1)


@claim("higher_accuracy_tutorial_cnn")
def higher_tutorial_cnn(name: str) -> Claim:
    return _accuracy(name, "tutorial_fashion", 1)


def _accuracy(name: str, sweep: str, claimed: Literal[1, "equivalence"]) -> Claim:
    from runner.analysis.claims.accuracy import final
    from runner.analysis.claims.claim import Claim

    network, smallest = NAMES[sweep]
    said = "raises final accuracy" if claimed == 1 else "generally does not change final accuracy"
    return Claim(
        name=name,
        sentence=f"Batch norm {said}: {network}.",
        source=HIGHER if claimed == 1 else UNCHANGED,
        contradicts=UNCHANGED if claimed == 1 else HIGHER,
        config=CONFIGS / f"{sweep}.yaml",
        metric="test accuracy after the last epoch, at the document's own learning rate",
        unit="pp",
        smallest_effect=smallest,
        claimed=claimed,
        measure=partial(final, arm=arm(sweep)),
        budgets=NETWORKS[sweep],
    )
