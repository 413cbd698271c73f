"""stacks.json: which runs of a sweep train together, and how. This is decided once, when the sweep starts.

A resume uses it again. So a stack keeps its runs and its form, whatever memory and workers there are then.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from runner.config.jobs import Form
from runner.errors import UserError
from runner.storage.files import read_text, write_if_changed
from runner.storage.folder import STACKS
from runner.storage.rows import Shortfall, StackPlan


@dataclass(frozen=True)
class PlannedJob:
    """The ids of runs that train together. `form` and `note` are those of `config.jobs.Job`."""

    runs: tuple[str, ...]
    form: Form | None = None
    note: str = ""


@dataclass(frozen=True)
class Stacks:
    """The jobs of a sweep, what trials measured before them, and what did not go as planned."""

    jobs: tuple[PlannedJob, ...] = ()
    trials: tuple[StackPlan, ...] = ()
    shortfalls: tuple[Shortfall, ...] = ()

    def with_shortfall(self, shortfall: Shortfall) -> Stacks:
        """The same after a shortfall: its parts take the place of their job.

        >>> stacks = Stacks((PlannedJob(("a", "b", "c"), "loop"),))
        >>> shortfall = Shortfall(("a", "b"), "one stack", "alone", "out of memory", parts=(("a",), ("b",)))
        >>> [job.runs for job in stacks.with_shortfall(shortfall).jobs]
        [('c',), ('a',), ('b',)]
        """
        parts = [PlannedJob(part, shortfall.form, shortfall.note) for part in shortfall.parts]
        others = [each for each in self.shortfalls if replace(each, traceback="") != replace(shortfall, traceback="")]
        return replace(self._with_jobs(parts), shortfalls=(*others, shortfall))

    def with_retried(self, run_ids: Iterable[str]) -> Stacks:
        """The same, with each of these runs taken out of its stack to train alone."""
        stacked = {run for job in self.jobs if len(job.runs) > 1 for run in job.runs}
        return self._with_jobs([PlannedJob((run,), note="trained again") for run in run_ids if run in stacked])

    def _with_jobs(self, jobs: Collection[PlannedJob]) -> Stacks:
        moved = {run for job in jobs for run in job.runs}
        kept = [replace(job, runs=tuple(run for run in job.runs if run not in moved)) for job in self.jobs]
        return replace(self, jobs=(*(job for job in kept if job.runs), *jobs))


def read(folder: Path) -> Stacks:
    """The stacks of a sweep; none where the folder has no such file, because an older bnbench wrote it.

    Errors: UserError where the file is damaged.
    """
    path = folder / STACKS
    if not path.exists():
        return Stacks()
    try:
        content = json.loads(read_text(path))
        return Stacks(*(tuple(_records(kind, content[name])) for name, kind in KINDS.items()))
    except (ValueError, LookupError, TypeError) as error:
        remedy = "delete it, and a resume decides anew which runs train together"
        raise UserError(f"{path}: damaged ({type(error).__name__}: {error}); {remedy}") from None


def write(folder: Path, stacks: Stacks) -> None:
    """Write stacks.json, one record per line."""
    parts = []
    for name in KINDS:
        lines = ",\n".join(f"  {json.dumps(asdict(record))}" for record in getattr(stacks, name))
        parts.append(f'"{name}": [\n{lines}\n]' if lines else f'"{name}": []')
    write_if_changed(folder / STACKS, "{\n" + ",\n".join(parts) + "\n}\n")


KINDS: dict[str, Any] = {"jobs": PlannedJob, "trials": StackPlan, "shortfalls": Shortfall}


def _records(kind: Any, values: Iterable[dict[str, Any]]) -> Iterable[Any]:
    for record in values:
        yield kind(**{name: _frozen(value) for name, value in record.items()})


def _frozen(value: Any) -> Any:
    """JSON knows no tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
