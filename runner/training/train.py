"""Train a job and yield its events. Nothing here writes a file or knows who receives the events."""

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path

import torch

from runner.config.jobs import Job, even_parts
from runner.config.run_spec import RunSpec
from runner.storage import checkpoints
from runner.storage.rows import Checkpoint, EpochRow, Event, RunResult, Status
from runner.training.learners.selection import CannotStackError
from runner.training.loop import LoopEvent, TrainingLoop, TrainingState
from runner.training.options import TrainingOptions
from runner.training.repeats import Repeats
from runner.training.settings import settings_of


def train(job: Sequence[RunSpec], options: TrainingOptions, checkpoint: Path | None = None) -> Iterator[Event]:
    """Train a job's runs: an `EpochRow` per run per epoch, and a `RunResult` at the end of each run.

    A stack that fails or runs out of memory is halved, until the part that fails is one run; its result says why. No
    event is yielded twice. All runs continue from `checkpoint`, or begin at the start where there is none.

    >>> run = RunSpec(network="notebook_mlp", dataset="digits", device="cpu", epochs=1)
    >>> row, result = train([run], TrainingOptions())
    >>> row.epoch, row.step, result.status
    (1, 2, 'ok')
    """
    saved = checkpoints.load(checkpoint) if checkpoint else None
    rows = {run.run_id: checkpoints.rows(saved, run.run_id) for run in job}
    repeats = Repeats()
    ended: set[str] = set()
    waiting: list[tuple[Job, str]] = [(tuple(job), "")]
    while waiting:
        part, note = waiting.pop()
        run_ids = [run.run_id for run in part]
        repeats.start_over(run_ids)
        try:
            for event in _loop_events(part, options, note, saved):
                if isinstance(event, dict):
                    # The rows in a checkpoint must end with its epoch, so all repeated events must be over.
                    if not repeats.are_to_come(run_ids):
                        yield _checkpoint(event, rows)
                elif isinstance(event, RunResult):
                    ended.add(event.run_id)
                    yield replace(event, rows=tuple(rows[event.run_id]))
                elif not repeats.is_repeated(event.run_id):
                    if isinstance(event, EpochRow):
                        rows[event.run_id].append(event)
                    yield event
        except CannotStackError as cannot:
            waiting += [(smaller, cannot.note) for smaller in reversed(cannot.parts)]
        except (Exception, SystemExit) as error:
            # SystemExit: a network that calls sys.exit() is a failed run, too.
            if len(part) > 1:
                unfinished = [run for run in part if run.run_id not in ended]
                waiting += [(half, "") for half in reversed(even_parts(unfinished, 2)) if half]
            else:
                yield _failure(part[0], error, rows[part[0].run_id])


def _loop_events(part: Job, options: TrainingOptions, note: str, saved: TrainingState | None) -> Iterator[LoopEvent]:
    with settings_of(part[0]):
        yield from TrainingLoop(part, options, note, saved).events()


def _checkpoint(state: TrainingState, rows: dict[str, list[EpochRow]]) -> Checkpoint:
    """The checkpoint of these runs, with their rows so far: a run that continues from it has all its rows again."""
    rows_so_far = {run_id: [list(astuple(row)) for row in rows[run_id]] for run_id in state["runs"]}
    return Checkpoint(tuple(state["runs"]), state["epoch"], checkpoints.pack({**state, "rows": rows_so_far}))


def _failure(run: RunSpec, error: BaseException, rows: Sequence[EpochRow]) -> RunResult:
    of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
    # torch's CPU allocator raises a plain RuntimeError.
    of_memory |= "can't allocate memory" in str(error)
    status: Status = "oom" if of_memory else "failed"
    message = f"{type(error).__name__}: {error}"
    return RunResult(run.run_id, status, tuple(rows), error=message, traceback=traceback.format_exc())
