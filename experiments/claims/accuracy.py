"""Final accuracy: one document says that batch norm does not change it, others that it is higher. Both are tested.

The accuracy after training with small batches is here, too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from experiments.claims.sweeps import FASHION, LAST_EPOCH, MNIST, ONE_SAMPLE, claims, declare, norm_arm

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

UNCHANGED = (
    'the d2l notes: "generally does not change the accuracy of the model" (一般不改变模型精度); '
    'the notebook: "the final results are the same in both cases"'
)
HIGHER = 'the tutorial: "the highest accuracy so far"; the BatchNorm1d page: "improves the accuracy of neural networks"'

NETWORKS = {
    "notebook_mlp_mnist": ("the notebook's MLP on MNIST", 0.2, MNIST),
    "notebook_cnn_mnist": ("the notebook's CNN on MNIST", 0.2, MNIST),
    "tutorial_fashion": ("the tutorial's CNN on FashionMNIST", 0.5, FASHION),
}
"""Sweep → (its network, the smallest effect in pp, why it is that)."""

FINAL = {
    "unchanged_accuracy_notebook_mlp": ("notebook_mlp_mnist", "equivalence"),
    "unchanged_accuracy_notebook_cnn": ("notebook_cnn_mnist", "equivalence"),
    "unchanged_accuracy_tutorial_cnn": ("tutorial_fashion", "equivalence"),
    "higher_accuracy_notebook_mlp": ("notebook_mlp_mnist", 1),
    "higher_accuracy_notebook_cnn": ("notebook_cnn_mnist", 1),
    "higher_accuracy_tutorial_cnn": ("tutorial_fashion", 1),
}
"""Claim → (sweep, what is claimed)."""


@claims(FINAL)
def final_accuracy(name: str) -> Claim:
    from runner.analysis.claims.accuracy import final

    sweep, claimed = FINAL[name]
    network, smallest, reason = NETWORKS[sweep]
    effect = "raises final accuracy" if claimed == 1 else "generally does not change final accuracy"
    return declare(
        name,
        sweep,
        sentence=f"Batch norm {effect}: {network}.",
        source=HIGHER if claimed == 1 else UNCHANGED,
        contradicts=UNCHANGED if claimed == 1 else HIGHER,
        metric=LAST_EPOCH,
        smallest_effect=smallest,
        reason=reason,
        claimed=claimed,
        measure=partial(final, arm=norm_arm(sweep)),
    )


SMALL_BATCHES = {"small_batches_break_it": "layer", "small_batches_break_it_group": "group"}
"""Claim → the norm layer that batch norm is compared with."""


@claims(SMALL_BATCHES)
def small_batches(name: str) -> Claim:
    from runner.analysis.claims.accuracy import slope

    other = SMALL_BATCHES[name]
    return declare(
        name,
        "batch_size",
        sentence=(
            f"Batch norm, unlike {other} norm, suffers from small batches: the notebook's MLP, 2,000 images of MNIST."
        ),
        source=ONE_SAMPLE,
        metric=(
            "the slope of the accuracy against log2 of the batch size (2, 8 and 64). The accuracy is that on the test "
            "images, the median of the ends of the last ten of thirty epochs: then all arms are trained at every batch "
            "size, so that slow training is not mistaken for a bad batch size. The learning rate is proportional to "
            f"the batch size. The slope with batch norm is compared with that with {other} norm"
        ),
        unit="pp per doubling",
        smallest_effect=0.5,
        reason=(
            "0.5 pp per doubling are 2.5 pp from batches of 2 to batches of 64, several times what another seed changes"
        ),
        claimed=1,
        measure=partial(slope, arm="batch", parameter="batch_size", against=other, epochs=10),
    )
