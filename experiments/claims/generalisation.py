"""Better generalisation: at the end of training, and at the same training loss."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from experiments.claims.sweeps import FASHION, claims, declare

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

AT_THE_END = {
    "better_generalisation": ("generalisation", "1,000", "Batch norm generalises better from little data"),
    "better_generalisation_10k": ("generalisation_10k", "10,000", "Batch norm generalises better"),
}
"""Claim → (sweep, training images, the sentence's beginning)."""

AT_MATCHED_LOSS = {
    "better_generalisation_at_matched_loss": ("generalisation", "1,000"),
    "better_generalisation_at_matched_loss_10k": ("generalisation_10k", "10,000"),
}
"""Claim → (sweep, training images)."""


@claims(AT_THE_END)
def at_the_end(name: str) -> Claim:
    from runner.analysis.claims.accuracy import final

    sweep, images, beginning = AT_THE_END[name]
    return _generalisation(
        name,
        sweep,
        sentence=f"{beginning}: a ReLU MLP, {images} images of FashionMNIST.",
        metric=(
            f"accuracy on the held-out images after training on {images} images, the median of the ends of the "
            "last ten epochs. One bad step spoils one reading only, and nothing is chosen by these images"
        ),
        measure=partial(final, arm="batch", epochs=10),
    )


@claims(AT_MATCHED_LOSS)
def at_matched_loss(name: str) -> Claim:
    from runner.analysis.claims.accuracy import accuracy_at_matched_loss

    sweep, images = AT_MATCHED_LOSS[name]
    return _generalisation(
        name,
        sweep,
        sentence=f"At equal training loss, batch norm generalises better: a ReLU MLP, {images} images of FashionMNIST.",
        metric=(
            "accuracy on the held-out images at the lowest training loss (in evaluation mode) that both runs of a seed "
            "reach; the median of three epochs, so that one bad step cannot spoil it"
        ),
        measure=partial(accuracy_at_matched_loss, arm="batch"),
    )


def _generalisation(name: str, sweep: str, **fields: Any) -> Claim:
    return declare(
        name,
        sweep,
        source='the BatchNorm1d page: "improves the generalisation of the model" (提高模型泛化能力)',
        smallest_effect=0.5,
        reason=FASHION,
        claimed=1,
        **fields,
    )
