"""The kinds of figures, and the panels of one kind."""

from __future__ import annotations

from collections.abc import Callable

from runner.errors import UserError, unknown
from runner.reporting.figures import contrasts, curves, layers
from runner.reporting.figures.study import Study
from runner.reporting.figures.style import Panel

KINDS: dict[str, Callable[[Study], list[Panel]]] = {
    "accuracy": curves.accuracy,
    "loss": curves.loss,
    "differences": contrasts.differences,
    "pairs": contrasts.pairs,
    "learning-rate": contrasts.learning_rate,
    "target": curves.target,
    "gradients": layers.gradients,
    "activations": layers.activations,
    "norms": layers.norms,
}

NEEDS = {
    "differences": "runs of a contrast (contrast: {axis, baseline})",
    "pairs": "runs of a contrast (contrast: {axis, baseline})",
    "learning-rate": "more than one lr",
    "target": "a target: --target 0.9",
    "gradients": "a sweep with probes: [gradients]",
    "activations": "a sweep with probes: [activations]",
    "norms": "a sweep with norm layers and probes: [norms]",
}


def draw(of: Study, kind: str) -> list[Panel]:
    """The panels of one kind. Errors: UserError for an unknown kind, or where the sweep has nothing for it."""
    if kind not in KINDS:
        raise UserError(unknown("picture", kind, list(KINDS)))
    if not len(of.results.metrics):
        raise UserError(f"{of.results.folder}: no epoch has ended yet; nothing to draw")
    panels = KINDS[kind](of)
    if not panels:
        raise UserError(f"{of.results.folder}: no picture '{kind}' of this sweep: it needs {NEEDS.get(kind, 'runs')}")
    return panels
