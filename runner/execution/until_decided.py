"""A sweep that grows until its verdict is decided: its stages, each with more seeds than the one before."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from runner.config import grid, reader
from runner.config.jobs import stackable
from runner.config.sweep import Sweep
from runner.config.until_decided import order, with_seeds
from runner.errors import UserError
from runner.execution.executors.ray_cluster import Cluster
from runner.execution.options import Options, default_workers
from runner.storage.files import exists
from runner.storage.folder import CONFIG, read_config

if TYPE_CHECKING:
    from runner.analysis.sequential import Sequential


STACK = 7
"""So many seeds or more train as a stack. The first direction can be shown after seven pairs."""


def starting(sweep: Sweep) -> str:
    """What is about to be trained, in a few words."""
    if sweep.until_decided:
        return f"pairs until the verdict is decided, at most {sweep.until_decided.max_seeds}"
    return f"{len(sweep.runs)} runs, {sum(run.epochs for run in sweep.runs)} epochs"


def stages(sweep: Sweep, folder: Path, options: Options, cluster: Cluster | None) -> Iterator[tuple[Sweep, Options]]:
    """The sweep with the options to train it. If it grows until its verdict is decided, this sweep with more and more
    seeds: when a stage is trained, the tables decide whether there is another one.

    A stage has as many more seeds than the one before as can train at the same time. A resume first finishes the stage
    that the folder has begun.
    Errors: UserError where the folder holds a sweep that grew, and this one does not.
    """
    there = {} if options.existing == "fresh" or not exists(folder / CONFIG) else read_config(folder / CONFIG)
    plan = sweep.until_decided
    if plan is None:
        if options.existing == "resume" and there.get("until_decided"):
            remedy = "use --until-decided here, too, or bnbench resume"
            raise UserError(f"{folder}: seeds were added to this sweep until its verdict was decided; {remedy}")
        yield sweep, options
        return
    seeds = order(plan)
    whole = reader.changed(sweep, **with_seeds(sweep.resolved, seeds))
    step = _at_a_time(whole, options, cluster)
    begun = {point.get("seed") for point in grid.expand(there)} if there else set()
    if options.existing == "resume" and len(begun) > len(seeds):
        raise UserError(f"{folder}: {len(begun)} pairs are there already; --max-seeds must be {len(begun)} or more")
    count = max([place for place, seed in enumerate(seeds, start=1) if seed in begun], default=min(step, len(seeds)))
    told = 0
    while True:
        yield reader.changed(sweep, **with_seeds(sweep.resolved, seeds[:count])), options
        found = _look(folder)
        if not options.quiet:
            lines = [found.line(standing) for standing in found.standings]
            click.echo("\n".join([*lines[told:], *([found.ending] if found.over else [])]), err=True)
            told = len(lines)
        if found.over:
            return
        count, options = min(count + step, len(seeds)), replace(options, existing="extend", retry=())


def _look(folder: Path) -> "Sequential":
    # These modules import pandas, which takes half a second. Other sweeps do not need it.
    from runner.analysis import sequential
    from runner.storage import results

    found = sequential.read(results.load(folder))
    assert found is not None
    return found


def _at_a_time(whole: Sweep, options: Options, cluster: Cluster | None) -> int:
    """How many seeds train at the same time: as many as the workers have room for, or as a stack has."""
    # This module imports torch.
    from runner.training.networks import resolve_device

    runs = [run.changed(device=str((cluster.resolve if cluster else resolve_device)(run.device))) for run in whole.runs]
    if stackable(runs[0], options.stack):
        assert whole.until_decided is not None
        seeds = max(STACK, len(whole.until_decided.first_seeds))
        return options.stack if isinstance(options.stack, int) else seeds
    workers = options.workers or (cluster.slots() if cluster else default_workers(runs))
    return max(1, workers // 2)
