"""Which kernels a sweep trains with on a CPU: native ones or torch's. Importing this imports torch."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from runner.config.jobs import stackable
from runner.config.run_spec import RunSpec
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.execution.options import Options
from runner.storage.resume import recorded
from runner.training.isolation import isolated
from runner.training.kernels.library import MISSING, NEEDS, fits_native, identity, library
from runner.training.kernels.program import Program, program
from runner.training.networks import build_network, resolve_device
from runner.training.options import Kernels


def choose(folder: Path, options: Options) -> Kernels:
    """The kernels of this machine that the sweep trains with: "native" or "torch".

    A sweep that began with torch's kernels goes on with them.
    Errors: UserError where native kernels are asked for and missing, or where the sweep began with other kernels.
    """
    asked = options.training.kernels
    before = recorded(folder, "kernels") if options.existing == "resume" else None
    if asked == "auto" and before == "torch":
        return "torch"
    now = identity(asked)
    if before not in (None, now) and not options.allow_changed:
        remedy = "install bnbench again as it was" if asked == "auto" else "leave out --kernels"
        message = f"this sweep began with kernels {before}, not {now}; {remedy}, or use --allow-changed"
        raise UserError(f"{folder}: {message}")
    return "torch" if now == "torch" else "native"


def shortfalls(runs: Sequence[RunSpec], options: Options, kernels: Kernels) -> Iterator[str]:
    """What a user may not expect of the kernels that the sweep trains with."""
    asked = options.training.kernels
    if asked == "auto" and not library("auto"):
        yield f"torch's kernels are used, and training is slower: {MISSING}"
    if asked == "native":
        others = [run for run in runs if stackable(run, options.stack) or not fits_native(run, run.device)]
        if others:
            yield f"{len(others)} of {len(runs)} runs use torch's kernels: {NEEDS}"
        for name, found in _programs(runs, kernels).items():
            if found and not found.native:
                yield f"native kernels compute no layer of network {name}"


def describe(sweep: Sweep, kernels: Kernels) -> Iterator[str]:
    """Which layers of each network native kernels compute where a run trains alone on a CPU.

    >>> from runner.config.reader import from_mapping
    >>> sweep = from_mapping({"name": "small", "fixed": {"network": "notebook_mlp", "device": "cpu"}})
    >>> print(*describe(sweep, "torch"))
    kernels: torch's
    """
    own = library(kernels)
    if not own:
        yield "kernels: torch's" + (f", because {MISSING}" if kernels == "auto" else "")
        return
    yield f"kernels: native, {own}, where a run trains alone"
    programs = _programs(sweep.runs, kernels)
    for name, found in programs.items():
        if found is None:
            yield f"network {name}: it cannot be built, so its runs will fail"
            continue
        yield f"network {name}: native: {', '.join(found.native) or 'no layer'}"
        yield f"network {name}: torch's: {', '.join(found.others) or 'no layer'}"
    if not programs:
        yield f"all runs use torch's kernels: {NEEDS}"


def _programs(runs: Iterable[RunSpec], kernels: Kernels) -> dict[str, Program | None]:
    """The program of each network whose runs fit native kernels, by the network's name and arguments.

    It is None for a network that cannot be built.
    """
    found: dict[str, Program | None] = {}
    for run in runs:
        name = " ".join([run.network, *(f"{key}={value}" for key, value in run.network_args.items())])
        fits = not run.on_cuda and fits_native(run, resolve_device(run.device).type)
        if fits and name not in found:
            found[name] = None
            with suppress(Exception, SystemExit), isolated():
                found[name] = program(build_network(run), library(kernels))
    return found
