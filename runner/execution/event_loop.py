"""Run the jobs and hand every event to the sinks."""

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
from runner.storage.rows import FAILED, Batch, Checkpoint, EpochRow, Note, RunResult, Single
from runner.storage.store import Store


class Terminated(BaseException):
    """SIGTERM, as KeyboardInterrupt is SIGINT."""


class FailedFast(BaseException):
    """A run failed, and --fail-fast was given."""


def drive(
    jobs: Sequence[Job], sweep: Sweep, store: Store, context: Context, options: Options, tracking: Sequence[Guarded]
) -> int:
    """Run the jobs and hand every event to the sinks."""
    begun = {run_id: epoch_of(file) for run_id, file in context.checkpoints.items()}
    quiet, verbose = options.quiet, options.verbose
    progress = Progress(sweep, jobs, workers=context.workers, begun=begun, quiet=quiet, verbose=verbose)
    keeping: list[Sink] = [store, *tracking]
    sinks: list[Sink] = [*tracking, progress]
    unfinished: dict[str, list[EpochRow]] = {}
    events = executor[options.executor](jobs, context)
    try:
        with closing(progress), _sigterm_raises(), closing(events):  # type: ignore[type-var]
            for each in tracking:
                each.catch_up(replay.events(store.folder))
            for event in events:
                together = event.events if isinstance(event, Batch) else (event,)
                with store.together():
                    for single in together:
                        _keep(store, single, unfinished)
                for kept in together:  # others are told what is on the disk
                    if isinstance(kept, Note):
                        progress.note(kept.text)
                    elif not isinstance(kept, Checkpoint):
                        for sink in sinks:
                            tell(sink, kept)
                failed = any(isinstance(kept, RunResult) and kept.status in FAILED for kept in together)
                if options.fail_fast and failed:
                    raise FailedFast
    except (KeyboardInterrupt, Terminated, FailedFast) as interruption:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # a second one: at once
        for run_id, rows in unfinished.items():
            for sink in keeping:
                sink.on_result(RunResult(run_id, "interrupted", tuple(rows)))
        why = "stopped at the first failure" if isinstance(interruption, FailedFast) else "interrupted"
        print(f"\n{why}; bnbench resume {store.folder} finishes it", file=sys.stderr)
        return {KeyboardInterrupt: 130, Terminated: 143, FailedFast: 1}[type(interruption)]
    except UserError:
        print(f"\nstopped; bnbench resume {store.folder} goes on", file=sys.stderr)
        raise
    except OSError:
        print(f"\nstopped by the disk; once it is mended, bnbench resume {store.folder} goes on", file=sys.stderr)
        raise
    return 0


def _keep(store: Store, event: Single, unfinished: dict[str, list[EpochRow]]) -> None:
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


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
