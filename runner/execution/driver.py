"""A sweep from config to tables. The driver is the only writer; executors only yield events."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from runner.config.jobs import jobs as grouped
from runner.config.jobs import longest_first, remaining
from runner.config.sweep import Sweep
from runner.execution.event_loop import drive
from runner.execution.executors.executor import Context
from runner.execution.executors.ray_cluster import Cluster, connected
from runner.execution.executors.registry import executor
from runner.execution.existing import check_existing, config_text
from runner.execution.options import Options, default_workers
from runner.monitoring.trackers.guarded import Guarded
from runner.monitoring.trackers.registry import openers
from runner.monitoring.trackers.tracker import tracked
from runner.storage.checkpoints import folder_at
from runner.storage.folder import CONFIG, RUNS, sole_writer, sweep_folder
from runner.storage.rows import FAILED
from runner.storage.store import Store
from runner.storage.tables import read_rows


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
    check_existing(folder, config, options.existing)
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
        checkpoint_folder=store.checkpoints.folder,
        checkpoints_shared=shared is not None,
        cluster=cluster,
    )
    tracking = [Guarded(name, opener, tracked(sweep, folder), store.log) for name, opener in opening.items()]
    try:
        code = drive(jobs, sweep, store, context, options, tracking) if jobs or tracking else 0
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
