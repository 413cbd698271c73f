"""The `ray` executor: jobs on the nodes of a cluster, with what is promised at home.

Ray places processes and carries bytes. Retries, time-outs and what counts as told are ours: a slot is asked for its
events and sends none by itself, so an attempt given up, whose node may still be at it, has nobody to tell.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from runner.config.jobs import Job, remaining
from runner.errors import UserError
from runner.execution.executors.executor import Context
from runner.execution.executors.ray_actor import Answer, Luggage, Trainer
from runner.execution.executors.ray_attempts import Ledger
from runner.execution.executors.ray_cluster import Cluster, packages
from runner.storage.rows import Batch, Event, Note, RunResult, Single

SILENCE = 60.0
"""Seconds without an answer, not even a sign of life, after which a slot is given up."""

PATIENCE = 300.0
"""Seconds that a sweep waits for a node, once it has lost the last that could take a job."""

ATTEMPTS = 5
"""How often in a row a job may be lost without a row more: it may be what its nodes die of."""


def ray(jobs: Sequence[Job], context: Context) -> Iterator[Event]:
    """Jobs spread over a cluster; one whose node is lost goes on elsewhere, from its last checkpoint."""
    crew = _Crew(jobs, context)
    try:
        while crew.waiting or crew.slots:
            yield from crew.hire()
            yield from crew.hear()
            yield from crew.give_up_the_silent()
    except ConnectionError as error:  # an OSError, but not the disk's
        raise UserError(f"the Ray cluster is gone: {error}") from None
    finally:
        for slot in crew.slots:
            slot.end()


class _Slot:
    """Room for one job somewhere in the cluster, and the question it was asked last."""

    def __init__(self, cluster: Cluster, luggage: Any) -> None:
        self.ray = cluster.ray
        self.actor = cluster.actor(Trainer, luggage)
        self.placed, self.job = False, Job()
        self.ask()

    def ask(self, job: Job = (), checkpoint: Path | bytes | None = None) -> None:
        self.asked = self.actor.tell.remote(job, checkpoint)
        self.heard = monotonic()

    def end(self) -> None:
        self.ray.kill(self.actor)


class _Crew:
    """The slots, the jobs that wait for one, and what has been told."""

    def __init__(self, jobs: Sequence[Job], context: Context) -> None:
        assert context.cluster is not None
        self.cluster, self.ray, self.context = context.cluster, context.cluster.ray, context
        self.waiting, self.ledger = deque(jobs), Ledger(context)
        self.slots: list[_Slot] = []
        self.luggage = self.ray.put(_pack(context))
        self.room, self.counted = 0, -math.inf
        self.without: float | None = None  # since when no slot is to be had
        self.turned_away = 0
        self.introduced: set[Note] = set()

    def hire(self) -> Iterator[Event]:
        """A slot for every waiting job there is room for; and where there is none at all, a word, and in time the end.

        Errors: UserError where no node has come for `PATIENCE` seconds.
        """
        if monotonic() - self.counted > 2:
            self.room, self.counted = self.cluster.slots(), monotonic()
        coming = sum(not slot.placed for slot in self.slots)
        for _ in range(min(self.room - len(self.slots), len(self.waiting) - coming)):
            self.slots.append(_Slot(self.cluster, self.luggage))
        if self.slots:
            self.without = None
        elif self.without is None:
            self.without = monotonic()
            yield Note(f"{len(self.waiting)} jobs wait: {self.cluster.lacking()}")
        elif monotonic() - self.without > PATIENCE:
            raise UserError(f"{self.cluster.lacking()}; none has come for {PATIENCE:g} seconds")
        else:
            time.sleep(0.5)

    def hear(self) -> Iterator[Event]:
        """What the slots have to tell, together; each is asked on before the disk is waited for."""
        asked = {slot.asked: slot for slot in self.slots}
        ready = asked and self.ray.wait(list(asked), num_returns=1, timeout=1)[0]
        if ready:  # who else has an answer by now
            ready = self.ray.wait(list(asked), num_returns=len(asked), timeout=0)[0]
        events: list[Single] = []
        for question in ready:
            slot = asked[question]
            try:
                answer: Answer = self.ray.get(question)
            except self.ray.exceptions.RayError as error:
                events += self.lost(slot, _cause(error))
            else:
                events += self.heard(slot, answer)
        if events:
            yield Batch(tuple(events))

    def heard(self, slot: _Slot, answer: Answer) -> Iterator[Single]:
        """Errors: UserError where the slot's node cannot train what the driver would."""
        slot.heard = monotonic()
        slot.placed, self.turned_away = True, 0
        if answer.refusal:
            raise UserError(answer.refusal)
        for event in answer.events:
            if isinstance(event, Note):
                if event not in self.introduced:
                    self.introduced.add(event)
                    yield event
            elif (new := self.ledger.enter(event)) is not None:
                yield new
        if not answer.free:
            slot.ask()
        elif left := remaining([slot.job], self.ledger.finished, {}):
            yield from self.lost(slot, f"it ended without a word of {len(left[0])} runs")
        elif self.waiting:
            slot.job = self.waiting.popleft()
            slot.ask(slot.job, self.ledger.begin(slot.job))
        else:
            self.slots.remove(slot)
            slot.end()

    def give_up_the_silent(self) -> Iterator[Event]:
        for slot in list(self.slots):
            if monotonic() - slot.heard > SILENCE:
                yield from self.lost(slot, f"no answer for {SILENCE:g} seconds")

    def lost(self, slot: _Slot, cause: str) -> Iterator[Single]:
        """Give an attempt up and put what is left of its job back to the front.

        Errors: UserError where slot after slot comes to nothing before it has had a job.
        """
        self.slots.remove(slot)
        slot.end()
        self.counted = -math.inf
        if not slot.job:
            self.turned_away += 1
            if self.turned_away >= ATTEMPTS:
                raise UserError(f"no slot comes to life in the cluster: {cause}")
            yield Note(f"a slot was not to be had: {cause}")
            return
        left = remaining([slot.job], self.ledger.finished, self.ledger.files)
        for part in left:
            attempts = self.ledger.count_loss(part)
            runs = f"{len(part)} run{'s' if len(part) > 1 else ''}"
            if attempts < ATTEMPTS:
                yield Note(f"{runs} lost ({cause}); they go on elsewhere, attempt {attempts + 1}")
                self.waiting.appendleft(part)
            else:
                error = f"lost {attempts} times in a row ({cause})"
                yield from (self.ledger.close(RunResult(run.run_id, "failed", error=error)) for run in part)


def _pack(context: Context) -> Luggage:
    plugins = tuple((Path(file).name, Path(file).read_bytes()) for file in context.plugins)
    root = context.root.resolve()
    versions = dict(context.versions or {})
    own = tuple(packages())
    return Luggage(root, context.every, context.run_timeout, own, plugins, versions, context.save_weights)


def _cause(error: BaseException) -> str:
    """The sentence of Ray's many lines that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    sentence = lines[-1].partition(". ")[0].rstrip(".")[:160] if lines else ""
    return f"{type(error).__name__}: {sentence}"
