"""The actor of the executor `ray`: it has a worker process on a node of the cluster, and gets one job after another."""

import socket
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep

from runner.config.jobs import Task
from runner.errors import UserError
from runner.execution.executors.server import Server
from runner.execution.executors.worker import Worker
from runner.execution.executors.worker_process import NodeOptions
from runner.storage.checkpoints import SUFFIX
from runner.storage.rows import Single
from runner.training.options import TrainingOptions

HEARTBEAT = 5.0
"""Seconds after which an actor answers, even without an event."""

GATHER = 0.1
"""Seconds in which an actor gathers events for an answer, after the first one."""

MOST_EVENTS = 2000
"""The most events in one answer."""


@dataclass(frozen=True)
class ActorOptions:
    """What an actor needs besides its jobs. `plugins` has, for each plugin, the name of its file, the name
    of a class or function in it (or ""), and the file's content.
    """

    training: TrainingOptions
    plugins: tuple[tuple[str, str, bytes], ...]
    node: NodeOptions


@dataclass(frozen=True)
class Answer:
    """The events since the last answer, and whether the actor is idle.

    If the actor's node cannot train the jobs, `refusal` says why, and `node_id` is Ray's name of the node.
    """

    events: tuple[Single, ...] = ()
    idle: bool = True
    refusal: str = ""
    node_id: str = ""


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
        self.tasks = deque[Task]()

    def next_events(self, tasks: Sequence[Task] = (), checkpoint: Path | bytes | None = None) -> Answer:
        """Begin the tasks where some are given, one after the other, and wait for events.

        The checkpoint is that of a single task. An answer without events is a sign of life.
        """
        if find_spec("torch") is None:
            return _refusal(f"node {socket.gethostname()}: torch is not installed")
        if isinstance(checkpoint, bytes):
            file = Path(self.folder.name) / f"checkpoint{SUFFIX}"
            file.write_bytes(checkpoint)
            checkpoint = file
        self.tasks.extend(tasks)
        try:
            events = self._events(checkpoint)
        except UserError as error:
            return _refusal(str(error))
        if self.worker and self.worker.dead:
            # A node that goes down ends its processes in any order. With this delay, it is gone before the driver gets
            # the results of failed runs.
            sleep(1)
            if self.worker.lost:
                # The driver gives the tasks that have no result to another actor.
                self.tasks.clear()
        return Answer(tuple(events), not self.tasks and (self.worker is None or self.worker.idle))

    def _events(self, checkpoint: Path | None) -> list[Single]:
        """The events of the next seconds; where there are many, those of `GATHER` seconds."""
        events: list[Single] = []
        answer_at = monotonic() + HEARTBEAT
        while len(events) < MOST_EVENTS:
            if self.worker is None or self.worker.idle:
                if not self.tasks or (events and self.worker and self.worker.dead):
                    break
                self._start(self.tasks.popleft(), checkpoint)
            assert self.worker
            seconds = min(answer_at - monotonic(), self.worker.seconds_left())
            if self.worker.pipe.poll(max(0, seconds)):
                events += self.worker.receive()
            elif self.worker.seconds_left() <= 0:
                events += self.worker.time_out()
            elif monotonic() >= answer_at:
                break
            if events:
                answer_at = min(answer_at, monotonic() + GATHER)
        return events

    def _start(self, task: Task, checkpoint: Path | None) -> None:
        if self.worker is None or self.worker.dead:
            self.worker = Worker(self.server, self.training, task.runs[0], self.node)
        self.worker.start(task, checkpoint)


def _refusal(reason: str) -> Answer:
    import ray

    return Answer(refusal=reason, node_id=ray.get_runtime_context().get_node_id())
