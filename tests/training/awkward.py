"""Trains the networks of `awkward_networks.py` and those that are registered, and gives what they must repeat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.storage.rows import Checkpoint, CurveRow, EpochRow, Event, Note, ProbeRow, RunResult
from runner.training.options import TrainingOptions
from runner.training.train import train

PLUGIN = Path(__file__).with_name("awkward_networks.py")
AWKWARD = re.findall(r'"(awkward_\w+)"', PLUGIN.read_text(encoding="utf-8"))
NASTY = re.findall(r'"(nasty_\w+)"', PLUGIN.read_text(encoding="utf-8"))

RUN = RunSpec(
    network="", dataset="digits", device="cpu", train_samples=60, batch_size=20, epochs=3, lr=0.01, shuffle=True
)


def values(events: Sequence[Event]) -> list[Any]:
    """What a run must repeat: every reading, the hashes and the weights, but no duration."""
    found: list[Any] = []
    for event in events:
        match event:
            case EpochRow():
                readings = event.train_loss, event.train_accuracy, event.valid_loss, event.valid_accuracy
                found.append((event.run_id, event.epoch, event.step, *readings))
            case CurveRow():
                found.append((event.run_id, event.epoch, event.step, event.train_loss, event.valid_loss))
            case ProbeRow():
                found.append((event.run_id, event.epoch, event.layer, event.measure, event.value))
            case RunResult():
                found.append((event.run_id, event.status, event.error, event.test_loss, event.weights))
            case Checkpoint() | Note():
                pass
            case _:
                found.append(event)
    return found


def train_all(*runs: RunSpec, **options: Any) -> list[Event]:
    """The events of a run alone, or of several runs as a stack."""
    job = Job(runs, "grouped" if len(runs) > 1 else None)
    return list(train(job, TrainingOptions(save_weights=True, **options)))
