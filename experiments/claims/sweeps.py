"""What the claims share: their configs and budgets, and how they are declared.

The budget `full` is the config itself, and the only one that gives verdicts. `small` is a preview on real data, where
all claims take half an hour of two cores. `smoke` shows on the embedded digits that everything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.registry import claim

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim

CONFIGS = Path(__file__).parent.parent.parent / "bnbench/configs/claims"

Declaration = Callable[[str], Any]
"""A claim's name → the claim."""

SELECTION_SEEDS = range(980, 1000)
"""The seeds that choose learning rates: 990 to 999 at the budget `full`, others at the smaller ones.

At the budget `full`, the seeds from 1000 on are tested.
"""
SELECTING = ("own_best_lr", "learning_rates")
"""The sweeps with such seeds."""

SMOKE = ("fixed.dataset=digits", "fixed.epochs=1", "grid.seed={range: 2}")
SMOKE_EXTRAS = {
    "batch_size": ("fixed.train_samples=200",),
    "early_statistics": ("fixed.train_samples=1000",),
    "learning_rates": ("grid.lr=[0.01, 0.1, 1, 10]", "fixed.train_samples=1000", "grid.seed=[980, 0, 1]"),
    "own_best_lr": ("fixed.train_samples=1000", "grid.seed=[980, 0, 1]"),
    "tutorial_fashion": ("fixed.batch_size=100",),
}
"""Sweep → what the budget `smoke` overrides beside `SMOKE`."""

SMALL = ("grid.seed={range: [200, 212]}",)
TEN_THOUSAND = ("fixed.train_samples=10000",)
SMALL_SELECTION = ("grid.seed=[980, 981, 982, 200, 201, 202, 203, 204, 205, 206, 207, 208, 209, 210, 211]",)
SMALL_EXTRAS = {
    **dict.fromkeys(("affine", "divergence", "eps", "initialisation", "running_statistics"), TEN_THOUSAND),
    "batch_size": ("fixed.epochs=10",),
    "learning_rates": ("fixed.epochs=3", *SMALL_SELECTION),
    "momentum": (*TEN_THOUSAND, "fixed.epochs=1"),
    "notebook_cnn_mnist": ("fixed.epochs=2", "fixed.train_samples=20000"),
    "order": (*TEN_THOUSAND, "fixed.epochs=2"),
    "own_best_lr": (*TEN_THOUSAND, "fixed.epochs=3", *SMALL_SELECTION),
    "tutorial_fashion": ("fixed.epochs=4", "fixed.train_samples=20000"),
}
"""Sweep → what the budget `small` overrides beside `SMALL`."""

NOTEBOOK = {"dataset": "mnist", "train_samples": None, "batch_size": 64, "optimizer": "sgd", "lr": 0.1}
THE_NOTEBOOKS = "the notebook's (the last batch of 32 images is left out)"
WHOSE = {
    **dict.fromkeys(("notebook_mlp_mnist", "notebook_cnn_mnist", "running_statistics"), THE_NOTEBOOKS),
    "own_best_lr": "the notebook's, less the 10,000 images that choose the learning rate, which is ours",
    "tutorial_fashion": "the tutorial's (shuffled: the tutorial's batches have the order of the data set)",
    "sigmoid_mlp_mnist": (
        "the paper's batches; it trains 50,000 steps, and here training ends after 10,000, because a time to a target "
        "that was reached does not depend on what follows it (lr 0.1 is ours)"
    ),
    "early_statistics": "the first eight steps of the notebook's training",
    "gradients": "none: the networks are not trained yet",
}
"""Sweep → whose budget it has. The other budgets are ours."""

BUDGET: dict[str, dict[str, Any]] = {
    "notebook_mlp_mnist": {**NOTEBOOK, "validate_on": "test", "epochs": 10},
    "notebook_cnn_mnist": {**NOTEBOOK, "validate_on": "test", "epochs": 5},
    "running_statistics": {**NOTEBOOK, "validate_on": "test", "epochs": 10},
    "own_best_lr": {"dataset": "mnist", "train_samples": None, "batch_size": 64, "optimizer": "sgd", "epochs": 10},
    "tutorial_fashion": {
        **{"dataset": "fashion_mnist", "train_samples": None, "validate_on": "test"},
        **{"batch_size": 1000, "optimizer": "adam", "lr": 0.01, "epochs": 10},
    },
    "sigmoid_mlp_mnist": {
        "dataset": "mnist",
        "train_samples": None,
        "batch_size": 60,
        "optimizer": "sgd",
        "epochs": 10,
    },
    "affine": {**NOTEBOOK, "epochs": 5},
    "eps": {**NOTEBOOK, "epochs": 5},
    "momentum": {**NOTEBOOK, "epochs": 2},
    "early_statistics": {"batch_size": 64, "lr": 0.1},
    "batch_size": {"dataset": "mnist", "train_samples": 2000, "optimizer": "sgd", "epochs": 30},
    "divergence": {"dataset": "mnist", "train_samples": 10000, "batch_size": 64, "epochs": 2},
    "gradients": {"dataset": "mnist"},
    "initialisation": {"dataset": "mnist", "train_samples": 20000, "batch_size": 64, "epochs": 3},
    "learning_rates": {"dataset": "mnist", "train_samples": 10000, "batch_size": 64, "epochs": 5},
    "order": {"dataset": "fashion_mnist", "train_samples": 20000, "batch_size": 100, "epochs": 5},
    "generalisation": {"dataset": "fashion_mnist", "batch_size": 50, "epochs": 30},
    "generalisation_10k": {"dataset": "fashion_mnist", "batch_size": 50, "epochs": 15},
}
"""Sweep → the run parameters that the document names, or that we chose."""

READ_ONCE = ("batch_size", "generalisation", "generalisation_10k", "learning_rates")
"""The sweeps that read accuracy once an epoch: their endpoint is the median of the last epochs."""

ONE_SAMPLE = (
    'the notebook, on a batch of one sample: "then the mean is just this value and the variance is 0, isn\'t it?"'
)
"""A source of the claims about small batches."""

LAST_EPOCH = (
    "accuracy on the test images, the median of the ten readings of the last epoch. One bad step spoils one reading "
    "only, and hardly moves the median. Nothing is chosen by these images, so the whole training set can train, "
    "as in the document"
)
"""The endpoint of claims about accuracy."""

OTHERS = "The result is for the arm whose interval reaches farthest from 0"
"""The end of the metric of a claim that compares several arms with the baseline."""

MNIST = (
    "0.2 pp are 20 of the 10,000 test images, about what another seed changes; nobody would choose a network for less"
)
FASHION = (
    "0.5 pp are 50 of the 10,000 test images, about what another seed changes; nobody would choose a network for less"
)
"""Why the smallest effects on accuracy have their values."""


def claims(names: Iterable[str]) -> Callable[[Declaration], Declaration]:
    """Register one function under several names: `@claims(TABLE)` is `@claim(name)` for each name of the table."""

    def register(declaration: Declaration) -> Declaration:
        for name in names:
            claim(name)(declaration)
        return declaration

    return register


def declare(name: str, sweep: str, *, unit: str = "pp", **fields: Any) -> Claim:
    """The claim about a sweep. Its config and budgets follow from the sweep's name; `fields` are `Claim`'s others."""
    from runner.analysis.claims.claim import Claim, DocumentBudget

    smoke = (*SMOKE, *SMOKE_EXTRAS.get(sweep, ()))
    small = (*SMALL, *SMALL_EXTRAS.get(sweep, ()))
    fields.setdefault("table", "metrics.csv" if sweep in READ_ONCE else "curves.csv")
    return Claim(
        name=name,
        config=CONFIGS / f"{sweep}.yaml",
        budgets={"smoke": smoke, "small": small},
        unit=unit,
        document=DocumentBudget(WHOSE.get(sweep, DocumentBudget.whose), BUDGET[sweep]),
        selection_seeds=SELECTION_SEEDS if sweep in SELECTING else (),
        **fields,
    )


def norm_arm(sweep: str) -> str:
    """The arm with batch norm. In the tutorial it is a network, in the other sweeps a norm layer."""
    return "batch_norm" if sweep == "tutorial_fashion" else "batch"
