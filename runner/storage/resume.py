"""What of a sweep's folder a resumed sweep keeps: finished runs, and checkpoints that can be continued."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.errors import UserError
from runner.storage.checkpoint_files import CheckpointFiles
from runner.storage.checkpoints import Found
from runner.storage.files import write_if_changed
from runner.storage.folder import ENVIRONMENT, METRICS, RUNS
from runner.storage.rows import FAILED
from runner.storage.tables import number_in, read_header, read_rows
from runner.storage.weights import weights_file

SAME = ("python", "packages", "cuda", "cpu", "cpu_capability", "gpus", "plugins", "code", "data")
"""The entries of environment.json that must be the same on a resume: each can change a run's numbers."""


def check_headers(folder: Path, headers: Mapping[str, Sequence[str]]) -> None:
    """Errors: UserError where a table has other columns than the sweep writes."""
    for name, header in headers.items():
        found = read_header(folder / name)
        if found and sorted(found) != sorted(header):
            changed = ", ".join(sorted(set(found) ^ set(header)))
            raise UserError(f"{folder / name}: holds another sweep (other columns: {changed}); use --fresh or --out")


def finished_runs(folder: Path, planned: Container[str], retry: Collection[str], *, save_weights: bool) -> set[str]:
    """The ids of the runs that need no more training.

    A run whose status is in `retry` is not finished. With `save_weights`, a run without its weights is not finished.
    Errors: UserError where a finished run is not planned.
    """
    rows = Counter(row["run_id"] for row in read_rows(folder / METRICS))
    finished = [
        row
        for row in read_rows(folder / RUNS)
        if row["status"] not in ("interrupted", *retry)
        and rows[row["run_id"]] == number_in(row, "epochs_trained", folder / RUNS)
        and (not save_weights or row["status"] in FAILED or weights_file(folder, row["run_id"]).exists())
    ]
    foreign = [row for row in finished if row["run_id"] not in planned]
    if foreign:
        raise UserError(
            f"{folder}: holds {len(foreign)} finished runs that this config does not have "
            f"(the first is run {foreign[0]['run']}); use --fresh to start over or --out for another folder"
        )
    return {row["run_id"] for row in finished}


def continuable(
    folder: Path,
    files: CheckpointFiles,
    unfinished: Collection[str],
    retry: Collection[str],
    log: Callable[[str], None],
) -> dict[str, Found]:
    """Run id → its latest checkpoint whose epochs all have their row.

    A run without one starts over; so does a run whose status is in `retry`.
    """
    found = files.usable(log)
    epochs: dict[str, list[int]] = {}
    for row in read_rows(folder / METRICS):
        epochs.setdefault(row["run_id"], []).append(int(number_in(row, "epoch", folder / METRICS)))
    retried = {row["run_id"] for row in read_rows(folder / RUNS) if row["status"] in retry}
    continued: dict[str, Found] = {}
    for each in found:  # the latest epoch first
        for run_id in set(each.run_ids) & set(unfinished) - retried - set(continued):
            rows = sorted(epoch for epoch in epochs.get(run_id, []) if epoch <= each.epoch)
            if rows == list(range(1, each.epoch + 1)):
                continued[run_id] = each
    return continued


def check_environment(folder: Path, now: Mapping[str, Any], *, allowed: bool) -> bool:
    """Whether the sweep's checkpoints come from this environment; a change that is allowed is recorded in the folder.

    A network that changed between two halves of a sweep would make two networks of one arm.
    Errors: UserError where something changed and that is not allowed.
    """
    if not now:
        return True
    try:
        before = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if isinstance(before, dict):
        changes = differences(before, now)
    else:
        before, changes = {}, {ENVIRONMENT: ("what the sweep began with", "missing or damaged")}
    if not changes:
        return True
    if not allowed:
        shown = "; ".join(f"{name}: {old} then, {new} now" for name, (old, new) in sorted(changes.items()))
        raise UserError(
            f"{folder}: not what this sweep began with ({shown}); --allow-changed goes on and records it, "
            f"--fresh starts over"
        )
    history = [*before.get("changed", []), {name: {"from": old, "to": new} for name, (old, new) in changes.items()}]
    write_if_changed(folder / ENVIRONMENT, environment_text({**now, "changed": history}))
    return False


def environment_text(environment: Mapping[str, Any]) -> str:
    """The content of environment.json."""
    return json.dumps(environment, indent=2, ensure_ascii=False) + "\n"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The entries of `SAME` that both environments have and that differ: name → (then, now).

    The entries of a table, such as the packages, are compared one by one.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for name in SAME:
        if name not in before or name not in now:
            continue
        old, new = before[name], now[name]
        if isinstance(old, dict) and isinstance(new, dict):
            keys = old.keys() & new.keys() if name in ("plugins", "data") else old.keys() | new.keys()
            pairs = {f"{name} {key}": (old.get(key), new.get(key)) for key in keys}
        else:
            pairs = {name: (old, new)}
        found |= {key: (_short(a), _short(b)) for key, (a, b) in pairs.items() if a != b}
    return found


def _short(value: Any) -> Any:
    return value[:12] if isinstance(value, str) and len(value) == 64 else value  # a SHA-256
