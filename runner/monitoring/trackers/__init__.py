"""The trackers there are. Each module imports its package only when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable

from runner.monitoring.sinks import Opener
from runner.monitoring.trackers import mlflow, tensorboard
from runner.registry import tracker

__all__ = ["mlflow", "openers", "tensorboard"]


def openers(names: Iterable[str]) -> dict[str, Opener]:
    """What opens each tracker. Errors: UserError where one is unknown or its package is absent."""
    return {name: tracker[name]() for name in names}
