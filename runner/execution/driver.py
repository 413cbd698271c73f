"""A sweep from its config to its tables. The driver is the only writer; executors only yield events."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path

import click

from runner.config.jobs import longest_first, stackable
from runner.config.sweep import Sweep
from runner.errors import UserError, printable, quoted
from runner.execution.composition import decide, jobs_to_train, shortfalls
from runner.execution.event_loop import drive, told_how_to_finish, until_interrupted
from runner.execution.executors.executor import Context
from runner.execution.executors.ray_cluster import Cluster, RayContext, connected
from runner.execution.executors.registry import executor
from runner.execution.executors.server import Server
from runner.execution.existing import check_existing, config_text
from runner.execution.options import Options, default_workers, gpus
from runner.execution.until_decided import stages, starting
from runner.monitoring.trackers.guarded import Guarded
from runner.monitoring.trackers.registry import openers, tracker
from runner.monitoring.trackers.tracker import Opener, tracked
from runner.storage import contrast_history, plugin_sources, run_files
from runner.storage.checkpoint_places import folder_at
from runner.storage.files import exists
from runner.storage.folder import CONFIG, LOG, RUNS, STACKS, sole_writer, sweep_folder
from runner.storage.plugin_files import digest, digests
from runner.storage.rows import FAILED
from runner.storage.store import Store
from runner.storage.tables import each_row


def run_sweep(sweep: Sweep, options: Options) -> int:
    """Train the runs of a sweep that are not trained yet, and write their tables.

    Returns the exit code: 0, 1 where runs failed, 130 or 143 when interrupted. The caller prints `shortfalls`, last.
    Errors: UserError, before anything is written, where the sweep cannot run here.

    >>> from runner.config.reader import from_mapping
    >>> fixed = {"network": "notebook_mlp", "dataset": "digits", "device": "cpu", "epochs": 1}
    >>> run_sweep(from_mapping({"name": "one", "fixed": fixed}), Options(Path("out"), executor="inline", quiet=True))
    0
    >>> [row["status"] for row in each_row(Path("out/one/runs.csv"))]
    ['ok']
    """
    # An unknown name is an error before anything starts.
    executor[options.executor]
    for name in options.track:
        tracker[name]
    if options.ray_address is not None and options.executor != "ray":
        raise UserError("--ray-address needs --executor ray")
    folder = sweep_folder(options.out, sweep.name)
    connection = connected(sweep, options) if options.executor == "ray" else nullcontext()
    # Take the lock before anything that takes long, so that a second writer gets its error at once.
    with sole_writer(folder), connection as cluster, _server(options) as server:
        # A missing package is an error before anything is written.
        trackers = openers(options.track)

        def train() -> int:
            for stage, how in stages(sweep, folder, options, cluster):
                _run_stage(stage, folder, how, cluster, server, trackers)
            return _conclude(folder, options)

        return until_interrupted(train, folder)


def _run_stage(
    sweep: Sweep,
    folder: Path,
    options: Options,
    cluster: Cluster | None,
    server: Server | None,
    trackers: Mapping[str, Opener],
) -> None:
    """Train what is missing of a sweep."""
    sweep, store, context = _prepare(sweep, folder, options, cluster)
    context = replace(context, server=server)
    tracking = []
    if trackers:
        seen = tracked(sweep, folder)
        tracking = [Guarded(name, opener, seen, store.log) for name, opener in trackers.items()]
    try:
        with told_how_to_finish(folder):
            _train(sweep, store, context, options, tracking)
        store.finish()
    finally:
        # Trackers close last. A tracker may copy the tables.
        for opened in tracking:
            opened.close()


def _server(options: Options) -> AbstractContextManager[Server | None]:
    """The server of the sweep's workers. It imports torch while this process does the same."""
    return closing(Server()) if options.executor == "process" else nullcontext()


def _prepare(sweep: Sweep, folder: Path, options: Options, cluster: Cluster | None) -> tuple[Sweep, Store, Context]:
    """Check the sweep, then start its folder or resume it. Returns the sweep with its devices."""
    # These modules import torch.
    from runner.execution import kernels, preflight
    from runner.training import environment, stored

    data_dir = options.training.data_dir
    sweep = preflight.check(sweep, data_dir, cluster.resolve if cluster else None)
    changes = [*preflight.norm_changes(sweep), *preflight.batch_warnings(sweep, data_dir)]
    wanted = run_files.wanted(weights=sweep.save_weights, predictions=sweep.save_predictions)
    config, runs = config_text(sweep, folder), sweep.runs
    check_existing(folder, config, options.existing)
    first, named_from = (folder, folder) if options.existing == "fresh" else stored.places(folder)
    shared = folder_at(sweep.checkpoint_dir, first) if sweep.checkpoint_dir else None
    store = Store(folder, sweep.columns, sweep.parameters, shared)
    datasets = sorted({run.dataset for run in runs})
    chosen = kernels.choose(folder, options)
    described = environment.describe(datasets, data_dir, sweep.plugins, chosen, named_from)
    described |= stored.record(sweep, first)

    finished, checkpoints, there = set[str](), dict[str, Path](), ""
    known = list[contrast_history.Entry](), {"runs_begun": 0}
    if options.existing in ("resume", "extend") and exists(folder / CONFIG):
        known = contrast_history.before(folder)
        retried = {row["run_id"]: row["run"] for row in each_row(folder / RUNS) if row["status"] in options.retry}
        finished, checkpoints = store.resume(
            config, described, retry=options.retry, allow_changed=options.allow_changed, wanted=wanted
        )
        _report_waiting(folder, [run for run_id, run in retried.items() if run_id in finished])
        there = f"{len(finished)} of {len(runs)} runs are there already; {len(checkpoints)} go on from a checkpoint"
    else:
        store.start(described, config)
    _report_start(sweep, options, there)
    contrast_history.record(folder, sweep, *known)
    # The log of a finished sweep is left as it is. For a sweep that grows, its first stage wrote these lines.
    if len(finished) < len(runs) and options.existing != "extend":
        not_kept = plugin_sources.keep(folder, digests(sweep.plugins))
        _say([*changes, *not_kept, *kernels.shortfalls(runs, options, chosen)], store, options)

    ray = None
    if cluster:
        versions = environment.versions(datasets, data_dir, chosen)
        if shared:
            store.checkpoints.make_folder()
        ray = RayContext(cluster, versions, store.checkpoints.folder, bool(shared))
    workers = cluster.slots() if cluster else options.workers or default_workers(runs)
    training = replace(options.training, plugins=sweep.plugins, kernels=chosen, save_weights=sweep.save_weights)
    # A worker that starts later must find the code that is in environment.json.
    training = replace(training, save_predictions=sweep.save_predictions, plugins_digest=digest(sweep.plugins))
    return sweep, store, Context(training, workers or 1, checkpoints, finished, [] if cluster else gpus(runs), ray)


def _report_start(sweep: Sweep, options: Options, there: str) -> None:
    """Say that the sweep starts, once all that could refuse it has been checked, and what of it is there already."""
    if not options.quiet and options.existing != "extend":
        click.echo(f"{sweep.name}: {starting(sweep)}; starting", err=True)
        if there:
            click.echo(there, err=True)


def _say(lines: Sequence[str], store: Store, options: Options) -> None:
    """Write lines to the log and, unless that is not wanted, to the terminal."""
    for line in lines:
        store.log(line)
        if not options.quiet:
            click.echo(line, err=True)


def _report_waiting(folder: Path, runs: Sequence[str]) -> None:
    """Name the runs that --retry does not reach yet."""
    if runs:
        click.echo(
            f"not tried again yet, because other runs of their stack have not ended: run {', '.join(runs)}; "
            f"after this, bnbench resume {quoted(folder)} --retry tries them",
            err=True,
        )


def _train(sweep: Sweep, store: Store, context: Context, options: Options, tracking: Sequence[Guarded]) -> None:
    """Decide which runs train together, where that is not decided yet. Then train them."""
    planned = {run_id for job in store.stacks.jobs for run_id in job.runs}
    new = [run for run in sweep.runs if run.run_id not in planned and run.run_id not in context.finished]
    if planned and not new and options.stack != "auto" and not options.quiet:
        click.echo(f"--stack {options.stack} is not used: {STACKS} has decided which runs train together", err=True)
    if not options.quiet and any(stackable(run, options.stack) for run in new):
        click.echo("trying which runs can train together", err=True)
    fixed = [[sweep.runs[position].run_id for position in stack] for stack in sweep.stacks]
    decided = decide(new, options.stack, len(sweep.runs), executor[options.executor], context, store.stacks, fixed)
    for shortfall in decided.shortfalls[len(store.stacks.shortfalls) :]:
        store.log(str(shortfall))
    for trial in decided.trials[len(store.stacks.trials) :]:
        chosen = f"stacks of at most {trial.size} runs, {trial.form}"
        store.log(f"{len(trial.run_ids)} runs train in {chosen}: {trial.reason}; seconds: {trial.seconds}")
    store.plan_stacks(decided)
    runs = {run.run_id: run for run in sweep.runs}
    jobs = longest_first(jobs_to_train(store.stacks, runs, context.finished))
    store.expect_again([run_id for job in jobs for run_id in job.run_ids if run_id in context.finished])
    if jobs or tracking:
        drive(jobs, sweep, store, replace(context, workers=min(context.workers, len(jobs))), options, tracking)


def _conclude(folder: Path, options: Options) -> int:
    """Report the failed runs. Returns the exit code."""
    failed: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in each_row(folder / RUNS):
        if row["status"] in FAILED:
            failed[row["status"], row["error"]].append(row["run"])
    if failed:
        click.echo(
            f"{sum(map(len, failed.values()))} runs failed (tracebacks in {folder / LOG}); "
            f"bnbench resume {quoted(folder)} --retry trains them again "
            "(add --allow-changed if you changed a plugin):",
            err=True,
        )
    for (status, error), runs in failed.items():
        line = f"  run{'s' if len(runs) > 1 else ''} {', '.join(runs)} {status}: {error}"
        click.echo(printable(line, keep=""), err=True)
    if not options.quiet:
        click.echo(f"results in {folder}", err=True)
    return 1 if failed else 0


def run_sweeps(sweeps: Sequence[Sweep], options: Options, say: Callable[[str], None]) -> int:
    """Train several sweeps, one after the other. Returns the driver's highest exit code.

    Sweeps that have begun are resumed. If a sweep is interrupted, no more sweeps are trained; the same call continues.
    `say` receives a line for each sweep.
    """
    worst = 0
    for number, sweep in enumerate(sweeps, start=1):
        say(f"[{number}/{len(sweeps)}] {sweep.name}: {len(sweep.runs)} runs")
        worst = max(worst, run_sweep(sweep, replace(options, existing="resume")))
        if worst > 1:
            break
        for line in shortfalls(sweep_folder(options.out, sweep.name)):
            say(line)
    return worst
