"""A worker: a process that trains jobs. `Worker` is the driver's end of it; `worker_process` is the other end."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from time import monotonic
from typing import Literal

from runner.config.jobs import Task, Trial
from runner.errors import UserError
from runner.execution.executors.worker_process import NodeCheck
from runner.storage import checkpoints
from runner.storage.rows import EpochRow, RunResult, Single, Status
from runner.training.options import TrainingOptions

_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}
"""glibc reads these when a process starts. It then keeps freed activations instead of mapping them anew, which took a
third of a training step at batch size 1000."""

TRIAL_SECONDS = 120.0
"""A trial may take this long even if `--run-timeout` is shorter: the first one loads CUDA's libraries."""

_PROGRAM = "from runner.execution.executors.worker_process import main; main()"


class Worker:
    """A worker process. It starts when the object is made.

    `node` is for a worker on a node of a cluster. `gpu` names the only GPU that the worker sees; None for all.
    """

    def __init__(self, options: TrainingOptions, node: NodeCheck | None = None, gpu: str | None = None) -> None:
        self.pipe, other_end = Pipe()
        # The worker imports from where this process does (-P: and from nowhere else).
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        # A program of its own: a fork would inherit torch's threads and the sweep's lock, and multiprocessing's spawn
        # would run the user's script again. The worker ends when its standard input does, that is, with the driver.
        # Variables that the user has set win over `_MALLOC`.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, str(other_end.fileno())],
            stdin=subprocess.PIPE,
            pass_fds=[other_end.fileno()],
            env={**_MALLOC, **os.environ, "PYTHONPATH": path} | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}),
        )
        # The worker now has the only other end, so the pipe ends when the worker dies.
        other_end.close()
        self.pipe.send((options, node))
        self.run_timeout = options.run_timeout
        # The rows of the job's unfinished runs.
        self.rows: dict[str, list[EpochRow]] = {}
        self.idle, self.dead = True, False
        self.deadline = math.inf

    def start(self, task: Task, checkpoint: Path | None = None, finished: Collection[str] = ()) -> None:
        """Begin a task, from a checkpoint where one is given. `finished` are runs that need no result."""
        # A run that fails reports all its rows, also those before its checkpoint.
        saved = checkpoints.load(checkpoint) if checkpoint else None
        run_ids = [run_id for run_id in task.run_ids if run_id not in finished]
        self.rows = {run_id: checkpoints.rows(saved, run_id) if saved else [] for run_id in run_ids}
        self.idle = False
        self.seconds = math.inf if self.run_timeout is None else self.run_timeout * len(task.runs)
        if isinstance(task, Trial):
            self.seconds = max(self.seconds, TRIAL_SECONDS)
        # A worker that has died is found when its next event is received.
        with suppress(ConnectionError):
            self.pipe.send((task, checkpoint))

    def seconds_left(self) -> float:
        """Seconds until the job has taken too long."""
        return max(0.0, self.deadline - monotonic())

    def receive(self) -> Iterator[Single]:
        """The next event. If the worker has died, results of its unfinished runs. Nothing if it is ready or idle.

        Errors: UserError where the worker's node differs from the driver's machine.
        """
        try:
            event: Single | Literal["ready", "device lost"] | UserError | None = self.pipe.recv()
        except (EOFError, ConnectionError):
            yield from self._died()
            return
        if isinstance(event, UserError):
            raise event
        if event == "ready":
            self.deadline = monotonic() + self.seconds
        elif event is None:
            self.idle, self.deadline = True, math.inf
        elif event == "device lost":
            # Every run of the task has its result. A new worker takes the next task.
            self.kill()
        else:
            if isinstance(event, EpochRow) and event.run_id in self.rows:
                self.rows[event.run_id].append(event)
            elif isinstance(event, RunResult):
                self.rows.pop(event.run_id, None)
            yield event

    def _died(self) -> Iterator[RunResult]:
        # Its end of the pipe closes before the process has ended and has an exit code.
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=5)
        self.kill()
        code = self.process.returncode
        cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return self._results("failed", f"the worker process died ({cause})")

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
        self._wait()

    def kill(self) -> None:
        self.dead, self.idle, self.deadline = True, True, math.inf
        self.process.kill()
        self._wait()

    def _wait(self) -> None:
        assert self.process.stdin is not None
        self.process.wait()
        self.process.stdin.close()
