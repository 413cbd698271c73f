"""A worker: a process that trains jobs. `Worker` is the driver's end of it; `worker_process` is the other end."""

import math
from collections.abc import Collection, Iterator
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from time import monotonic
from typing import Literal

from runner.config.jobs import Task, Trial
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.execution.executors.server import Server
from runner.execution.executors.worker_process import NodeOptions, Spoiled
from runner.storage import checkpoints
from runner.storage.rows import EpochRow, Note, RunResult, Single, Status
from runner.training.options import TrainingOptions

TRIAL_SECONDS = 120.0
"""A trial may take this long even if `--run-timeout` is shorter: the first one loads CUDA's libraries."""

TO_END = 5.0
"""Seconds that a worker gets to end by itself."""


class Worker:
    """A worker process of a server. It starts when the object is made.

    `run` is one of those that the worker will train. `node` is for a worker on a node of a cluster. `gpu` names the
    only GPU that the worker sees; None for all.
    """

    def __init__(
        self,
        server: Server,
        options: TrainingOptions,
        run: RunSpec,
        node: NodeOptions | None = None,
        gpu: str | None = None,
    ) -> None:
        self.server = server
        self.pipe, other_end = Pipe()
        # The worker gets the only other end, so the pipe ends when the worker dies.
        with other_end:
            self.number = server.start_worker(other_end, run, options.data_dir, gpu)
        # A worker that has died is found when its next event is received.
        with suppress(ConnectionError):
            self.pipe.send((options, node))
        self.run_timeout = options.run_timeout
        # The rows of the job's unfinished runs.
        self.rows: dict[str, list[EpochRow]] = {}
        self.idle, self.dead = True, False
        # The task that was given last; whether the worker has begun it, and whether it has ended one before.
        self.task: Task | None = None
        self.begun = self.used = False
        self.deadline = math.inf

    def start(self, task: Task, checkpoint: Path | None = None, finished: Collection[str] = ()) -> None:
        """Begin a task, from a checkpoint where one is given. `finished` are runs that need no result."""
        self.task, self.begun = task, False
        # A run that fails reports all its rows, also those before its checkpoint.
        saved = checkpoints.load(checkpoint) if checkpoint else None
        run_ids = [run_id for run_id in task.run_ids if run_id not in finished]
        self.rows = {run_id: checkpoints.rows(saved, run_id) if saved else [] for run_id in run_ids}
        self.idle = False
        self.seconds = math.inf if self.run_timeout is None else self.run_timeout * len(task.runs)
        if isinstance(task, Trial):
            self.seconds = max(self.seconds, TRIAL_SECONDS)
        with suppress(ConnectionError):
            self.pipe.send((task, checkpoint))

    def seconds_left(self) -> float:
        """Seconds until the job has taken too long."""
        return max(0.0, self.deadline - monotonic())

    def receive(self) -> Iterator[Single]:
        """The next event. If the worker has died, results of its unfinished runs, unless the task is `lost`. Nothing if
        it is ready or idle.

        Errors: UserError where the worker's node differs from the driver's machine.
        """
        try:
            event: Single | Literal["ready"] | Spoiled | UserError | None = self.pipe.recv()
        except (EOFError, OSError):
            # An OSError that is no ConnectionError: the worker has died in the middle of a message.
            yield from self._died()
            return
        if isinstance(event, UserError):
            raise event
        if event == "ready":
            self.begun, self.deadline = True, monotonic() + self.seconds
        elif event is None:
            self.idle, self.used, self.deadline = True, True, math.inf
        elif isinstance(event, Spoiled):
            # Every run of the task has its result.
            self.kill()
            yield Note(f"a new worker process trains the next runs, because {event.reason}")
        else:
            if isinstance(event, EpochRow) and event.run_id in self.rows:
                self.rows[event.run_id].append(event)
            elif isinstance(event, RunResult):
                self.rows.pop(event.run_id, None)
            yield event

    @property
    def lost(self) -> Task | None:
        """The task that a worker did not begin, because it died after an earlier one. The task is not at fault."""
        return self.task if self.dead and self.used and not self.begun else None

    def _died(self) -> Iterator[Note | RunResult]:
        # Its end of the pipe closes before the process has ended and has an exit code.
        cause = self._end(TO_END)
        if self.lost:
            yield Note(f"a worker process died between two tasks ({cause}); a new one takes its place")
        else:
            yield from self._results("failed", f"the worker process died ({cause})")

    def time_out(self) -> Iterator[RunResult]:
        """Kill the worker, because its job takes too long."""
        self.kill()
        return self._results("timeout", f"took longer than --run-timeout {self.run_timeout:g}")

    def _results(self, status: Status, error: str) -> Iterator[RunResult]:
        for run_id, rows in self.rows.items():
            yield RunResult(run_id, status, tuple(rows), error=error)

    def stop(self) -> None:
        """Let the worker end."""
        self.pipe.close()
        self._end(TO_END)

    def kill(self) -> None:
        self._end(0)

    def _end(self, seconds: float) -> str:
        """End the process, if it has not ended yet. Returns how it ended."""
        self.idle, self.deadline = True, math.inf
        if self.dead:
            return ""
        self.dead = True
        return self.server.end_worker(self.number, seconds)
