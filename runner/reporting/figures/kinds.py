"""The kinds of figures, and the panels of one kind."""

from collections.abc import Callable
from functools import partial

from runner.errors import UserError, unknown
from runner.reporting.figures import contrasts, curves, layers
from runner.reporting.figures.study import Study
from runner.reporting.figures.style import Panel

KINDS: dict[str, Callable[[Study], list[Panel]]] = {
    "accuracy": partial(curves.curves, quantity="accuracy"),
    "loss": partial(curves.curves, quantity="loss"),
    "differences": contrasts.differences,
    "pairs": contrasts.pairs,
    "learning-rate": contrasts.learning_rate,
    "best-lr": curves.best_lr_curves,
    "target": curves.target,
    "gradients": partial(layers.by_layer, readings=layers.GRADIENTS),
    "activations": partial(layers.by_layer, readings=layers.ACTIVATIONS),
    "norms": partial(layers.by_layer, readings=layers.NORMS),
}

OF_A_METRIC = ("differences", "pairs", "learning-rate", "target")
"""The kinds that draw any metric. The others draw accuracy, loss, or readings inside the network, over all epochs."""

NEEDS = {
    "differences": "runs of a contrast (contrast: {axis, baseline})",
    "pairs": "runs of a contrast (contrast: {axis, baseline})",
    "learning-rate": "more than one lr",
    "best-lr": "a contrast, and more than one lr",
    "target": "a target: --target 0.9",
    "gradients": "a sweep with probes: [gradients]",
    "activations": "a sweep with probes: [activations]",
    "norms": "a sweep with norm layers and probes: [norms]",
}


def draw(study: Study, kind: str) -> list[Panel]:
    """The panels of one kind of figure.

    Errors: UserError for an unknown kind, and where the sweep has nothing to draw for it.
    """
    if kind not in KINDS:
        raise UserError(unknown("figure", kind, list(KINDS)))
    folder = study.results.folder
    if study.empty:
        raise UserError(f"{folder}: no epoch has ended yet; nothing to draw")
    panels = KINDS[kind](study)
    if not panels:
        need = NEEDS.get(kind, "runs with epochs")
        raise UserError(f"{folder}: no figure '{kind}' of this sweep: it needs {need}")
    return panels
