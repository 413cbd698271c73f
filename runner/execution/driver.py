"""A sweep from config to tables. The driver is the only writer; executors only yield events."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from runner.config import yaml_source
from runner.config.jobs import Job, StackMode, longest_first, remaining
from runner.config.jobs import jobs as grouped
from runner.config.run_spec import RunSpec
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.execution.executors.executor import Context, executor
from runner.execution.executors.ray_cluster import Cluster, connected
from runner.monitoring.progress import Progress
from runner.monitoring.sinks import Guarded, Sink, tell, tracked
from runner.monitoring.trackers import openers, replay
from runner.storage.checkpoints import Every, epoch_of, folder_at
from runner.storage.folder import sweep_folder
from runner.storage.rows import Batch, Checkpoint, EpochRow, Note, RunResult, Single
from runner.storage.store import (
    CHECKPOINTS,
    CONFIG,
    CURVES,
    ENVIRONMENT,
    FAILED,
    LOCK,
    LOG,
    METRICS,
    PROBES,
    RUNS,
    Store,
    read_header,
    read_rows,
    sole_writer,
)

Existing = Literal["refuse", "resume", "fresh"]


EVERY_MINUTE = Every(seconds=60)


class Terminated(BaseException):
    """SIGTERM, as KeyboardInterrupt is SIGINT."""


class FailedFast(BaseException):
    """A run failed, and --fail-fast was given."""


@dataclass(frozen=True)
class Options:
    """Where and how a sweep runs: nothing here changes a result (a stack: but by rounding)."""

    out: Path = Path("results")
    root: Path = Path("data")
    executor: str = "process"
    ray_address: str | None = None
    workers: int | None = None
    existing: Existing = "refuse"
    retry: Collection[str] = ()
    allow_changed: bool = False
    every: Every = EVERY_MINUTE
    run_timeout: float | None = None
    fail_fast: bool = False
    stack: StackMode = "auto"
    track: Collection[str] = ()
    quiet: bool = False
    verbose: bool = False


def run_sweep(sweep: Sweep, options: Options) -> int:
    """Train what is not trained yet; returns the exit code: 0, 1 where runs failed, 130 or 143 when interrupted.

    Errors: UserError before anything is written where the sweep cannot run here.
    """
    executor[options.executor]  # an unknown name is an error before the data is read
    folder = sweep_folder(options.out, sweep.name)
    # The lock before anything that takes long: a second writer hears of it at once.
    with sole_writer(folder), _cluster(sweep, options) as cluster:
        return _run_locked(sweep, folder, options, cluster)


def _cluster(sweep: Sweep, options: Options) -> AbstractContextManager[Cluster | None]:
    if options.executor != "ray":
        return nullcontext()
    return connected(options.ray_address, sweep.runs, sweep.resources, options.workers)


def _run_locked(sweep: Sweep, folder: Path, options: Options, cluster: Cluster | None) -> int:
    if not options.quiet:  # the next seconds are torch's
        epochs = sum(run.epochs for run in sweep.runs)
        print(f"{sweep.name}: {len(sweep.runs)} runs, {epochs} epochs; starting", file=sys.stderr)
    opening = openers(options.track)  # an absent package is an error before anything is written
    from runner.execution import preflight
    from runner.training import environment  # torch, from here on

    sweep = preflight.check(sweep, options.root, *([cluster.resolve] if cluster else []))
    config = config_text(sweep, folder)
    _check_existing(folder, config, options.existing)
    shared = folder_at(sweep.checkpoint_dir, folder) if sweep.checkpoint_dir else None
    store = Store(folder, sweep.columns, {run.run_id: run.parameters for run in sweep.runs}, shared)
    datasets = sorted({run.dataset for run in sweep.runs})
    described = environment.describe(datasets, options.root, sweep.plugins)
    finished: set[str] = set()
    going_on: dict[str, Path] = {}
    begun = (folder / CONFIG).exists() and options.existing == "resume"
    if begun:
        retry, allowed = options.retry, options.allow_changed
        finished, going_on = store.resume(
            config, described, retry=retry, allow_changed=allowed, save_weights=sweep.save_weights
        )
    else:
        store.start(described, config)
    if begun and not options.quiet:
        anew = len(sweep.runs) - len(finished) - len(going_on)
        print(
            f"{len(finished)} of {len(sweep.runs)} runs are there already; "
            f"{len(going_on)} go on from a checkpoint, {anew} from their start",
            file=sys.stderr,
        )
    workers = cluster.slots() if cluster else options.workers or default_workers(sweep.runs)
    jobs = longest_first(remaining(grouped(sweep.runs, options.stack, workers or 1), finished, going_on))
    context = Context(
        root=options.root,
        plugins=sweep.plugins,
        workers=min(workers, len(jobs)),
        every=options.every,
        checkpoints=going_on,
        run_timeout=options.run_timeout,
        save_weights=sweep.save_weights,
        versions=environment.versions(datasets, options.root) if cluster else None,
        checkpoint_folder=store.checkpoints,
        checkpoints_shared=shared is not None,
        cluster=cluster,
    )
    tracking = [Guarded(name, opener, tracked(sweep, folder), store.log) for name, opener in opening.items()]
    try:
        code = _drive(jobs, sweep, store, context, options, tracking) if jobs or tracking else 0
        if code == 0:
            store.finish()
    finally:
        for each in tracking:
            each.close()  # after the tables are whole
    if code == 0:
        failed = [row for row in read_rows(folder / RUNS) if row["status"] in FAILED]
        _report_failures(failed, folder)
        if not options.quiet:
            print(f"results in {folder}", file=sys.stderr)
        code = 1 if failed else 0
    return code


def config_text(sweep: Sweep, folder: Path) -> str:
    """The resolved config as YAML; plugins are named relative to the sweep's folder, so that both can be moved."""
    plugins = [os.path.relpath(file, folder.resolve()) for file in sweep.plugins]
    return yaml_source.dump({**sweep.resolved, **({"plugins": plugins} if plugins else {})})


def _check_existing(folder: Path, config: str, existing: Existing) -> None:
    if not (folder / CONFIG).exists():
        if strangers := _strangers(folder):
            raise UserError(
                f"{folder} holds {', '.join(sorted(strangers))} without a {CONFIG}: not this command's, so left alone; "
                "--out names another folder"
            )
        return
    if (folder / CONFIG).exists() and existing == "refuse":
        same = (folder / CONFIG).read_text(encoding="utf-8") == config
        if same:
            raise UserError(f"{folder} already holds this sweep; --resume finishes it, --fresh starts over")
        raise UserError(
            f"{folder} already holds another config; --fresh starts over, --out DIR or --set name=NAME keeps both, "
            f"--resume works where this config only adds runs to it"
        )


def _strangers(folder: Path) -> set[str]:
    """What is not left of a start that was killed: other files, and tables that have rows."""
    names = {path.name for path in folder.iterdir() if not path.name.endswith(".partial")}
    tables = {METRICS, RUNS, CURVES, PROBES} & names
    blank = {name for name in tables if read_header(folder / name)[:1] == ["run"] and not read_rows(folder / name)}
    return names - {LOCK, ENVIRONMENT, LOG, CHECKPOINTS} - blank


def _drive(
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


def default_workers(runs: Sequence[RunSpec]) -> int:
    """As many workers as the CPUs we may use have room for; one on CUDA, which a single process fills."""
    if any(run.device.startswith("cuda") for run in runs):
        return 1
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(len(runs), cpus // max(run.threads for run in runs)))


def _report_failures(failed: Sequence[dict[str, str]], folder: Path) -> None:
    if failed:
        print(
            f"{len(failed)} runs failed (tracebacks in {folder / 'run.log'}; "
            f"bnbench resume {folder} --retry trains them again, with --allow-changed after mending a plugin):",
            file=sys.stderr,
        )
        alike: dict[tuple[str, str], list[str]] = {}
        for row in failed:
            alike.setdefault((row["status"], row["error"]), []).append(row["run"])
        for (status, error), runs in alike.items():
            print(f"  run{'s' if len(runs) > 1 else ''} {', '.join(runs)} {status}: {error}", file=sys.stderr)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
