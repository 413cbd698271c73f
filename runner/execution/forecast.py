"""How long a sweep will take, estimated from measured epochs: those of another sweep, or its own."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from runner.config.jobs import STACKABLE, StackMode, expected_stacks
from runner.config.run_spec import PARAMETERS, RunSpec
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.monitoring.eta import makespan, roughly
from runner.storage.folder import METRICS
from runner.storage.tables import cell, number_in, read_rows

TIMELESS = (*STACKABLE, "epochs", "trainset", "shuffle", "share_batches")
"""Run parameters that do not change how long an epoch takes."""

DEFAULTS = {name: cell(RunSpec.model_fields[name].default) for name in PARAMETERS}


def epoch_seconds(folder: Path) -> dict[str, float]:
    """Seconds that an epoch takes, with its validation: kind of run (`_kind`) → the median over a sweep's runs.

    Errors: UserError where the table of the epochs is damaged.

    >>> folder = Path("lenets")
    >>> folder.mkdir()
    >>> from runner.storage.tables import FIELDS
    >>> header = ",".join([*FIELDS[METRICS], "network", "device", "run_id"])
    >>> rows = "1,1,,,,,,,30,lenet,cpu,a", "1,2,,,,,,,60,lenet,cpu,a", "2,1,,,,,,,40,lenet,cpu,b"
    >>> _ = (folder / METRICS).write_text("\\n".join([header, *rows, ""]))
    >>> epoch_seconds(folder)
    {'{"device": "cpu", "network": "lenet"}': 35.0, '{"network": "lenet"}': 35.0}
    """
    path = folder / METRICS
    seconds = defaultdict(list)
    for row in {row["run_id"]: row for row in read_rows(path)}.values():
        epochs, duration = number_in(row, "epoch", path), number_in(row, "run_duration", path)
        if epochs < 1:
            raise UserError(f"{path}: run {row['run']} has {epochs} epochs: the table is damaged")
        for kind in (_kind(row), _kind({**row, "device": "auto"})):
            seconds[kind].append(duration / epochs)
    return {kind: statistics.median(values) for kind, values in seconds.items()}


def _kind(values: Mapping[str, str]) -> str:
    """Equal for runs whose epochs take equally long. Defaults are left out: older tables lack newer parameters."""
    names = [name for name in values if name in DEFAULTS or name.startswith("network.")]
    kept = [name for name in sorted(names) if name not in TIMELESS and values[name] != DEFAULTS.get(name, "")]
    return json.dumps({name: values[name] for name in kept})


def kind_of(run: RunSpec) -> str:
    """Equal for runs whose epochs take equally long."""
    return _kind({name: cell(value) for name, value in run.parameters.items()})


def describe(sweep: Sweep, mode: StackMode, workers: int, seconds: Mapping[str, float], source: str) -> Iterator[str]:
    """The resources of each job, and the estimated time, as lines of text.

    `seconds` says how long an epoch takes, by kind of run, and `source` how this is known. If no kind of run is known,
    there is no estimate.
    """
    stacks = expected_stacks(sweep.runs, mode, workers)
    waiting = sorted(stacks, key=lambda stack: -sum(run.epochs for run in stack))
    resources = {"CPUs": sweep.resources.num_cpus, "GPUs": sweep.resources.num_gpus}
    if asked := " and ".join(f"{value:g} {name}" for name, value in resources.items() if value is not None):
        yield f"{len(waiting)} jobs, each asks for {asked}"
    if not seconds:
        return
    estimates = [sum(run.epochs * seconds.get(kind_of(run), math.nan) for run in stack) for stack in waiting]
    known = [estimate for estimate in estimates if not math.isnan(estimate)]
    if known:
        total, elapsed = roughly(sum(known)), roughly(makespan((), known, workers))
        unknown = len(estimates) - len(known)
        yield (
            f"estimate from {source}: {total} of training, "
            f"{elapsed} on {workers} worker{'s' if workers > 1 else ''}"
            + (f"; {unknown} of {len(waiting)} jobs were not measured" if unknown else "")
        )
