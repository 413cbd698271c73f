"""The executor `ray`: jobs on the nodes of a cluster, with the same guarantees as on one machine.

Ray places processes and carries bytes. This module decides about retries, time-outs, and which events are new. An actor
sends nothing by itself. So when an attempt is given up while its node still trains, its events reach nobody.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from runner.config.jobs import Task
from runner.errors import UserError
from runner.execution.executors.executor import Context
from runner.execution.executors.ray_actor import ActorOptions, Answer, RayActor
from runner.execution.executors.ray_attempts import Attempts
from runner.execution.executors.ray_cluster import PATIENCE, Cluster, RayContext, packages
from runner.execution.executors.worker_process import NodeOptions
from runner.registry import plugin_parts
from runner.storage.rows import Event, EventBatch, Note, RunResult, Single
from runner.training.options import TrainingOptions

SILENCE = 60.0
"""Seconds without an answer after which an actor is given up."""

COUNT_AGAIN = 2.0
"""Seconds after which the cluster's slots are counted again. The autoscaler is asked as often."""

TURN = 1.0
"""Seconds of work that an actor is given at once, if its jobs are shorter. Each turn takes some time of the driver."""

ATTEMPTS = 5
"""How many attempts in a row may be lost without a new row. A job that kills its nodes must not be tried for ever."""


def ray(tasks: Sequence[Task], context: Context) -> Iterator[Event]:
    """Tasks on the nodes of a cluster. A job whose node is lost continues on another one, from its last checkpoint."""
    pool = _Pool(tasks, context)
    try:
        while pool.waiting or pool.lost or pool.actors:
            yield from pool.start_actors()
            yield from pool.collect()
            yield from pool.give_up_silent_actors()
    except ConnectionError as error:
        # This is an OSError, but not one of the disk.
        raise UserError(f"no connection to the Ray cluster: {error}") from None
    finally:
        for actor in pool.actors:
            actor.end()


class _Actor:
    """The driver's end of an actor: the tasks of its turn, and the question that it has not answered yet."""

    def __init__(self, cluster: Cluster, options: Any) -> None:
        self.ray = cluster.ray
        self.remote = cluster.actor(RayActor, options)
        self.placed = False
        self.tasks: Sequence[Task] = ()
        # How many tasks it may get at once, and when it got the last ones.
        self.most, self.began = 1, -math.inf
        self.ask()

    def begin(self, tasks: Sequence[Task], checkpoint: Path | bytes | None) -> None:
        """Give an idle actor its next tasks. Only a single task can continue from a checkpoint."""
        if self.tasks:
            # So many tasks fit into a turn at the speed of the last one. Tasks differ, so the number grows slowly.
            in_a_turn = len(self.tasks) * TURN / max(0.001, monotonic() - self.began)
            self.most = max(1, min(round(in_a_turn), 8 * len(self.tasks)))
        self.tasks, self.began = tasks, monotonic()
        self.ask(tasks, checkpoint)

    def ask(self, tasks: Sequence[Task] = (), checkpoint: Path | bytes | None = None) -> None:
        self.question = self.remote.next_events.remote(tasks, checkpoint)
        self.asked_at = monotonic()

    def end(self) -> None:
        self.ray.kill(self.remote)


class _Pool:
    """The actors, the tasks that wait for one, and the lost tasks, which wait until their rows are on the disk."""

    def __init__(self, tasks: Sequence[Task], context: Context) -> None:
        assert context.ray is not None
        self.cluster, self.ray = context.ray.cluster, context.ray.cluster.ray
        self.waiting, self.lost = deque(tasks), list[Task]()
        self.attempts = Attempts(context.ray, context.checkpoints, context.finished)
        self.actors: list[_Actor] = []
        self.options = self.ray.put(_actor_options(context.ray, context.training))
        self.slots, self.counted = 0, -math.inf
        self.no_room_since: float | None = None
        # When an actor first failed to start; None once an actor has answered.
        self.failing_since: float | None = None

    def start_actors(self) -> Iterator[Event]:
        """Start an actor for every waiting job that the cluster has room for. Yields a note if it has room for none.

        Errors: UserError where there was no room for `PATIENCE` seconds.
        """
        # By now, the driver has written what the last attempts have reported. The next attempts continue from there.
        self.waiting.extendleft(reversed(self.lost))
        self.lost.clear()
        if monotonic() - self.counted > COUNT_AGAIN:
            self.slots, self.counted = self.cluster.slots(), monotonic()
            # An actor without a task will take one of the waiting tasks, so only the others are counted.
            self.cluster.ask_autoscaler(len(self.waiting) + sum(bool(actor.tasks) for actor in self.actors))
        starting = sum(not actor.placed for actor in self.actors)
        for _ in range(min(self.slots - len(self.actors), len(self.waiting) - starting)):
            self.actors.append(_Actor(self.cluster, self.options))
        if self.actors:
            self.no_room_since = None
        elif self.no_room_since is None:
            self.no_room_since = monotonic()
            yield Note(f"{len(self.waiting)} jobs wait: {self.cluster.no_room()}")
        elif monotonic() - self.no_room_since > PATIENCE:
            raise UserError(f"{self.cluster.no_room()}; no such node within {PATIENCE:g} seconds")
        else:
            sleep(0.5)

    def collect(self) -> Iterator[Event]:
        """The new events of all actors that have answered, as one batch.

        Each of these actors is asked for its next events first. Then the driver writes the batch to the disk.
        """
        asked = {actor.question: actor for actor in self.actors}
        ready = asked and self.ray.wait(list(asked), num_returns=1, timeout=1)[0]
        # Take the other answers that have come by now, too.
        if ready:
            ready = self.ray.wait(list(asked), num_returns=len(asked), timeout=0)[0]
        events: list[Single] = []
        for question in ready:
            actor = asked[question]
            try:
                answer: Answer = self.ray.get(question)
            except self.ray.exceptions.RayError as error:
                events += self.attempt_lost(actor, _cause(error))
            else:
                events += self.take(actor, answer)
        if events:
            yield EventBatch(tuple(events))

    def take(self, actor: _Actor, answer: Answer) -> Iterator[Single]:
        """An answer's new events. The actor gets its next question."""
        actor.placed, self.failing_since = True, None
        if answer.refusal:
            yield from self.refuse(actor, answer)
            return
        yield from self.attempts.new(answer.events)
        if not answer.idle:
            actor.ask()
        elif any(self.attempts.left(task) for task in actor.tasks):
            yield from self.attempt_lost(actor, "it ended without a result")
        elif self.waiting:
            actor.begin(*self.next_turn(actor.most))
        else:
            self.remove(actor)

    def refuse(self, actor: _Actor, answer: Answer) -> Iterator[Single]:
        """Train on other nodes from now on, because the actor's node cannot train the jobs.

        Errors: UserError where no other node has room.
        """
        self.lose(actor)
        self.lost += [part for task in actor.tasks for part in self.attempts.next_attempts(task)]
        if answer.node_id not in self.cluster.refused:
            self.cluster = replace(self.cluster, refused=self.cluster.refused | {answer.node_id})
            if not self.cluster.slots():
                raise UserError(answer.refusal)
            yield Note(f"{answer.refusal}; other nodes train its jobs")

    def remove(self, actor: _Actor) -> None:
        self.actors.remove(actor)
        actor.end()

    def lose(self, actor: _Actor) -> None:
        """End an actor that has tasks left, and count the cluster's slots again: its node may be gone."""
        self.remove(actor)
        self.counted = -math.inf

    def next_turn(self, most: int) -> tuple[list[Task], Path | bytes | None]:
        """The next task and the checkpoint that it continues, or at most so many tasks that begin at the start.

        Every actor must get a share of the tasks that wait. The last turns are short, but not shorter than a tenth of
        `TURN`: the driver could not keep up with them.
        """
        share = len(self.waiting) // (2 * len(self.actors))
        most = min(most, max(share, most // 10), len(self.waiting))
        tasks = [self.waiting.popleft()]
        checkpoint = self.attempts.start(tasks[0])
        while checkpoint is None and len(tasks) < most and not self.attempts.continues(self.waiting[0]):
            tasks.append(self.waiting.popleft())
            self.attempts.start(tasks[-1])
        return tasks, checkpoint

    def give_up_silent_actors(self) -> Iterator[Event]:
        for actor in list(self.actors):
            if monotonic() - actor.asked_at > SILENCE:
                yield from self.attempt_lost(actor, f"no answer for {SILENCE:g} seconds")

    def attempt_lost(self, actor: _Actor, cause: str) -> Iterator[Single]:
        """End an actor. The unfinished runs of its tasks will be the next in the queue.

        Errors: UserError where one actor after another is lost before it has had a task, for `PATIENCE` seconds.
        """
        self.lose(actor)
        if not actor.tasks:
            self.failing_since = self.failing_since or monotonic()
            if monotonic() - self.failing_since > PATIENCE:
                raise UserError(f"no actor starts in the cluster: {cause}")
            yield from self.attempts.new([Note(f"an actor did not start: {cause}")])
        left = [task for task in actor.tasks if self.attempts.left(task)]
        for task in self.attempts.next_attempts(left[0]) if left else ():
            lost, runs = self.attempts.count_loss(task), self.attempts.left(task)
            if lost < ATTEMPTS:
                yield Note(f"runs lost: {len(runs)} ({cause}); attempt {lost + 1} on another node")
                self.lost.append(task)
            else:
                error = f"lost {lost} times in a row ({cause})"
                for run_id in runs:
                    yield self.attempts.end(RunResult(run_id, "failed", error=error))
        # The actor worked on the first task, and had not begun the others.
        self.lost += left[1:]


def _actor_options(context: RayContext, training: TrainingOptions) -> ActorOptions:
    parts = [plugin_parts(plugin) for plugin in training.plugins]
    plugins = tuple((file.name, name, file.read_bytes()) for file, name in parts)
    training = replace(training, data_dir=training.data_dir.resolve())
    folder = context.checkpoint_folder if context.shared else None
    return ActorOptions(training, plugins, NodeOptions(tuple(packages()), context.versions, folder))


def _cause(error: BaseException) -> str:
    """The cause of the error: the first sentence of the last line of Ray's long message."""
    last_line = str(error).strip().rpartition("\n")[2].strip()
    return f"{type(error).__name__}: {last_line.partition('. ')[0].rstrip('.')[:160]}"
