"""Run the jobs. Each event is written to the disk first, then passed to the other sinks."""

import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import click

from runner.config.jobs import Job
from runner.config.sweep import Sweep
from runner.errors import UserError, quoted
from runner.execution.executors.executor import Context
from runner.execution.executors.registry import executor
from runner.execution.options import Options
from runner.monitoring.progress import Progress
from runner.monitoring.sinks import Sink, tell
from runner.monitoring.trackers import replay
from runner.monitoring.trackers.guarded import Guarded
from runner.storage import rows
from runner.storage.checkpoints import epoch_of
from runner.storage.files import exists
from runner.storage.folder import CONFIG
from runner.storage.repeated_runs import NotRepeatedError
from runner.storage.rows import FAILED, Checkpoint, EpochRow, Event, EventBatch, Note, RunEvent, RunResult, Single
from runner.storage.store import Store

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(BaseException):
    """Raised by SIGTERM, as KeyboardInterrupt is raised by SIGINT."""


class FailedFast(BaseException):
    """A run failed, and --fail-fast was given."""


INTERRUPTIONS = {
    KeyboardInterrupt: (130, "interrupted"),
    Terminated: (143, "interrupted"),
    FailedFast: (1, "stopped at the first failure"),
}
"""What ends a sweep early: exit code and message."""

Unfinished = dict[str, list[EpochRow]]
"""Run id → its rows, for each run that has begun and not ended."""


def until_interrupted(action: Callable[[], int], folder: Path) -> int:
    """Do something that trains. Returns its exit code, or that of an interruption. SIGTERM interrupts like Ctrl-C."""
    try:
        with ExitStack() as handlers:
            # At the end, put the handlers back.
            for number in SIGNALS:
                handlers.callback(signal.signal, number, signal.getsignal(number))
            signal.signal(signal.SIGTERM, _raise_terminated)
            return action()
    except tuple(INTERRUPTIONS) as interruption:
        exit_code, reason = INTERRUPTIONS[type(interruption)]
        remedy = f"bnbench resume {quoted(folder)} finishes it" if exists(folder / CONFIG) else "nothing was written"
        click.echo(f"\n{reason}; {remedy}", err=True)
        return exit_code


@contextmanager
def told_how_to_finish(folder: Path) -> Iterator[None]:
    """Where an error ends the training, say how it can go on."""
    resume = f"bnbench resume {quoted(folder)}"
    try:
        yield
    except NotRepeatedError:
        raise
    except UserError:
        click.echo(f"\nstopped; {resume} finishes it", err=True)
        raise
    except OSError:
        remedy = f"free space or repair it, then run: {resume}"
        click.echo(f"\nstopped: the disk reported an error; {remedy}", err=True)
        raise


def drive(
    jobs: Sequence[Job], sweep: Sweep, store: Store, context: Context, options: Options, tracking: Sequence[Guarded]
) -> None:
    """Run the jobs. On an interruption, every run that has begun gets a row that says so."""
    progress = Progress(
        sweep,
        jobs,
        workers=context.workers,
        begun={run_id: epoch_of(file) for run_id, file in context.checkpoints.items()},
        finished=context.finished,
        quiet=options.quiet,
        verbose=options.verbose,
    )
    unfinished: Unfinished = defaultdict(list)
    events = executor[options.executor](jobs, context)
    try:
        with closing(progress), closing(events):  # type: ignore[type-var]
            for tracker in tracking:
                tracker.catch_up(replay.events(store.folder))
            for event in events:
                failed = _handle(event, store, [*tracking, progress], progress, unfinished)
                if options.fail_fast and failed:
                    raise FailedFast
    except tuple(INTERRUPTIONS):
        _write_interrupted([store, *tracking], unfinished)
        raise


def _handle(event: Event, store: Store, sinks: Sequence[Sink], progress: Progress, unfinished: Unfinished) -> bool:
    """Write an event, then pass it to the other sinks. Returns whether a run has failed."""
    events = event.events if isinstance(event, EventBatch) else (event,)
    singles = [single for single in events if not store.is_stored(single)]
    with store.together():
        for single in singles:
            _store(single, store, unfinished)
    for single in singles:
        if isinstance(single, Note):
            progress.note(single.text)
        elif isinstance(single, RunEvent):
            for sink in sinks:
                tell(sink, single)
    return any(isinstance(single, RunResult) and single.status in FAILED for single in singles)


def _store(event: Single, store: Store, unfinished: Unfinished) -> None:
    if isinstance(event, Checkpoint):
        store.on_checkpoint(event)
    elif isinstance(event, Note):
        store.log(event.text)
    elif isinstance(event, rows.Shortfall):
        store.on_shortfall(event)
    elif isinstance(event, RunEvent):
        if isinstance(event, EpochRow):
            unfinished[event.run_id].append(event)
        elif isinstance(event, RunResult):
            unfinished.pop(event.run_id, None)
        tell(store, event)


def _write_interrupted(sinks: Sequence[Sink], unfinished: Unfinished) -> None:
    """Write a result for each run that has begun. From now on, a second signal ends the process at once."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    for run_id, written in unfinished.items():
        for sink in sinks:
            sink.on_result(RunResult(run_id, "interrupted", tuple(written)))


def _raise_terminated(*_: object) -> None:
    raise Terminated
