"""How long a sweep will take, from epochs that were measured: another sweep's tables, or its own."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from runner.config.jobs import STACKABLE, Job, StackMode, jobs, longest_first
from runner.config.run_spec import PARAMETERS, RunSpec
from runner.config.sweep import Sweep
from runner.monitoring.eta import makespan
from runner.storage.folder import METRICS
from runner.storage.tables import cell, read_rows

TIMELESS = (*STACKABLE, "epochs", "trainset", "shuffle", "share_batches")
"""What an epoch's time does not hang on."""


DEFAULTS = {name: cell(RunSpec.model_fields[name].default) for name in PARAMETERS}


def epoch_seconds(folder: Path) -> dict[str, float]:
    """Seconds of an epoch, validation included, by what a run is (`_kind`): the median over a sweep's runs."""
    last: dict[str, Mapping[str, str]] = {}
    for row in read_rows(folder / METRICS):
        last[row["run_id"]] = row
    seconds = defaultdict(list)
    for row in map(dict, last.values()):
        for kind in (_kind(row), _kind({**row, "device": "auto"})):
            seconds[kind].append(float(row["run_duration"]) / int(row["epoch"]))
    return {kind: statistics.median(values) for kind, values in seconds.items()}


def _kind(values: Mapping[str, str]) -> str:
    """Equal for runs whose epochs take equally long. (Defaults do not count: older tables lack newer names.)"""
    names = [name for name in values if name in DEFAULTS or name.startswith("network.")]
    kept = [name for name in sorted(names) if name not in TIMELESS and values[name] != DEFAULTS.get(name, "")]
    return json.dumps({name: values[name] for name in kept})


def expected(run: RunSpec, seconds: Mapping[str, float]) -> float | None:
    """Seconds a run will take; None where no such run was measured."""
    epoch = seconds.get(_kind({name: cell(value) for name, value in run.parameters.items()}))
    return None if epoch is None else epoch * run.epochs


def describe(sweep: Sweep, mode: StackMode, workers: int, measured: Path) -> Iterator[str]:
    """Jobs, what each asks for, and the time expected, as lines of text; of a time nothing where nothing is known."""
    todo = longest_first(jobs(sweep.runs, mode, workers))
    asks = sweep.resources
    if asks.num_cpus is not None or asks.num_gpus is not None:
        named = {"CPUs": asks.num_cpus, "GPUs": asks.num_gpus}
        shown = " and ".join(f"{value:g} {name}" for name, value in named.items() if value is not None)
        yield f"{len(todo)} jobs, each asks for {shown}"
    seconds = epoch_seconds(measured)
    lengths = [_length(job, seconds) for job in todo]
    known = [length for length in lengths if length is not None]
    if known:
        unknown = len(lengths) - len(known)
        without = f"; {unknown} of {len(todo)} jobs have no such epochs there" if unknown else ""
        yield (
            f"expected from the epochs of {measured}: {_time(sum(known))} of training, "
            f"{_time(makespan((), known, workers))} on {workers} worker{'s' if workers > 1 else ''}{without}"
        )


def _length(job: Job, seconds: Mapping[str, float]) -> float | None:
    times = [expected(run, seconds) for run in job]
    return None if None in times else sum(time for time in times if time is not None)


def _time(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"
