"""Trackio: a project with the sweep's name, in it a run for each run of the sweep.

The project is where `trackio show` looks for it: in the folder that `TRACKIO_DIR` names, else in Trackio's own. Nothing
leaves the machine, unless the user's `TRACKIO_SPACE_ID` says so.
"""

import contextvars
import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

from runner.errors import UserError
from runner.monitoring.trackers.run_by_run import FOLDER, RunByRun
from runner.monitoring.trackers.tracker import Opener, TrackedSweep, require


def trackio() -> Opener:
    """Runs of Trackio, in the folder that TRACKIO_DIR names, else in Trackio's own."""
    require("Trackio", "trackio", ("trackio",))
    return Trackio


class Trackio(RunByRun):
    """Writes to the local store of Trackio. Errors: UserError where the user named another folder."""

    def __init__(self, sweep: TrackedSweep) -> None:
        import trackio

        super().__init__(sweep)
        if sweep.output:
            raise UserError("trackio has one folder for all projects: leave out -o, and set TRACKIO_DIR")
        self.where = f"the project {sweep.name} in {trackio.TRACKIO_DIR}"
        with suppress(ValueError):  # there is no such project yet
            for run in list(trackio.Api().runs(sweep.name)):
                if (run.config or {}).get(FOLDER) == self._home:
                    run.delete()

    def _start(self, key: str, name: str, settings: dict[str, Any]) -> Any:  # noqa: ARG002
        import trackio

        def start() -> Any:
            return trackio.init(
                project=self.sweep.name,
                name=name,
                config=settings,
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

        with _quiet():
            # Trackio has one current run for each context, and would end the one before.
            return contextvars.Context().run(start)

    def _finish(self, run: Any, outcomes: dict[str, Any], epoch: int) -> None:
        with _quiet():
            run.log(outcomes, step=epoch)
            run.finish()


@contextmanager
def _quiet() -> Iterator[None]:
    """Trackio prints what it does. stdout is for the comparison."""
    with redirect_stdout(io.StringIO()):
        yield
