"""Run the jobs, and pass each event to the sinks after it is on the disk."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from runner.config.jobs import Job
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.execution.executors.executor import Context
from runner.execution.executors.registry import executor
from runner.execution.options import Options
from runner.monitoring.progress import Progress
from runner.monitoring.sinks import Sink, tell
from runner.monitoring.trackers import replay
from runner.monitoring.trackers.guarded import Guarded
from runner.storage.checkpoints import epoch_of
from runner.storage.rows import FAILED, Checkpoint, EpochRow, Event, EventBatch, Note, RunResult, Single
from runner.storage.store import Store


class Terminated(BaseException):
    """SIGTERM, as KeyboardInterrupt is SIGINT."""


class FailedFast(BaseException):
    """A run failed, and --fail-fast was given."""


EXIT_CODES: dict[type[BaseException], int] = {KeyboardInterrupt: 130, Terminated: 143, FailedFast: 1}

Unfinished = dict[str, list[EpochRow]]
"""The rows of each run that has begun and not ended."""


def drive(
    jobs: Sequence[Job], sweep: Sweep, store: Store, context: Context, options: Options, tracking: Sequence[Guarded]
) -> int:
    """Run the jobs; returns 0, or the exit code of an interruption."""
    begun = {run_id: epoch_of(file) for run_id, file in context.checkpoints.items()}
    quiet, verbose = options.quiet, options.verbose
    progress = Progress(sweep, jobs, workers=context.workers, begun=begun, quiet=quiet, verbose=verbose)
    unfinished: Unfinished = {}
    events = executor[options.executor](jobs, context)
    try:
        with _signals_restored():
            try:
                with closing(progress), closing(events):  # type: ignore[type-var]
                    signal.signal(signal.SIGTERM, _raise_terminated)
                    for tracker in tracking:
                        tracker.catch_up(replay.events(store.folder))
                    for event in events:
                        failed = _handle(event, store, [*tracking, progress], progress, unfinished)
                        if options.fail_fast and failed:
                            raise FailedFast
            except (KeyboardInterrupt, Terminated, FailedFast) as interruption:
                _interrupted([store, *tracking], unfinished)
                why = "stopped at the first failure" if isinstance(interruption, FailedFast) else "interrupted"
                print(f"\n{why}; bnbench resume {store.folder} finishes it", file=sys.stderr)
                return EXIT_CODES[type(interruption)]
    except UserError:
        print(f"\nstopped; bnbench resume {store.folder} goes on", file=sys.stderr)
        raise
    except OSError:
        print(f"\nstopped by the disk; once it is mended, bnbench resume {store.folder} goes on", file=sys.stderr)
        raise
    return 0


def _handle(event: Event, store: Store, sinks: Sequence[Sink], progress: Progress, unfinished: Unfinished) -> bool:
    """Write an event, then pass it to the other sinks. Whether a run has failed."""
    singles = event.events if isinstance(event, EventBatch) else (event,)
    with store.together():
        for single in singles:
            _store(single, store, unfinished)
    for single in singles:
        if isinstance(single, Note):
            progress.note(single.text)
        elif not isinstance(single, Checkpoint):
            for sink in sinks:
                tell(sink, single)
    return any(isinstance(single, RunResult) and single.status in FAILED for single in singles)


def _store(event: Single, store: Store, unfinished: Unfinished) -> None:
    if isinstance(event, Checkpoint):
        store.on_checkpoint(event)
    elif isinstance(event, Note):
        store.log(event.text)
    else:
        if isinstance(event, EpochRow):
            unfinished.setdefault(event.run_id, []).append(event)
        elif isinstance(event, RunResult):
            unfinished.pop(event.run_id, None)
        tell(store, event)


def _interrupted(sinks: Sequence[Sink], unfinished: Unfinished) -> None:
    """Write a result for each run that has begun. A second signal now ends the process at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for run_id, rows in unfinished.items():
        for sink in sinks:
            sink.on_result(RunResult(run_id, "interrupted", tuple(rows)))


@contextmanager
def _signals_restored() -> Iterator[None]:
    """Put the handlers of SIGINT and SIGTERM back at the end of the block."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_terminated(*_: object) -> None:
    raise Terminated
