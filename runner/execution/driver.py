"""A sweep from config to tables. The driver is the only writer; executors only yield events."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.config.jobs import Job, longest_first, remaining
from runner.config.jobs import jobs as all_jobs
from runner.config.sweep import Sweep
from runner.execution.event_loop import drive
from runner.execution.executors.executor import Context
from runner.execution.executors.ray_cluster import Cluster, RayContext, connected
from runner.execution.executors.registry import executor
from runner.execution.existing import check_existing, config_text
from runner.execution.options import Options, default_workers
from runner.monitoring.trackers.guarded import Guarded
from runner.monitoring.trackers.registry import openers
from runner.monitoring.trackers.tracker import Opener, tracked
from runner.storage.checkpoints import folder_at
from runner.storage.folder import CONFIG, LOG, RUNS, sole_writer, sweep_folder
from runner.storage.rows import FAILED
from runner.storage.store import Store
from runner.storage.tables import read_rows


def run_sweep(sweep: Sweep, options: Options) -> int:
    """Train what is not trained yet; returns the exit code: 0, 1 where runs failed, 130 or 143 when interrupted.

    Errors: UserError before anything is written where the sweep cannot run here.
    """
    executor[options.executor]  # An unknown name is an error before the data are read.
    folder = sweep_folder(options.out, sweep.name)
    # Take the lock before anything that takes long, so that a second writer gets its error at once.
    with sole_writer(folder), _cluster(sweep, options) as cluster:
        if not options.quiet:  # Importing torch takes the next seconds.
            epochs = sum(run.epochs for run in sweep.runs)
            print(f"{sweep.name}: {len(sweep.runs)} runs, {epochs} epochs; starting", file=sys.stderr)
        trackers = openers(options.track)  # A missing package is an error before anything is written.
        prepared = _prepare(sweep, folder, options, cluster)
        finished, checkpoints = _start_or_resume(prepared, options)
        jobs, context = _plan(prepared, finished, checkpoints, options, cluster)
        code = _train(jobs, context, prepared, trackers, options)
        return code if code else _conclude(folder, options)


def _cluster(sweep: Sweep, options: Options) -> AbstractContextManager[Cluster | None]:
    if options.executor != "ray":
        return nullcontext()
    return connected(options.ray_address, sweep.runs, sweep.resources, options.workers)


@dataclass(frozen=True)
class _Prepared:
    """A sweep that has been checked on this machine, and its store, in which nothing is written yet."""

    sweep: Sweep
    store: Store
    config: str
    environment: Mapping[str, Any]
    versions: dict[str, str]


def _prepare(sweep: Sweep, folder: Path, options: Options, cluster: Cluster | None) -> _Prepared:
    from runner.execution import preflight  # These two import torch.
    from runner.training import environment

    data_dir = options.training.data_dir
    sweep = preflight.check(sweep, data_dir, *([cluster.resolve] if cluster else []))
    config = config_text(sweep, folder)
    check_existing(folder, config, options.existing)
    shared = folder_at(sweep.checkpoint_dir, folder) if sweep.checkpoint_dir else None
    store = Store(folder, sweep.columns, {run.run_id: run.parameters for run in sweep.runs}, shared)
    datasets = sorted({run.dataset for run in sweep.runs})
    described = environment.describe(datasets, data_dir, sweep.plugins)
    return _Prepared(sweep, store, config, described, environment.versions(datasets, data_dir) if cluster else {})


def _start_or_resume(prepared: _Prepared, options: Options) -> tuple[set[str], dict[str, Path]]:
    """The ids of finished runs, and run id → the checkpoint that the run continues."""
    sweep, store = prepared.sweep, prepared.store
    if not (store.folder / CONFIG).exists() or options.existing != "resume":
        store.start(prepared.environment, prepared.config)
        return set(), {}
    finished, checkpoints = store.resume(
        prepared.config,
        prepared.environment,
        retry=options.retry,
        allow_changed=options.allow_changed,
        save_weights=sweep.save_weights,
    )
    if not options.quiet:
        anew = len(sweep.runs) - len(finished) - len(checkpoints)
        print(
            f"{len(finished)} of {len(sweep.runs)} runs are there already; "
            f"{len(checkpoints)} go on from a checkpoint, {anew} from their start",
            file=sys.stderr,
        )
    return finished, checkpoints


def _plan(
    prepared: _Prepared,
    finished: Collection[str],
    checkpoints: Mapping[str, Path],
    options: Options,
    cluster: Cluster | None,
) -> tuple[list[Job], Context]:
    sweep, files = prepared.sweep, prepared.store.checkpoints
    workers = cluster.slots() if cluster else options.workers or default_workers(sweep.runs)
    jobs = longest_first(remaining(all_jobs(sweep.runs, options.stack, workers or 1), finished, checkpoints))
    training = replace(options.training, plugins=sweep.plugins, save_weights=sweep.save_weights)
    shared = sweep.checkpoint_dir is not None
    ray = RayContext(cluster, prepared.versions, files.folder, shared) if cluster else None
    return jobs, Context(training, min(workers, len(jobs)), checkpoints, ray)


def _train(
    jobs: Sequence[Job], context: Context, prepared: _Prepared, trackers: Mapping[str, Opener], options: Options
) -> int:
    sweep, store = prepared.sweep, prepared.store
    tracking = [Guarded(name, opener, tracked(sweep, store.folder), store.log) for name, opener in trackers.items()]
    try:
        code = drive(jobs, sweep, store, context, options, tracking) if jobs or tracking else 0
        if code == 0:
            store.finish()
    finally:
        for tracker in tracking:
            tracker.close()  # after the tables are complete
    return code


def _conclude(folder: Path, options: Options) -> int:
    failed = [row for row in read_rows(folder / RUNS) if row["status"] in FAILED]
    if failed:
        print(
            f"{len(failed)} runs failed (tracebacks in {folder / LOG}; "
            f"bnbench resume {folder} --retry trains them again, with --allow-changed after mending a plugin):",
            file=sys.stderr,
        )
        runs_by_error: dict[tuple[str, str], list[str]] = {}
        for row in failed:
            runs_by_error.setdefault((row["status"], row["error"]), []).append(row["run"])
        for (status, error), runs in runs_by_error.items():
            print(f"  run{'s' if len(runs) > 1 else ''} {', '.join(runs)} {status}: {error}", file=sys.stderr)
    if not options.quiet:
        print(f"results in {folder}", file=sys.stderr)
    return 1 if failed else 0
