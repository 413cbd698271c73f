"""stacks.json: which runs of a sweep train together, and how. This is decided once, when the sweep starts.

A resume uses it again. So a stack keeps its runs and its form, whatever memory and workers there are then.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from runner.config.jobs import Form
from runner.errors import UserError, printable
from runner.storage.files import exists, read_text, write_if_changed
from runner.storage.folder import STACKS
from runner.storage.rows import PLURAL, Shortfall, StackPlan


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """The ids of runs that train together. `form` and `note` are those of `config.jobs.Job`.

    `changed` says that these runs were together in another job before, so that their earlier rows may differ from
    rows of this job in the last digits.
    """

    runs: tuple[str, ...]
    form: Form | None = None
    note: str = ""
    changed: bool = False


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
        parts = [PlannedJob(part, shortfall.form, shortfall.note, changed=True) for part in shortfall.parts]
        others = [each for each in self.shortfalls if replace(each, traceback="") != replace(shortfall, traceback="")]
        return replace(self._with_jobs(parts), shortfalls=(*others, shortfall))

    def with_retried(self, run_ids: Iterable[str]) -> Stacks:
        """The same, with each of these runs taken out of its stack to train alone."""
        stacked = {run for job in self.jobs if len(job.runs) > 1 for run in job.runs}
        return self._with_jobs([PlannedJob((run,), None, "trained again", True) for run in run_ids if run in stacked])

    def _with_jobs(self, jobs: Collection[PlannedJob]) -> Stacks:
        moved = {run for job in jobs for run in job.runs}
        kept = []
        for job in self.jobs:
            left = tuple(run for run in job.runs if run not in moved)
            kept.append(replace(job, runs=left, changed=job.changed or left != job.runs))
        return replace(self, jobs=(*(job for job in kept if job.runs), *jobs))


def read(folder: Path) -> Stacks:
    """The stacks of a sweep; none where the folder has no such file, because an older bnbench wrote it.

    Errors: UserError where the file is damaged.
    """
    path = folder / STACKS
    if not exists(path):
        return Stacks()
    try:
        content = json.loads(read_text(path))
        stacks = Stacks(*(tuple(_records(kind, content[name])) for name, kind in KINDS.items()))
        _check(stacks)
        return stacks
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
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
    """The value with tuples, which JSON does not know. Texts are shown on a terminal, so control characters are not."""
    if isinstance(value, list):
        return tuple(map(_frozen, value))
    return printable(value) if isinstance(value, str) else value


def _check(stacks: Stacks) -> None:
    """Errors: ValueError where the records do not fit together."""
    runs = [run for job in stacks.jobs for run in job.runs]
    if len(set(runs)) < len(runs) or not all(isinstance(run, str) for run in runs):
        raise ValueError("a run is in two jobs, or is no run id")
    for job in stacks.jobs:
        if job.form not in (None, *get_args(Form)) or not job.runs or (job.form is None and len(job.runs) > 1):
            raise ValueError(f"a job of {len(job.runs)} runs cannot have the form {job.form!r}")
    for shortfall in stacks.shortfalls:
        if shortfall.planned not in PLURAL or not isinstance(shortfall.run_ids, tuple):
            raise ValueError("a shortfall is none that bnbench writes")
