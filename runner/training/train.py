"""Train a job and yield its events. Nothing here writes a file or knows who receives the events."""

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, replace
from pathlib import Path

from runner.config.jobs import Job, Task, Trial, even_parts, job_of
from runner.config.run_spec import RunSpec
from runner.errors import UserError, described, strict
from runner.storage import checkpoints
from runner.storage.folder import CURVES, PROBES
from runner.storage.rows import Checkpoint, EpochRow, Event, Note, RunResult, Shortfall, Status
from runner.training.data.preprocessing import ChangedDataError, check_unchanged, data_of
from runner.training.isolation import isolated, raise_if_spoiled
from runner.training.learners.learner import out_of_memory
from runner.training.loop import CannotBuildError, LoopEvent, TrainingLoop, TrainingState
from runner.training.networks import SpoiledProcessError, raise_if_lost, resolve_device
from runner.training.options import TrainingOptions
from runner.training.repeats import Repeats
from runner.training.settings import settings_of
from runner.training.trial import try_stack


class StackFaultError(Exception):
    """A stack failed, and all of its runs succeed alone: a fault of bnbench. It is raised in strict mode only."""


def work(task: Task, options: TrainingOptions, checkpoint: Path | None = None) -> Iterator[Event]:
    """Do what a worker is given: a trial, or a job."""
    return try_stack(task, options) if isinstance(task, Trial) else train(task, options, checkpoint)


def train(job: Job, options: TrainingOptions, checkpoint: Path | None = None) -> Iterator[Event]:
    """Train a job's runs: an `EpochRow` per run per epoch, and a `RunResult` at the end of each run.

    A stack that runs out of memory is halved. If it fails for another reason, its runs train alone. A `Shortfall` says
    so in both cases. No event is yielded twice. All runs continue from `checkpoint`, or begin at the start where there
    is none.
    Errors: SpoiledProcessError, after the results of all runs, where this process must not train further runs.

    >>> run = RunSpec(network="notebook_mlp", dataset="digits", device="cpu", epochs=1)
    >>> row, result = train(Job((run,)), TrainingOptions())
    >>> row.epoch, row.step, result.status
    (1, 2, 'ok')
    """
    yield from _Training(job, options, checkpoint).events()


class _Training:
    """The attempts at a job: at first all runs together, then smaller parts where that fails."""

    def __init__(self, job: Job, options: TrainingOptions, checkpoint: Path | None) -> None:
        self.options = options
        self.saved = checkpoints.load(checkpoint) if checkpoint else None
        self.rows = {run_id: checkpoints.rows(self.saved, run_id) for run_id in job.run_ids}
        # table → run id → readings so far
        counts: dict[str, dict[str, int]] = self.saved["readings"] if self.saved else {}
        self.readings = {table: Counter(counts.get(table)) for table in (CURVES, PROBES)}
        self.repeats = Repeats()
        # the runs that have not reported their result
        ended = {run_id for run_id in job.run_ids if self.saved and not checkpoints.goes_on(self.saved, run_id)}
        self.left = {run.run_id: run for run in job.runs if run.run_id not in ended}
        self.waiting = [job]
        # the text of a stack's error that is no lack of memory, until a run fails alone, too. (The error itself would
        # keep the stack in memory.)
        self.fault = ""

    def events(self) -> Iterator[Event]:
        while self.waiting:
            part = self.waiting.pop()
            self.repeats.start_over(part.run_ids)
            try:
                raise_if_spoiled()
                yield from self._attempt(part)
            except StackFaultError:
                raise
            except (Exception, SystemExit) as error:
                # SystemExit: a network that calls sys.exit() is a failed run, too.
                yield from self._failed(part, error)
        raise_if_spoiled()

    def _attempt(self, part: Job) -> Iterator[Event]:
        """Train runs together. Yield the events that no earlier attempt has reported."""
        for event in self._loop_events(part):
            if isinstance(event, dict):
                # The rows in a checkpoint must end with its epoch, so all repeated events must be over.
                if not self.repeats.are_to_come(part.run_ids):
                    yield self._checkpoint(part, event)
            elif isinstance(event, Shortfall | Note):
                yield event
            elif isinstance(event, RunResult):
                yield self._result(replace(event, rows=tuple(self.rows[event.run_id])))
            elif not self.repeats.is_repeated(event.run_id):
                if isinstance(event, EpochRow):
                    self.rows[event.run_id].append(event)
                else:
                    self.readings[event.table][event.run_id] += 1
                yield event

    def _loop_events(self, part: Job) -> Iterator[LoopEvent]:
        with isolated(), settings_of(part.runs[0]):
            yield from TrainingLoop(part, self.options, self.saved).events()

    def _checkpoint(self, part: Job, state: TrainingState) -> Checkpoint:
        rows = {run_id: [list(astuple(row)) for row in self.rows[run_id]] for run_id in part.run_ids}
        readings = {
            table: {run_id: counts[run_id] for run_id in part.run_ids} for table, counts in self.readings.items()
        }
        return Checkpoint(part.run_ids, state["epoch"], checkpoints.pack({**state, "rows": rows}), readings)

    def _result(self, result: RunResult) -> RunResult:
        """Note that a run has ended. Errors: StackFaultError for the last one, where only the stack was at fault."""
        del self.left[result.run_id]
        if self.fault and not self.left and strict():
            raise StackFaultError(f"a stack failed, but its runs succeed alone:\n{self.fault}")
        return result

    def _failed(self, part: Job, error: Exception | SystemExit) -> Iterator[Event]:
        """Go on with what is left of a part: train it as smaller parts, or report that its run has failed.

        Errors: SpoiledProcessError where this process must not train further runs. Then all runs that are left fail.
        """
        run = part.runs[0]
        # The network may have changed the data before it failed. Then this reads them anew.
        with suppress(ChangedDataError, UserError):
            check_unchanged(data_of(part.runs, self.options.data_dir, resolve_device(run.device)))
        try:
            raise_if_lost(run)
            raise_if_spoiled()
        except SpoiledProcessError:
            for run in list(self.left.values()):
                yield self._failure(run, error)
            raise
        if isinstance(error, CannotBuildError):
            yield self._failure(error.run, error.__cause__ or error)
            others = tuple(run for run in part.runs if run != error.run)
            if others:
                yield from self._without(error.run, replace(part, runs=others))
            return
        left = tuple(run for run in part.runs if run.run_id in self.left)
        of_memory = out_of_memory(error)
        if part.form is None or (of_memory and len(left) == 1):
            self.fault = ""
            yield self._failure(left[0], error)
            return
        groups = even_parts(left, 2) if of_memory else [(run,) for run in left]
        shortfall = Shortfall(
            run_ids=tuple(run.run_id for run in left),
            planned="one stack",
            instead=f"as 2 stacks of at most {max(map(len, groups))}" if of_memory else "alone",
            reason="out of memory" if of_memory else " ".join(described(error).split())[:200],
            parts=tuple(tuple(run.run_id for run in group) for group in groups),
            form=part.form if of_memory else None,
            traceback="" if of_memory else _traceback(error),
        )
        if not of_memory:
            self.fault = shortfall.traceback
        yield shortfall
        for group in reversed(groups):
            self.waiting.append(job_of(group, shortfall.form, shortfall.note))

    def _without(self, failed: RunSpec, others: Job) -> Iterator[Event]:
        """Go on with the other runs of a stack, because the network of one run cannot be built."""
        shortfall = Shortfall(
            run_ids=(*others.run_ids, failed.run_id),
            planned="one stack",
            instead="without a run",
            reason=f"the network of run {failed.run_id} cannot be built",
            parts=(others.run_ids,),
            form=others.form,
        )
        yield shortfall
        self.waiting.append(replace(others, note=shortfall.note))

    def _failure(self, run: RunSpec, error: BaseException) -> RunResult:
        status: Status = "oom" if out_of_memory(error) else "failed"
        rows = tuple(self.rows[run.run_id])
        del self.left[run.run_id]
        return RunResult(run.run_id, status, rows, error=described(error), traceback=_traceback(error))


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
