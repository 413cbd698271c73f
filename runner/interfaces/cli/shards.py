"""`bnbench run --shard` and `bnbench merge`."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from runner.config.jobs import StackMode
from runner.errors import UserError, short
from runner.execution.merge import merge as merged
from runner.interfaces.cli.compare import print_comparison
from runner.interfaces.cli.options import PATH, flag

shard_option = click.option(
    "--shard",
    metavar="K/N|auto[/N]",
    help="Train only part K of N. auto: K and N are those of an array job (Slurm, PBS, LSF).",
)


@dataclass(frozen=True)
class Array:
    """The variables that say which task of an array job this is. PBS says no more than the task's number."""

    task: str
    first: str = ""
    last: str = ""
    step: str = ""
    count: str = ""


ARRAYS = (
    Array("SLURM_ARRAY_TASK_ID", *(f"SLURM_ARRAY_TASK_{name}" for name in ("MIN", "MAX", "STEP", "COUNT"))),
    Array("LSB_JOBINDEX", last="LSB_JOBINDEX_END", step="LSB_JOBINDEX_STEP"),
    Array("PBS_ARRAY_INDEX"),
    Array("PBS_ARRAYID"),
)


def chosen(text: str, stack: StackMode) -> dict[str, int]:
    """The entry `shard` of a config, from `--shard` and `--stack`. Errors: UserError where there is no such shard."""
    number, of = from_array(os.environ, text) if text.startswith("auto") else _written(text)
    if not 0 < number <= of:
        raise UserError(f"--shard {text}: there is no shard {number} of {of}; allowed: 1 to {of}")
    return {"number": number, "of": of, **({"stack": stack} if isinstance(stack, int) else {})}


def _written(text: str) -> tuple[int, int]:
    if not (found := re.fullmatch("([0-9]{1,5})/([0-9]{1,5})", text)):
        raise UserError(f"--shard {short(text)}: allowed: K/N, such as 3/16, or auto, or auto/N")
    return int(found[1]), int(found[2])


def from_array(environment: Mapping[str, str], text: str) -> tuple[int, int]:
    """The shard of a task of an array job: its number, and how many there are. `text` is auto or auto/N.

    Errors: UserError where this is no such task, or where the number of tasks is not known.

    >>> slurm = {"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_MAX": "60"}
    >>> from_array({**slurm, "SLURM_ARRAY_TASK_STEP": "4", "SLURM_ARRAY_TASK_COUNT": "16"}, "auto")
    (3, 16)
    >>> from_array({"PBS_ARRAY_INDEX": "3"}, "auto/16")
    (3, 16)
    """
    array = next((each for each in ARRAYS if each.task in environment), None)
    # LSF gives the number 0 to a job that is no array.
    if array is None or (array.task == "LSB_JOBINDEX" and environment[array.task] == "0"):
        known = ", ".join(each.task for each in ARRAYS)
        raise UserError(f"--shard {text}: this is no task of an array job (none of {known} is set)")

    def value(name: str, default: int) -> int:
        if not re.fullmatch("[0-9]{1,9}", found := environment.get(name, str(default))):
            raise UserError(f"--shard {text}: ${name} is {short(found)}, and no number")
        return int(found)

    task, first, step = value(array.task, 0), value(array.first, 1), max(1, value(array.step, 1))
    if text != "auto":
        return task, _written(text.replace("auto", str(task), 1))[1]
    if array.last not in environment:
        raise UserError(f"--shard auto: ${array.task} does not say how many tasks there are; use --shard auto/N")
    of = (value(array.last, 0) - first) // step + 1
    if value(array.count, of) != of or (task - first) % step:
        raise UserError(
            "--shard auto: the array leaves out numbers, so its tasks are not all shards; use --shard auto/N"
        )
    return (task - first) // step + 1, of


@click.command()
@click.argument("results", nargs=-1, required=True, type=PATH)
@flag("-q", "--quiet", text="Print no comparison.")
def merge(results: tuple[Path, ...], quiet: bool) -> None:
    """Put the shards of a sweep together and print its comparison.

    RESULTS are the folders of all shards, such as results/NAME.shard-*. The
    sweep is written beside them, to results/NAME/. It has the same bytes as
    a sweep that was not shared out, except for the times.
    The shards stay as they are. If the command is repeated, it changes nothing.

    The exit code is 2 if runs are missing, or if the shards do not
    fit together.
    """
    folder = merged(results)
    if not quiet:
        print_comparison([folder])
    click.echo(f"results in {folder}", err=True)
