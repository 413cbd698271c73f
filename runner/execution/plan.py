"""What a sweep will do: every run, its arm, the runs that it is paired with, and the runs that train together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runner import registry
from runner.config.contrast import pairs
from runner.config.jobs import STACKABLE, StackMode, expected_stacks
from runner.config.run_spec import RunSpec
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.storage import stacks as stack_file
from runner.storage.folder import STACKS, data_folder
from runner.storage.stacks import Stacks
from runner.training.options import Kernels

if TYPE_CHECKING:
    from runner.training.kernels.program import Program


def describe(sweep: Sweep) -> Iterator[str]:
    """The runs of a sweep as lines of text.

    >>> from runner.config.reader import from_mapping
    >>> fixed = {"network": "lenet", "dataset": "digits", "epochs": 2}
    >>> sweep = from_mapping({"name": "rates", "fixed": fixed, "grid": {"lr": [0.1, 0.01]}})
    >>> print(*describe(sweep), sep="\\n")
    rates: 2 runs, 4 epochs
    run 1  lr=0.1
    run 2  lr=0.01
    """
    contrast = f", comparing {sweep.axis} with {sweep.baseline}" if sweep.axis else ""
    yield f"{sweep.name}: {len(sweep.runs)} runs, {sum(run.epochs for run in sweep.runs)} epochs{contrast}"
    for number, (run, partners) in enumerate(zip(sweep.runs, pairs(sweep), strict=True), start=1):
        values = run.parameters
        columns = [f"run {number}", *(f"{key}={values[key]}" for key in sweep.grid_keys if key in values)]
        if sweep.axis:
            paired = ", ".join(f"run {partner}" for partner in partners)
            columns += [f"arm {values.get(sweep.axis)}", f"paired with {paired}" if paired else "unpaired"]
        yield "  ".join(columns)


def describe_stacks(sweep: Sweep, mode: StackMode, data_dir: str | None, folder: Path) -> Iterator[str]:
    """Which runs train together, and how, as lines of text. Imports torch only where there are stacks to try.

    If the sweep has begun in `folder`, this was decided then, and `mode` is not used. Otherwise the lines say what is
    possible: when the sweep starts, a stack may be cut into smaller ones, for several workers, to fit into memory, or
    because it is faster.
    """
    if decided := _decided(sweep, stack_file.read(folder)):
        yield from decided
        return
    if mode == "auto" and any(run.device == "auto" for run in sweep.runs):
        differences = ", ".join(STACKABLE)
        yield f"stack auto: on CUDA, runs that differ only in {differences} train together; on a CPU, none"
        return
    numbers = {run.run_id: number for number, run in enumerate(sweep.runs, start=1)}
    stacks = [stack for stack in expected_stacks(sweep.runs, mode, workers=1) if len(stack) > 1]
    for index, stack in enumerate(stacks, start=1):
        members = ", ".join(str(numbers[run.run_id]) for run in stack)
        yield f"stack {index}: {len(stack)} runs ({members}): {_method(stack, data_dir)}"
    alone = len(sweep.runs) - sum(map(len, stacks))
    if alone:
        yield f"{alone} run{'s' if alone > 1 else ''} alone"


def describe_kernels(sweep: Sweep, kernels: Kernels) -> Iterator[str]:
    """Which layers of each network native kernels compute where a run trains alone on a CPU. Imports torch.

    >>> from runner.config.reader import from_mapping
    >>> sweep = from_mapping({"name": "small", "fixed": {"network": "notebook_mlp", "device": "cpu"}})
    >>> print(*describe_kernels(sweep, "torch"))
    kernels: torch's
    """
    from runner.training.kernels.library import MISSING, NEEDS, library

    own = library(kernels)
    if not own:
        yield "kernels: torch's" + (f", because {MISSING}" if kernels == "auto" else "")
        return
    yield f"kernels: native, {own}, where a run trains alone"
    found = programs(sweep.runs, kernels)
    for name, program in found.items():
        if program is None:
            yield f"network {name}: it cannot be built, so its runs will fail"
            continue
        yield f"network {name}: native: {', '.join(program.native) or 'no layer'}"
        yield f"network {name}: torch's: {', '.join(program.others) or 'no layer'}"
    if not found:
        yield f"all runs use torch's kernels: {NEEDS}"


def programs(runs: Iterable[RunSpec], kernels: Kernels) -> dict[str, Program | None]:
    """The program of each network whose runs fit native kernels, by the network's name and arguments. Imports torch.

    It is None for a network that cannot be built.
    """
    from runner.training.kernels.library import fits_native, library
    from runner.training.kernels.program import program
    from runner.training.networks import build_network, resolve_device

    found: dict[str, Program | None] = {}
    for run in runs:
        name = " ".join([run.network, *(f"{key}={value}" for key, value in run.network_args.items())])
        fits = not run.on_cuda and fits_native(run, resolve_device(run.device).type)
        if fits and name not in found:
            found[name] = None
            with suppress(Exception, SystemExit):
                found[name] = program(build_network(run), library(kernels))
    return found


def _decided(sweep: Sweep, stacks: Stacks) -> list[str]:
    """The stacks of a sweep that has begun; none where these are another sweep's stacks."""
    planned = {run_id for job in stacks.jobs for run_id in job.runs}
    for device in ("cpu", "cuda") if planned else ():
        # The stacks were written after `device: auto` was replaced.
        runs = [run.changed(device=device) if run.device == "auto" else run for run in sweep.runs]
        numbers = {run.run_id: number for number, run in enumerate(runs, start=1)}
        if planned & numbers.keys():
            return list(_decided_lines(stacks, numbers))
    return []


def _decided_lines(stacks: Stacks, numbers: Mapping[str, int]) -> Iterator[str]:
    together = [job for job in stacks.jobs if len(job.runs) > 1]
    for index, job in enumerate(together, start=1):
        members = ", ".join(str(numbers.get(run_id, "?")) for run_id in job.runs)
        note = f", {job.note}" if job.note else ""
        yield f"stack {index}: {len(job.runs)} runs ({members}): {job.form}, as recorded in {STACKS}{note}"
    alone = len(stacks.jobs) - len(together)
    if alone:
        yield f"{alone} run{'s' if alone > 1 else ''} alone, as recorded in {STACKS}"


def _method(stack: Sequence[RunSpec], data_dir: str | None) -> str:
    """How a stack trains, or why it cannot. It is tried on the first images of its data set."""
    from runner.training.learners import stack_check, stacked_layers
    from runner.training.networks import build_network

    try:
        data = registry.dataset[stack[0].dataset](data_folder(data_dir), False)
    except UserError as error:
        return f"not tried, because its data are missing ({error})"
    try:
        network = build_network(stack[0])
    except (Exception, SystemExit) as error:  # Only the runs fail, not the plan.
        return f"one at a time, because the network cannot be built ({type(error).__name__}: {error})"
    images, classes = data.train.images[:8].float() / 255, int(data.train.labels.max()) + 1
    if obstacle := stack_check.obstacle(network, images, classes):
        return f"one at a time, because {obstacle}"
    mapped = ", ".join(stacked_layers.mapped_layers(network))
    return "stacked layers" + (f", vmap for {mapped}" if mapped else "")
