"""A slot's end on a node of a cluster: one worker process, as `process` has them at home, for one job after another."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from runner.config.jobs import Job
from runner.errors import UserError
from runner.execution.executors.executor import Context
from runner.execution.executors.worker import Worker
from runner.storage.checkpoints import SUFFIX, Every
from runner.storage.rows import Single

HEARTBEAT = 5.0
"""Seconds after which a slot answers although it has nothing to tell."""

MOST = 2000
"""Events of one answer."""


@dataclass(frozen=True)
class Luggage:
    """What a slot needs besides its jobs. A plugin is (file name, source)."""

    root: Path
    every: Every
    run_timeout: float | None
    packages: tuple[str, ...]
    plugins: tuple[tuple[str, bytes], ...]
    versions: dict[str, Any]
    save_weights: bool


@dataclass(frozen=True)
class Answer:
    """What a slot has to tell; whether it is free; and why its node will not do, where it will not."""

    events: tuple[Single, ...] = ()
    free: bool = True
    refusal: str = ""


class Trainer:
    """A Ray actor. It answers when asked, and tells nobody anything by itself."""

    def __init__(self, luggage: Luggage) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="bnbench-")
        plugins = []
        for index, (name, source) in enumerate(luggage.plugins):
            plugins.append(Path(self.folder.name) / str(index) / name)
            plugins[-1].parent.mkdir()
            plugins[-1].write_bytes(source)
        self.context = Context(
            luggage.root,
            tuple(map(str, plugins)),
            every=luggage.every,
            run_timeout=luggage.run_timeout,
            packages=luggage.packages,
            versions=luggage.versions,
            save_weights=luggage.save_weights,
        )
        self.worker: Worker | None = None

    def tell(self, job: Job = (), checkpoint: Path | bytes | None = None) -> Answer:
        """Begin a job where one is given, and wait for events; an answer without any is a sign of life."""
        try:
            if job:
                self._begin(job, checkpoint)
            events = tuple(self._events())
        except UserError as error:
            return Answer(refusal=str(error))
        if self.worker is not None and self.worker.dead:
            self.worker = None
            time.sleep(1)  # a node that goes down ends its processes in any order; a lost one is not a failed run
        return Answer(events, self.worker is None or self.worker.idle)

    def _begin(self, job: Job, checkpoint: Path | bytes | None) -> None:
        if isinstance(checkpoint, bytes):
            file = Path(self.folder.name) / f"checkpoint{SUFFIX}"
            file.write_bytes(checkpoint)
            checkpoint = file
        self.worker = self.worker or Worker(self.context)
        self.worker.give(job, checkpoint)

    def _events(self) -> Iterator[Single]:
        until, told = monotonic() + HEARTBEAT, 0
        while self.worker is not None and not self.worker.idle and not self.worker.dead and told < MOST:
            patience = self.worker.patience()
            if self.worker.pipe.poll(0 if told else max(0, min(until - monotonic(), patience))):
                heard = list(self.worker.receive())
            elif patience <= 0:
                heard = list(self.worker.expire())
            elif told or monotonic() >= until:
                return
            else:
                continue
            told += len(heard)
            yield from heard  # type: ignore[misc]
