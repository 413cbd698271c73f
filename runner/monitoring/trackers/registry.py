"""The trackers by name. Each imports its package only when it is opened."""

from collections.abc import Callable, Iterable

from runner.monitoring.trackers.mlflow import mlflow
from runner.monitoring.trackers.tensorboard import tensorboard
from runner.monitoring.trackers.tracker import Opener
from runner.monitoring.trackers.trackio import trackio
from runner.monitoring.trackers.wandb import wandb
from runner.registry import Registry

tracker: Registry[Callable[[], Opener]] = Registry("tracker")
tracker("mlflow")(mlflow)
tracker("tensorboard")(tensorboard)
tracker("trackio")(trackio)
tracker("wandb")(wandb)


def openers(names: Iterable[str]) -> dict[str, Opener]:
    """The opener of each tracker. Errors: UserError where a tracker is unknown or its package is absent."""
    return {name: tracker[name]() for name in names}
