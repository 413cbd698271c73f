"""What an actor answers, and what its worker writes. It needs no Ray for that: its worker is a real one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.execution.executors import ray_actor
from runner.execution.executors.ray_actor import ActorOptions, Answer, RayActor
from runner.execution.executors.worker_process import NodeOptions
from runner.registry import load_plugins
from runner.storage import checkpoints
from runner.storage.checkpoints import Every
from runner.storage.rows import Checkpoint, CurveRow, EpochRow, ProbeRow, RunResult, Single
from runner.training import environment
from runner.training.options import TrainingOptions

PLUGIN = """\
import os, time
from torch import nn
from runner import network

@network("mortal")
def mortal(*, end: str):
    if end == "exit":
        os._exit(7)
    if end == "hang":
        time.sleep(10_000)
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


def answers(
    jobs: list[Job],
    training: TrainingOptions,
    plugins: tuple[tuple[str, str, bytes], ...] = (),
    *,
    folder: Path | None = None,
    saved: Path | None = None,
) -> list[Single]:
    """All events of an actor that is given these jobs; `folder` is that of the checkpoints. A refusal is an error."""
    node = NodeOptions((), environment.versions(["digits"], training.data_dir, training.kernels), folder)
    actor = RayActor(ActorOptions(training, plugins, node))
    events: list[Single] = []
    try:
        answer = actor.next_events(jobs, saved)
        while not answer.refusal:
            events += answer.events
            if answer.idle:
                return events
            answer = actor.next_events()
        raise AssertionError(answer.refusal)
    finally:
        actor.server.close()
        actor.folder.cleanup()


def test_jobs_of_one_turn_are_trained_in_order_and_each_has_its_result(
    write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    plugin = write("mortal.py", PLUGIN)
    load_plugins((str(plugin),))
    fixed: dict[str, Any] = {"dataset": "digits", "device": "cpu", "train_samples": 100, "epochs": 2}
    ends = ["one", "exit", "two", "hang", "three"]
    runs = [RunSpec(network="mortal", network_args={"end": end}, **fixed) for end in ends]
    training = TrainingOptions(tmp_path, (), run_timeout=2)
    events = answers([Job((run,)) for run in runs], training, (("mortal.py", "", plugin.read_bytes()),))
    results = [event for event in events if isinstance(event, RunResult)]
    assert [(result.run_id, result.status) for result in results] == [
        (run.run_id, status) for run, status in zip(runs, ["ok", "failed", "ok", "timeout", "ok"], strict=True)
    ]
    assert results[1].error == "the worker process died (exit code 7)"
    rows = [event.run_id for event in events if isinstance(event, EpochRow)]
    assert rows == [runs[number].run_id for number in (0, 0, 2, 2, 4, 4)]


SAVED = RunSpec(
    network="notebook_mlp",
    dataset="digits",
    device="cpu",
    train_samples=100,
    epochs=4,
    evaluations_per_epoch=2,
    probes=("gradients",),
)
EVERY = TrainingOptions(checkpoint_every=Every(epochs=1))


def test_a_node_writes_its_checkpoints_and_says_how_many_readings_there_were(tmp_path: Path) -> None:
    shared, other = tmp_path / "shared", tmp_path / "other"
    shared.mkdir()
    other.mkdir()
    events = answers([Job((SAVED,))], EVERY, folder=shared)
    # Until the driver has kept them, they are no checkpoints.
    assert checkpoints.find(shared) == ([], [])
    reported, expected = Counter[str](), dict[int, dict[str, dict[str, int]]]()
    for event in events:
        reported["curves.csv"] += isinstance(event, CurveRow)
        reported["probes.csv"] += isinstance(event, ProbeRow)
        if isinstance(event, Checkpoint):
            assert event.state == b""
            (shared / event.written_as).rename(shared / checkpoints.file_name(event.run_ids, event.epoch))
            expected[event.epoch] = {table: {SAVED.run_id: rows} for table, rows in reported.items()}
    found, damaged = checkpoints.find(shared)
    assert {each.epoch: each.readings for each in found} == expected
    assert (list(expected), damaged) == ([1, 2, 3], [])
    assert all(reported.values())
    # A node that continues counts on from there.
    again = answers([Job((SAVED,))], EVERY, folder=other, saved=found[1].path)
    assert [event.epoch for event in again if isinstance(event, EpochRow)] == [3, 4]
    assert [event.readings for event in again if isinstance(event, Checkpoint)] == [expected[3]]


def test_a_node_that_cannot_write_checkpoints_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver makes the folder. Where a node does not see it, the node makes none of its own."""
    # Without a cluster, Ray has no name for the node.
    monkeypatch.setattr(ray_actor, "_refusal", lambda reason: Answer(refusal=reason))
    with pytest.raises(AssertionError, match=rf"^node \S+ cannot write checkpoints: .*{tmp_path / 'shared'}"):
        answers([Job((SAVED,))], EVERY, folder=tmp_path / "shared")
    assert not (tmp_path / "shared").exists()
