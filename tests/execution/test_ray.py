"""What the `ray` executor does when slots are lost, in a cluster that is played: no Ray, and every loss tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.execution.executors import ray_executor as remote
from runner.execution.executors.executor import Context
from runner.execution.executors.ray_actor import Answer
from runner.execution.executors.ray_cluster import Cluster, RayContext
from runner.storage import checkpoints
from runner.storage.rows import Checkpoint, CurveRow, EpochRow, EventBatch, Note, RunResult, Single
from runner.training.options import TrainingOptions

EPOCHS = 5
RUNS = [RunSpec(network="mine", dataset="digits", epochs=EPOCHS, seed=seed) for seed in range(5)]
JOBS = [Job(tuple(RUNS[:2]), "grouped"), Job((RUNS[2],)), Job(tuple(RUNS[3:]), "grouped")]


def events(job: Job, every: int, done: int, attempt: int) -> Iterator[Single]:
    """A job's events after so many epochs; the attempt shows in nothing but the times."""
    for epoch in range(done + 1, EPOCHS + 1):
        for run in job.runs:
            yield CurveRow(run.run_id, epoch - 0.5, epoch, 1.0, 0.5, 1.0, 0.5, attempt)
        for run in job.runs:
            yield EpochRow(run.run_id, epoch, epoch, run.seed + epoch, 0.5, 1.0, 0.5, attempt, attempt)
        if every and epoch % every == 0 and epoch < EPOCHS:
            yield Checkpoint(job.run_ids, epoch, str(epoch).encode())
    for run in job.runs:
        yield RunResult(run.run_id, "ok", error="")


class Played:
    """A cluster of `room` slots. `lives` says how many answers each slot gives before it is lost, in their order;
    the others live. `mute` ones are never heard again, instead of being known to be dead. With `refuses`, there is
    a second node, and the first slot's answer of this number is that its node cannot go on. With `gives_up`, its answer
    of this number is the last one of its jobs, because its worker is lost."""

    RayError = type("RayError", (Exception,), {})

    def __init__(
        self,
        every: int = 0,
        lives: tuple[int, ...] = (),
        room: int = 2,
        mute: bool = False,
        refuses: int = 0,
        gives_up: int = 0,
    ) -> None:
        self.every, self.lives, self.room, self.mute = every, list(lives), room, mute
        self.refuses, self.gives_up, self.slots = refuses, gives_up, 0
        self.exceptions = SimpleNamespace(RayError=self.RayError)
        self.now, self.attempts, self.killed = 0.0, 0, 0
        self.given, self.turns, self.asked = list[Any](), list[int](), list[int]()

    def actor(self, *_: Any) -> Any:
        left = self.lives.pop(0) if self.lives else 10_000
        queue: Iterator[Single] = iter(())
        self.slots += 1
        state: dict[str, Any] = {"left": left, "queue": queue, "refuses": 0, "gives up": 0}
        if self.slots == 1:
            state |= {"refuses": self.refuses, "gives up": self.gives_up}

        def tell(jobs: Sequence[Job] = (), checkpoint: bytes | None = None) -> dict[str, Any]:
            if jobs:
                self.attempts += 1
                self.given.append(checkpoint)
                self.turns.append(len(jobs))
                done = int(checkpoint.rpartition(b"\n")[2]) if checkpoint else 0
                each = [events(job, self.every, done, self.attempts) for job in jobs]
                state["queue"] = chain.from_iterable(each)
            state["left"] -= 1
            return state

        return SimpleNamespace(next_events=SimpleNamespace(remote=lambda *asked: _Question(tell(*asked))))

    def put(self, value: Any) -> Any:
        return value

    def kill(self, _: Any) -> None:
        self.killed += 1

    def wait(self, questions: list[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        ready = [each for each in questions if each.state["left"] >= 0 or not self.mute]
        self.now += 0.01 if ready else timeout
        return ready[:num_returns], []

    def get(self, question: Any) -> Answer:
        state = question.state
        if state["left"] < 0:
            raise self.RayError("The actor died.\nIts node is gone.")
        state["refuses"] -= 1
        if state["refuses"] == 0:
            return Answer(refusal="node n cannot go on", node_id="1")
        told = tuple(islice(state["queue"], 3))
        state["gives up"] -= 1
        if state["gives up"] == 0:
            state["queue"] = iter(())
            return Answer(told)
        return Answer(told, len(told) < 3)

    def cluster(self) -> Cluster:
        return PlayedCluster(self, 1, 0)

    def nodes(self) -> list[Any]:
        node = {"Alive": True, "NodeManagerHostname": "n", "Resources": {"CPU": self.room}}
        return [{**node, "NodeID": name} for name in ("12" if self.refuses else "1")]


class _Question:
    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state


class PlayedCluster(Cluster):
    def actor(self, kind: type, *arguments: Any) -> Any:
        return self.ray.actor(kind, *arguments)

    def ask_autoscaler(self, jobs: int) -> None:
        self.ray.asked.append(jobs)


@pytest.fixture(autouse=True)
def _time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_actor_options", lambda *_: None)


def play(played: Played, folder: Path, monkeypatch: pytest.MonkeyPatch, jobs: Sequence[Job] = JOBS) -> Iterator[Single]:
    """What the driver would keep; its checkpoints lie in the folder."""
    monkeypatch.setattr(remote, "monotonic", lambda: played.now)
    monkeypatch.setattr(remote, "sleep", lambda seconds: setattr(played, "now", played.now + seconds))
    for batch in remote.ray(jobs, Context(TrainingOptions(), ray=RayContext(played.cluster(), {}, folder))):
        for event in batch.events if isinstance(batch, EventBatch) else (batch,):
            if isinstance(event, Checkpoint):
                (folder / checkpoints.file_name(event.run_ids, event.epoch)).write_bytes(checkpoints.to_bytes(event))
            yield event


def told(found: list[Single]) -> dict[str, list[tuple[str, float]]]:
    """Of each run what was told, in order, but for times."""
    runs: dict[str, list[tuple[str, float]]] = {}
    for event in found:
        if isinstance(event, EpochRow | CurveRow):
            runs.setdefault(event.run_id, []).append((type(event).__name__, event.epoch))
        elif isinstance(event, RunResult):
            runs[event.run_id].append((event.status, len(event.rows)))
    return runs


WHOLE = {
    run.run_id: [
        *(
            (name, epoch)
            for whole in range(1, EPOCHS + 1)
            for name, epoch in (("CurveRow", whole - 0.5), ("EpochRow", whole))
        ),
        ("ok", EPOCHS),
    ]
    for run in RUNS
}


@pytest.mark.parametrize("mute", [False, True])
@pytest.mark.parametrize("every", [0, 1, 2])
def test_a_slot_lost_anywhere_and_the_next_one_too_lose_and_double_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, mute: bool
) -> None:
    for first in range(16):
        for second in (0, 3, 10_000):
            played = Played(every, (first, 10_000, second), mute=mute)
            found = list(play(played, tmp_path, monkeypatch))
            assert told(found) == WHOLE, (first, second)
            results = [event for event in found if isinstance(event, RunResult)]
            kept = [event for event in found if isinstance(event, EpochRow)]
            for result in results:  # what a result looks back on is what was told, times and all
                assert list(result.rows) == [row for row in kept if row.run_id == result.run_id]
            if first < 8:
                assert any(isinstance(event, Note) for event in found), first
    assert played.killed >= 2  # none is left behind


def test_a_job_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(1, (7,), room=1)
    list(play(played, tmp_path, monkeypatch))
    assert [bool(each) for each in played.given] == [False, True, False, False]


@pytest.mark.parametrize("every", [0, 1])
@pytest.mark.parametrize("short", [False, True])
def test_a_node_that_cannot_go_on_in_the_middle_of_a_turn_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int, short: bool
) -> None:
    for answer in range(1, 16):
        played = Played(every, refuses=answer)
        found = list(play(played, tmp_path, monkeypatch, SHORT if short else JOBS))
        assert told(found) == (WHOLE_SHORT if short else WHOLE), answer
        notes = [event.text for event in found if isinstance(event, Note)]
        # The slot may have answered its last question before.
        assert notes == ["node n cannot go on; other nodes train its jobs"] or (answer > 6 and not notes), answer


def test_a_job_that_is_lost_again_and_again_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(0, (2,) * remote.ATTEMPTS, room=1)
    found = list(play(played, tmp_path, monkeypatch))
    results = [event for event in found if isinstance(event, RunResult)]
    assert [each.status for each in results] == ["failed"] * 2 + ["ok"] * 3
    assert results[0].error == "lost 5 times in a row (RayError: Its node is gone)"


def test_a_job_that_is_lost_often_but_gets_on_is_no_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(1, (4,) * 3 * remote.ATTEMPTS, room=1)
    assert told(list(play(played, tmp_path, monkeypatch))) == WHOLE
    assert played.attempts > 2 * remote.ATTEMPTS


def test_a_cluster_without_room_is_told_of_and_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(0, (5,), room=1)
    found: list[Single] = []

    def until_the_end() -> None:
        for event in play(played, tmp_path, monkeypatch):
            found.append(event)
            if isinstance(event, Note):
                played.room = 0

    with pytest.raises(UserError, match=r"asks for 1 CPUs .* \(n: 0 CPUs, 0 GPUs\).*no such node within 300 seconds"):
        until_the_end()
    notes = [event.text for event in found if isinstance(event, Note)]
    assert notes[0] == "runs lost: 2 (RayError: Its node is gone); attempt 2 on another node"
    assert notes[1].startswith("3 jobs wait: ")
    assert played.now < 320


def test_many_actors_that_are_lost_as_they_start_cost_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(play(Played(0, (0,) * 64, room=64), tmp_path, monkeypatch))
    assert told(found) == WHOLE
    assert [event.text for event in found if isinstance(event, Note)] == [
        "an actor did not start: RayError: Its node is gone"
    ]


def test_slots_that_never_come_to_life_end_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"no actor starts in the cluster: RayError: Its node is gone"):
        list(play(Played(0, (0,) * 70_000), tmp_path, monkeypatch))


SHORT = [Job((RunSpec(network="mine", dataset="digits", epochs=EPOCHS, seed=seed),)) for seed in range(200)]
WHOLE_SHORT = {job.runs[0].run_id: WHOLE[RUNS[0].run_id] for job in SHORT}


def test_short_jobs_are_given_several_at_once_and_the_last_ones_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(room=4)
    assert told(list(play(played, tmp_path, monkeypatch, SHORT))) == WHOLE_SHORT
    assert sum(played.turns) == 200
    # Several at once where many wait, and never more than the share of an actor. Three of a job's eleven events take
    # 0.01 s, so a tenth of a second has at most two jobs: the shortest turn.
    waiting = [200 - sum(played.turns[:turn]) for turn in range(len(played.turns))]
    assert max(played.turns) > 10
    assert all(jobs <= max(2, left // 8) for jobs, left in zip(played.turns, waiting, strict=True))


def test_long_jobs_are_given_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TURN", 0.0)
    played = Played(room=4)
    assert told(list(play(played, tmp_path, monkeypatch, SHORT))) == WHOLE_SHORT
    assert set(played.turns) == {1}


def test_a_slot_lost_in_a_turn_of_many_jobs_costs_an_attempt_of_the_one_that_it_worked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for life in range(5, 60, 3):
        played = Played(lives=(life,), room=2)
        found = list(play(played, tmp_path, monkeypatch, SHORT))
        assert told(found) == WHOLE_SHORT, life
        notes = [event.text for event in found if isinstance(event, Note)]
        assert notes == ["runs lost: 1 (RayError: Its node is gone); attempt 2 on another node"], life
        assert max(played.turns) > 1


def test_a_lost_job_continues_only_from_a_checkpoint_that_the_driver_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An actor may report a checkpoint and the loss of its job at once. Another actor may be idle then."""
    runs = [RUNS[0].changed(seed=seed) for seed in range(11)]
    # The stack of eight runs reports a checkpoint in its sixth answer, when the other actor has trained its run.
    jobs = [Job(tuple(runs[:8]), "grouped"), *(Job((run,)) for run in runs[8:])]
    for answer in range(1, 12):
        played = Played(every=1, gives_up=answer)
        folder = tmp_path / str(answer)
        folder.mkdir()
        found = list(play(played, folder, monkeypatch, jobs))
        assert told(found) == {run.run_id: WHOLE[RUNS[0].run_id] for run in runs}, answer
