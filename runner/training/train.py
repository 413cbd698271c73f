"""A job's runs in, their events out. A stack that fails is halved until each run is alone."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from runner.config.jobs import Job, even_parts
from runner.config.run_spec import RunSpec
from runner.storage import checkpoints
from runner.storage.rows import EpochRow, Event, RunResult, Status
from runner.training.checkpointing import Checkpointing, Unpacked
from runner.training.learners.selection import CannotStackError
from runner.training.loop import _train
from runner.training.settings import use_settings


def train(job: Sequence[RunSpec], root: Path, checkpointing: Checkpointing | None = None) -> Iterator[Event]:
    """Train a job's runs; yields an `EpochRow` per run per epoch and a `RunResult` at the end of each run.

    A stack that raises or runs out of memory is halved until what fails is one run, whose result says so; what was told
    of the others is not told again. `root` is the data folder. The runs of a job go on from the same checkpoint, or
    all from the start.
    """
    checkpointing = checkpointing or Checkpointing()
    file = checkpointing.files.get(job[0].run_id)
    saved = checkpoints.load(file) if file else None
    rows: dict[str, list[EpochRow]] = {run.run_id: checkpoints.rows(saved, run.run_id) if saved else [] for run in job}
    told: Counter[str] = Counter()
    finished: set[str] = set()
    waiting: list[tuple[Job, str]] = [(tuple(job), "")]
    while waiting:
        part, note = waiting.pop()
        part = tuple(run for run in part if run.run_id not in finished)
        again = told.copy()  # what these runs said before they were taken out of a larger stack
        try:
            use_settings(part[0])
            for event in _train(part, root, note, checkpointing, saved):
                if isinstance(event, Unpacked):
                    if not any(again.values()):
                        yield event.checkpoint(rows)
                    continue
                if again[event.run_id]:
                    again[event.run_id] -= 1
                    continue
                told[event.run_id] += 1
                if isinstance(event, EpochRow):
                    rows[event.run_id].append(event)
                elif isinstance(event, RunResult):
                    finished.add(event.run_id)
                    event = replace(event, rows=tuple(rows[event.run_id]))
                yield event
        except CannotStackError as cannot:
            waiting += [(smaller, cannot.note) for smaller in reversed(cannot.parts)]
        except (Exception, SystemExit) as error:  # a network that calls sys.exit() is a failed run too
            if len(part) > 1:
                waiting += [(half, "") for half in reversed(even_parts(part, 2))]
            else:
                yield _failure(part[0], error, rows[part[0].run_id])
        finally:
            torch.set_flush_denormal(False)  # scipy's noncentral t, and with it "seeds needed", changes under it


def _failure(run: RunSpec, error: BaseException, rows: Sequence[EpochRow]) -> RunResult:
    of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
    status: Status = "oom" if of_memory else "failed"  # torch's CPU allocator raises a plain RuntimeError
    message = f"{type(error).__name__}: {error}"
    return RunResult(run.run_id, status, tuple(rows), error=message, traceback=traceback.format_exc())
