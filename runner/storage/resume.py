"""What a resumed sweep keeps of its folder: finished runs, and checkpoints that can be continued."""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from runner.errors import UserError
from runner.storage import files
from runner.storage.checkpoints import Found
from runner.storage.folder import ENVIRONMENT, METRICS, RUNS
from runner.storage.rows import FAILED
from runner.storage.run_files import RUN_FILES, RunFiles
from runner.storage.table_rows import TableRows
from runner.storage.tables import ADDED, COUNTS, check_status, each_row, number_in, read_header

SAME = ("python", "packages", "cuda", "cpu", "cpu_capability", "kernels", "gpus", "plugins", "code", "data")
"""The entries of environment.json that must be the same on a resume: each can change a run's numbers."""


def check_headers(folder: Path, headers: Mapping[str, Sequence[str]]) -> None:
    """Errors: UserError where a table has other columns than the sweep writes. An older table may lack `ADDED`."""
    for name, header in headers.items():
        columns = read_header(folder / name)
        wanted = [column for column in header if column in columns or column not in ADDED]
        if columns and sorted(columns) != sorted(wanted):
            changed = ", ".join(sorted(set(columns) ^ set(wanted)))
            raise UserError(f"{folder / name}: holds another sweep (other columns: {changed}); use --fresh or --out")


Stack = Sequence[str]
"""The ids of runs that train together."""

Tables = Mapping[str, TableRows]
"""Table → its rows."""


class Result(NamedTuple):
    """What the last row of a run in `RUNS` says."""

    run: str
    status: str
    rows: Mapping[str, float]
    """Table → how many rows the run has there, of the tables whose rows were counted."""


def results_of(folder: Path) -> dict[str, Result]:
    """Run id → its result. Errors: UserError where the table is damaged."""
    path, results, known = folder / RUNS, dict[str, Result](), dict[tuple[object, ...], Mapping[str, float]]()
    for row in each_row(path):
        rows = {
            name: number_in(row, column, path)
            for name, column in COUNTS.items()
            # An older bnbench did not count the rows of all tables.
            if row["status"] != "interrupted" and (name == METRICS or row.get(column))
        }
        check_status(row["status"], path)
        same = known.setdefault(tuple(rows.items()), rows)
        results[row["run_id"]] = Result(row["run"], sys.intern(row["status"]), same)
    return results


def finished_runs(
    folder: Path,
    tables: Tables,
    results: Mapping[str, Result],
    planned: Collection[str],
    retry: Collection[str],
    wanted: Collection[RunFiles],
    stacks: Collection[Stack],
    log: Callable[[str], None],
) -> set[str]:
    """The ids of the runs that need no more training.

    A run whose status is in `retry` is not finished, once all runs of its stack have ended. A run without one of the
    `wanted` files is not finished. A run is not finished, either, where a table lacks rows of it; `log` says so.
    Errors: UserError where a finished run is not planned, or a table is damaged.
    """
    ended = {run_id: result for run_id, result in results.items() if result.status != "interrupted"}
    for name in COUNTS:
        there = tables[name].counts(tables[name].distinct())
        lost = {id_: result.run for id_, result in ended.items() if result.rows.get(name, there[id_]) != there[id_]}
        if lost:
            first = next(iter(lost.values()))
            again = f"{len(lost)} finished runs, which train again (the first is run {first})"
            log(f"{name} and {RUNS} disagree on {again}")
        ended = {run_id: result for run_id, result in ended.items() if run_id not in lost}
    # All are looked at: what cannot be read is an error now, before anything is changed.
    for kind, saved in [(kind, kind.saved(folder)) for kind in RUN_FILES]:
        if kind in wanted:
            ended = {run_id: each for run_id, each in ended.items() if each.status in FAILED or run_id in saved}
    open_stacks = (stack for stack in stacks if len(stack) > 1 and not ended.keys() >= set(stack) & set(planned))
    waiting = {run_id for stack in open_stacks for run_id in stack}
    finished = {run_id for run_id, result in ended.items() if result.status not in retry or run_id in waiting}
    if unplanned := [result.run for run_id, result in ended.items() if run_id in finished and run_id not in planned]:
        runs = f"{len(unplanned)} finished runs that this config does not have"
        raise UserError(f"{folder}: holds {runs} (the first is run {unplanned[0]}); use --fresh or --out")
    return finished


def continuable(
    tables: Tables, checkpoints: Sequence[Found], unfinished: set[str], stacks: Iterable[Stack] = ()
) -> dict[str, Found]:
    """Run id → the latest of the checkpoints, which are sorted from late to early, whose rows are all in the tables.

    The runs of a stack continue from one checkpoint, which holds all of them. A run without a checkpoint starts over.
    """
    saved = {run_id for checkpoint in checkpoints for run_id in checkpoint.run_ids}
    epochs = {name: tables[name].epochs(saved) for name in COUNTS}

    def fits(checkpoint: Found, run_id: str) -> bool:
        def until_then(name: str) -> list[float]:
            return [epoch for epoch in epochs[name][run_id] if epoch <= checkpoint.epoch]

        readings = checkpoint.readings.items()
        return (
            run_id in checkpoint.run_ids
            # The epoch of a stranger's checkpoint may be any number.
            and len(until_then(METRICS)) == checkpoint.epoch
            and sorted(until_then(METRICS)) == list(range(1, checkpoint.epoch + 1))
            and all(len(until_then(name)) == rows[run_id] for name, rows in readings if name in epochs)
        )

    stack_of = {run_id: stack for stack in stacks for run_id in stack}
    continued: dict[str, Found] = {}
    for run_id in unfinished & saved:
        stack = stack_of.get(run_id, (run_id,))
        for checkpoint in checkpoints:
            together = unfinished.intersection(stack)
            if set(stack) <= set(checkpoint.run_ids) and all(fits(checkpoint, member) for member in together):
                continued[run_id] = checkpoint
                break
    return continued


def read_environment(folder: Path) -> dict[str, Any] | None:
    """The folder's environment.json; None where it is missing, or is not what bnbench writes.

    Errors: OSError where it cannot be read, such as a link.
    """
    path = folder / ENVIRONMENT
    if not files.exists(path):
        return None
    content = files.read_bytes(path)
    with suppress(ValueError, RecursionError):
        environment = json.loads(content)
        if isinstance(environment, dict) and is_shallow(environment):
            return environment
    return None


def is_shallow(value: Any, depth: int = 10) -> bool:
    """Whether a value of JSON has at most so many levels: a deeper one could not be written again."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(is_shallow(each, depth - 1) for each in inner)


def recorded(folder: Path, entry: str) -> object:
    """An entry of the folder's environment.json; None where there is none."""
    return (read_environment(folder) or {}).get(entry)


def was_changed(folder: Path) -> bool:
    """Whether the sweep's environment has changed since it began."""
    environment = read_environment(folder)
    return environment is None or bool(environment.get("changed"))


def changed_environment(folder: Path, now: Mapping[str, Any], *, allowed: bool) -> str | None:
    """The new content of environment.json if the environment has changed and that is allowed; None if it is the same.

    Without this check, a network that is edited between two halves of a sweep would be two networks in one arm.
    Errors: UserError where the environment has changed and that is not allowed.
    """
    before = read_environment(folder)
    changes = {ENVIRONMENT: ("whole", "missing or damaged")} if before is None else differences(before, now)
    if not changes:
        return None
    if not allowed:
        shown = [f"{name}: {old or 'none'} then, {new or 'none'} now" for name, (old, new) in sorted(changes.items())]
        changed = f"the environment has changed since this sweep began ({'; '.join(shown)})"
        raise UserError(f"{folder}: {changed}; use --allow-changed to continue, or bnbench run --fresh to start over")
    change = {name: {"from": old, "to": new} for name, (old, new) in changes.items()}
    earlier = (before or {}).get("changed")
    history = [*(earlier if isinstance(earlier, list) else []), change]
    return environment_text({**now, "changed": history})


def environment_text(environment: Mapping[str, Any]) -> str:
    """The content of environment.json."""
    return json.dumps(environment, indent=2) + "\n"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The entries of `SAME` that both environments have and that differ: name → (then, now).

    The entries of a table, such as the packages, are compared one by one. Data files that only one of the environments
    has are no difference: runs with another data set were added.
    """
    pairs: dict[str, tuple[Any, Any]] = {}
    for name in SAME:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            keys = old.keys() & new.keys() if name == "data" else old.keys() | new.keys()
            pairs |= {f"{name} {key}": (old.get(key), new.get(key)) for key in keys}
        elif name in before and name in now:
            pairs[name] = old, new
    return {name: (_short(old), _short(new)) for name, (old, new) in pairs.items() if old != new}


def _short(value: Any) -> Any:
    """The first digits of a SHA-256; any other value as it is."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else value
