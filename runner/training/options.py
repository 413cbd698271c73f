"""How the jobs of a sweep are trained: what the command line and the config say that is no run's parameter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runner.storage.checkpoints import NEVER, Every


@dataclass(frozen=True)
class TrainingOptions:
    """The same for every job of a sweep.

    `data_dir` is the data folder, `plugins` are the files to import first. A job yields a checkpoint as often as
    `checkpoint_every` says. A run may take `run_timeout` seconds; a stack of R runs may take R times as long. With
    `save_weights` a run's result carries its final weights.
    """

    data_dir: Path = Path("data")
    plugins: tuple[str, ...] = ()
    checkpoint_every: Every = NEVER
    run_timeout: float | None = None
    save_weights: bool = False
