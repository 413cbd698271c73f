"""Which networks do not fit their data set: its shape, or a first batch of its images."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from runner import factories, registry
from runner.config.run_spec import LATER, SWAP, RunSpec
from runner.config.sweep import Sweep
from runner.errors import Fault, UserError, described
from runner.storage.tables import cell
from runner.training.data.datasets import load
from runner.training.data.preprocessing import normalise, scaling
from runner.training.isolation import isolated
from runner.training.learners.learner import wrong_shape
from runner.training.networks import build_network


def runs_to_try(runs: Sequence[RunSpec]) -> list[RunSpec]:
    """One run for each network and data set of another shape than MNIST's."""
    usual = factories.Shape()
    names = {name for name in {run.dataset for run in runs} if registry.dataset.shape(name) != usual}
    unusual = [run for run in runs if run.dataset in names] if names else []
    return list({(run.network, repr(run.network_args), run.dataset): run for run in unusual}.values())


def faults(sweep: Sweep) -> list[Fault]:
    """The networks that do not take the images of their data set, or return another number of classes.

    This needs no data: each network computes two images of zeros of the declared shape. On data sets of MNIST's shape,
    nothing is checked here: networks are written for it, and a run that fails says why.
    """
    found = []
    for run in runs_to_try(sweep.runs):
        if reason := _misfit(run):
            shape = registry.dataset.shape(run.dataset)
            message = f"network '{run.network}' does not fit data set '{run.dataset}' ({shape}): {reason}"
            found.append(Fault(message, sweep.place("network", run.network)))
    return list(dict.fromkeys(found))


def _misfit(run: RunSpec) -> str | None:
    shape = registry.dataset.shape(run.dataset)
    asked = factories.filled_in(registry.network[run.network])
    reason: str | None
    # What replacing its norm layers does to it is another check's subject.
    as_written = run.changed(**{key: LATER[key] for key in SWAP})
    try:
        with isolated(), torch.no_grad():
            logits = build_network(as_written).eval()(torch.zeros(2, shape.channels, shape.height, shape.width))
    except (Exception, SystemExit) as error:
        reason, concerned = described(error), ["in_channels", "image_size"]
    else:
        reason, concerned = wrong_shape(logits, 2, shape.classes), ["classes"]
    lacking = [f"{name}: {factories.FILLED_IN[name]}" for name in concerned if name not in asked]
    if reason and lacking:
        reason += f"; give its factory the keyword-only parameters that bnbench fills in: *, {', '.join(lacking)}"
    return reason


MOST_IMAGES = 64
"""Of a batch that is tried. More would find little more, and take longer."""


def network_key(run: RunSpec) -> str:
    """A text that is equal for runs whose networks differ in their seeds only."""
    return json.dumps([getattr(run, key) for key in ("network", "network_args", "dataset", *SWAP)])


def title(run: RunSpec) -> str:
    """A run's network with its arguments, such as 'lenet norm=batch'."""
    return run.network + "".join(f" {key}={cell(value)}" for key, value in run.network_args.items())


def batch_faults(sweep: Sweep, root: Path) -> list[Fault]:
    """The networks that do not compute the first batch of their training images; each different network is tried once.

    They raise an error, return another shape than [N, classes], or numbers that are not finite. They are tried on the
    CPU. `root` is the data folder.
    """
    found = []
    for run in {(network_key(run), run.trainset, run.on_cuda): run for run in sweep.runs}.values():
        if reason := _wrong_on_a_batch(run, root):
            found.append(Fault(f"network '{title(run)}': {reason}", sweep.place("network", run.network)))
    return list(dict.fromkeys(found))


def _wrong_on_a_batch(run: RunSpec, root: Path) -> str | None:
    try:
        train = load(run.dataset, root).train.images
        images = normalise(train[: min(run.batch_size, MOST_IMAGES)], *scaling(train, run.trainset))
        with isolated(), torch.no_grad():
            # Batch norm cannot train on one image, which is another check's subject.
            network = build_network(run).train(len(images) > 1)
            logits = network(images)
    except UserError as error:
        return str(error)
    except (Exception, SystemExit) as error:
        # A network for CUDA may not work on a CPU. `cuda_checks` names it.
        return None if run.on_cuda else described(error)
    if reason := wrong_shape(logits, len(images), registry.dataset.shape(run.dataset).classes):
        return reason
    wrong = int((~logits.isfinite()).sum())
    return f"{wrong} of {logits.numel()} logits of the first batch are not finite (inf or NaN)" if wrong else None
