"""The actor of the executor `ray`: a worker process on a node of the cluster, for one job after another."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from runner.config.jobs import Job
from runner.errors import UserError
from runner.execution.executors.worker import Worker
from runner.execution.executors.worker_process import NodeCheck
from runner.storage.checkpoints import SUFFIX
from runner.storage.rows import Single
from runner.training.options import TrainingOptions

HEARTBEAT = 5.0
"""Seconds after which an actor answers, even without an event."""

MOST = 2000
"""Events in one answer."""


@dataclass(frozen=True)
class ActorOptions:
    """What an actor needs besides its jobs. `plugins` has the name and the content of each plugin file."""

    training: TrainingOptions
    plugins: tuple[tuple[str, bytes], ...]
    node: NodeCheck


@dataclass(frozen=True)
class Answer:
    """The events since the last answer, whether the actor is idle, and why its node cannot train the jobs, if so."""

    events: tuple[Single, ...] = ()
    idle: bool = True
    refusal: str = ""


class RayActor:
    """Answers when the driver asks, and sends nothing by itself."""

    def __init__(self, options: ActorOptions) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="bnbench-")
        files = []
        for index, (name, content) in enumerate(options.plugins):
            files.append(Path(self.folder.name) / str(index) / name)
            files[-1].parent.mkdir()
            files[-1].write_bytes(content)
        self.training, self.node = replace(options.training, plugins=tuple(map(str, files))), options.node
        self.worker: Worker | None = None

    def next_events(self, job: Job = (), checkpoint: Path | bytes | None = None) -> Answer:
        """Begin a job where one is given, and wait for events. An answer without events is a sign of life."""
        try:
            if job:
                self._start(job, checkpoint)
            events = tuple(self._events())
        except UserError as error:
            return Answer(refusal=str(error))
        if self.worker is not None and self.worker.dead:
            self.worker = None
            # A node that goes down ends its processes in any order. With this delay, it is gone before the driver hears
            # of failed runs.
            time.sleep(1)
        return Answer(events, self.worker is None or self.worker.idle)

    def _start(self, job: Job, checkpoint: Path | bytes | None) -> None:
        if isinstance(checkpoint, bytes):
            file = Path(self.folder.name) / f"checkpoint{SUFFIX}"
            file.write_bytes(checkpoint)
            checkpoint = file
        self.worker = self.worker or Worker(self.training, self.node)
        self.worker.start(job, checkpoint)

    def _events(self) -> Iterator[Single]:
        until, count = monotonic() + HEARTBEAT, 0
        while self.worker is not None and not self.worker.idle and not self.worker.dead and count < MOST:
            seconds_left = self.worker.seconds_left()
            if self.worker.pipe.poll(0 if count else max(0, min(until - monotonic(), seconds_left))):
                events = list(self.worker.receive())
            elif seconds_left <= 0:
                events = list(self.worker.time_out())
            elif count or monotonic() >= until:
                return
            else:
                continue
            count += len(events)
            yield from events  # type: ignore[misc]
