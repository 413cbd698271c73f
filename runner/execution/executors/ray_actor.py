"""The actor of the executor `ray`: it has a worker process on a node of the cluster, and gets one job after another."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, sleep

from runner.config.jobs import Task
from runner.errors import UserError
from runner.execution.executors.server import Server
from runner.execution.executors.worker import Worker
from runner.execution.executors.worker_process import NodeCheck
from runner.storage.checkpoints import SUFFIX
from runner.storage.rows import Single
from runner.training.options import TrainingOptions

HEARTBEAT = 5.0
"""Seconds after which an actor answers, even without an event."""

MOST_EVENTS = 2000
"""The most events in one answer."""


@dataclass(frozen=True)
class ActorOptions:
    """What an actor needs besides its jobs. `plugins` has, for each plugin, the name of its file, the name
    of a class or function in it (or ""), and the file's content.
    """

    training: TrainingOptions
    plugins: tuple[tuple[str, str, bytes], ...]
    node: NodeCheck


@dataclass(frozen=True)
class Answer:
    """The events since the last answer, whether the actor is idle, and the error if its node cannot train the jobs."""

    events: tuple[Single, ...] = ()
    idle: bool = True
    refusal: str = ""


class RayActor:
    """Answers when the driver asks, and sends nothing by itself."""

    def __init__(self, options: ActorOptions) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="bnbench-")
        plugins = []
        for index, (file, name, content) in enumerate(options.plugins):
            path = Path(self.folder.name) / str(index) / file
            path.parent.mkdir()
            path.write_bytes(content)
            plugins.append(f"{path}:{name}" if name else str(path))
        self.training = replace(options.training, plugins=tuple(plugins))
        self.node = options.node
        self.server = Server()
        self.worker: Worker | None = None

    def next_events(self, task: Task | None = None, checkpoint: Path | bytes | None = None) -> Answer:
        """Begin a task where one is given, and wait for events. An answer without events is a sign of life."""
        if isinstance(checkpoint, bytes):
            file = Path(self.folder.name) / f"checkpoint{SUFFIX}"
            file.write_bytes(checkpoint)
            checkpoint = file
        if task and (self.worker is None or self.worker.dead):
            self.worker = Worker(self.server, self.training, task.runs[0], self.node)
        if self.worker is None:
            return Answer()
        try:
            if task:
                self.worker.start(task, checkpoint)
            events = _events(self.worker)
        except UserError as error:
            return Answer(refusal=str(error))
        if self.worker.dead:
            # A node that goes down ends its processes in any order. With this delay, it is gone before the driver gets
            # the results of failed runs.
            sleep(1)
        return Answer(tuple(events), self.worker.idle)


def _events(worker: Worker) -> list[Single]:
    events: list[Single] = []
    until = monotonic() + HEARTBEAT
    while not worker.idle and len(events) < MOST_EVENTS:
        seconds = min(until - monotonic(), worker.seconds_left())
        if worker.pipe.poll(0 if events else max(0, seconds)):
            events += worker.receive()
        elif worker.seconds_left() <= 0:
            events += worker.time_out()
        elif events or monotonic() >= until:
            break
    return events
