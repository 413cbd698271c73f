"""How the jobs of a sweep are trained, as the command line and the config say."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runner.storage.checkpoints import NEVER, Every

Kernels = Literal["auto", "native", "torch"]
"""Which kernels compute the layers on a CPU: bnbench's own (native), torch's, or its own where they were compiled."""


@dataclass(frozen=True)
class TrainingOptions:
    """How the jobs of a sweep are trained. The same options hold for every job.

    `data_dir` is the data folder. `plugins` are Python files to import before training. `checkpoint_every` says how
    often a job yields a checkpoint. `run_timeout` is the time that a run may take, in seconds; a stack of R runs may
    take R times as long. With `save_weights`, a run's result carries its final weights, and with `save_predictions`
    which test images it classifies correctly. `kernels` are for runs that train alone on a CPU. `plugins_digest` is the
    digest of the plugins' source files (`storage.plugin_files`). A worker that finds other files trains nothing. It is
    empty where that is not checked.

    >>> options = TrainingOptions(checkpoint_every=Every(epochs=5), save_weights=True)
    >>> options.run_timeout is None
    True
    """

    data_dir: Path = Path("data")
    plugins: tuple[str, ...] = ()
    checkpoint_every: Every = NEVER
    run_timeout: float | None = None
    save_weights: bool = False
    save_predictions: bool = False
    kernels: Kernels = "auto"
    plugins_digest: str = ""
