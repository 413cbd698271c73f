"""A sweep from config to tables. The driver is the only writer; executors only yield events."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from runner import environment, preflight, yaml_source
from runner.errors import UserError
from runner.executors import Context, executor
from runner.grouping import Job, StackMode
from runner.grouping import jobs as grouped
from runner.progress import Progress
from runner.rows import CurveRow, EpochRow, Event, ProbeRow, RunResult
from runner.spec import RunSpec
from runner.store import CONFIG, METRICS, RUNS, Store, read_rows
from runner.sweep import Sweep

Existing = Literal["refuse", "resume", "fresh"]


class Sink(Protocol):
    """Something that is told each epoch's row, each reading in between, and each run's end."""

    def on_epoch(self, row: EpochRow) -> None: ...

    def on_reading(self, row: CurveRow | ProbeRow) -> None: ...

    def on_result(self, result: RunResult) -> None: ...


class Terminated(BaseException):
    """SIGTERM, as KeyboardInterrupt is SIGINT."""


@dataclass(frozen=True)
class Options:
    """Where and how a sweep runs: nothing here changes a result (a stack: but by rounding)."""

    out: Path = Path("results")
    root: Path = Path("data")
    executor: str = "process"
    workers: int | None = None
    existing: Existing = "refuse"
    retry: bool = False
    stack: StackMode = "auto"
    quiet: bool = False
    verbose: bool = False


def run_sweep(sweep: Sweep, options: Options) -> int:
    """Train what is not trained yet; returns the exit code: 0, 1 where runs failed, 130 or 143 when interrupted.

    Errors: UserError before anything is written where the sweep cannot run here.
    """
    executor[options.executor]  # an unknown name is an error before the data is read
    sweep = preflight.check(sweep, options.root)
    folder = sweep_folder(options.out, sweep.name)
    config = config_text(sweep, folder)
    _check_existing(folder, config, options.existing)
    store = Store(folder, sweep.columns, {run.run_id: run.parameters for run in sweep.runs})
    with closing(store):
        if (folder / CONFIG).exists() and options.existing == "resume":
            finished = store.resume(config, environment.digests(sweep.plugins), retry=options.retry)
        else:
            datasets = sorted({run.dataset for run in sweep.runs})
            store.start(environment.describe(datasets, options.root, sweep.plugins), config)
            finished = set()
        workers = options.workers or default_workers(sweep.runs)
        # Cut from all runs, so that a resumed stack is the one that was interrupted, less its finished members.
        whole = grouped(sweep.runs, options.stack, workers)
        left = [tuple(run for run in job if run.run_id not in finished) for job in whole]
        jobs = [job for job in left if job]
        if finished and not options.quiet:
            print(f"{len(finished)} of {len(sweep.runs)} runs are there already", file=sys.stderr)
        code = _drive(jobs, sweep, store, options, workers) if jobs else 0
        if code == 0:
            store.finish()
            failed = [row for row in read_rows(folder / RUNS) if row["status"] not in ("ok", "diverged")]
            _report_failures(failed, folder)
            if not options.quiet:
                print(f"results in {folder}", file=sys.stderr)
            code = 1 if failed else 0
    return code


def sweep_folder(out: Path, name: str) -> Path:
    """`out/name`. Errors: UserError where a link leads it out of the results folder."""
    folder = out / name
    if not folder.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{folder} leads out of the results folder {out}")
    return folder


def config_text(sweep: Sweep, folder: Path) -> str:
    """The resolved config as YAML; plugins are named relative to the sweep's folder, so that both can be moved."""
    plugins = [os.path.relpath(file, folder.resolve()) for file in sweep.plugins]
    return yaml_source.dump({**sweep.resolved, **({"plugins": plugins} if plugins else {})})


def _check_existing(folder: Path, config: str, existing: Existing) -> None:
    if not folder.exists():
        return
    if existing == "fresh":
        if not (folder / CONFIG).exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not a sweep's folder, so --fresh leaves it alone; --out names another")
        return
    if not (folder / CONFIG).exists() and any((folder / name).exists() for name in (METRICS, RUNS)):
        raise UserError(f"{folder} holds tables without a {CONFIG}: not this command's; --out names another folder")
    if (folder / CONFIG).exists() and existing == "refuse":
        same = (folder / CONFIG).read_text(encoding="utf-8") == config
        if same:
            raise UserError(f"{folder} already holds this sweep; --resume finishes it, --fresh starts over")
        raise UserError(
            f"{folder} already holds another config; --fresh starts over, --out DIR or --set name=NAME keeps both, "
            f"--resume works where this config only adds runs to it"
        )


def _drive(jobs: Sequence[Job], sweep: Sweep, store: Store, options: Options, workers: int) -> int:
    """Run the jobs and hand every event to the sinks."""
    numbers = {run.run_id: number for number, run in enumerate(sweep.runs, start=1)}
    labels = {
        run.run_id: (numbers[run.run_id], label(run.parameters, sweep), run.epochs) for job in jobs for run in job
    }
    progress = Progress(labels, len(sweep.runs), quiet=options.quiet, verbose=options.verbose)
    sinks: list[Sink] = [store, progress]
    unfinished: dict[str, list[EpochRow]] = {}
    context = Context(options.root, sweep.plugins, min(workers, len(jobs)))
    events = executor[options.executor](jobs, context)
    try:
        with closing(progress), _sigterm_raises(), closing(events):  # type: ignore[type-var]
            for event in events:
                _tell(sinks, event, unfinished)
    except (KeyboardInterrupt, Terminated) as interruption:
        for run_id, rows in unfinished.items():
            store.on_result(RunResult(run_id, "interrupted", tuple(rows)))
        print(f"\ninterrupted; the same command with --resume finishes {store.folder}", file=sys.stderr)
        return 143 if isinstance(interruption, Terminated) else 130
    return 0


def _tell(sinks: Sequence[Sink], event: Event, unfinished: dict[str, list[EpochRow]]) -> None:
    if isinstance(event, EpochRow):
        unfinished.setdefault(event.run_id, []).append(event)
        for sink in sinks:
            sink.on_epoch(event)
    elif isinstance(event, CurveRow | ProbeRow):
        for sink in sinks:
            sink.on_reading(event)
    else:
        unfinished.pop(event.run_id, None)
        for sink in sinks:
            sink.on_result(event)


def default_workers(runs: Sequence[RunSpec]) -> int:
    """As many workers as the CPUs we may use have room for; one on CUDA, which a single process fills."""
    if any(run.device.startswith("cuda") for run in runs):
        return 1
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(len(runs), cpus // max(run.threads for run in runs)))


def label(parameters: object, sweep: Sweep) -> str:
    """What tells a run from the others: its grid values."""
    assert isinstance(parameters, dict)
    return " ".join(f"{key}={parameters[key]}" for key in sweep.grid_keys if key in parameters)


def _report_failures(failed: Sequence[dict[str, str]], folder: Path) -> None:
    if failed:
        print(
            f"{len(failed)} runs failed (tracebacks in {folder / 'run.log'}; --resume --retry trains them again):",
            file=sys.stderr,
        )
        for row in failed:
            print(f"  run {row['run']} {row['status']}: {row['error']}", file=sys.stderr)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
