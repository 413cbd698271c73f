"""How long the epochs of a sweep take, from a few steps that are trained for this. Nothing is written."""

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.config.sweep import Sweep
from runner.execution.executors.executor import Context
from runner.execution.executors.registry import executor
from runner.execution.forecast import kind_of
from runner.execution.options import gpus
from runner.storage.rows import EpochRow, RunResult
from runner.training.options import TrainingOptions

FEW, MORE = 2, 12
"""Steps of the two epochs that are timed. Their difference is the time of ten steps, without the evaluation."""


def measure(sweep: Sweep, data_dir: Path, workers: int) -> tuple[dict[str, float], list[str]]:
    """Seconds that an epoch takes, with its evaluation: kind of run (`kind_of`) → seconds, and why a kind has none.

    The first run of each kind is trained on `FEW` batches and on `MORE`, for two epochs each. The second epoch counts:
    the first one also warms up. An epoch is `rest + steps × step`, as the two times say. Workers train at the same
    time, as they do in the sweep.
    """
    # These modules import torch.
    from runner.execution import preflight
    from runner.training.data.preprocessing import train_size

    checked = preflight.check(sweep, data_dir)
    first = dict(reversed([(kind_of(run), now) for run, now in zip(sweep.runs, checked.runs, strict=True)]))
    samples = {kind: train_size(run, data_dir) for kind, run in first.items()}
    shortened = {kind: [_of_steps(run, steps, samples[kind]) for steps in (FEW, MORE)] for kind, run in first.items()}
    jobs = {run.run_id: Job((run,)) for runs in shortened.values() for run in runs}
    training = TrainingOptions(data_dir, sweep.plugins)
    context = Context(training, min(workers, len(jobs)), gpus=gpus(checked.runs))
    took, errors = _seconds(list(jobs.values()), context)
    seconds = {
        kind: _epoch(run, samples[kind], [(each, took[each.run_id]) for each in shortened[kind]])
        for kind, run in first.items()
        if all(each.run_id in took for each in shortened[kind])
    }
    return seconds, errors


def _of_steps(run: RunSpec, steps: int, samples: int) -> RunSpec:
    return run.changed(epochs=2, train_samples=min(samples, steps * run.batch_size))


def _seconds(jobs: Sequence[Job], context: Context) -> tuple[dict[str, float], list[str]]:
    """Run id → seconds of the second epoch, and the errors of runs that failed."""
    after: dict[str, list[float]] = defaultdict(list)
    errors = list[str]()
    for event in executor["process"](jobs, context):
        if isinstance(event, EpochRow):
            after[event.run_id].append(event.run_duration)
        elif isinstance(event, RunResult) and event.error and event.error not in errors:
            errors.append(event.error)
    return {run_id: times[1] - times[0] for run_id, times in after.items() if len(times) == 2}, errors


def _epoch(run: RunSpec, samples: int, timed: Sequence[tuple[RunSpec, float]]) -> float:
    """Seconds of an epoch of all samples.

    >>> run = RunSpec(network="lenet", dataset="digits", batch_size=10)
    >>> timed = [(_of_steps(run, steps, 1000), 3 + 0.5 * steps) for steps in (FEW, MORE)]
    >>> _epoch(run, 1000, timed)  # 100 steps of half a second, and three seconds for the rest
    53.0
    """
    (few, short), (more, long) = ((_steps(each, each.train_samples or samples), seconds) for each, seconds in timed)
    # An epoch of so few steps was timed as a whole.
    step = max(0.0, (long - short) / (more - few)) if more > few else 0.0
    return long + (_steps(run, samples) - more) * step


def _steps(run: RunSpec, samples: int) -> int:
    steps = samples / run.batch_size
    return math.floor(steps) if run.drop_last else math.ceil(steps)
