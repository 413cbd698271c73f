"""Weights & Biases: a project with the sweep's name, in it a run for each run of the sweep.

Unless `WANDB_MODE` says otherwise, nothing leaves the machine: the runs are in `RESULTS/wandb`, and `wandb sync`
uploads them.
"""

import os
import re
import shutil
from typing import Any

from runner.monitoring.trackers.run_by_run import STATUS, RunByRun, digest
from runner.monitoring.trackers.tracker import Opener, TrackedSweep, require
from runner.storage import files

_OFFLINE = re.compile(r"offline-run-[0-9_]+-bnbench-[0-9a-f]+-([0-9a-f]+|warnings)")
"""The folders that this tracker makes."""


def wandb() -> Opener:
    """Runs of Weights & Biases in RESULTS/wandb/, or online if WANDB_MODE=online."""
    require("Weights & Biases", "wandb", ("wandb",))
    return WandB


class WandB(RunByRun):
    """Writes runs of Weights & Biases. Without a network, nothing waits for one unless WANDB_MODE is online."""

    def __init__(self, sweep: TrackedSweep) -> None:
        super().__init__(sweep)
        self._folder = sweep.output or sweep.folder
        self._mode: Any = os.environ.get("WANDB_MODE", "offline")
        runs = self._folder / "wandb"
        self.where = str(runs) if self._mode == "offline" else f"the project {sweep.name} of Weights & Biases"
        # The results folder may come from somebody else: nothing in it is reached through a link.
        files.make_folder(runs, self._folder)
        for name in filter(_OFFLINE.fullmatch, files.names(runs, self._folder)):
            shutil.rmtree(runs / name)

    def _start(self, key: str, name: str, settings: dict[str, Any]) -> Any:
        import wandb

        return wandb.init(
            project=self.sweep.name,
            # The same run has the same id, so an online run is written over.
            id=f"bnbench-{digest(self._home)}-{key}",
            name=name,
            config=settings,
            dir=str(self._folder),
            mode=self._mode,
            reinit="create_new",
            # stdout is for the comparison, and a run of bnbench is not a whole program.
            settings=wandb.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True),
        )

    def _finish(self, run: Any, outcomes: dict[str, Any], epoch: int) -> None:
        run.log(outcomes, step=epoch)
        run.finish(exit_code=0 if outcomes[STATUS] == "ok" else 1)

    def close(self) -> None:
        super().close()
        import wandb

        wandb.teardown()  # its own process ends with the sweep
