"""`bnbench run` and `resume`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from runner.config import reader
from runner.config.sweep import NAME_RULE, Sweep
from runner.errors import UserError
from runner.execution.options import Existing
from runner.interfaces.cli.compare import print_comparison
from runner.interfaces.cli.options import (
    execution_options,
    flag,
    options_of,
    out_option,
    reads_config,
    results_argument,
)
from runner.interfaces.cli.plan import print_plan
from runner.interfaces.cli.shards import chosen, shard_option
from runner.storage import folder
from runner.training import stored


@click.command()
@reads_config
@out_option("results", "The sweep is written to OUT/NAME/.")
@flag("--resume", text="Continue the sweep in OUT/NAME/.")
@flag("--fresh", text="Delete the sweep in OUT/NAME/ and start over.")
@flag("--dry-run", text="Show the plan and train nothing.")
@flag("--until-decided", text="Add seeds until the verdict on contrast.smallest_effect is decided.")
@click.option("--max-seeds", type=click.IntRange(1), help="With --until-decided: the most seeds (default: 200).")
@shard_option
@execution_options
def run(
    sweep: Sweep,
    out: Path,
    resume: bool,
    fresh: bool,
    dry_run: bool,
    until_decided: bool,
    max_seeds: int | None,
    shard: str | None,
    **options: Any,
) -> None:
    """Train a sweep and print its comparison.

    CONFIG is a YAML file, or the name of a built-in config (bnbench configs lists them). All its runs are trained.
    Results are written to OUT/NAME/, where NAME is the sweep's name.
    --set and --track can be repeated.

    With --until-decided, seeds are added one after the other until it is
    decided whether the difference is larger or smaller than
    contrast.smallest_effect. The test is one of the median difference, and
    is valid although it is made after every pair. There must be two arms, and nothing
    else that varies. The seeds are those of CONFIG, then the numbers after them.

    With --shard 3/16, one of 16 parts of the sweep is trained, in the folder
    OUT/NAME.shard-3-of-16/. "bnbench merge OUT/NAME.shard-*" puts them together.

    The exit code is 0 if every run succeeded, 1 if some runs failed,
    2 for wrong input, 130 or 143 if interrupted.
    """
    existing = existing_of(resume, fresh, options)
    sweep = growing(sweep, until_decided, max_seeds)
    if shard:
        sweep = reader.changed(sweep, shard=chosen(shard, options["stack"]))
    if dry_run:
        kernels = None if options["kernels"] == "auto" else options["kernels"]
        print_plan(sweep, out / sweep.name, out / sweep.name, **{**options, "kernels": kernels})
    else:
        sys.exit(train(sweep, out, existing, options))


@click.command()
@results_argument
@execution_options
def resume(results: Path, **options: Any) -> None:
    """Finish an interrupted sweep and print its comparison.

    RESULTS is the sweep's folder. The sweep continues from the config that is stored there.
    The folder may have been moved or renamed; the sweep then has its new name.
    """
    if results.is_dir():
        with folder.sole_writer(results):
            # Fail early if another process writes: loading the config may import torch through a plugin.
            pass
    sweep = stored.load(results)
    if sweep.name != results.resolve().name:
        raise UserError(f"{results}: rename the folder to resume its sweep; a name has {NAME_RULE}")
    sys.exit(train(sweep, results.resolve().parent, "resume", options))


def existing_of(resume: bool, fresh: bool, options: Mapping[str, Any]) -> Existing:
    """What happens to a sweep that is in the folder. Errors: UserError where the options contradict each other."""
    if resume and fresh:
        raise UserError("--resume and --fresh contradict each other; give one of them")
    for option in ("retry", "allow_changed"):
        if options[option] and not resume:
            raise UserError(f"--{option.replace('_', '-')} needs --resume")
    return "resume" if resume else "fresh" if fresh else "refuse"


def growing(sweep: Sweep, until_decided: bool, max_seeds: int | None) -> Sweep:
    """The sweep as --until-decided and --max-seeds change it. Errors: UserError where its verdict cannot be decided."""
    plan = sweep.resolved.get("until_decided", {} if until_decided else None)
    if plan is None:
        if max_seeds is not None:
            raise UserError("--max-seeds needs --until-decided")
        return sweep
    return reader.changed(sweep, until_decided={**plan, **({"max_seeds": max_seeds} if max_seeds else {})})


def train(sweep: Sweep, out: Path, existing: Existing, options: Mapping[str, Any]) -> int:
    """Train a sweep and print its comparison. Returns the exit code."""
    from runner.execution.composition import shortfalls
    from runner.execution.driver import run_sweep
    from runner.reporting.next_steps import next_steps

    if sweep.shard and sweep.shard.stack:
        options = {**options, "stack": sweep.shard.stack}
    code = run_sweep(sweep, options_of(out=out, existing=existing, **options))
    if code in (0, 1) and not options["fail_fast"] and not sweep.shard:
        (comparison,) = print_comparison([out / sweep.name])
        for line in () if options["quiet"] else next_steps(out / sweep.name, comparison, own_code=bool(sweep.plugins)):
            click.echo(line, err=True)
    for line in shortfalls(out / sweep.name):
        click.echo(line, err=True)
    return code
