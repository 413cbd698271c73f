"""Which layers of a sweep's networks are a problem on CUDA. No GPU is needed to find them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from runner.config.run_spec import RunSpec
from runner.config.sweep import Sweep
from runner.errors import Fault, UserError, described
from runner.storage.tables import cell
from runner.training.cuda_guard import Finding, findings
from runner.training.data.datasets import DataSet
from runner.training.isolation import isolated
from runner.training.networks import build_network

SAMPLES = 4
"""How many images the checked training step has."""

Load = Callable[[str], DataSet]
"""Gives the data set of a name. Errors: UserError where it is missing."""


def faults(sweep: Sweep, runs: Iterable[RunSpec], load: Load) -> list[Fault]:
    """The layers that torch refuses because they are not deterministic on CUDA. `runs` are the runs of CUDA."""
    found = []
    for run in _different(runs):
        # A network that cannot be built, or whose step raises, is no fault of the config. Its run fails and says why.
        problems: list[Finding] = []
        with suppress(Exception, SystemExit):
            problems = _findings(run, load(run.dataset))
        refused = [finding for finding in problems if finding.refused and run.deterministic]
        place = sweep.place("network", run.network)
        found += [Fault(f"{_name(run)}, {finding}", place) for finding in refused]
    return list(dict.fromkeys(found))


def lines(runs: Iterable[RunSpec], load: Load) -> Iterator[str]:
    """A line for each layer that is refused or slower on CUDA, and for each network that cannot be checked."""
    found = []
    for run in _different(runs):
        try:
            data = load(run.dataset)
        except UserError as error:
            found.append(f"on CUDA: {_name(run)} was not checked, because its data are missing ({error})")
            continue
        try:
            problems = _findings(run, data)
        except (Exception, SystemExit) as error:
            reason = described(error)
            found.append(f"on CUDA: {_name(run)} was not checked, because its training step fails ({reason})")
            continue
        for finding in problems:
            if run.deterministic or not finding.refused:
                found.append(f"{'refused' if finding.refused else 'slower'} on CUDA: {_name(run)}, {finding}")
    yield from dict.fromkeys(found)


def _name(run: RunSpec) -> str:
    arguments = ", ".join(f"{name}={cell(value)}" for name, value in run.network_args.items())
    return f"network '{run.network}'" + (f" ({arguments})" if arguments else "")


def _different(runs: Iterable[RunSpec]) -> Iterable[RunSpec]:
    """The runs without those that differ only in what the check does not depend on."""
    return {(run.network, repr(run.network_args), run.dataset, run.deterministic): run for run in runs}.values()


def _findings(run: RunSpec, data: DataSet) -> list[Finding]:
    few = data.train[:SAMPLES]
    with isolated():
        return findings(build_network(run), few.images.float() / 255, few.labels)
