"""Which networks do not fit the images or the classes of their data set."""

from collections.abc import Sequence

import torch

from runner import factories, registry
from runner.config.run_spec import LATER, SWAP, RunSpec
from runner.config.sweep import Sweep
from runner.errors import Fault, described
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
