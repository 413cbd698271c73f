"""A worker: a process that trains jobs, and the driver's end of its pipe."""

from __future__ import annotations

import importlib
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from typing import Literal

from runner.config.jobs import Job
from runner.errors import UserError
from runner.execution.executors.executor import Context
from runner.registry import load_plugins
from runner.storage import checkpoints
from runner.storage.rows import EpochRow, Event, Note, RunResult

_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "1000000000"}
"""glibc reads these at a process's start: keep freed activations instead of mapping them anew, a third of the time."""


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set what a child should inherit; what the user has set stands."""
    added = [name for name in variables if name not in os.environ]
    os.environ.update({name: variables[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


@contextmanager
def _without_the_script() -> Iterator[None]:
    """Keep a child from running again the script that this process began with: a worker needs nothing of it.

    Without this, a script that calls `runner.run` outside `if __name__ == "__main__":` would start a sweep in each
    worker.
    """
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    for name in kept:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)


class Worker:
    """A process and the other end of its pipe."""

    def __init__(self, context: Context) -> None:
        spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads and the sweep's lock
        self.pipe, theirs = spawn.Pipe()
        self.process: BaseProcess = spawn.Process(target=_work, args=(theirs, context), daemon=False)
        with _environment(_MALLOC), _without_the_script():
            self.process.start()
        theirs.close()  # so that the worker's death is this pipe's end
        self.job: Job = ()
        self.rows: dict[str, list[EpochRow]] = {}
        self.dead = False
        self.run_timeout, self.deadline = context.run_timeout, math.inf
        self.checkpoints = context.checkpoints

    @property
    def idle(self) -> bool:
        return not self.job

    def give(self, job: Job, checkpoint: Path | None = None) -> None:
        """Have a job trained, from a checkpoint where one is named or the context has it."""
        files = {run.run_id: checkpoint or self.checkpoints.get(run.run_id) for run in job}
        # A run that fails is told with all its rows, those before its checkpoint too.
        self.rows = {
            run_id: checkpoints.rows(checkpoints.load(file), run_id) if file else [] for run_id, file in files.items()
        }
        self.job = job
        self.deadline = math.inf
        self.pipe.send((job, checkpoint))

    def patience(self) -> float:
        """Seconds until the job has taken too long."""
        return max(0.0, self.deadline - monotonic()) if self.job else math.inf

    def receive(self) -> Iterator[Event]:
        try:
            event: Event | Literal["ready"] | UserError | None = self.pipe.recv()
        except (EOFError, ConnectionError):
            yield from self._bury()
            return
        if event == "ready":
            if self.run_timeout is not None:
                self.deadline = monotonic() + self.run_timeout * len(self.job)
            return
        if event is None:
            self.job = ()
            return
        if isinstance(event, UserError):
            raise event
        assert not isinstance(event, str)
        if isinstance(event, EpochRow):
            self.rows[event.run_id].append(event)
        elif isinstance(event, RunResult):
            del self.rows[event.run_id]
        yield event

    def _bury(self) -> Iterator[Event]:
        self.dead = True
        self.process.join()
        code = self.process.exitcode or 0
        cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        for run_id, rows in self.rows.items():
            yield RunResult(run_id, "failed", tuple(rows), error=f"the worker process died ({cause})")

    def expire(self) -> Iterator[Event]:
        """End a job that takes too long: this worker's death, and nothing else's."""
        self.dead = True
        self.kill()
        error = f"no end within {self.run_timeout:g} seconds a run (--run-timeout)"
        for run_id, rows in self.rows.items():
            yield RunResult(run_id, "timeout", tuple(rows), error=error)

    def dismiss(self) -> None:
        self.pipe.close()
        self.process.join()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def _work(pipe: Connection, context: Context) -> None:
    """A worker's life: jobs in, events out, until the driver closes the pipe or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides what it means
    threading.Thread(target=_die_with_driver, daemon=True).start()
    from runner.training.checkpointing import Checkpointing
    from runner.training.data.datasets import load
    from runner.training.train import train

    for package in context.packages:
        importlib.import_module(package)
    load_plugins(context.plugins)
    try:
        while True:
            job, checkpoint = pipe.recv()
            if context.versions is not None:
                pipe.send(_introduction(context, job[0].dataset))
            with suppress(Exception):  # told when it trains
                load(job[0].dataset, context.root)
            pipe.send("ready")  # importing torch and reading the data is not the run's time
            files = {run.run_id: checkpoint for run in job} if checkpoint else context.checkpoints
            for event in train(job, context.root, Checkpointing(context.every, files, context.save_weights)):
                pipe.send(event)
            pipe.send(None)
    except (EOFError, ConnectionError):
        return


def _introduction(context: Context, dataset: str) -> Note | UserError:
    """What this machine is, where it has what the driver has; what is wrong with it, where it has not."""
    from runner.training import environment

    name, wanted = socket.gethostname(), context.versions or {}
    try:
        here = environment.versions([dataset], context.root)
    except UserError as error:
        return UserError(f"node {name}: {error}")
    wrong = [f"{key} {here[key]} there, {wanted[key]} here" for key in here if here[key] != wanted.get(key)]
    if wrong:
        return UserError(f"node {name} is not like this machine: {'; '.join(wrong)}")
    return Note(f"trains on {name}: {environment.machine()}")


def _die_with_driver() -> None:
    """A worker in the middle of an epoch notices a killed driver here, not at its next row."""
    driver = multiprocessing.parent_process()
    assert driver is not None
    driver.join()
    os._exit(1)
