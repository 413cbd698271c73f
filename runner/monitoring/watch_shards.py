"""`bnbench watch`: the shards of a sweep, which several processes train, seen together."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import click

from runner.errors import quoted
from runner.monitoring.sweep_reader import Watched
from runner.monitoring.watch import (
    Over,
    failures,
    first,
    in_place,
    line_of_runs,
    means,
    over,
    record,
    redrawn,
    summary,
)

Told = tuple[list[dict[str, Any]], list[str]]
"""The shards as records for `--format json`, and as lines of text."""


def glance(name: str, of: int, folders: Sequence[Path]) -> tuple[Told, Over | None]:
    """The state of a sweep's shards, and why nothing more will come.

    name, of: the sweep, and how many shards it has. folders: those of them that are there.
    Errors: UserError where a folder holds no sweep, or a damaged one.
    """
    with _watching(folders) as watched:
        lines, why = _report(name, of, watched)
        return ([record(each, over(each)) for each in watched], lines), why


def follow(name: str, of: int, folders: Sequence[Path], interval: float) -> bool:
    """Show the shards every `interval` seconds until all are over. Returns whether all were finished.

    A terminal shows all lines, redrawn in place. Elsewhere the first line is added whenever it is a new one, and the
    others at the end.
    Errors: UserError where a folder holds no sweep, or a damaged one.
    """
    with ExitStack() as stack:
        watched = stack.enter_context(_watching(folders))
        show = stack.enter_context(redrawn()) if in_place() else _added()
        while True:
            lines, why = _report(name, of, watched)
            show(lines)
            if why:
                if not in_place():
                    click.echo("\n".join(lines[1:]))
                return why == "finished"
            sleep(interval)
            for each in watched:
                each.refresh()


@contextmanager
def _watching(folders: Sequence[Path]) -> Iterator[list[Watched]]:
    with ExitStack() as stack:
        watched = [stack.enter_context(closing(Watched(folder))) for folder in folders]
        for each in watched:
            each.refresh()
        yield watched


def _added() -> Callable[[list[str]], None]:
    """Print the first line of what is shown, where it is another one than before."""
    before = ""

    def show(lines: list[str]) -> None:
        nonlocal before
        if lines[0] != before:
            before = lines[0]
            click.echo(before)

    return show


def _report(name: str, of: int, watched: Sequence[Watched]) -> tuple[list[str], Over | None]:
    """A line for the sweep and one for each shard, the failures, the arms' means, and what to do now."""
    why = [over(each) for each in watched]
    running = [each for each, ended in zip(watched, why, strict=True) if not ended]
    stopped = [each for each, ended in zip(watched, why, strict=True) if ended == "stopped"]
    runs = [run for each in watched for run in each.runs.values()]
    ended: Over | None = None if running else "stopped" if stopped else "finished"
    etas = [each.eta() for each in running]
    known = [eta for eta in etas if eta is not None]
    eta = max(known) if known and len(known) == len(etas) else None
    there = f"{len(watched)} of {of} shards"
    advice = [f"stopped; bnbench resume {quoted(each.folder)} finishes it" for each in stopped]
    if ended == "finished" and len(watched) == of:
        shards = f"{quoted(watched[0].folder.parent / name)}.shard-*-of-{of}"
        advice = [f"finished; bnbench merge {shards} puts the shards together"]
    lines = [
        line_of_runs(f"{name}, {there}", runs, ended, eta),
        *first([summary(each, end) for each, end in zip(watched, why, strict=True)]),
        *first([f"{each.name}: {line}" for each in watched for line in failures(each)]),
        *means(runs),
        *first(advice),
    ]
    return lines, ended
