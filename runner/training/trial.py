"""A trial: can these runs train as a stack, how many fit into the memory, and which form is fast?"""

from collections.abc import Iterator
from contextlib import suppress

from torch import nn

from runner.config.jobs import Trial
from runner.errors import described, strict
from runner.storage.rows import StackPlan
from runner.training.data.augmentation import batch_bytes
from runner.training.data.preprocessing import data_of
from runner.training.evaluation import BATCH
from runner.training.isolation import isolated, raise_if_spoiled
from runner.training.learners.stack_check import bytes_per_run, free_memory, obstacle, other_settings
from runner.training.learners.tuning import tune
from runner.training.networks import SpoiledProcessError, build_network, raise_if_lost, resolve_device
from runner.training.options import TrainingOptions
from runner.training.settings import settings_of


def try_stack(trial: Trial, options: TrainingOptions) -> Iterator[StackPlan]:
    """Try a trial's runs, and yield what was found out. The trial takes a few seconds at most.

    Errors: SpoiledProcessError where this process must not train further runs.
    """
    try:
        with isolated(), settings_of(trial.runs[0]):
            plan = _plan(trial, options)
        raise_if_spoiled()
    except SpoiledProcessError as error:
        plan = StackPlan(trial.run_ids, obstacle=error.reason)
    except (Exception, SystemExit) as error:
        if strict():
            raise RuntimeError("a trial failed") from error
        message = " ".join(described(error).split())[:200]
        plan = StackPlan(trial.run_ids, obstacle=f"the trial failed: {message}")
    yield plan
    raise_if_lost(trial.runs[0])
    raise_if_spoiled()


def _other_networks(trial: Trial) -> Iterator[nn.Module]:
    """The networks of the runs whose weights have other seeds than the first run's.

    A run whose network cannot be built fails later.
    """
    others = {run.seed_of("weights"): run for run in trial.runs}
    del others[trial.runs[0].seed_of("weights")]
    for run in others.values():
        with suppress(Exception, SystemExit):
            yield build_network(run)


def _plan(trial: Trial, options: TrainingOptions) -> StackPlan:
    run = trial.runs[0]
    device = resolve_device(run.device)
    data = data_of(trial.runs, options.data_dir, device)
    try:
        network = build_network(run)
    except (Exception, SystemExit) as error:
        # Each run fails for the same reason, and reports it.
        return StackPlan(trial.run_ids, obstacle=f"the network cannot be built ({described(error)})")
    images = data.train.images
    others = _other_networks(trial)
    if reason := obstacle(network, images, data.classes, next(others, None)):
        return StackPlan(trial.run_ids, obstacle=reason)
    for other in _other_networks(trial):
        if reason := other_settings(network, other):
            return StackPlan(trial.run_ids, obstacle=reason)
    # An evaluation keeps nothing for a backward pass, so its batch counts for less.
    samples = max(run.batch_size, BATCH // 3)
    each = bytes_per_run(network, images, samples) + batch_bytes(run, images)
    if data.own_train is not None:
        # Then a stack is also evaluated on images of each run.
        each += BATCH * images[0].nbytes
    fit = max(1, free_memory(device) // trial.sharing // each)
    choice = tune(trial.runs, data, device, trial.workers, min(trial.most, fit), fixed=trial.fixed)
    seconds = {f"{timing.form} x {timing.size}": timing.seconds or timing.error for timing in choice.timings}
    return StackPlan(trial.run_ids, choice.size, choice.form, seconds=seconds, reason=choice.reason, room=fit)
