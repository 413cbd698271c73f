"""What an actor answers when some jobs of its turn end badly. It needs no Ray for that: its worker is a real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.execution.executors.ray_actor import ActorOptions, RayActor
from runner.execution.executors.worker_process import NodeCheck
from runner.registry import load_plugins
from runner.storage.rows import EpochRow, RunResult
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


def test_jobs_of_one_turn_are_trained_in_order_and_each_has_its_result(
    write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    plugin = write("mortal.py", PLUGIN)
    load_plugins((str(plugin),))
    fixed: dict[str, Any] = {"dataset": "digits", "device": "cpu", "train_samples": 100, "epochs": 2}
    ends = ["one", "exit", "two", "hang", "three"]
    runs = [RunSpec(network="mortal", network_args={"end": end}, **fixed) for end in ends]
    training = TrainingOptions(tmp_path, (), run_timeout=2)
    node = NodeCheck((), environment.versions(["digits"], tmp_path, training.kernels))
    actor = RayActor(ActorOptions(training, (("mortal.py", "", plugin.read_bytes()),), node))
    try:
        answer = actor.next_events([Job((run,)) for run in runs])
        events = list(answer.events)
        while not answer.idle:
            answer = actor.next_events()
            events += answer.events
    finally:
        actor.server.close()
        actor.folder.cleanup()
    results = [event for event in events if isinstance(event, RunResult)]
    assert [(result.run_id, result.status) for result in results] == [
        (run.run_id, status) for run, status in zip(runs, ["ok", "failed", "ok", "timeout", "ok"], strict=True)
    ]
    assert results[1].error == "the worker process died (exit code 7)"
    rows = [event.run_id for event in events if isinstance(event, EpochRow)]
    assert rows == [runs[number].run_id for number in (0, 0, 2, 2, 4, 4)]
